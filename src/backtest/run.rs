//! Several traces at several horizons.

use std::sync::atomic::AtomicU64;

use serde::Serialize;

use super::Said;
use super::conformal::Conformal;
use super::holt_winters::{Gains, HoltWinters};
use super::measure::{Measures, Row, measures};
use super::minutes::Minutes;
use super::{ours, point};
use crate::simulate::{Job, Progress, Scaled, SimulateError, Timeline, on_all_cores};

/// Who speaks, in the order of what they say in a row.
const METHODS: [&str; 5] = [
    "sidescale",
    "last value",
    "yesterday",
    "yesterday at today's level",
    "Holt-Winters",
];

/// One trace at one horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The trace's name.
    pub trace: String,
    /// How many minutes before its end each minute was forecast.
    pub horizon_minutes: usize,
    /// How many minutes were forecast and seen.
    pub minutes: usize,
    /// Their mean, arrivals a second.
    pub mean_rate: f64,
    /// Each method, sidescale first.
    pub methods: Vec<Measures>,
}

/// One trace, forecast.
#[derive(Clone, Debug)]
pub struct Forecasted {
    /// At each horizon.
    pub reports: Vec<Report>,
    /// The offset of each minute that was seen as a whole, and its mean.
    pub minutes: Vec<(u64, f64)>,
}

/// Forecasts every minute of every trace past its warm-up, `horizons` minutes before. Nothing is played when any trace is
/// wrong; `speak` is told how far it is.
pub fn backtest(
    jobs: &[Job],
    horizons: &[usize],
    speak: impl FnMut(Progress),
) -> Result<Vec<Forecasted>, SimulateError> {
    let read = jobs.iter().map(Job::read).collect::<Result<Vec<_>, _>>()?;
    let total = read.iter().map(Scaled::seconds).sum();
    let work = |index: usize, progress: &AtomicU64| {
        let job = &jobs[index];
        let timeline = read[index].draw(job.settings.seed);
        let from = timeline.start() + job.settings.warmup.as_secs();
        of_trace(&job.trace(), &timeline, horizons, from, progress)
    };
    Ok(on_all_cores(jobs.len(), total, work, speak))
}

/// `from`: the offset at whose end the first forecast is made.
fn of_trace(
    trace: &str,
    timeline: &Timeline,
    horizons: &[usize],
    from: u64,
    progress: &AtomicU64,
) -> Forecasted {
    let minutes = Minutes::of(timeline);
    let from = minutes.first_ending_at(from).min(minutes.rates.len());
    let ours = ours::said(timeline, &minutes, horizons, from, progress);
    let of_horizon = |(ours, horizon): (Vec<Option<Said>>, &usize)| {
        let said = all(ours, &minutes.rates, from, *horizon);
        let rows = rows(&said, &minutes, from, *horizon);
        let sum: f64 = rows.iter().map(|row| row.came).sum();
        let methods = METHODS.iter().enumerate();
        Report {
            trace: trace.to_owned(),
            horizon_minutes: *horizon,
            minutes: rows.len(),
            mean_rate: sum / rows.len().max(1) as f64,
            methods: methods
                .map(|(place, method)| measures(method, place, &rows))
                .collect(),
        }
    };
    Forecasted {
        reports: ours.into_iter().zip(horizons).map(of_horizon).collect(),
        minutes: minutes.seen().collect(),
    }
}

/// What each of [`METHODS`] said at the end of each minute.
fn all(
    ours: Vec<Option<Said>>,
    rates: &[f64],
    from: usize,
    horizon: usize,
) -> [Vec<Option<Said>>; METHODS.len()] {
    let mut model = HoltWinters::new(Gains::fitted(&rates[..from], horizon));
    let mut holt_winters = |known: &[f64]| {
        model.observe(known.last().copied().unwrap_or(f64::NAN));
        model.ahead(horizon)
    };
    [
        ours,
        baseline(rates, horizon, &mut point::last_value),
        baseline(rates, horizon, &mut |known| {
            point::yesterday(known, horizon)
        }),
        baseline(rates, horizon, &mut |known| {
            point::yesterday_at_todays_level(known, horizon)
        }),
        baseline(rates, horizon, &mut holt_winters),
    ]
}

