//! The days before the demo, as the fleet would have measured them: the trace's minutes in a checkpoint.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::arrivals::Trace;
use crate::clock::Timestamp;
use crate::history::{self, History, Sections};
use crate::report::{Load, Past};

/// Length of a slot.
const MINUTE: Duration = Duration::from_secs(60);

/// What the fleet was like on the days before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Days {
    /// The wall clock at the trace's zero.
    pub(super) zero: Timestamp,
    /// Where the past ends.
    pub(super) end: Duration,
    /// Times the trace's rate.
    pub(super) factor: f64,
    /// From arrival to end, seconds.
    pub(super) service_seconds: f64,
    /// How long a pod took to start.
    pub(super) cold_start: Duration,
    /// Requests a second that a pod was given.
    pub(super) pod_rps: f64,
    /// The fewest pods there were.
    pub(super) least_pods: u32,
}

/// The checkpoint that the last leader of those days would have saved. Counts are drawn around the trace's rate; minutes
/// that the trace did not observe are missing.
pub(super) fn checkpoint(trace: &Trace, days: Days, kept: Duration, rng: &mut impl Rng) -> Vec<u8> {
    let mut history = History::new(kept);
    let minutes = days.end.as_secs() / MINUTE.as_secs();
    let slots = (0..minutes).map(|minute| {
        let from = MINUTE * u32::try_from(minute).unwrap_or(u32::MAX);
        let expected = trace.expected(from, from + MINUTE);
        expected.map_or_else(Load::default, |expected| {
            minute_of(drawn(expected * days.factor, rng), days)
        })
    });
    let past = Past {
        start_millis: days.zero.as_millis(),
        step_seconds: u32::try_from(MINUTE.as_secs()).unwrap_or(u32::MAX),
        slots: slots.collect(),
    };
    history.merge_past(&past, days.zero..days.zero + days.end);
    // Without a start that was seen, all would be learnt with one that is assumed.
    history.record_start(days.cold_start);
    history::encode(&history, &Sections::new())
}

fn minute_of(arrivals: f64, days: Days) -> Load {
    let seconds = MINUTE.as_secs_f64();
    let pods = (arrivals / seconds / days.pod_rps)
        .ceil()
        .max(f64::from(days.least_pods));
    Load {
        pod_seconds: pods * seconds,
        arrivals,
        completions: arrivals,
        busy_seconds: arrivals * days.service_seconds,
        service_seconds: arrivals * days.service_seconds,
        ..Load::default()
    }
}

/// A Poisson count, by its normal approximation: what matters here is that the past is not smoother than the present.
fn drawn(mean: f64, rng: &mut impl Rng) -> f64 {
    // The sum of twelve uniform numbers is as good as normal with variance 1.
    let normal: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    (mean + mean.sqrt() * normal).round().max(0.0)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_days_before_come_back_as_the_fleet_would_have_seen_them() {
        let trace = crate::demo::arrivals::servegen();
        let days = Days {
            zero: Timestamp::from_secs(1_767_571_200),
            end: Duration::from_secs(3 * 86_400),
            factor: 0.2,
            service_seconds: 2.0,
            cold_start: Duration::from_secs(240),
            pod_rps: 3.0,
            least_pods: 1,
        };
        let kept = Duration::from_secs(14 * 86_400);
        let bytes = checkpoint(&trace, days, kept, &mut StdRng::seed_from_u64(1));
        let (history, _) = history::decode(&bytes).expect("a checkpoint reads back");
        // The second day at 02:00 to 03:00.
        let from = days.zero + Duration::from_secs(86_400 + 7_200);
        let hour = from..from + Duration::from_secs(3_600);
        let seen: f64 = history
            .minutes(hour)
            .filter_map(|(_, bucket)| Some(bucket?.load.arrivals))
            .sum();
        let expected = trace.expected(Duration::from_secs(93_600), Duration::from_secs(97_200));
        let expected = expected.expect("observed") * days.factor;
        assert!((seen / expected - 1.0).abs() < 0.01, "{seen} of {expected}");
        let work = history
            .work(days.zero + days.end)
            .expect("requests were completed");
        assert!((work.service_seconds - 2.0).abs() < 0.05, "{work:?}");
        assert_eq!(history.lead_time(0.9), Some(Duration::from_secs(240)));
    }
}
