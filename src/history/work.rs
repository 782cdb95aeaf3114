//! What a request costs, learnt from the minutes in which nothing waited.

use std::time::Duration;

use super::{Bucket, History};
use crate::clock::Timestamp;
use crate::report::Load;

/// How far back [`History::work`] looks, and how many minutes with completions it takes at most.
const WORK_SPAN: Duration = Duration::from_secs(86_400);
const WORK_MINUTES: usize = 360;

/// A minute whose requests took longer than this many times those of the best tenth of minutes was congested: its
/// service time is mostly waiting. A tenth, because a fleet that was too small for half a day must not teach that
/// waiting is work.
const CONGESTED: f64 = 2.0;
const BEST_MINUTES: f64 = 0.1;

/// A minute at whose end more than this share of what was in flight had come without being served: a queue, whatever it says of
/// the time that a request takes. Below it, what is in flight is mostly being served.
const UNSERVED_SHARE: f64 = 0.5;
/// So few are no queue: arrivals and completions cross the end of a minute.
const UNSERVED_LEAST: f64 = 5.0;

/// What a request costs when nothing waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// From arrival to end, in seconds.
    pub service_seconds: f64,
    /// GPU time, in seconds of a whole device set; `None` without GPU samples.
    pub gpu_seconds: Option<f64>,
}

// === impl History ===

impl History {
    /// What a request costs when nothing waits: the median over the recent uncongested minutes; `None` when nothing
    /// was completed in the last day.
    pub fn work(&self, now: Timestamp) -> Option<Work> {
        let seen: Vec<Bucket> = self
            .minutes(now - WORK_SPAN..now)
            .filter_map(|(_start, bucket)| bucket)
            .collect();
        let mut minutes = without_queues(&seen);
        if minutes.is_empty() {
            minutes = seen;
        }
        minutes.retain(|bucket| bucket.load.completions >= 0.5);
        let surplus = minutes.len().saturating_sub(WORK_MINUTES);
        minutes.drain(..surplus);
        let best = quantile_of(minutes.iter().map(service).collect(), BEST_MINUTES)?;
        minutes.retain(|bucket| service(bucket) <= CONGESTED * best);
        let gpu = minutes.iter().filter(|b| b.load.gpu_observed_seconds > 0.0);
        Some(Work {
            service_seconds: quantile_of(minutes.iter().map(service).collect(), 0.5)?,
            gpu_seconds: quantile_of(gpu.map(gpu_seconds_per_request).collect(), 0.5),
        })
    }
}

/// The minutes, in their order, in which what was in flight was being served.
///
/// The best tenth alone does not tell: a fleet that starts overloaded has one calm minute and then hours of a queue, whose time
/// would be learnt as work, and the queue as load that the pods carry.
pub(super) fn without_queues(minutes: &[Bucket]) -> Vec<Bucket> {
    let mut unserved = 0.0_f64;
    let mut least = f64::INFINITY;
    let mut kept = Vec::with_capacity(minutes.len());
    for bucket in minutes {
        let Load {
            arrivals,
            completions,
            failures,
            ..
        } = bucket.load;
        let in_flight = bucket.in_flight();
        unserved = (unserved + arrivals - completions - failures)
            .min(in_flight)
            .max(0.0);
        if completions < 0.5 {
            continue;
        }
        let took = service(bucket);
        if took <= CONGESTED * least {
            // As fast as ever: what is in flight more than before is more load.
            unserved = 0.0;
        }
        if unserved <= UNSERVED_LEAST.max(UNSERVED_SHARE * in_flight) {
            least = least.min(took);
            kept.push(*bucket);
        }
    }
    kept
}

fn service(bucket: &Bucket) -> f64 {
    bucket.load.service_seconds / bucket.load.completions
}

fn gpu_seconds_per_request(bucket: &Bucket) -> f64 {
    // A pod without a sample in a part of the minute worked in it like in the rest.
    let unseen = bucket.load.pod_seconds / bucket.load.gpu_observed_seconds;
    bucket.load.gpu_busy_seconds * unseen / bucket.load.completions
}

fn quantile_of(mut values: Vec<f64>, quantile: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let rank = (0..=last).find(|&rank| rank as f64 >= quantile * last as f64);
    values.get(rank.unwrap_or(last)).copied()
}