/// `point` is shown the minutes up to each, in their order.
fn baseline(
    rates: &[f64],
    horizon: usize,
    point: &mut dyn FnMut(&[f64]) -> Option<f64>,
) -> Vec<Option<Said>> {
    let mut conformal = Conformal::new();
    let mut said: Vec<Option<Said>> = Vec::with_capacity(rates.len());
    for (minute, came) in rates.iter().enumerate() {
        let expected = point(&rates[..=minute]);
        if came.is_nan() {
            said.push(None);
            continue;
        }
        let earlier = minute.checked_sub(horizon).and_then(|at| said[at]);
        if let Some(earlier) = earlier {
            conformal.learn(minute, *came, earlier);
        }
        said.push(expected.map(|point| conformal.around(point)));
    }
    said
}

/// The minutes that everybody spoke of and that were seen.
fn rows(said: &[Vec<Option<Said>>], minutes: &Minutes, from: usize, horizon: usize) -> Vec<Row> {
    (from..minutes.rates.len())
        .filter_map(|at| {
            let target = at + horizon;
            let said = said.iter().map(|said| said[at]).collect::<Option<_>>()?;
            minutes.is_seen(target).then(|| Row {
                came: minutes.rates[target],
                slope: minutes.slope(at),
                third_of_day: minutes.third_of_day(target),
                said,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::simulate::Trace;

    #[test]
    fn a_baseline_learns_from_what_it_said_one_horizon_before() {
        // The last value, two minutes ahead; the fourth minute was not seen.
        let rates = [1.0, 2.0, 4.0, f64::NAN, 8.0, 8.0];
        let said = baseline(&rates, 2, &mut point::last_value);
        let points: Vec<Option<f64>> = said.iter().map(|it| it.map(|it| it.point)).collect();
        let expected = [Some(1.0), Some(2.0), Some(4.0), None, Some(8.0), Some(8.0)];
        for (point, expected) in points.iter().zip(expected) {
            assert_eq!(point.is_some(), expected.is_some());
            let away = point.unwrap_or(0.0) - expected.unwrap_or(0.0);
            assert!(away.abs() < 1e-12, "{points:?}");
        }
        // Nothing was learnt before the third minute, which came 3 above; the fifth came 4 above.
        let margins = [(1, 0.0), (2, 3.0), (4, 4.0), (5, 4.0)];
        for (minute, margin) in margins {
            let said = said[minute].expect("it was said");
            assert!(
                (said.upper95 - said.point - margin).abs() < 1e-12,
                "{minute}: {said:?}"
            );
        }
    }

    #[test]
    fn everybody_is_measured_on_the_same_minutes_past_the_warm_up() {
        let lines: Vec<String> = (0..180)
            .filter(|minute| *minute != 100)
            .map(|minute| format!("{},{}\n", 60 * minute, 600 + minute % 7))
            .collect();
        let text = format!("offset_seconds,requests\n{}", lines.concat());
        let trace = Trace::parse("t.csv", &text).expect("a good trace");
        let timeline = Timeline::draw(&trace, 1.0, &mut StdRng::seed_from_u64(1));
        let reports = of_trace("t", &timeline, &[2, 10], 3_600, &AtomicU64::new(0)).reports;
        // From the end of minute 59 on, less the last two or ten, less those that began or ended in the gap.
        let counted: Vec<usize> = reports.iter().map(|report| report.minutes).collect();
        assert_eq!(counted, [121 - 2 - 2, 121 - 10 - 2]);
        for report in &reports {
            assert!((report.mean_rate - 10.0).abs() < 0.5, "{report:?}");
            let methods: Vec<&str> = report.methods.iter().map(|it| it.method).collect();
            assert_eq!(methods, METHODS);
            for method in &report.methods {
                assert!(method.wape < 0.2 && method.exceeded95 < 0.5, "{method:?}");
            }
        }
    }
}
