//! Kubernetes' `HorizontalPodAutoscaler` v2, one sync after the other.

use std::collections::VecDeque;
use std::time::Duration;

use super::pods;
use crate::behavior::{Pace, is_within_tolerance};
use crate::clock::Instant;
use crate::policy::{Behavior, ScalingPolicy, ScalingPolicyKind};

/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION: Duration = Duration::from_secs(300);
/// Without a behavior, replicas may double in one sync, and always reach this many.
const LEGACY_LEAST_LIMIT: u32 = 4;

/// One HPA object and what its controller remembers of it.
#[derive(Clone, Debug)]
pub struct Hpa {
    min: u32,
    max: u32,
    /// `None`: the path from before behaviors, which is what an HPA without the block still gets.
    behavior: Option<Behavior>,
    pace: Option<Pace>,
    /// Raw recommendations of the path without a behavior, oldest first.
    recommendations: VecDeque<(Instant, u32)>,
}

/// The replicas of a scale subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// `spec.replicas`: asked for.
    pub spec: u32,
    /// `status.replicas`: existing, ready or not.
    pub status: u32,
}

/// What a metric of pods saw, with equal requests on all pods.
#[derive(Clone, Copy, Debug)]
pub struct PodSamples<'a> {
    /// Samples of the pods that count as ready, in the target's unit.
    pub ready: &'a [f64],
    /// Pods without a sample.
    pub missing: u32,
    /// Pods that are pending or still starting.
    pub unready: u32,
}

// === impl Hpa ===

impl Hpa {
    /// An HPA between these bounds; a `behavior` has the default policies of Kubernetes where it names none.
    pub fn new(min: u32, max: u32, behavior: Option<Behavior>) -> Self {
        Self {
            min,
            max: max.max(min),
            behavior: behavior.map(filled_in),
            pace: None,
            recommendations: VecDeque::new(),
        }
    }

    /// Somebody patched the bounds.
    pub fn set_bounds(&mut self, min: u32, max: u32) {
        self.min = min;
        self.max = max.max(min);
    }

    /// The tolerance for a metric's ratio.
    pub fn is_tolerated(&self, ratio: f64) -> bool {
        match &self.behavior {
            Some(behavior) => is_within_tolerance(ratio, behavior),
            None => is_within_tolerance(ratio, &Behavior::default()),
        }
    }

    /// One sync: from the proposal of each metric (`None`: it could not be read) to the new `spec.replicas`.
    pub fn sync(&mut self, now: Instant, replicas: Replicas, proposals: &[Option<u32>]) -> u32 {
        let current = replicas.spec;
        if current == 0 && self.min != 0 {
            return 0;
        }
        if current > self.max {
            return self.max;
        }
        if current < self.min {
            return self.min;
        }
        let highest = proposals.iter().flatten().max().copied();
        let is_partial = proposals.iter().any(Option::is_none);
        match highest {
            // With a metric missing it may go up, never down.
            Some(raw) if !(is_partial && raw < current) => self.moderate(now, current, raw),
            _ => current,
        }
    }

    fn moderate(&mut self, now: Instant, current: u32, raw: u32) -> u32 {
        let Some(behavior) = &self.behavior else {
            return self.moderate_without_behavior(now, current, raw);
        };
        let pace = self.pace.get_or_insert_with(|| Pace::seeded(now, current));
        let stabilized = pace.stabilize(now, current, raw, behavior).replicas;
        let limited = pace.limit(now, current, stabilized, behavior);
        let next = limited.clamp(self.min, self.max);
        pace.record(now, current, next);
        next
    }

