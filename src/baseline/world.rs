//! A small world in which a rule acts on given arrivals.
//!
//! One second a step; first in, first out; perfect balancing. A ready pod serves `pod_rps` requests a second, a pod asked
//! for at t serves from t + cold start, and a request violates when it waits longer than the SLO to be started. This
//! flatters every rule (real balancing is worse, real metrics are later), which is the right direction for a
//! comparison that we want to win.
//!
//! Its requests are a fluid: counts may have fractions, and a second's requests are told apart by nothing but the second.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;

/// Hears what becomes of the requests of a [`World`]. Seconds are counted from the world's first, which is 0.
pub trait Witness {
    /// So many requests of second `arrived` were started in second `now`.
    fn started(&mut self, arrived: u64, now: u64, count: f64);

    /// So many requests of second `arrived` can no more be started within the SLO; `is_starting`: while pods that were
    /// asked for do not serve yet.
    fn late(&mut self, arrived: u64, count: f64, is_starting: bool);
}

/// Pods, a queue and what they cost.
#[derive(Clone, Debug)]
pub struct World {
    pod_rps: f64,
    cold_start: Duration,
    slo_secs: f64,
    ready: u32,
    /// When each starting pod was asked for, oldest first.
    starting: VecDeque<Instant>,
    /// Waiting requests: the second of their arrival and how many, oldest first.
    queue: VecDeque<(u64, f64)>,
    /// How many entries at the queue's front already count as violations.
    late: usize,
    /// The second that comes next.
    second: u64,
    waiting: f64,
    requests: f64,
    violations: f64,
    pod_seconds: f64,
}

/// Nobody listens.
impl Witness for () {
    fn started(&mut self, _arrived: u64, _now: u64, _count: f64) {}
    fn late(&mut self, _arrived: u64, _count: f64, _is_starting: bool) {}
}

// === impl World ===

impl World {
    /// A world with `ready` pods that serve `pod_rps` requests a second each.
    pub fn new(ready: u32, pod_rps: f64, cold_start: Duration, slo: Duration) -> Self {
        // One request a second until a rate was measured: a division by nothing would ask for every pod there is.
        let pod_rps = if pod_rps.is_finite() && pod_rps > 0.0 {
            pod_rps
        } else {
            1.0
        };
        Self {
            pod_rps,
            cold_start,
            slo_secs: slo.as_secs_f64(),
            ready,
            starting: VecDeque::new(),
            queue: VecDeque::new(),
            late: 0,
            second: 0,
            waiting: 0.0,
            requests: 0.0,
            violations: 0.0,
            pod_seconds: 0.0,
        }
    }

    /// A second of arrivals and service; returns what was served.
    pub fn pass(&mut self, now: Instant, arrivals: f64, witness: &mut impl Witness) -> f64 {
        let is_ready = |asked: &Instant| now.since(*asked) >= self.cold_start;
        while self.starting.front().is_some_and(is_ready) {
            self.starting.pop_front();
            self.ready += 1;
        }
        self.pod_seconds += f64::from(self.replicas());
        if arrivals.is_finite() && arrivals > 0.0 {
            self.requests += arrivals;
            self.waiting += arrivals;
            self.queue.push_back((self.second, arrivals));
        }
        self.note_late(witness);
        let served = self.serve(f64::from(self.ready) * self.pod_rps, witness);
        self.second += 1;
        served
    }

    /// Asks for `desired` pods. A ReplicaSet gives up pods that are not ready first, the youngest before the others.
    pub fn scale(&mut self, now: Instant, desired: u32) {
        while self.replicas() < desired {
            self.starting.push_back(now);
        }
        while self.replicas() > desired {
            if self.starting.pop_back().is_none() {
                self.ready -= 1;
            }
        }
    }

    /// What a pod serves a second, as it gets measured; what is not above zero is ignored.
    pub fn set_pod_rps(&mut self, pod_rps: f64) {
        if pod_rps.is_finite() && pod_rps > 0.0 {
            self.pod_rps = pod_rps;
        }
    }

    /// How long a pod takes to serve, as it gets measured; holds for those that start now, too.
    pub fn set_cold_start(&mut self, cold_start: Duration) {
        self.cold_start = cold_start;
    }

    /// What a pod serves a second.
    pub fn pod_rps(&self) -> f64 {
        self.pod_rps
    }

    /// Pods that serve.
    pub fn ready(&self) -> u32 {
        self.ready
    }

    /// Pods that were asked for and do not serve yet.
    pub fn starting(&self) -> u32 {
        u32::try_from(self.starting.len()).unwrap_or(u32::MAX)
    }

