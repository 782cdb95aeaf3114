//! What the production turn costs, with forecast, self-tuning and shadows in it: one turn of a leader that has lived two
//! days, and how long a new leader needs until it has replayed its past.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sidescale::ablation::Parts;
use sidescale::clock::{Now, Timestamp};
use sidescale::forecast::Forecaster;
use sidescale::history::History;
use sidescale::report::{Load, Past};
use sidescale::simulate::{Leader, Observed, Settings};
use sidescale::tuning::{Facts, Tuner};

const DAY: u64 = 86_400;

/// A day's course, with bursts.
fn rate(second: u64) -> f64 {
    let day = (second as f64 / DAY as f64 * std::f64::consts::TAU).sin();
    let burst = if second % 7_000 < 120 { 1.6 } else { 1.0 };
    (30.0 + 18.0 * day) * burst
}

fn second(leader: &mut Leader, offset: u64) -> u32 {
    let arrivals = rate(offset);
    leader.second(Observed {
        offset,
        arrivals,
        served: arrivals,
        ready: 12,
        ..Observed::default()
    })
}

fn history(days: u64) -> History {
    let slots = (0..days * 1_440).map(|minute| Load {
        pod_seconds: 60.0 * 12.0,
        arrivals: 60.0 * rate(60 * minute),
        ..Load::default()
    });
    let past = Past {
        start_millis: 0,
        step_seconds: 60,
        slots: slots.collect(),
    };
    let mut history = History::new(Duration::from_secs(14 * DAY));
    let end = Timestamp::from_secs(i64::try_from(days * DAY).unwrap_or(i64::MAX));
    history.merge_past(&past, Timestamp::default()..end);
    history
}

fn turn(criterion: &mut Criterion) {
    let mut leader = Leader::new(&Settings {
        pod_rps: 5.0,
        ..Settings::default()
    });
    let mut offset = 0;
    while offset < 2 * DAY {
        second(&mut leader, offset);
        offset += 1;
    }
    let mut group = criterion.benchmark_group("turn");
    // An hour, so that each turn bears its part of what is done every ten seconds, every minute and every hour.
    group.throughput(Throughput::Elements(3_600));
    group.bench_function("an hour of turns", |bencher| {
        bencher.iter(|| {
            for _turn in 0..3_600 {
                second(&mut leader, offset);
                offset += 1;
            }
        });
    });
    group.finish();
    replay(criterion);
}

fn replay(criterion: &mut Criterion) {
    let history = history(14);
    let now = Now::at(Timestamp::default(), Duration::from_secs(14 * DAY));
    let mut forecaster = Forecaster::default();
    forecaster.observe(now, &history);
    let facts = Facts {
        pod_rps: 5.0,
        cold_start: Duration::from_secs(300),
        bounds: (1, 48),
        cost_ratio: 50.0,
        slots: Some(8.0),
    };
    criterion.bench_function("replay of 14 days by a new leader", |bencher| {
        bencher.iter_batched_ref(
            || Tuner::new(Parts::ALL),
            |tuner| {
                while tuner.advice(now.timestamp, false).is_none() {
                    tuner.observe(now.timestamp, &history, &forecaster, facts);
                }
            },
            BatchSize::LargeInput,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .sample_size(10);
    targets = turn
}
criterion_main!(benches);
