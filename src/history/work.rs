//! What a request costs, learnt from the minutes in which nothing waited.

use std::time::Duration;

use super::{Bucket, History};
use crate::clock::Timestamp;

/// How far back [`History::work`] looks, and how many minutes with completions it takes at most.
const WORK_SPAN: Duration = Duration::from_secs(86_400);
const WORK_MINUTES: usize = 360;

/// A minute whose requests took longer than this many times those of the best tenth of minutes was congested: its
/// service time is mostly waiting. A tenth, because a fleet that was too small for half a day must not teach that
/// waiting is work.
const CONGESTED: f64 = 2.0;
const BEST_MINUTES: f64 = 0.1;

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
        let mut minutes: Vec<Bucket> = self
            .minutes(now - WORK_SPAN..now)
            .filter_map(|(_start, bucket)| bucket)
            .filter(|bucket| bucket.load.completions >= 0.5)
            .collect();
        let surplus = minutes.len().saturating_sub(WORK_MINUTES);
        minutes.drain(..surplus);
        let service = |bucket: &Bucket| bucket.load.service_seconds / bucket.load.completions;
        let best = quantile_of(minutes.iter().map(service).collect(), BEST_MINUTES)?;
        minutes.retain(|bucket| service(bucket) <= CONGESTED * best);
        let gpu = minutes.iter().filter(|b| b.load.gpu_observed_seconds > 0.0);
        Some(Work {
            service_seconds: quantile_of(minutes.iter().map(service).collect(), 0.5)?,
            gpu_seconds: quantile_of(gpu.map(gpu_seconds_per_request).collect(), 0.5),
        })
    }
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
