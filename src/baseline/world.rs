//! A small world in which a baseline acts on the arrivals of the real fleet.
//!
//! One second a step; first in, first out; perfect balancing. A ready pod serves `pod_rps` requests a second, a pod asked
//! for at t serves from t + cold start, and a request violates when it waits longer than the SLO to be started. This
//! flatters the baseline (real balancing is worse, real metrics are later), which is the right direction for a
//! comparison that we want to win.

use std::collections::VecDeque;
use std::time::Duration;

use super::hpa::{Hpa, Replicas, average_value};
use super::kpa::{Kpa, KpaSettings};
use crate::clock::Instant;

/// HPA reads a mean of this many seconds ...
const HPA_WINDOW_SECS: usize = 30;
/// ... that is this old: scrape, adapter and sync follow each other.
const HPA_AGE_SECS: usize = 15;
const HPA_SYNC: Duration = Duration::from_secs(15);
const KPA_TICK: Duration = Duration::from_secs(2);

/// Which rule acts, at which share of a pod's capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Kubernetes' HPA without a behavior block, on concurrency as an `AverageValue`.
    Hpa {
        /// Share of a pod, in (0, 1].
        target: f64,
    },
    /// Knative's KPA on concurrency.
    Kpa {
        /// Share of a pod, in (0, 1].
        target: f64,
    },
}

/// A rule and its world.
#[derive(Clone, Debug)]
pub struct Shadow {
    brain: Brain,
    bounds: (u32, u32),
    /// When the rule decides next; `None`: with the first second.
    due: Option<Instant>,
    world: World,
}

#[derive(Clone, Debug)]
enum Brain {
    Hpa {
        target: f64,
        hpa: Box<Hpa>,
        /// Concurrency of the last seconds, oldest first.
        seen: VecDeque<f64>,
    },
    Kpa {
        target: f64,
        /// Made with the first second, whose time it needs.
        kpa: Option<Box<Kpa>>,
    },
}

#[derive(Clone, Debug)]
struct World {
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
    second: u64,
    waiting: f64,
    requests: f64,
    violations: f64,
    pod_seconds: f64,
}

// === impl Shadow ===

impl Shadow {
    /// A world with `replicas_at_start` ready pods, each serving `pod_rps` requests a second.
    pub fn new(
        rule: Rule,
        replicas_at_start: u32,
        (min, max): (u32, u32),
        pod_rps: f64,
        cold_start: Duration,
        slo: Duration,
    ) -> Self {
        let brain = match rule {
            Rule::Hpa { target } => Brain::Hpa {
                target,
                hpa: Box::new(Hpa::new(min, max, None)),
                seen: VecDeque::with_capacity(HPA_WINDOW_SECS + HPA_AGE_SECS),
            },
            Rule::Kpa { target } => Brain::Kpa { target, kpa: None },
        };
        Self {
            brain,
            bounds: (min, max.max(min)),
            due: None,
            world: World::new(replicas_at_start, pod_rps, cold_start, slo),
        }
    }

    /// One second passes, in which `arrivals` requests come; `now` is its end. A caller that was away catches up
    /// with one call for each second.
    pub fn second(&mut self, now: Instant, arrivals: f64) {
        let served = self.world.pass(now, arrivals);
        let in_pods = (served + self.world.waiting) / self.world.pod_rps;
        let ready = self.world.ready;
        let period = match &mut self.brain {
            Brain::Hpa { seen, .. } => {
                if seen.len() == HPA_WINDOW_SECS + HPA_AGE_SECS {
                    seen.pop_front();
                }
                seen.push_back(in_pods);
                HPA_SYNC
            }
            Brain::Kpa { target, kpa } => {
                let settings = KpaSettings::with_target(*target);
                let kpa = kpa.get_or_insert_with(|| Box::new(Kpa::new(settings, now, ready)));
                kpa.record(now, in_pods);
                KPA_TICK
            }
        };
        let due = self.due.unwrap_or(now);
        if now >= due {
            // On the beat, unless whole periods were missed.
            self.due = Some((due + period).max(now + period - Duration::from_secs(1)));
            if let Some(desired) = self.decide(now) {
                self.world.scale(now, desired);
            }
        }
    }

