//! What the fleet carried: seconds for an hour, ten seconds for a day, minutes for weeks.
//!
//! A bucket holds sums that can be joined and the wall-clock time that was observed of it, so that a minute of which
//! twenty seconds were seen is no dip: its rate is over those twenty seconds. A bucket nobody observed is missing, not
//! zero.
//!
//! Buckets are aligned to the wall clock, because seasons are. The wall clock may jump:
//! - forward: the buckets between are missing;
//! - back within what is held: the time is lived twice, and the rate of such a bucket is the mean of both, because the
//!   observed time counts twice too;
//! - further than the minutes reach, either way: believed only when it lasts (a minute of records that agree), and then the
//!   history starts anew. One wrong reading must not cost two weeks.

mod checkpoint;
mod late;
#[cfg(test)]
mod tests;
mod tier;
mod work;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

pub use self::checkpoint::{CheckpointError, Sections, decode, encode};
use self::tier::{Tier, as_f64};
pub use self::work::Work;
use crate::clock::Timestamp;
use crate::report::{Load, Past};

/// The longest history that is kept, the policy's upper bound. A checkpoint that claims more is malformed.
pub const LONGEST: Duration = Duration::from_secs(28 * 86_400);

/// A load was observed since the record before it if that is at most this long ago. Longer: the clock jumped or the
/// turn stalled, and the pod-seconds tell which.
const LONGEST_TURN_MILLIS: i64 = 10_000;

/// So many records in a row must agree before a clock far off is believed: a minute of turns, long enough for a
/// stepped clock to be stepped back, short enough to lose nothing when it is right.
const STRANGE_RECORDS: u32 = 60;

/// Cold starts kept: the distribution follows a new image or a new node type within a few dozen starts, and a 95 %
/// quantile still has three of them above it.
const STARTS_KEPT: usize = 64;

/// A time beyond the year 9999 is no time, however long it lasts.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// The load of the fleet over time, and how long its pods take to start.
#[derive(Clone, Debug)]
pub struct History {
    seconds: Tier,
    tens: Tier,
    minutes: Tier,
    starts: VecDeque<Duration>,
    recorded: Option<Recorded>,
    /// When the newest record of the checkpoint ended that this was read from: within its newest minute.
    read_to: Option<i64>,
    strange: u32,
    revision: u64,
}

/// What was observed in one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Sums over the observed part of the slot and the pods that reported.
    pub load: Load,
    /// Wall-clock seconds that were observed of it: below the slot's length when a leader came or went in it.
    pub seconds: f64,
    /// Arrivals a second in the busiest record of it, which is one of a second; 0: nobody looked so closely.
    busiest: f64,
}

#[derive(Clone, Copy, Debug)]
struct Recorded {
    at_millis: i64,
    /// Pods that reported, from pod-seconds over time: tells a stalled turn from a jumped clock.
    pods: f64,
}

// === impl History ===

impl History {
    /// An empty history that keeps minutes for `length` (an hour at least, [`LONGEST`] at most).
    pub fn new(length: Duration) -> Self {
        Self {
            seconds: Tier::new(1_000, 3_600),
            tens: Tier::new(10_000, 8_640),
            minutes: Tier::new(60_000, minutes_in(length)),
            starts: VecDeque::with_capacity(STARTS_KEPT),
            recorded: None,
            read_to: None,
            strange: 0,
            revision: 0,
        }
    }

    /// Keeps minutes for `length` from now on: the policy changed.
    pub fn set_length(&mut self, length: Duration) {
        if self.minutes.capacity() == minutes_in(length) {
            return;
        }
        let mut minutes = Tier::new(60_000, minutes_in(length));
        minutes.restart_at(self.minutes.slots().start);
        for slot in self.minutes.slots() {
            minutes.push(self.minutes.get(slot).copied().unwrap_or_default());
        }
        self.minutes = minutes;
        self.revision += 1;
    }

    /// How many minutes it keeps.
    pub fn minutes_kept(&self) -> usize {
        self.minutes.capacity()
    }

    /// Adds what was observed in the moment that ends at `at`.
    ///
    /// A load without pod-seconds is nobody's observation and changes nothing.
    pub fn record(&mut self, at: Timestamp, load: &Load) {
        let at = at.as_millis();
        if load.pod_seconds <= 0.0 || self.doubts(at) {
            return;
        }
        let from = self.observed_from(at, load);
        let is_known = self.recorded.is_some_and(|last| last.at_millis == from);
        if self.recorded.is_some_and(|last| at < last.at_millis) {
            self.revision += 1;
        }
        for tier in [&mut self.seconds, &mut self.tens, &mut self.minutes] {
            if !tier.reaches(tier.slot_of(at)) {
                // Only a finer tier can get here: the clock went back further than it holds.
                tier.restart_at(tier.slot_of(at));
            }
            tier.spread(from, at, load);
            // A look whose beginning is a guess tells no rate of a second.
            if is_known {
                tier.note_busiest(from, at, load);
            }
        }
        self.recorded = Some(Recorded {
            at_millis: at,
            pods: load.pod_seconds / (as_f64(at - from) / 1000.0),
        });
    }

