//! Turns what the proxy counts, or the server says of itself, and the GPU shows into reports, and remembers the last hour.
//!
//! Once a second, by the caller's clock, the caller takes a report; the meter integrates what happened since the last
//! one into its cumulative [`Load`] and into a ring of ten-second slots. The ring answers a new leader whose checkpoint
//! is older than its term.

use std::sync::Arc;
use std::time::Duration;

use ringbuf::LocalRb;
use ringbuf::storage::Heap;
use ringbuf::traits::Observer as _;

use super::{GpuReading, Load, Past, Report, WIRE_VERSION};
use crate::clock::{Instant, Now};
use crate::engine;
use crate::proxy::{Accounts, Reading};

/// Length of a slot of the ring.
const SLOT: Duration = Duration::from_secs(SLOT_SECONDS as u64);
const SLOT_SECONDS: u32 = 10;
/// Slots of the ring: an hour. A leader saves a checkpoint every few minutes, so an hour covers a control plane that
/// was away for most of one; a slot is 64 bytes, the hour 23 KiB.
const SLOTS: usize = 360;

/// The state of a pod beyond its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Status {
    /// Whether the pod takes requests.
    pub ready: bool,
    /// Whether it was asked to drain.
    pub draining: bool,
    /// The GPU now, where there is one.
    pub gpu: Option<GpuReading>,
    /// Connections of clients, where it carries them.
    pub connections: Option<u64>,
    /// What the server says of its load, where that and not the accounts is the pod's.
    pub server: Option<engine::Counts>,
    /// Whether it leads in no case.
    pub follows: bool,
}

/// Takes one pod's reports.
pub struct Meter {
    pod: String,
    epoch: u64,
    accounts: Arc<Accounts>,
    started: Instant,
    seq: u64,
    total: Load,
    last: Instant,
    last_reading: Reading,
    /// `None`: at the last report the load was the accounts'.
    last_server: Option<engine::Sums>,
    slots: LocalRb<Heap<Load>>,
    /// The slot that is being filled.
    open: Load,
    /// When the open slot began.
    opened: Instant,
}

// === impl Meter ===

impl Meter {
    /// Measures from `now` on what `accounts` count. `epoch` is a number that no other process of the pod has had.
    pub fn new(pod: String, epoch: u64, accounts: Arc<Accounts>, now: Now) -> Self {
        Self {
            pod,
            epoch,
            last_reading: accounts.read(now.instant),
            last_server: None,
            accounts,
            started: now.instant,
            seq: 0,
            total: Load::default(),
            last: now.instant,
            slots: LocalRb::new(SLOTS),
            open: Load::default(),
            opened: now.instant,
        }
    }

    /// The report of this moment.
    ///
    /// The GPU's utilisation is taken to have held since the report before. Of what happened since then, the source that
    /// holds now tells its own part: where the policy changes it, the sums go on from where they are.
    pub fn report(&mut self, now: Now, status: Status) -> Report {
        let reading = self.accounts.read(now.instant);
        let passed = now.instant.since(self.last);
        let mut step = gpu_over(passed, status.gpu);
        step.add(&match status.server {
            None => load_between(&self.last_reading, &reading, passed),
            Some(server) => {
                let earlier = self.last_server.unwrap_or(server.sums);
                observed(&server.sums.since(&earlier))
            }
        });
        self.total.add(&step);
        self.remember(step, now.instant);
        self.last = now.instant.max(self.last);
        self.last_reading = reading;
        self.last_server = status.server.map(|server| server.sums);
        self.seq += 1;
        let at = now.instant.since(self.started);
        Report {
            v: WIRE_VERSION,
            pod: self.pod.clone(),
            epoch: self.epoch,
            seq: self.seq,
            at_millis: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            total: self.total,
            in_flight: status
                .server
                .map_or(reading.in_flight, |server| whole(server.in_flight)),
            load_unknown: status.server.is_some_and(|server| !server.is_fresh),
            ready: status.ready,
            draining: status.draining,
            gpu: status.gpu,
            connections: status.connections,
            follows: status.follows,
        }
    }

