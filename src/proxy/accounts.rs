//! What became of every request, counted exactly and without a lock on the request path.
//!
//! A request that arrives is an [`InFlight`] until it ends; dropping it is the end, so that no path, however it
//! breaks off, counts a request twice or never. Readers (the metrics, the report) take a [`Reading`] of sums that only
//! grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;

use super::flight::{Flight, Unwrapped};
use super::latency::{Durations, Latency};
use super::refused::{Reason, Refusals};
use crate::clock::{Clock, Instant};

/// The least time between two overrun signals, in the clock's time. A report costs a line of a few hundred bytes on
/// every signal: half of this doubles that in a burst, twice of this is a tenth of a second later at the leader.
const OVERRUN_PERIOD: Duration = Duration::from_millis(100);

/// No overrun was signalled yet.
const NEVER: u64 = u64::MAX;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response, whatever its status, was handed to the client's connection.
    Completed,
    /// The client left, or broke its own request off, before that.
    ClientGone,
    /// The upstream did not answer, or not to the end.
    UpstreamFailed,
    /// It was answered without the upstream: not listening yet, or not a request to pass on.
    Refused,
}

/// One proxy's counters.
#[derive(Debug)]
pub struct Accounts {
    clock: Clock,
    flight: Flight,
    arrivals: AtomicU64,
    completions: AtomicU64,
    client_gone: AtomicU64,
    upstream_failed: AtomicU64,
    refused: AtomicU64,
    /// Answers by status class, `1xx` to `5xx`.
    statuses: [AtomicU64; 5],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    frames_out: AtomicU64,
    first_byte: Latency,
    service: Latency,
    overrun: Overrun,
    heads: Refusals,
    /// Only readers meet here, never a request.
    unwrapped: Mutex<Unwrapped>,
}

/// Counters at one moment; all but `in_flight` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Requests that arrived.
    pub arrivals: u64,
    /// Requests that got their whole response.
    pub completions: u64,
    /// Requests whose client left first.
    pub client_gone: u64,
    /// Requests that the upstream did not answer to the end.
    pub upstream_failed: u64,
    /// Requests answered without the upstream.
    pub refused: u64,
    /// Requests in flight, waiting ones included.
    pub in_flight: u64,
    /// Answers by status class, `1xx` to `5xx`; those made here (502, 503) included.
    pub statuses: [u64; 5],
    /// Bytes of request bodies passed on.
    pub bytes_in: u64,
    /// Bytes of response bodies passed on.
    pub bytes_out: u64,
    /// Pieces in which they came: of a stream, roughly its chunks.
    pub frames_out: u64,
    /// Integral of requests in flight over time: request-seconds.
    pub busy: Duration,
    /// Sum of the times from arrival to end, over `completions`.
    pub service: Duration,
}

/// How long requests took, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// From arrival to the upstream's response head, of the requests that got one.
    pub first_byte: Durations,
    /// From arrival to end, of the requests completed.
    pub service: Durations,
}

/// One request, from its arrival to its end, which is the drop of this value.
#[derive(Debug)]
#[must_use = "dropping it is the end of the request"]
pub struct InFlight {
    /// `None` for what is carried and not counted.
    accounts: Option<Arc<Accounts>>,
    arrived_micros: u64,
    outcome: Outcome,
}

#[derive(Debug)]
struct Overrun {
    threshold: AtomicU64,
    fired_micros: AtomicU64,
    notify: Notify,
}

// === impl Accounts ===