    fn moderate_without_behavior(&mut self, now: Instant, current: u32, raw: u32) -> u32 {
        if self.recommendations.is_empty() {
            self.recommendations.push_back((now, current));
        }
        self.recommendations.push_back((now, raw));
        // Unlike with a behavior, a recommendation exactly as old as the window still counts.
        let is_old = |it: &(Instant, u32)| now.since(it.0) > STABILIZATION;
        while self.recommendations.front().is_some_and(is_old) {
            self.recommendations.pop_front();
        }
        let recent = self.recommendations.iter().map(|it| it.1);
        let stabilized = recent.max().unwrap_or(raw);
        let limit = current.saturating_mul(2).max(LEGACY_LEAST_LIMIT);
        stabilized.min(limit).clamp(self.min, self.max)
    }
}

// === impl PodSamples ===

impl PodSamples<'_> {
    /// The proposal of a Resource or Pods metric for `target` per pod.
    pub fn propose(&self, hpa: &Hpa, current: u32, target: f64) -> u32 {
        let ready = self.ready.len() as f64;
        let sum: f64 = self.ready.iter().sum();
        let ratio = sum / ready / target;
        let holds_back = self.unready > 0 && ratio > 1.0;
        if self.missing == 0 && !holds_back {
            return if hpa.is_tolerated(ratio) {
                current
            } else {
                pods(ratio * ready)
            };
        }
        // Missing pods are taken to speak against the change: at target when it would go down, idle when up.
        let mut counted = ready + f64::from(self.missing);
        let mut filled = sum;
        if ratio < 1.0 {
            filled += f64::from(self.missing) * target;
        } else if ratio > 1.0 {
            counted += f64::from(self.unready);
        }
        let refilled = filled / counted / target;
        let is_flipped = (ratio < 1.0 && refilled > 1.0) || (ratio > 1.0 && refilled < 1.0);
        if hpa.is_tolerated(refilled) || is_flipped {
            return current;
        }
        let proposal = pods(refilled * counted);
        let is_contrary =
            (refilled < 1.0 && proposal > current) || (refilled > 1.0 && proposal < current);
        if is_contrary { current } else { proposal }
    }
}

/// The proposal of an External or Object metric with an `AverageValue` target, which is also what KEDA creates.
pub fn average_value(hpa: &Hpa, total: f64, target: f64, status: u32) -> u32 {
    if status > 0 && hpa.is_tolerated(total / (target * f64::from(status))) {
        return status;
    }
    pods(total / target)
}

