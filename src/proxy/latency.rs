//! How long requests took, as counts by length: cheap to add to, and the counts of two pods add up to those of both.
//!
//! Sums hide the tail, and quantiles of several pods cannot be joined. With 32 counts for each power of two a quantile is
//! off by 3 % at most.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use histogram::{AtomicHistogram, Histogram};

/// `2^GROUPING` counts for each power of two. 4 would be off by 6 %, 6 would double the 8 KiB of a histogram.
const GROUPING: u8 = 5;
/// Lengths are below `2^LONGEST` microseconds, 38 hours: longer than any stream is held.
const LONGEST: u8 = 37;
/// A bound is a power of two of microseconds, so that it lies between two counts and what is told is exact: from half a
/// millisecond to nine minutes.
const BOUNDS: std::ops::RangeInclusive<u8> = 9..=29;

/// Lengths that are being counted. Nothing here waits for anybody: one addition to a count and one to the sum.
pub(super) struct Latency {
    counts: AtomicHistogram,
    micros: AtomicU64,
}

/// The lengths of what had ended by one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    counts: Histogram,
    sum: Duration,
}

// === impl Latency ===

impl Latency {
    pub(super) fn add(&self, micros: u64) {
        let longest = (1 << LONGEST) - 1;
        // Never out of range, as it is cut off above.
        drop(self.counts.increment(micros.min(longest)));
        self.micros.fetch_add(micros, Relaxed);
    }

    pub(super) fn sum(&self) -> Duration {
        Duration::from_micros(self.micros.load(Relaxed))
    }

    pub(super) fn read(&self) -> Durations {
        Durations {
            sum: self.sum(),
            counts: self.counts.load(),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        let counts = AtomicHistogram::with_config(&Durations::default().counts.config());
        Self {
            counts,
            micros: AtomicU64::default(),
        }
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("micros", &self.micros)
            .finish_non_exhaustive()
    }
}

// === impl Durations ===

impl Durations {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.as_slice().iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The length that the share `quantile` (0 to 1) of them does not exceed, 3 % too long at most; `None`: there were none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let bucket = self.counts.quantile_bucket(quantile).ok()??;
        Some(Duration::from_micros(bucket.end()))
    }

    /// How many were longer than the bound before and not longer than this one, by ascending bounds from 0.5 ms to 9 min;
    /// the last bound is infinite. Seconds.
    pub fn by_bound(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.map(|power| 1_u64 << power);
        let mut counted: Vec<(f64, u64)> = bounds
            .clone()
            .map(|bound| (Duration::from_micros(bound).as_secs_f64(), 0))
            .chain([(f64::INFINITY, 0)])
            .collect();
        for bucket in &self.counts {
            let index = bounds.clone().take_while(|bound| bucket.start() >= *bound);
            counted[index.count()].1 += bucket.count();
        }
        counted
    }

    /// Adds those of another pod, or of another time.
    #[expect(
        clippy::missing_panics_doc,
        reason = "all have one shape, and nobody counts 2^64 requests"
    )]
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .checked_add_assign(&other.counts)
            .expect("counts of one shape, of fewer than 2^64 requests");
        self.sum += other.sum;
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            counts: Histogram::new(GROUPING, LONGEST).expect("a grouping below the longest"),
            sum: Duration::ZERO,
        }
    }
}

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(lengths: I) -> Self {
        let latency = Latency::default();
        for length in lengths {
            latency.add(u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
        }
        latency.read()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(lengths: &[u64]) -> Durations {
        lengths.iter().copied().map(Duration::from_micros).collect()
    }

    #[test]
    fn each_length_is_told_by_the_bound_that_holds_it() {
        let told = of(&[0, 511, 512, 1_000_000, u64::from(u32::MAX)]).by_bound();
        let told: Vec<_> = told.into_iter().filter(|(_, count)| *count > 0).collect();
        let second = (1.048_576, 1);
        assert_eq!(
            told,
            [(0.000_512, 2), (0.001_024, 1), second, (f64::INFINITY, 1)]
        );
    }

    #[test]
    fn nothing_is_too_long_and_nothing_has_no_quantile() {
        let long = of(&[u64::MAX / 2]);
        assert_eq!(
            (long.count(), long.by_bound().last().map(|it| it.1)),
            (1, Some(1))
        );
        assert_eq!(Durations::default().quantile(0.99), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_three_per_cent_at_most(lengths in prop::collection::vec(0_u64..1 << 36, 1..200), quantile in 0.0_f64..=1.0) {
            let found = of(&lengths).quantile(quantile).expect("some").as_micros() as f64;
            let rank = (quantile * lengths.len() as f64).max(1.0);
            let below = |bound: f64| lengths.iter().filter(|it| **it as f64 <= bound).count() as f64;
            prop_assert!(below(found) >= rank && below(found / 1.032 - 1.0) < rank + 1.0, "{found}");
        }

        #[test]
        fn two_pods_add_up_to_both(one in prop::collection::vec(0_u64..1 << 30, 0..50), other in prop::collection::vec(0_u64..1 << 30, 0..50)) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }
    }
}
