//! The production forecaster, shown a trace as the leader is shown its fleet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Said;
use super::minutes::Minutes;
use crate::clock::{Now, Timestamp};
use crate::forecast::{Forecast, ForecastPoint, Forecaster};
use crate::history::History;
use crate::policy::Policy;
use crate::report::Load;
use crate::simulate::{Settings, Timeline};

/// So many seconds are played between two words about it.
const SPOKEN: u64 = 8_192;

/// What it said at the end of each minute from `from` on, by horizon in minutes; `None`: nothing, or of a minute that
/// nobody saw.
pub(super) fn said(
    timeline: &Timeline,
    minutes: &Minutes,
    horizons: &[usize],
    from: usize,
    progress: &AtomicU64,
) -> Vec<Vec<Option<Said>>> {
    let zero = Settings::default().zero;
    // The length is what is kept where nobody said otherwise; the bounds have no part in a forecast.
    let mut history = History::new(Policy::with_bounds(1, 1).prediction.history);
    let mut forecasters: Vec<Forecaster> = horizons
        .iter()
        .map(|horizon| {
            let mut forecaster = Forecaster::default();
            forecaster.set_horizon(time(*horizon));
            forecaster
        })
        .collect();
    let mut said = vec![vec![None; minutes.rates.len()]; horizons.len()];
    let length = timeline.len() as u64;
    for (second, (offset, arrivals)) in (0..).zip(timeline.seconds()) {
        if second % SPOKEN == 0 {
            progress.fetch_add(SPOKEN.min(length - second), Ordering::Relaxed);
        }
        let Some(arrivals) = arrivals else {
            // A leader that is shown nothing takes no turn.
            continue;
        };
        let now = Now::at(zero, Duration::from_secs(offset + 1));
        let load = Load {
            pod_seconds: 1.0,
            arrivals,
            ..Load::default()
        };
        history.record(now.timestamp, &load);
        for forecaster in &mut forecasters {
            forecaster.observe(now, &history);
        }
        let minute = minutes.index(offset);
        let is_end = (offset + 1).is_multiple_of(60);
        if !is_end || minute < from || !minutes.is_seen(minute) {
            continue;
        }
        for ((forecaster, horizon), said) in forecasters.iter().zip(horizons).zip(&mut said) {
            if minutes.is_seen(minute + horizon) {
                said[minute] = one(forecaster, now, *horizon);
            }
        }
    }
    said
}

/// The minute that ends one horizon from now.
fn one(forecaster: &Forecaster, now: Now, horizon: usize) -> Option<Said> {
    let ahead = time(horizon);
    let middle = now.timestamp + ahead - Duration::from_secs(30);
    let nearest = |quantile: f64| nearest(&forecaster.forecast(now, ahead, quantile)?, middle);
    let (at95, at99) = (nearest(0.95)?, nearest(0.99)?);
    Some(Said {
        point: at95.point,
        upper95: at95.upper,
        upper99: at99.upper,
    })
}

fn nearest(forecast: &Forecast, at: Timestamp) -> Option<ForecastPoint> {
    let away = |point: &&ForecastPoint| point.at.as_millis().abs_diff(at.as_millis());
    forecast.points.iter().min_by_key(away).copied()
}

fn time(minutes: usize) -> Duration {
    Duration::from_secs(60 * minutes as u64)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::simulate::Trace;

    #[test]
    fn of_a_steady_load_the_minute_asked_for_is_said_from_the_warm_up_on() {
        let lines: Vec<String> = (0..7_200).map(|second| format!("{second},5\n")).collect();
        let text = format!("offset_seconds,requests\n{}", lines.concat());
        let trace = Trace::parse("t.csv", &text).expect("a good trace");
        let timeline = Timeline::draw(&trace, 1.0, &mut StdRng::seed_from_u64(1));
        let minutes = Minutes::of(&timeline);
        let progress = AtomicU64::new(0);
        let said = said(&timeline, &minutes, &[2, 5], 60, &progress);
        assert_eq!(progress.into_inner(), 7_200);
        for (said, horizon) in said.iter().zip([2, 5]) {
            let places: Vec<usize> = (0..120).filter(|minute| said[*minute].is_some()).collect();
            // The last minutes are said of minutes that the trace does not have.
            assert!(places.into_iter().eq(60..120 - horizon));
            for said in said.iter().flatten() {
                assert!((said.point - 5.0).abs() < 0.1, "{said:?}");
                assert!(
                    said.upper99 >= said.upper95 && said.upper95 >= said.point,
                    "{said:?}"
                );
            }
        }
    }

    #[test]
    fn the_point_taken_is_nearest_the_middle_of_the_minute() {
        let point = |secs: i64| ForecastPoint {
            at: Timestamp::from_secs(secs),
            ..ForecastPoint::default()
        };
        let forecast = Forecast {
            points: [5, 15, 25, 35, 45].map(point).to_vec(),
            ..Forecast::default()
        };
        for (at, expected) in [(0, 5), (31, 35), (30, 25), (99, 45)] {
            let found = nearest(&forecast, Timestamp::from_secs(at)).map(|it| it.at.as_secs());
            assert_eq!(found, Some(expected));
        }
    }
}