impl Accounts {
    /// Empty counters that take their times from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            flight: Flight::default(),
            arrivals: AtomicU64::default(),
            completions: AtomicU64::default(),
            client_gone: AtomicU64::default(),
            upstream_failed: AtomicU64::default(),
            refused: AtomicU64::default(),
            statuses: Default::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            frames_out: AtomicU64::default(),
            first_byte: Latency::default(),
            service: Latency::default(),
            overrun: Overrun {
                threshold: AtomicU64::new(u64::MAX),
                fired_micros: AtomicU64::new(NEVER),
                notify: Notify::new(),
            },
            heads: Refusals::default(),
            unwrapped: Mutex::default(),
        }
    }

    /// So many bytes of a request body were passed on.
    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// A request arrives now.
    pub fn arrive(self: &Arc<Self>) -> InFlight {
        let now = self.now_micros();
        self.arrivals.fetch_add(1, Relaxed);
        let in_flight = self.flight.arrive(now);
        if in_flight > self.overrun.threshold.load(Relaxed) {
            self.overrun.fire(now);
        }
        InFlight {
            accounts: Some(Arc::clone(self)),
            arrived_micros: now,
            outcome: Outcome::ClientGone,
        }
    }

    /// How many requests are in flight, waiting ones included.
    pub fn in_flight(&self) -> u64 {
        self.flight.count()
    }

    /// All counters; `now` is the end of the time that `busy` covers.
    ///
    /// At least one reader must come by per 17 million request-seconds, or `busy` loses multiples of that.
    pub fn read(&self, now: Instant) -> Reading {
        let (in_flight, busy_micros) = {
            let mut unwrapped = self
                .unwrapped
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.flight.read(micros_of(now), &mut unwrapped)
        };
        // After the flight: an end counts its outcome first, so who sees nothing in flight sees every outcome.
        Reading {
            completions: self.completions.load(Relaxed),
            client_gone: self.client_gone.load(Relaxed),
            upstream_failed: self.upstream_failed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            arrivals: self.arrivals.load(Relaxed),
            in_flight,
            statuses: self.statuses.each_ref().map(|class| class.load(Relaxed)),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            busy: Duration::from_micros(busy_micros),
            service: self.service.sum(),
        }
    }

    /// How long requests took so far.
    pub fn latencies(&self) -> Latencies {
        Latencies {
            first_byte: self.first_byte.read(),
            service: self.service.read(),
        }
    }

    /// A head was refused for this reason.
    pub fn refuse_head(&self, reason: Reason) {
        self.heads.add(reason);
    }

    /// Heads that were refused, by the word of their reason.
    pub fn refused_heads(&self) -> Vec<(&'static str, u64)> {
        self.heads.read()
    }

    /// Signals an overrun from now on when more than `in_flight` requests are in flight; `None`: never.
    pub fn set_overrun_threshold(&self, in_flight: Option<u64>) {
        self.overrun
            .threshold
            .store(in_flight.unwrap_or(u64::MAX), Relaxed);
    }

    /// Waits for a request that arrives above the threshold; at most one signal in 100 ms of the clock.
    ///
    /// For one waiter: a signal that comes while nobody waits is kept for the next.
    pub async fn overrun(&self) {
        self.overrun.notify.notified().await;
    }

    fn now_micros(&self) -> u64 {
        micros_of(self.clock.instant())
    }
}

// === impl Reading ===

impl Reading {
    /// Requests that ended other than with their whole response.
    pub fn failures(&self) -> u64 {
        self.client_gone + self.upstream_failed + self.refused
    }
}

// === impl InFlight ===

impl InFlight {
    /// For what is carried and is no load: health checks, scrapes.
    pub fn uncounted() -> Self {
        Self {
            accounts: None,
            arrived_micros: 0,
            outcome: Outcome::ClientGone,
        }
    }

    /// The upstream's response head is here.
    pub fn first_byte(&mut self) {
        if let Some(accounts) = &self.accounts {
            let waited = accounts.now_micros().saturating_sub(self.arrived_micros);
            accounts.first_byte.add(waited);
        }
    }

    /// This status goes to the client.
    pub fn answered(&mut self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        if let Some(class) = self.accounts.as_ref().and_then(|a| a.statuses.get(class)) {
            class.fetch_add(1, Relaxed);
        }
    }

    /// So many bytes of the response body were passed on, in one piece.
    pub fn sent(&self, bytes: usize) {
        if let Some(accounts) = &self.accounts {
            accounts.frames_out.fetch_add(1, Relaxed);
            accounts.bytes_out.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// So many bytes of the request body were passed on.
    pub(super) fn received(&self, bytes: usize) {
        if let Some(accounts) = &self.accounts {
            accounts.received(bytes);
        }
    }

    /// Where it is counted; `None`: it is not.
    pub(super) fn accounts(&self) -> Option<&Arc<Accounts>> {
        self.accounts.as_ref()
    }

    /// What the end will be counted as.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What the end will be counted as; without a word the client is taken to have left.
    pub fn will_end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(accounts) = self.accounts.take() else {
            return;
        };
        let now = accounts.now_micros();
        let counter = match self.outcome {
            Outcome::Completed => {
                let served = now.saturating_sub(self.arrived_micros);
                accounts.service.add(served);
                &accounts.completions
            }
            Outcome::ClientGone => &accounts.client_gone,
            Outcome::UpstreamFailed => &accounts.upstream_failed,
            Outcome::Refused => &accounts.refused,
        };
        counter.fetch_add(1, Relaxed);
        // Last, and a release: see `Accounts::read`.
        accounts.flight.end(now);
    }
}

// === impl Overrun ===

impl Overrun {
    fn fire(&self, now_micros: u64) {
        let period = u64::try_from(OVERRUN_PERIOD.as_micros()).unwrap_or(u64::MAX);
        let fired = self.fired_micros.load(Relaxed);
        if fired != NEVER && now_micros.saturating_sub(fired) < period {
            return;
        }
        // Of two that come at once, one speaks for both.
        if self
            .fired_micros
            .compare_exchange(fired, now_micros, Relaxed, Relaxed)
            .is_ok()
        {
            self.notify.notify_one();
        }
    }
}

fn micros_of(instant: Instant) -> u64 {
    u64::try_from(instant.offset().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