    /// Pods that are paid for.
    pub fn replicas(&self) -> u32 {
        self.ready.saturating_add(self.starting())
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> f64 {
        self.waiting
    }

    /// Those that wait: the second of their arrival and how many, oldest first.
    pub fn queue(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.queue.iter().copied()
    }

    /// Requests that came.
    pub fn requests(&self) -> f64 {
        self.requests
    }

    /// Requests that waited, or still wait, longer than the SLO.
    pub fn violations(&self) -> f64 {
        self.violations
    }

    /// Pod-seconds paid for, from the asking to the removal.
    pub fn pod_seconds(&self) -> f64 {
        self.pod_seconds
    }

    /// Counts a request as soon as it cannot be started in time any more, not only when it is started at last.
    fn note_late(&mut self, witness: &mut impl Witness) {
        while let Some(&(arrived, count)) = self.queue.get(self.late)
            && (self.second - arrived) as f64 > self.slo_secs
        {
            self.violations += count;
            self.late += 1;
            witness.late(arrived, count, !self.starting.is_empty());
        }
    }

    fn serve(&mut self, capacity: f64, witness: &mut impl Witness) -> f64 {
        let mut left = capacity;
        while let Some((arrived, count)) = self.queue.front_mut() {
            if *count > left {
                *count -= left;
                self.waiting -= left;
                witness.started(*arrived, self.second, left);
                return capacity;
            }
            left -= *count;
            self.waiting -= *count;
            witness.started(*arrived, self.second, *count);
            self.queue.pop_front();
            self.late = self.late.saturating_sub(1);
        }
        // Nothing waits, exactly: sums of fractions leave dust.
        self.waiting = 0.0;
        capacity - left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLD_START: Duration = Duration::from_secs(60);

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    #[derive(Default)]
    struct Heard {
        started: Vec<(u64, u64, f64)>,
        late: Vec<(u64, f64, bool)>,
    }

    impl Witness for Heard {
        fn started(&mut self, arrived: u64, now: u64, count: f64) {
            self.started.push((arrived, now, count));
        }

        fn late(&mut self, arrived: u64, count: f64, is_starting: bool) {
            self.late.push((arrived, count, is_starting));
        }
    }

    #[test]
    fn requests_are_served_in_order_and_late_ones_count_once() {
        let mut world = World::new(1, 10.0, COLD_START, Duration::from_secs(2));
        assert!((world.pass(at(0), 45.0, &mut ()) - 10.0).abs() < 1e-9);
        assert!((world.waiting - 35.0).abs() < 1e-9);
        world.pass(at(1), 0.0, &mut ());
        world.pass(at(2), 5.0, &mut ());
        assert!(world.violations.abs() < 1e-9);
        // The first 30 were started within 2 s; 15 of the first second are late now, whenever they start.
        world.pass(at(3), 0.0, &mut ());
        assert!((world.violations - 15.0).abs() < 1e-9);
        // The five of second 2 start in second 4, in time, behind the last of second 0.
        let served = world.pass(at(4), 0.0, &mut ());
        assert!((served - 10.0).abs() < 1e-9);
        assert!((world.violations - 15.0).abs() < 1e-9);
        assert!(world.waiting.abs() < 1e-9);
        assert!((world.requests - 50.0).abs() < 1e-9);
    }

    #[test]
    fn those_that_wait_are_those_in_the_queue() {
        let mut world = World::new(1, 10.0, COLD_START, Duration::from_secs(2));
        for (second, arrivals) in [12.0, 8.0, 9.5, 15.0, 0.5, 2.0, 30.0, 0.0]
            .iter()
            .enumerate()
        {
            world.pass(at(second as u64), *arrivals, &mut ());
            let queued: f64 = world.queue().map(|(_arrived, count)| count).sum();
            assert!((world.waiting() - queued).abs() < 1e-9, "{world:?}");
        }
    }

    #[test]
    fn a_witness_hears_when_each_request_was_started_and_which_are_late() {
        let mut world = World::new(1, 10.0, COLD_START, Duration::from_secs(2));
        let mut heard = Heard::default();
        world.pass(at(0), 35.0, &mut heard);
        world.scale(at(0), 2);
        for second in 1..4 {
            world.pass(at(second), 0.0, &mut heard);
        }
        let started = [(0, 0, 10.0), (0, 1, 10.0), (0, 2, 10.0), (0, 3, 5.0)];
        assert_eq!(heard.started, started);
        assert_eq!(heard.late, [(0, 5.0, true)]);
    }

    #[test]
    fn a_pod_serves_one_cold_start_after_it_was_asked_for_and_is_paid_from_then_on() {
        let mut world = World::new(1, 10.0, COLD_START, Duration::from_secs(2));
        world.scale(at(0), 3);
        world.pass(at(59), 0.0, &mut ());
        assert_eq!((world.ready, world.replicas()), (1, 3));
        world.pass(at(60), 0.0, &mut ());
        assert_eq!((world.ready, world.replicas()), (3, 3));
        assert!((world.pod_seconds - 6.0).abs() < 1e-9);
        world.scale(at(60), 5);
        world.scale(at(60), 2);
        assert_eq!((world.ready, world.replicas()), (2, 2));
    }
}
