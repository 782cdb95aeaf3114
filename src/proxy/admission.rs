//! How many requests the server has at once, and who waits for it.
//!
//! A GPU server that takes more than fits its memory answers all of them late, or falls over. With a limit the others
//! wait here, in the order of their arrival, where they are in flight for the planner and no weight on the server. A queue
//! that has no end helps nobody: beyond its length, and beyond a time, a request is turned away with what to do next, while
//! another pod may still answer it.
//!
//! A client of HTTP/1 that leaves with a body unread is not heard of before its turn: hyper reads on when the body is asked
//! for. Until then it takes a place in the queue, and none at the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::units::Shown;

/// How long a request waits for the server at most where nobody said otherwise. Half of it turns away what a pod's burst
/// would still have been answered in; twice of it is longer than most clients and gateways wait.
const WAIT: Duration = Duration::from_secs(30);
/// Places in the queue for each request at the server: Knative's queue-proxy has as many.
const PLACES: u32 = 10;

/// How many requests at once, and how many more may wait how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests that the server has at once, over all routes; above 0.
    pub concurrent: u32,
    /// Requests that wait beside them.
    pub queued: u32,
    /// How long one waits at most.
    pub wait: Duration,
}

/// Lets requests through to one server.
#[derive(Debug, Default)]
pub struct Admission {
    gate: Option<Gate>,
}

#[derive(Debug)]
struct Gate {
    limit: Limit,
    places: Arc<Semaphore>,
    waiting: AtomicU64,
}

/// A place at the server. Dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "dropping it lets the next request in"]
pub(super) struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    /// The queue is full.
    #[error(
        "the server has its {} requests and {} wait: try again, or raise --max-concurrent or --max-queued",
        .0.concurrent,
        .0.queued
    )]
    Full(Limit),
    /// It waited for too long.
    #[error(
        "no place among the server's {} requests within {}: try again, or raise --max-concurrent or --queue-timeout",
        .0.concurrent,
        Shown(.0.wait)
    )]
    Late(Limit),
}

/// One more waits, until this is dropped.
struct Waiting<'a>(&'a AtomicU64);

// === impl Limit ===

impl Limit {
    /// So many requests at once, and the defaults for those that wait.
    pub fn new(concurrent: u32) -> Self {
        Self {
            concurrent,
            queued: concurrent.saturating_mul(PLACES),
            wait: WAIT,
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Keeps `limit`; `None`: everybody passes.
    pub fn new(limit: Option<Limit>) -> Self {
        Self {
            gate: limit.map(|limit| Gate {
                limit,
                places: Arc::new(Semaphore::new(limit.concurrent as usize)),
                waiting: AtomicU64::new(0),
            }),
        }
    }

    /// Requests that wait for a place now.
    pub fn waiting(&self) -> u64 {
        self.gate
            .as_ref()
            .map_or(0, |gate| gate.waiting.load(Relaxed))
    }

    /// Waits for a place, in the order of arrival; `None`: there is no limit. Dropping this future gives the place in the
    /// queue up.
    pub(super) async fn admit(&self, clock: &Clock) -> Result<Option<Permit>, TurnedAway> {
        let Some(gate) = &self.gate else {
            return Ok(None);
        };
        let places = Arc::clone(&gate.places);
        // A place that is given back goes to who waits first: what is left over is free.
        if let Ok(permit) = Arc::clone(&places).try_acquire_owned() {
            return Ok(Some(Permit(permit)));
        }
        let limit = gate.limit;
        let Some(_waiting) = gate.queue_up() else {
            return Err(TurnedAway::Full(limit));
        };
        match clock.timeout(limit.wait, places.acquire_owned()).await {
            // It is never closed.
            Ok(permit) => Ok(permit.ok().map(Permit)),
            Err(_elapsed) => Err(TurnedAway::Late(limit)),
        }
    }
}

// === impl Gate ===

impl Gate {
    /// `None`: the queue is full.
    fn queue_up(&self) -> Option<Waiting<'_>> {
        let most = u64::from(self.limit.queued);
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        let queued = self.waiting.fetch_update(Relaxed, Relaxed, one_more);
        queued.ok().map(|_before| Waiting(&self.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::{advance, pause};

    use super::*;

    fn admission(concurrent: u32, queued: u32) -> Admission {
        Admission::new(Some(Limit {
            concurrent,
            queued,
            wait: Duration::from_secs(3),
        }))
    }

    #[tokio::test]
    async fn without_a_limit_everybody_passes() {
        let (open, clock) = (Admission::default(), Clock::real());
        let mut permits = Vec::new();
        for _ in 0..1_000 {
            permits.push(open.admit(&clock).await.expect("open"));
        }
        assert!(permits.iter().all(Option::is_none) && open.waiting() == 0);
    }

    #[tokio::test]
    async fn who_came_first_is_let_in_first_and_who_leaves_is_passed_over() {
        let (gate, clock) = (admission(1, 3), Clock::real());
        let first = gate.admit(&clock).await.expect("a place");
        let mut second = Box::pin(gate.admit(&clock));
        let mut third = Box::pin(gate.admit(&clock));
        let mut fourth = Box::pin(gate.admit(&clock));
        for waiting in [&mut second, &mut third, &mut fourth] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        assert_eq!(gate.waiting(), 3);
        let fifth = gate.admit(&clock).await;
        assert!(matches!(fifth, Err(TurnedAway::Full(_))), "{fifth:?}");
        drop(second);
        drop(first);
        // The place is the third's: nobody who comes now gets ahead of it.
        let mut late = Box::pin(gate.admit(&clock));
        assert!(late.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        let third = third.as_mut().now_or_never().expect("it is its turn");
        assert_eq!(gate.waiting(), 2);
        drop(third);
        assert!(late.as_mut().now_or_never().is_none());
        let permit = fourth.as_mut().now_or_never().expect("it is its turn");
        permit.expect("a place");
    }

    #[tokio::test]
    async fn who_waited_for_too_long_is_turned_away_and_leaves_no_trace() {
        pause();
        let (gate, clock) = (admission(1, 1), Clock::real());
        let held = gate.admit(&clock).await.expect("a place");
        let mut waiting = Box::pin(gate.admit(&clock));
        assert!(waiting.as_mut().now_or_never().is_none());
        advance(Duration::from_secs(3)).await;
        let error = waiting.await.expect_err("it is late");
        assert_eq!(
            error.to_string(),
            "no place among the server's 1 requests within 3s: try again, or raise --max-concurrent or --queue-timeout"
        );
        assert_eq!(gate.waiting(), 0);
        drop(held);
        gate.admit(&clock).await.expect("a place");
    }
}
