//! One resolution of the history: a ring of equal slots of wall-clock time, the oldest overwritten.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ringbuf::HeapRb;
use ringbuf::traits::{Consumer as _, Observer as _, Producer as _};
use ringbuf::{Cons, Prod};

use super::Bucket;
use crate::report::Load;

/// Turns are a second apart.
const SHORTEST_LOOK_MILLIS: i64 = 500;

/// Slots are numbered from the Unix epoch, so that two tiers, two processes and two days agree where a slot begins.
///
/// Both ends of the ring are held here: ringbuf shows its contents through a shared reference only to a consumer, and
/// a history is read far more often than written.
pub(super) struct Tier {
    writer: Prod<Arc<HeapRb<Bucket>>>,
    reader: Cons<Arc<HeapRb<Bucket>>>,
    step_millis: i64,
    /// The number of the slot after the newest.
    next: i64,
}

// === impl Tier ===

impl Tier {
    /// An empty tier of `slots` slots of `step_millis` each; both above 0.
    pub(super) fn new(step_millis: i64, slots: usize) -> Self {
        let ring = Arc::new(HeapRb::new(slots.max(1)));
        Self {
            writer: Prod::new(Arc::clone(&ring)),
            reader: Cons::new(ring),
            step_millis: step_millis.max(1),
            next: 0,
        }
    }

    /// How many slots it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.reader.capacity().get()
    }

    /// The slots it holds, missing ones between the oldest and the newest included.
    pub(super) fn slots(&self) -> Range<i64> {
        self.next - count(self.reader.occupied_len())..self.next
    }

    /// The slot that `millis` lies in.
    pub(super) fn slot_of(&self, millis: i64) -> i64 {
        millis.div_euclid(self.step_millis)
    }

    /// Length of a slot.
    pub(super) fn step_millis(&self) -> i64 {
        self.step_millis
    }

    /// What was observed in a slot; `None`: nothing, or nothing any more.
    pub(super) fn get(&self, slot: i64) -> Option<&Bucket> {
        let index = usize::try_from(slot.checked_sub(self.slots().start)?).ok()?;
        let (old, new) = self.reader.as_slices();
        old.get(index)
            .or_else(|| new.get(index - old.len()))
            .filter(|bucket| bucket.is_observed())
    }

    /// The slot to write into, made if it is new; `None` when it is older than the ring reaches back.
    pub(super) fn open(&mut self, slot: i64) -> Option<&mut Bucket> {
        let held = self.slots();
        let capacity = count(self.capacity());
        if held.is_empty() || slot.saturating_sub(held.end) >= capacity {
            self.reader.clear();
            self.next = slot;
        } else if slot < held.start {
            if !self.reaches(slot) {
                return None;
            }
            self.reach_back_to(slot);
        }
        while self.next <= slot {
            self.push(Bucket::default());
        }
        let index = usize::try_from(slot - self.slots().start).ok()?;
        let (old, new) = self.reader.as_mut_slices();
        let split = old.len();
        old.get_mut(index)
            .or_else(|| new.get_mut(index.wrapping_sub(split)))
    }

    /// Shares a load observed evenly over `[from, to)` milliseconds among the slots it touches.
    pub(super) fn spread(&mut self, from: i64, to: i64, load: &Load) {
        let step = self.step_millis;
        for slot in self.slot_of(from)..=self.slot_of(to - 1) {
            let overlap = to.min((slot + 1) * step) - from.max(slot * step);
            if let Some(bucket) = self.open(slot) {
                let share = as_f64(overlap) / as_f64(to - from);
                bucket.load.add(&load.scaled(share));
                bucket.seconds += as_f64(overlap) / 1000.0;
            }
        }
    }

    /// The same load as one look, for the slot's busiest second.
    pub(super) fn note_busiest(&mut self, from: i64, to: i64, load: &Load) {
        // A look of some milliseconds that meets one request tells no rate.
        if to - from < SHORTEST_LOOK_MILLIS {
            return;
        }
        let rate = load.arrivals * 1000.0 / as_f64(to - from);
        if let Some(bucket) = self.open(self.slot_of(to - 1)) {
            bucket.busiest = bucket.busiest.max(rate);
        }
    }

    /// Appends a slot, giving up the oldest when full.
    pub(super) fn push(&mut self, bucket: Bucket) {
        if self.writer.is_full() {
            self.reader.try_pop();
        }
        let refused = self.writer.try_push(bucket);
        debug_assert!(refused.is_ok(), "a slot was freed before");
        self.next += 1;
    }

    /// Whether the ring could hold `slot` beside its newest, whether or not it does.
    pub(super) fn reaches(&self, slot: i64) -> bool {
        let held = self.slots();
        held.is_empty() || held.end.saturating_sub(slot) <= count(self.capacity())
    }

    /// Starts at `slot`, empty.
    pub(super) fn restart_at(&mut self, slot: i64) {
        self.reader.clear();
        self.next = slot;
    }

    fn reach_back_to(&mut self, slot: i64) {
        let held = self.slots();
        let kept: Vec<Bucket> = self.reader.iter().copied().collect();
        self.restart_at(slot);
        for _missing in slot..held.start {
            self.push(Bucket::default());
        }
        for bucket in kept {
            self.push(bucket);
        }
    }
}

impl Clone for Tier {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.step_millis, self.capacity());
        copy.restart_at(self.slots().start);
        for bucket in self.reader.iter() {
            copy.push(*bucket);
        }
        copy
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier")
            .field("step_millis", &self.step_millis)
            .field("slots", &self.slots())
            .finish_non_exhaustive()
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// Milliseconds within a tier are far below 2^53.
pub(super) fn as_f64(millis: i64) -> f64 {
    millis as f64
}