    /// The slots that end after `since_millis` (wall clock, milliseconds since the Unix epoch), as far as they are kept.
    ///
    /// The last slot is the one that is being filled: its `pod_seconds` say how much of it was observed.
    pub fn past(&mut self, now: Now, since_millis: i64) -> Past {
        // Both from this moment's wall clock: a jump moves the whole past along and tears no slot.
        let slot_millis = i64::from(SLOT_SECONDS) * 1_000;
        let opened_millis = (now.timestamp - now.instant.since(self.opened)).as_millis();
        let kept = self.slots.occupied_len();
        let wanted = opened_millis
            .saturating_sub(since_millis)
            .saturating_add(slot_millis - 1)
            .div_euclid(slot_millis);
        let wanted = usize::try_from(wanted).unwrap_or(0).min(kept);
        let mut slots: Vec<Load> = self.slots.iter().skip(kept - wanted).copied().collect();
        slots.push(self.open);
        Past {
            start_millis: opened_millis - slot_millis * i64::try_from(wanted).unwrap_or(0),
            step_seconds: SLOT_SECONDS,
            slots,
        }
    }

    /// Spreads `step`, which happened from the last report to `now`, over the slots it touches.
    fn remember(&mut self, step: Load, now: Instant) {
        let passed = now.since(self.last);
        let mut from = self.last;
        // After a stop of the process longer than the ring, the slots it would fill are gone again at once.
        let oldest = now - SLOT * u32::try_from(SLOTS).unwrap_or(u32::MAX);
        while now >= self.opened + SLOT {
            let ends = self.opened + SLOT;
            if ends > oldest {
                self.open.add(&part(&step, ends.since(from), passed));
                self.slots.push_overwrite(self.open);
                self.open = Load::default();
            }
            from = ends.max(from);
            self.opened = ends;
        }
        self.open.add(&part(&step, now.since(from), passed));
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("pod", &self.pod)
            .field("epoch", &self.epoch)
            .field("seq", &self.seq)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// The share of `step` that fell into `length` of the `whole` it took. What takes no time belongs where it ends.
fn part(step: &Load, length: Duration, whole: Duration) -> Load {
    if whole.is_zero() {
        return *step;
    }
    step.scaled(length.as_secs_f64() / whole.as_secs_f64())
}

fn load_between(earlier: &Reading, later: &Reading, passed: Duration) -> Load {
    let counted = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64;
    let seconds = |later: Duration, earlier: Duration| later.saturating_sub(earlier).as_secs_f64();
    Load {
        pod_seconds: passed.as_secs_f64(),
        arrivals: counted(later.arrivals, earlier.arrivals),
        completions: counted(later.completions, earlier.completions),
        failures: counted(later.failures(), earlier.failures()),
        busy_seconds: seconds(later.busy, earlier.busy),
        service_seconds: seconds(later.service, earlier.service),
        ..Load::default()
    }
}

/// What a server said of a time; where it said nothing, no pod-second is observed.
fn observed(sums: &engine::Sums) -> Load {
    Load {
        pod_seconds: sums.observed_seconds,
        arrivals: sums.arrivals,
        completions: sums.completions,
        failures: sums.failures,
        busy_seconds: sums.busy_seconds,
        service_seconds: sums.service_seconds,
        ..Load::default()
    }
}

fn gpu_over(passed: Duration, gpu: Option<GpuReading>) -> Load {
    let passed = passed.as_secs_f64();
    Load {
        gpu_busy_seconds: gpu.map_or(0.0, |gpu| gpu.utilization * passed),
        gpu_observed_seconds: gpu.map_or(0.0, |_| passed),
        ..Load::default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of requests, at least 0"
)]
fn whole(in_flight: f64) -> u64 {
    in_flight.round() as u64
}

#[cfg(test)]
mod tests;
