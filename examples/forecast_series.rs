//! A morning that comes every day, forecast five minutes ahead from the second day on.
//!
//! You see the minutes around the jump of a real load (a client of a served model, tests/fixtures): what came, what
//! was expected five minutes before, the 95 % quantile and the last value at that time; then who spoke with which
//! weight, and how often the quantile held.
//!
//!     cargo run --example forecast_series

use std::time::Duration;

use sidescale::clock::{Now, Timestamp};
use sidescale::forecast::Forecaster;
use sidescale::history::History;
use sidescale::report::{Load, Past};

const TRACE: &str = include_str!("../tests/fixtures/servegen_m_mid_c15_600s.csv");
const BIN: usize = 600;
const DAY: usize = 1_440;
const LEAD: usize = 5;

#[expect(clippy::print_stdout, reason = "the output is the example")]
fn main() {
    let rates = minutes(TRACE);
    let start = Timestamp::default();
    let after = |minutes: usize| Now::at(start, Duration::from_secs(60 * minutes as u64));
    let mut history = History::new(Duration::from_secs(14 * 86_400));
    let slot = |rate: &f64| Load {
        pod_seconds: 60.0,
        arrivals: 60.0 * rate,
        ..Load::default()
    };
    let past = Past {
        start_millis: start.as_millis(),
        step_seconds: 60,
        slots: rates.iter().map(slot).collect(),
    };
    history.merge_past(&past, start..after(rates.len()).timestamp);

    let lead = Duration::from_secs(60 * LEAD as u64);
    let mut forecaster = Forecaster::default();
    forecaster.set_horizon(lead);
    let (mut made, mut exceeded) = (0_u32, 0_u32);
    println!("              came  expected  95 %  last value   (requests a second)");
    for now in DAY..rates.len() - LEAD {
        forecaster.observe(after(now), &history);
        let Some(forecast) = forecaster.forecast(after(now), lead, 0.95) else {
            continue;
        };
        let came = rates[now + LEAD - 1];
        let point = forecast.points[forecast.points.len() - 4];
        made += 1;
        exceeded += u32::from(came > point.upper);
        let (day, minute) = ((now + LEAD - 1) / DAY, (now + LEAD - 1) % DAY);
        if (76..=100).contains(&minute) && minute % 4 == 0 {
            println!(
                "day {day} {:02}:{:02}  {came:6.0}  {:8.0}  {:4.0}  {:10.0}",
                minute / 60,
                minute % 60,
                point.point,
                point.upper,
                rates[now - 1],
            );
        }
        if minute == 84 {
            let who = forecast.experts.iter().take(3);
            let who: Vec<String> = who
                .map(|e| format!("{} {:.0} %", e.name, 100.0 * e.weight))
                .collect();
            println!(
                "              by {}; trust {:.2}",
                who.join(", "),
                forecast.trust
            );
        }
    }
    let seasons = forecaster
        .forecast(after(rates.len()), lead, 0.95)
        .map(|f| f.seasons);
    for season in seasons.unwrap_or_default() {
        let hours = season.period.as_secs() / 3_600;
        println!("season of {hours} h, strength {:.2}", season.strength);
    }
    let share = 100.0 * f64::from(exceeded) / f64::from(made);
    println!("the 95 % quantile was exceeded by {share:.1} % of {made} minutes");
}

/// The rate of each minute, straight from one bin of the trace to the next.
fn minutes(trace: &str) -> Vec<f64> {
    let bins: Vec<f64> = trace
        .lines()
        .filter_map(|line| Some(line.split_once(',')?.1.parse::<f64>().ok()? / BIN as f64))
        .collect();
    let between = |pair: &[f64]| {
        let (from, to) = (pair[0], pair[1]);
        (0..BIN / 60).map(move |minute| from + (to - from) * (60 * minute) as f64 / BIN as f64)
    };
    bins.windows(2).flat_map(between).collect()
}
