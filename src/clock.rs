//! The only file that reads a clock, and the only way to wait.
//!
//! Everything else is given a [`Now`] or a [`Clock`]. One [`Clock`] drives a whole process, so a demo at twenty times
//! life runs its election, its drains and its forecasts on the same, faster time. A pure stage takes `now` and never
//! sees the clock itself.

use std::future::Future;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A monotonic point in time, counted from the start of the process's [`Clock`]. For ages and delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

/// A wall-clock point in time in milliseconds since the Unix epoch. For seasons and for people, never for durations.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Both times, read once per turn and passed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: a wall-clock jump cannot tear a duration.
    pub instant: Instant,
    /// Wall clock: which minute of which day it is.
    pub timestamp: Timestamp,
}

/// The time a [`Clock::timeout`] allowed has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct Elapsed(pub Duration);

/// Where time comes from. Cheap to clone; clones agree.
#[derive(Clone, Debug)]
pub struct Clock {
    anchor: tokio::time::Instant,
    /// The wall time at the anchor, or `None` to read the system's own (so that seasons realign after a jump).
    wall: Option<Timestamp>,
    speed: f64,
}

// === impl Instant ===

impl Instant {
    /// The clock's start plus `offset`.
    pub const fn from_offset(offset: Duration) -> Self {
        Self(offset)
    }

    /// Time since the clock's start.
    pub const fn offset(self) -> Duration {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

// === impl Timestamp ===

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1000)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Wall time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(rhs)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(rhs)))
    }
}

// === impl Now ===

impl Now {
    /// A moment for tests and simulations: both times counted from `start`.
    pub fn at(start: Timestamp, offset: Duration) -> Self {
        Self {
            instant: Instant::from_offset(offset),
            timestamp: start + offset,
        }
    }
}

impl Add<Duration> for Now {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self {
            instant: self.instant + rhs,
            timestamp: self.timestamp + rhs,
        }
    }
}

// === impl Clock ===

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
impl Clock {
    /// The system's time, at the speed of life.
    pub fn real() -> Self {
        Self {
            anchor: tokio::time::Instant::now(),
            wall: None,
            speed: 1.0,
        }
    }

    /// A clock that shows `start` now and runs `speed` times as fast as life.
    ///
    /// `speed` must be positive and finite; the command line checks it.
    pub fn scaled(start: Timestamp, speed: f64) -> Self {
        debug_assert!(speed > 0.0 && speed.is_finite());
        Self {
            anchor: tokio::time::Instant::now(),
            wall: Some(start),
            speed,
        }
    }

    /// How many seconds of this clock pass in a second of life.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Both times, now.
    pub fn now(&self) -> Now {
        let instant = self.instant();
        let timestamp = match self.wall {
            Some(start) => start + instant.offset(),
            None => Timestamp(jiff::Timestamp::now().as_millisecond()),
        };
        Now { instant, timestamp }
    }

    /// The monotonic time, now. Cheap enough for the request path.
    pub fn instant(&self) -> Instant {
        let passed = self.anchor.elapsed();
        // Read five times for a request, where the detour over floating point costs as much as the reading.
        if self.wall.is_none() {
            return Instant(passed);
        }
        Instant(passed.mul_f64(self.speed))
    }

    /// Blocks this thread for `duration`: for threads of long computations alone, never on a runtime's own.
    pub fn block(&self, duration: Duration) {
        std::thread::sleep(self.real_time(duration));
    }

    /// Waits for `duration` of this clock.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(self.real_time(duration)).await;
    }

    /// Waits until this clock shows `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        self.sleep(deadline.since(self.instant())).await;
    }

    /// Gives `future` at most `duration` of this clock.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        match tokio::time::timeout(self.real_time(duration), future).await {
            Ok(output) => Ok(output),
            Err(_elapsed) => Err(Elapsed(duration)),
        }
    }

    /// The time of life that `duration` of this clock takes.
    pub fn real_time(&self, duration: Duration) -> Duration {
        // Half a century, well inside what tokio's timer can hold.
        const LONGEST: Duration = Duration::from_secs(1_500_000_000);
        duration.min(LONGEST).div_f64(self.speed)
    }
}

fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_scaled_clock_drives_instants_timestamps_and_waits_alike() {
        let start = Timestamp::from_secs(1_000);
        let clock = Clock::scaled(start, 20.0);
        let life = Clock::scaled(start, 1.0);
        clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(life.instant().offset(), Duration::from_secs(3));
        assert_eq!(clock.now().timestamp, start + Duration::from_secs(60));
        let waited = clock
            .timeout(Duration::from_secs(20), std::future::pending::<()>())
            .await;
        assert_eq!(waited, Err(Elapsed(Duration::from_secs(20))));
        assert_eq!(life.instant().offset(), Duration::from_secs(4));
    }

    #[test]
    fn time_before_the_start_is_no_negative_duration() {
        let (early, late) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(
            Instant::from_offset(Duration::ZERO)
                .since(Instant::from_offset(Duration::from_secs(1))),
            Duration::ZERO
        );
    }
}