    /// Adds what one member remembers of the time within `window`: from the end of the checkpoint to the begin of this
    /// leader's own view. Several members' pasts add up.
    ///
    /// Only buckets that lie wholly within the window change, so that nothing is counted twice; the one at each end
    /// keeps what was seen of it.
    pub fn merge_past(&mut self, past: &Past, window: Range<Timestamp>) {
        let step = i64::from(past.step_seconds) * 1000;
        // A member keeps seconds to minutes; a step beyond an hour is nonsense and would take long to spread.
        if !(1_000..=3_600_000).contains(&step) || past.slots.is_empty() {
            return;
        }
        let window = window.start.as_millis()..window.end.as_millis();
        for tier in [&mut self.seconds, &mut self.tens, &mut self.minutes] {
            if tier.step_millis() >= step {
                merge_into(tier, past, step, &window);
            }
        }
        self.revision += 1;
    }

    /// The past from `since` on in minutes, as a member hands it to a new leader. The minute under way is left out.
    pub fn past(&self, since: Timestamp) -> Past {
        let held = self.minutes.slots();
        let first = self.minutes.slot_of(since.as_millis()).max(held.start);
        let whole = held.start.max(held.end - 1);
        Past {
            start_millis: first.min(whole) * 60_000,
            step_seconds: 60,
            slots: (first..whole)
                .map(|slot| {
                    self.minutes
                        .get(slot)
                        .map_or_else(Load::default, |b| b.load)
                })
                .collect(),
        }
    }

    /// A cold start has ended: it took `took` from the pod's creation to its first readiness.
    pub fn record_start(&mut self, took: Duration) {
        if self.starts.len() == STARTS_KEPT {
            self.starts.pop_front();
        }
        self.starts.push_back(took);
    }

    /// How long a cold start takes at most in that share of cases (0 to 1); `None` when none was seen.
    pub fn lead_time(&self, quantile: f64) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.starts.iter().copied().collect();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        // The nearest rank above: a lead time between two starts was never seen.
        (0..=last)
            .find(|&rank| (rank + 1) as f64 >= quantile * sorted.len() as f64)
            .map_or_else(|| sorted.last().copied(), |rank| sorted.get(rank).copied())
    }

    /// The cold starts kept, oldest first.
    pub fn starts(&self) -> impl ExactSizeIterator<Item = Duration> + '_ {
        self.starts.iter().copied()
    }

    /// The minutes that `range` touches, each with its start, missing ones as `None`.
    pub fn minutes(
        &self,
        range: Range<Timestamp>,
    ) -> impl Iterator<Item = (Timestamp, Option<Bucket>)> + '_ {
        read(&self.minutes, &range)
    }

    /// The slots of ten seconds that `range` touches, as [`Self::minutes`].
    pub fn tens(
        &self,
        range: Range<Timestamp>,
    ) -> impl Iterator<Item = (Timestamp, Option<Bucket>)> + '_ {
        read(&self.tens, &range)
    }

    /// The seconds that `range` touches, as [`Self::minutes`].
    pub fn seconds(
        &self,
        range: Range<Timestamp>,
    ) -> impl Iterator<Item = (Timestamp, Option<Bucket>)> + '_ {
        read(&self.seconds, &range)
    }

    /// All that was observed in the `window` that ends at `now`, at most an hour long; `None` when nothing was.
    pub fn recent(&self, now: Timestamp, window: Duration) -> Option<Bucket> {
        let window = window.min(Duration::from_secs(3_600));
        let mut sum = Bucket::default();
        for (_start, bucket) in self.seconds(now - window..now) {
            sum.join(&bucket.unwrap_or_default());
        }
        sum.is_observed().then_some(sum)
    }

    /// When the newest record ended; of a checkpoint that does not say, the end of the newest bucket.
    pub fn newest(&self) -> Option<Timestamp> {
        let end = self.minutes.slots().end * 60_000;
        let held = (!self.minutes.slots().is_empty()).then_some(end);
        self.recorded
            .map(|last| last.at_millis)
            .or(self.read_to)
            .or(held)
            .map(Timestamp::from_millis)
    }

    /// From the start of the oldest minute to the end of the newest; `None` when empty.
    pub fn span(&self) -> Option<Range<Timestamp>> {
        let held = self.minutes.slots();
        (!held.is_empty()).then(|| {
            Timestamp::from_millis(held.start * 60_000)..Timestamp::from_millis(held.end * 60_000)
        })
    }

    /// Grows whenever the past changed otherwise than by time going on: what was learnt from it must be learnt anew.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// From when on the load that was observed at `at` was observed.
    fn observed_from(&self, at: i64, load: &Load) -> i64 {
        let Some(last) = self.recorded else {
            return at - 1_000;
        };
        let gap = at - last.at_millis;
        if (0..=LONGEST_TURN_MILLIS).contains(&gap) {
            return at - gap.max(1);
        }
        // A turn that stalled for a minute brings a minute's pod-seconds, a clock that jumped brings a second's.
        let seconds = (load.pod_seconds / last.pods.max(f64::MIN_POSITIVE)).clamp(1.0, 3_600.0);
        let held = Duration::from_secs_f64(seconds).as_millis();
        let millis = i64::try_from(held).unwrap_or(LONGEST_TURN_MILLIS);
        at - if gap > 0 { millis.min(gap) } else { millis }
    }

    /// Whether `at` is too far from all that is held to be believed yet.
    fn doubts(&mut self, at: i64) -> bool {
        if at.unsigned_abs() > LAST_MILLIS {
            return true;
        }
        let held = self.minutes.slots();
        let slot = self.minutes.slot_of(at);
        let reach = i64::try_from(self.minutes.capacity()).unwrap_or(i64::MAX);
        if self.minutes.reaches(slot) && (held.is_empty() || slot - held.end < reach) {
            self.strange = 0;
            return false;
        }
        self.strange += 1;
        if self.strange < STRANGE_RECORDS {
            return true;
        }
        self.strange = 0;
        self.recorded = None;
        self.revision += 1;
        for tier in [&mut self.seconds, &mut self.tens, &mut self.minutes] {
            tier.restart_at(tier.slot_of(at));
        }
        false
    }
}

