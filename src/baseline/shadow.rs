//! A rule that acts on the arrivals of the real fleet, in a [`World`] of its own.

use std::time::Duration;

use super::rule::{Actor, Rule, Seen};
use super::world::World;
use crate::clock::Instant;

/// A rule and its world.
#[derive(Clone, Debug)]
pub struct Shadow {
    actor: Actor,
    world: World,
}

// === impl Shadow ===

impl Shadow {
    /// A world with `replicas_at_start` ready pods, each serving `pod_rps` requests a second.
    pub fn new(
        rule: Rule,
        replicas_at_start: u32,
        bounds: (u32, u32),
        pod_rps: f64,
        cold_start: Duration,
        slo: Duration,
    ) -> Self {
        Self {
            actor: Actor::new(rule, bounds),
            world: World::new(replicas_at_start, pod_rps, cold_start, slo),
        }
    }

    /// One second passes, in which `arrivals` requests come; `now` is its end. A caller that was away catches up
    /// with one call for each second.
    pub fn second(&mut self, now: Instant, arrivals: f64) {
        let served = self.world.pass(now, arrivals, &mut ());
        let seen = Seen::of(now, &self.world, served);
        if let Some(desired) = self.actor.second(seen) {
            self.world.scale(now, desired);
        }
    }

    /// Replicas asked for, ready or starting.
    pub fn desired(&self) -> u32 {
        self.world.replicas()
    }

    /// Replicas that serve.
    pub fn ready(&self) -> u32 {
        self.world.ready()
    }

    /// Requests that waited, or still wait, longer than the SLO.
    pub fn violations(&self) -> f64 {
        self.world.violations()
    }

    /// Requests that came.
    pub fn requests(&self) -> f64 {
        self.world.requests()
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> f64 {
        self.world.waiting()
    }

    /// Pod-seconds paid for, from the asking to the removal.
    pub fn pod_seconds(&self) -> f64 {
        self.world.pod_seconds()
    }

    /// What a pod serves a second, as it gets measured; what is not above zero is ignored.
    pub fn set_pod_rps(&mut self, pod_rps: f64) {
        self.world.set_pod_rps(pod_rps);
    }

    /// How long a pod takes to serve, as it gets measured; holds for those that start now, too.
    pub fn set_cold_start(&mut self, cold_start: Duration) {
        self.world.set_cold_start(cold_start);
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
            let mut shadow = shadow(rule.clone());
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
