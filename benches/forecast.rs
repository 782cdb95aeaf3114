//! What a forecast costs on fourteen days of minutes: the fit of a new leader, one more minute, and the forecast of a
//! turn.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sidescale::clock::{Now, Timestamp};
use sidescale::forecast::Forecaster;
use sidescale::history::{History, Sections, decode, encode};
use sidescale::report::{Load, Past};

const MINUTES: u32 = 14 * 1_440;

/// A day and a week, with a little noise.
fn history() -> History {
    let mut seed = 1_u64;
    let slots = (0..MINUTES + 60).map(|minute| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let noise = (seed >> 40) as f64 / f64::from(1 << 24) - 0.5;
        let day = (f64::from(minute) / 1_440.0 * std::f64::consts::TAU).sin();
        let week = if minute / 1_440 % 7 < 5 { 1.0 } else { 0.4 };
        Load {
            pod_seconds: 600.0,
            arrivals: 60.0 * (60.0 + 40.0 * day) * week * (1.0 + 0.1 * noise),
            ..Load::default()
        }
    });
    let past = Past {
        start_millis: 0,
        step_seconds: 60,
        slots: slots.collect(),
    };
    let mut history = History::new(Duration::from_secs(14 * 86_400));
    history.merge_past(&past, Timestamp::default()..after(MINUTES + 60).timestamp);
    history
}

fn after(minutes: u32) -> Now {
    Now::at(Timestamp::default(), Duration::from_secs(60) * minutes)
}

fn forecast(criterion: &mut Criterion) {
    let history = history();
    let mut fitted = Forecaster::default();
    fitted.observe(after(MINUTES + 1), &history);
    criterion.bench_function("fit to 14 days of minutes", |bencher| {
        bencher.iter_batched_ref(
            Forecaster::default,
            |forecaster| forecaster.observe(after(MINUTES + 1), &history),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("observe one more minute", |bencher| {
        bencher.iter_batched_ref(
            || fitted.clone(),
            |forecaster| forecaster.observe(after(MINUTES + 2), &history),
            BatchSize::LargeInput,
        );
    });
    criterion.bench_function("observe within a minute", |bencher| {
        let mut forecaster = fitted.clone();
        bencher.iter(|| forecaster.observe(black_box(after(MINUTES + 1)), &history));
    });
    for (name, ahead) in [("5 minutes", 300), ("a day", 86_400)] {
        criterion.bench_function(&format!("forecast {name} ahead"), |bencher| {
            let ahead = Duration::from_secs(ahead);
            bencher.iter(|| fitted.forecast(black_box(after(MINUTES + 1)), ahead, 0.95));
        });
    }
    let checkpoint = encode(&history, &Sections::new());
    criterion.bench_function("encode a checkpoint", |bencher| {
        bencher.iter(|| encode(black_box(&history), &Sections::new()));
    });
    criterion.bench_function("decode a checkpoint", |bencher| {
        bencher.iter(|| decode(black_box(&checkpoint)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = forecast
}
criterion_main!(benches);
