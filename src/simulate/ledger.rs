//! What a policy cost, counted while it is played.

use crate::baseline::{Witness, World};
use crate::forecast::ForecastPoint;

/// Columns of a picture: about as many as a screen has.
const COLUMNS: u64 = 1_200;

/// A wait beyond this many seconds is this long: a queue that is never served would make the table as long as the trace.
const LONGEST_WAIT: usize = 86_400;

/// What became of the requests and the pods from the end of the warm-up on.
///
/// A request belongs to the second in which it came, so what is left of the warm-up's queue is not scored.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// The world's second that is scored first.
    from: u64,
    pub(super) requests: f64,
    pub(super) violations: f64,
    pub(super) cold_waits: f64,
    pub(super) pod_seconds: f64,
    pub(super) changes: u64,
    /// Requests by the whole seconds that they waited.
    waits: Vec<f64>,
    pub(super) sketch: Sketch,
}

/// The same in columns, for a picture; the warm-up is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    /// Seconds in a column.
    pub(super) step: u64,
    /// Pod-seconds paid.
    pub(super) paid: Vec<f64>,
    /// Requests that came in it and violate.
    pub(super) late: Vec<f64>,
    /// What was forecast for it, one lead time before.
    pub(super) band: Vec<Option<ForecastPoint>>,
}

// === impl Ledger ===

impl Ledger {
    /// For `length` seconds, of which those from `from` on are scored.
    pub(super) fn new(from: u64, length: u64) -> Self {
        Self {
            from,
            requests: 0.0,
            violations: 0.0,
            cold_waits: 0.0,
            pod_seconds: 0.0,
            changes: 0,
            waits: Vec::new(),
            sketch: Sketch::new(length),
        }
    }

    pub(super) fn is_scored(&self, second: u64) -> bool {
        second >= self.from
    }

    /// An observed second with what came and what was paid for in it.
    pub(super) fn second(&mut self, second: u64, arrivals: f64, replicas: u32) {
        let paid = f64::from(replicas);
        add(&mut self.sketch.paid, second / self.sketch.step, paid);
        if self.is_scored(second) {
            self.requests += arrivals;
            self.pod_seconds += paid;
        }
    }

    /// The end: what still waits has waited until now.
    pub(super) fn close(&mut self, world: &World, now: u64) {
        for (arrived, count) in world.queue() {
            self.started(arrived, now, count);
        }
    }

    /// The whole seconds that at most `1 - share` of the requests waited longer than.
    pub(super) fn wait(&self, share: f64) -> u64 {
        let total: f64 = self.waits.iter().sum();
        let mut sum = 0.0;
        for (wait, count) in self.waits.iter().enumerate() {
            sum += count;
            if sum >= share * total {
                return wait as u64;
            }
        }
        0
    }
}

impl Witness for Ledger {
    fn started(&mut self, arrived: u64, now: u64, count: f64) {
        if !self.is_scored(arrived) {
            return;
        }
        let wait = usize::try_from(now - arrived)
            .unwrap_or(LONGEST_WAIT)
            .min(LONGEST_WAIT);
        if self.waits.len() <= wait {
            self.waits.resize(wait + 1, 0.0);
        }
        self.waits[wait] += count;
    }

    fn late(&mut self, arrived: u64, count: f64, is_starting: bool) {
        add(&mut self.sketch.late, arrived / self.sketch.step, count);
        if self.is_scored(arrived) {
            self.violations += count;
            if is_starting {
                self.cold_waits += count;
            }
        }
    }
}

// === impl Sketch ===

impl Sketch {
    fn new(length: u64) -> Self {
        let step = length.div_ceil(COLUMNS).max(1);
        let columns = usize::try_from(length.div_ceil(step)).unwrap_or(0);
        Self {
            step,
            paid: vec![0.0; columns],
            late: vec![0.0; columns],
            band: vec![None; columns],
        }
    }

    /// Keeps what is forecast for the second `ahead` from now.
    pub(super) fn foresee(&mut self, ahead: u64, point: Option<ForecastPoint>) {
        let column = usize::try_from(ahead / self.step).unwrap_or(usize::MAX);
        if let Some(band) = self.band.get_mut(column) {
            *band = point;
        }
    }
}

fn add(columns: &mut [f64], column: u64, what: f64) {
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    if let Some(sum) = columns.get_mut(column) {
        *sum += what;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_the_warm_up_is_not_scored() {
        let mut ledger = Ledger::new(10, 100);
        ledger.second(9, 5.0, 3);
        ledger.second(10, 7.0, 3);
        ledger.late(9, 5.0, true);
        ledger.late(10, 2.0, true);
        ledger.late(11, 1.0, false);
        assert!((ledger.requests - 7.0).abs() < 1e-12);
        assert!((ledger.violations - 3.0).abs() < 1e-12);
        assert!((ledger.cold_waits - 2.0).abs() < 1e-12);
        assert!((ledger.pod_seconds - 3.0).abs() < 1e-12);
        assert!((ledger.sketch.late[9] - 5.0).abs() < 1e-12);
    }

    #[test]
    fn a_quantile_of_the_waits_is_a_wait_that_was_seen() {
        let mut ledger = Ledger::new(0, 100);
        assert_eq!(ledger.wait(0.99), 0);
        ledger.started(0, 0, 985.0);
        ledger.started(0, 4, 10.0);
        ledger.started(0, 30, 5.0);
        assert_eq!((ledger.wait(0.5), ledger.wait(0.99)), (0, 4));
        assert_eq!(ledger.wait(0.999), 30);
        ledger.started(0, u64::MAX, 1_000.0);
        assert_eq!(ledger.wait(0.999), LONGEST_WAIT as u64);
    }
}