// === impl Bucket ===

impl Bucket {
    /// Whether anybody looked.
    pub fn is_observed(&self) -> bool {
        self.load.pod_seconds > 0.0 && self.seconds > 0.0
    }

    /// Arrivals a second.
    pub fn rate(&self) -> f64 {
        self.load.arrivals / self.seconds
    }

    /// Arrivals a second in its busiest second; where nobody looked so closely, as in the whole slot.
    pub fn busiest(&self) -> f64 {
        self.busiest.max(self.rate())
    }

    /// Mean requests in flight over all pods, waiting ones included.
    pub fn in_flight(&self) -> f64 {
        self.load.busy_seconds / self.seconds
    }

    /// Mean number of pods that reported.
    pub fn pods(&self) -> f64 {
        self.load.pod_seconds / self.seconds
    }

    /// Adds a bucket of another time.
    pub fn join(&mut self, other: &Self) {
        self.load.add(&other.load);
        self.seconds += other.seconds;
        self.busiest = self.busiest.max(other.busiest);
    }
}

fn minutes_in(length: Duration) -> usize {
    let length = length.clamp(Duration::from_secs(3_600), LONGEST);
    usize::try_from(length.as_secs() / 60).unwrap_or(60)
}

fn read<'a>(
    tier: &'a Tier,
    range: &Range<Timestamp>,
) -> impl Iterator<Item = (Timestamp, Option<Bucket>)> + use<'a> {
    let step = tier.step_millis();
    let first = tier.slot_of(range.start.as_millis());
    let end = tier.slot_of(range.end.as_millis().saturating_sub(1)) + 1;
    (first..end).map(move |slot| {
        let start = Timestamp::from_millis(slot.saturating_mul(step));
        (start, tier.get(slot).copied())
    })
}

fn merge_into(tier: &mut Tier, past: &Past, step: i64, window: &Range<i64>) {
    let tier_step = tier.step_millis();
    let capacity = tier_step.saturating_mul(i64::try_from(tier.capacity()).unwrap_or(i64::MAX));
    // Rounded inwards, and no further back than the ring can hold.
    let reach = window.end.saturating_sub(capacity);
    let first = (window.start.max(reach).saturating_add(tier_step - 1)).div_euclid(tier_step);
    let allowed = first..window.end.div_euclid(tier_step);
    let mut joined = Tier::new(tier_step, tier.capacity());
    let mut from = past.start_millis;
    for load in &past.slots {
        let to = from.saturating_add(step);
        let slots = tier.slot_of(from)..=tier.slot_of(to.saturating_sub(1));
        if load.pod_seconds > 0.0 && slots.end() >= &allowed.start && slots.start() < &allowed.end {
            joined.spread(from, to, load);
        }
        from = to;
    }
    for slot in joined.slots() {
        let Some(theirs) = joined.get(slot).filter(|_| allowed.contains(&slot)) else {
            continue;
        };
        if let Some(mine) = tier.open(slot) {
            mine.load.add(&theirs.load);
            // Members look at the same time at different pods: their pods add up, their seconds do not.
            mine.seconds = mine.seconds.max(theirs.seconds);
        }
    }
}
