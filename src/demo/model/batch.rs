//! The slots of one server: sequences that run together, and those that wait for a slot, first come first served.
//!
//! A slot passes from one sequence to the next at the moment its schedule says, not at the moment a timer woke up. Timers
//! fire up to a millisecond or two late, which at twenty times life is 40 ms of a service of a second or two: a server
//! that started each sequence on waking would be a few per cent slower than its settings say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::clock::Instant;

/// The slots of one server.
#[derive(Debug)]
pub(super) struct Batch {
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// The right to run; passed on when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None` once it was passed on.
    batch: Option<Arc<Batch>>,
    /// When the schedule freed it: for the holder, when it got the slot; after [`Slot::finish`], when it gives it.
    free_since: Option<Instant>,
}

// === impl Batch ===

impl Batch {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            size,
            state: Mutex::default(),
        })
    }

    /// Waits for a slot. Who stops waiting loses its place and nothing else.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        let turn = {
            let mut state = self.lock();
            if state.running < self.size {
                state.running += 1;
                None
            } else {
                let (sender, turn) = oneshot::channel();
                state.waiting.push_back(sender);
                Some(turn)
            }
        };
        match turn {
            None => self.slot(None),
            Some(turn) => turn
                .await
                .expect("the senders live in the batch, which lives as long as who waits in it"),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn running(&self) -> usize {
        self.lock().running
    }

    /// Requests that wait, without those whose clients have left.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state
            .waiting
            .iter()
            .filter(|turn| !turn.is_closed())
            .count()
    }

    fn slot(self: &Arc<Self>, free_since: Option<Instant>) -> Slot {
        Slot {
            batch: Some(Arc::clone(self)),
            free_since,
        }
    }

    /// Gives a slot to the first that still waits, or back.
    fn pass_on(self: &Arc<Self>, free_since: Option<Instant>) {
        loop {
            let turn = {
                let mut state = self.lock();
                let turn = state.waiting.pop_front();
                if turn.is_none() {
                    state.running -= 1;
                }
                turn
            };
            let Some(turn) = turn else {
                return;
            };
            // Sent without the lock: a receiver that is dropped later drops the slot, which comes back here.
            match turn.send(self.slot(free_since)) {
                Ok(()) => return,
                // The next turn is looked for here, not by dropping this slot, which would recurse once per client gone.
                Err(mut unwanted) => unwanted.batch = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slot ===

impl Slot {
    /// When its sequence starts, if it arrived at `arrived` and holds the slot at `now`.
    pub(super) fn start(&self, arrived: Instant, now: Instant) -> Instant {
        // The slot may be free by schedule before the request arrived that found its timer not yet awake.
        self.free_since.map_or(now, |since| since.max(arrived))
    }

    /// Others that run now, without this one.
    pub(super) fn others(&self) -> usize {
        let running = self.batch.as_ref().map_or(1, |batch| batch.running());
        running.saturating_sub(1)
    }

    /// Passes the slot on as of `due`, the moment the sequence ends by its schedule.
    pub(super) fn finish(mut self, due: Instant) {
        if let Some(batch) = self.batch.take() {
            batch.pass_on(Some(due));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            // Abandoned in the middle: the next one starts when it wakes.
            batch.pass_on(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::Tasks;

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    #[tokio::test]
    async fn slots_are_passed_on_in_order_and_by_schedule() {
        let batch = Batch::new(1);
        let first = batch.enter().await;
        assert_eq!(first.start(at(1), at(2)), at(2), "free at once");
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks = Tasks::here();
        for number in 0..3 {
            let (waiter, order) = (Arc::clone(&batch), Arc::clone(&order));
            tasks.spawn(async move {
                let slot = waiter.enter().await;
                let start = slot.start(at(3), at(99));
                order.lock().expect("no panic").push((number, start));
                slot.finish(start + Duration::from_secs(10));
            });
            while batch.waiting() <= number {
                tokio::task::yield_now().await;
            }
        }
        first.finish(at(2));
        while batch.running() > 0 {
            tokio::task::yield_now().await;
        }
        // Freed at 2 s by schedule, but the first arrived at 3 s; from there one after the other.
        assert_eq!(
            *order.lock().expect("no panic"),
            [(0, at(3)), (1, at(13)), (2, at(23))]
        );
    }

    #[tokio::test]
    async fn who_leaves_the_queue_or_a_slot_takes_nothing_along() {
        let batch = Batch::new(1);
        let first = batch.enter().await;
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(batch.enter())).collect();
        for wait in &mut waits {
            assert!(futures_util::poll!(wait.as_mut()).is_pending());
        }
        assert_eq!((batch.running(), batch.waiting()), (1, 3));
        drop(waits.remove(0));
        assert_eq!(batch.waiting(), 2);
        first.finish(at(5));
        // The slot has been sent to the second, who leaves before taking it: the third gets it.
        drop(waits.remove(0));
        let third = waits.remove(0).await;
        assert_eq!((batch.running(), batch.waiting()), (1, 0));
        assert_eq!(
            third.start(at(1), at(9)),
            at(9),
            "it was abandoned, not due"
        );
        drop(third);
        assert_eq!(batch.running(), 0);
    }
}