    /// Replicas asked for, ready or starting.
    pub fn desired(&self) -> u32 {
        self.world.replicas()
    }

    /// Replicas that serve.
    pub fn ready(&self) -> u32 {
        self.world.ready
    }

    /// Requests that waited, or still wait, longer than the SLO.
    pub fn violations(&self) -> f64 {
        self.world.violations
    }

    /// Requests that came.
    pub fn requests(&self) -> f64 {
        self.world.requests
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> f64 {
        self.world.waiting
    }

    /// Pod-seconds paid for, from the asking to the removal.
    pub fn pod_seconds(&self) -> f64 {
        self.world.pod_seconds
    }

    /// What a pod serves a second, as it gets measured; what is not above zero is ignored.
    pub fn set_pod_rps(&mut self, pod_rps: f64) {
        if pod_rps.is_finite() && pod_rps > 0.0 {
            self.world.pod_rps = pod_rps;
        }
    }

    /// How long a pod takes to serve, as it gets measured; holds for those that start now, too.
    pub fn set_cold_start(&mut self, cold_start: Duration) {
        self.world.cold_start = cold_start;
    }

    fn decide(&mut self, now: Instant) -> Option<u32> {
        let replicas = self.world.replicas();
        let desired = match &mut self.brain {
            Brain::Hpa { target, hpa, seen } => {
                let count = seen.len().checked_sub(HPA_AGE_SECS).filter(|it| *it > 0)?;
                let mean = seen.iter().take(count).sum::<f64>() / count as f64;
                let proposal = average_value(hpa, mean, *target, replicas);
                let even = Replicas {
                    spec: replicas,
                    status: replicas,
                };
                hpa.sync(now, even, &[Some(proposal)])
            }
            Brain::Kpa { kpa, .. } => kpa.as_mut()?.tick(now, self.world.ready)?,
        };
        Some(desired.clamp(self.bounds.0, self.bounds.1))
    }
}

// === impl World ===

impl World {
    fn new(ready: u32, pod_rps: f64, cold_start: Duration, slo: Duration) -> Self {
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
    fn pass(&mut self, now: Instant, arrivals: f64) -> f64 {
        let is_ready = |asked: &Instant| now.since(*asked) >= self.cold_start;
        while self.starting.front().is_some_and(is_ready) {
            self.starting.pop_front();
            self.ready += 1;
        }
        self.pod_seconds += f64::from(self.replicas());
        self.second += 1;
        if arrivals.is_finite() && arrivals > 0.0 {
            self.requests += arrivals;
            self.waiting += arrivals;
            self.queue.push_back((self.second, arrivals));
        }
        self.note_late();
        self.serve(f64::from(self.ready) * self.pod_rps)
    }

    /// Counts a request as soon as it cannot be started in time any more, not only when it is started at last.
    fn note_late(&mut self) {
        while let Some((arrived, count)) = self.queue.get(self.late)
            && (self.second - arrived) as f64 > self.slo_secs
        {
            self.violations += count;
            self.late += 1;
        }
    }

    fn serve(&mut self, capacity: f64) -> f64 {
        let mut left = capacity;
        while let Some((_arrived, count)) = self.queue.front_mut() {
            if *count > left {
                *count -= left;
                self.waiting -= left;
                return capacity;
            }
            left -= *count;
            self.queue.pop_front();
            self.late = self.late.saturating_sub(1);
        }
        // Nothing waits, exactly: sums of fractions leave dust.
        self.waiting = 0.0;
        capacity - left
    }

    /// A ReplicaSet gives up pods that are not ready first, the youngest before the others.
    fn scale(&mut self, now: Instant, desired: u32) {
        while self.replicas() < desired {
            self.starting.push_back(now);
        }
        while self.replicas() > desired {
            if self.starting.pop_back().is_none() {
                self.ready -= 1;
            }
        }
    }

    fn replicas(&self) -> u32 {
        let starting = u32::try_from(self.starting.len()).unwrap_or(u32::MAX);
        self.ready.saturating_add(starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLD_START: Duration = Duration::from_secs(60);

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    fn shadow(rule: Rule) -> Shadow {
        Shadow::new(rule, 2, (1, 20), 10.0, COLD_START, Duration::from_secs(2))
    }

    fn play(shadow: &mut Shadow, seconds: std::ops::Range<u64>, arrivals: f64) {
        for second in seconds {
            shadow.second(at(second), arrivals);
        }
    }

    #[test]
    fn requests_are_served_in_order_and_late_ones_count_once() {
        let mut world = World::new(1, 10.0, COLD_START, Duration::from_secs(2));
        assert!((world.pass(at(0), 45.0) - 10.0).abs() < 1e-9);
        assert!((world.waiting - 35.0).abs() < 1e-9);
        world.pass(at(1), 0.0);
        world.pass(at(2), 5.0);
        assert!(world.violations.abs() < 1e-9);
        // The first 30 were started within 2 s; 15 of the first second are late now, whenever they start.
        world.pass(at(3), 0.0);
        assert!((world.violations - 15.0).abs() < 1e-9);
        // The five of second 2 start in second 4, in time, behind the last of second 0.
        let served = world.pass(at(4), 0.0);
        assert!((served - 10.0).abs() < 1e-9);
        assert!((world.violations - 15.0).abs() < 1e-9);
        assert!(world.waiting.abs() < 1e-9);
        assert!((world.requests - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_pod_serves_one_cold_start_after_it_was_asked_for_and_is_paid_from_then_on() {
        let mut world = World::new(1, 10.0, COLD_START, Duration::from_secs(2));
        world.scale(at(0), 3);
        world.pass(at(59), 0.0);
        assert_eq!((world.ready, world.replicas()), (1, 3));
        world.pass(at(60), 0.0);
        assert_eq!((world.ready, world.replicas()), (3, 3));
        assert!((world.pod_seconds - 6.0).abs() < 1e-9);
        world.scale(at(60), 5);
        world.scale(at(60), 2);
        assert_eq!((world.ready, world.replicas()), (2, 2));
    }

    #[test]
    fn hpa_sees_a_rise_late_and_its_requests_wait_for_the_cold_start() {
        let mut hpa = shadow(Rule::Hpa { target: 0.7 });
        play(&mut hpa, 0..60, 14.0);
        assert_eq!(hpa.desired(), 2);
        play(&mut hpa, 60..75, 40.0);
        assert_eq!(hpa.desired(), 2, "what it reads is 15 s old");
        play(&mut hpa, 75..300, 40.0);
        assert!(hpa.desired() > 5 && hpa.violations() > 500.0, "{hpa:?}");
        let late = hpa.violations();
        play(&mut hpa, 300..400, 40.0);
        assert!((hpa.violations() - late).abs() < 1e-9, "it caught up");
        play(&mut hpa, 400..900, 1.0);
        assert_eq!(hpa.desired(), 1);
    }

    #[test]
    fn kpa_panics_within_seconds() {
        let mut kpa = shadow(Rule::Kpa { target: 0.7 });
        play(&mut kpa, 0..60, 7.0);
        assert_eq!(kpa.desired(), 2, "started in panic with two");
        play(&mut kpa, 60..80, 7.0);
        assert_eq!(kpa.desired(), 1);
        play(&mut kpa, 80..90, 60.0);
        assert!(kpa.desired() >= 9, "{}", kpa.desired());
    }

    #[test]
    fn a_shadow_never_leaves_its_bounds() {
        for rule in [Rule::Hpa { target: 0.7 }, Rule::Kpa { target: 0.7 }] {
            let mut shadow = shadow(rule);
            play(&mut shadow, 0..1_000, 1_000.0);
            assert_eq!(shadow.desired(), 20, "{rule:?}");
            play(&mut shadow, 1_000..8_000, 0.0);
            assert_eq!(shadow.desired(), 1, "{rule:?}");
        }
    }

    #[test]
    fn a_rate_that_is_no_rate_changes_nothing() {
        let mut shadow = shadow(Rule::Kpa { target: 0.7 });
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            shadow.set_pod_rps(bad);
        }
        play(&mut shadow, 0..100, f64::NAN);
        assert!(shadow.requests().abs() < 1e-9);
        assert_eq!(shadow.ready(), 1);
    }
}