/// A behavior with the policies that Kubernetes fills in where it names none.
#[must_use]
pub fn filled_in(mut behavior: Behavior) -> Behavior {
    let policy = |kind, value| ScalingPolicy {
        kind,
        value,
        period: Duration::from_secs(15),
    };
    if behavior.scale_up.policies.is_empty() {
        behavior.scale_up.policies = vec![
            policy(ScalingPolicyKind::Pods, 4),
            policy(ScalingPolicyKind::Percent, 100),
        ];
    }
    if behavior.scale_down.policies.is_empty() {
        behavior.scale_down.policies = vec![policy(ScalingPolicyKind::Percent, 100)];
    }
    behavior
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    fn even(replicas: u32) -> Replicas {
        Replicas {
            spec: replicas,
            status: replicas,
        }
    }

    fn samples(ready: &[f64], missing: u32, unready: u32) -> PodSamples<'_> {
        PodSamples {
            ready,
            missing,
            unready,
        }
    }

    #[test]
    fn fifty_pods_at_ninety_with_target_seventy_five_become_sixty() {
        let hpa = Hpa::new(1, 100, None);
        let proposal = samples(&[90.0; 50], 0, 0).propose(&hpa, 50, 75.0);
        assert_eq!(proposal, 60);
    }

    #[test]
    fn missing_and_unready_pods_damp_the_change() {
        let hpa = Hpa::new(1, 100, None);
        // 8 pods at 95 % of their request, target 70 %: 1.357; with the two others as idle 1.086.
        assert_eq!(samples(&[0.95; 8], 1, 1).propose(&hpa, 10, 0.70), 10);
        // Without them it would be 11 of 8.
        assert_eq!(samples(&[0.95; 8], 0, 0).propose(&hpa, 8, 0.70), 11);
        // Going down, a missing pod is taken to be at its target: (8 * 0.375 + 2 * 0.75) / 10 / 0.75 = 0.6.
        assert_eq!(samples(&[0.375; 8], 2, 0).propose(&hpa, 10, 0.75), 6);
        // Unready pods do not count when it goes down.
        assert_eq!(samples(&[0.375; 8], 0, 2).propose(&hpa, 10, 0.75), 4);
        // The rest would be up, all together is down: it stays.
        assert_eq!(samples(&[0.80; 2], 0, 8).propose(&hpa, 10, 0.70), 10);
        // Filled in it is still above 1, yet fewer than there are: it stays.
        assert_eq!(samples(&[1.4; 4], 0, 2).propose(&hpa, 12, 0.70), 12);
    }

    #[test]
    fn an_average_value_within_tolerance_changes_nothing() {
        let hpa = Hpa::new(1, 100, None);
        for (total, expected) in [
            (9.0, 2),
            (10.0, 2),
            (11.0, 2),
            (12.0, 3),
            (8.9, 2),
            (4.0, 1),
        ] {
            assert_eq!(average_value(&hpa, total, 5.0, 2), expected, "{total}");
        }
    }

    #[test]
    fn without_a_behavior_replicas_double_at_most_and_fall_after_five_minutes() {
        let mut hpa = Hpa::new(1, 100, None);
        let mut current = 1;
        let mut path = Vec::new();
        for sync in 0..4 {
            current = hpa.sync(at(15 * sync), even(current), &[Some(40)]);
            path.push(current);
        }
        assert_eq!(path, [4, 8, 16, 32]);
        assert_eq!(hpa.sync(at(60), even(32), &[Some(2)]), 40);
        assert_eq!(hpa.sync(at(345), even(40), &[Some(2)]), 40);
        assert_eq!(hpa.sync(at(346), even(40), &[Some(2)]), 2);
    }

    #[test]
    fn with_a_behavior_the_default_policies_limit_the_way_up() {
        let mut hpa = Hpa::new(1, 100, Some(Behavior::default()));
        let mut current = 3;
        let mut path = Vec::new();
        for sync in 0..4 {
            current = hpa.sync(at(15 * sync), even(current), &[Some(40)]);
            path.push(current);
        }
        assert_eq!(path, [7, 14, 28, 40]);
        assert_eq!(hpa.sync(at(344), even(40), &[Some(2)]), 40);
        assert_eq!(hpa.sync(at(345), even(40), &[Some(2)]), 2);
    }

    #[test]
    fn a_first_sight_never_lowers() {
        for behavior in [None, Some(Behavior::default())] {
            let mut hpa = Hpa::new(1, 100, behavior);
            assert_eq!(hpa.sync(at(0), even(10), &[Some(2)]), 10);
            assert_eq!(hpa.sync(at(301), even(10), &[Some(2)]), 2);
        }
    }

    #[test]
    fn bounds_act_at_once_and_zero_is_parked() {
        let mut hpa = Hpa::new(2, 10, None);
        assert_eq!(hpa.sync(at(0), even(0), &[Some(5)]), 0);
        assert_eq!(hpa.sync(at(0), even(30), &[None]), 10);
        assert_eq!(hpa.sync(at(0), even(1), &[None]), 2);
        assert_eq!(hpa.sync(at(0), even(8), &[Some(50)]), 10);
    }

    #[test]
    fn the_largest_proposal_wins_and_a_failed_metric_forbids_down() {
        let mut hpa = Hpa::new(1, 100, None);
        assert_eq!(hpa.sync(at(0), even(5), &[Some(6), Some(8)]), 8);
        assert_eq!(hpa.sync(at(1_000), even(5), &[Some(3), None]), 5);
        assert_eq!(hpa.sync(at(2_000), even(5), &[Some(7), None]), 7);
        assert_eq!(hpa.sync(at(3_000), even(5), &[None]), 5);
        assert_eq!(hpa.sync(at(4_000), even(5), &[Some(3), Some(2)]), 3);
    }
}
