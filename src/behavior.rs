//! HPA v2's `behavior`: tolerance, stabilisation and rate limits, as values that take `now`.
//!
//! The rules follow the published ones exactly, odd corners included, because people compare: a recommendation that is
//! as old as the window no longer counts, and a change that is as old as the period no longer counts either. Two
//! things are ours: a direction without policies has no limit (HPA fills in its defaults), and changes are recorded
//! whoever made them, so that two writers together do not exceed a rate.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::policy::{Behavior, ScalingPolicyKind, ScalingRules, SelectPolicy};

/// What the rules have to remember: past recommendations and past changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// Recommendations of the longest stabilisation window, oldest first.
    recommendations: VecDeque<(Instant, u32)>,
    /// Replicas added, oldest first.
    added: VecDeque<(Instant, u32)>,
    /// Replicas removed, oldest first.
    removed: VecDeque<(Instant, u32)>,
}

/// A stabilised recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stabilized {
    /// The replicas.
    pub replicas: u32,
    /// When the recommendation that keeps them up leaves the window; `None`: nothing is kept up.
    pub until: Option<Instant>,
}

// === impl Pace ===

impl Pace {
    /// A memory that starts with `current` as recommended at `now`: a controller that was just started knows nothing
    /// of the minutes before and must not lower on its first sight.
    pub fn seeded(now: Instant, current: u32) -> Self {
        let mut pace = Self::default();
        pace.recommendations.push_back((now, current));
        pace
    }

    /// Records `recommendation` and returns the most careful one of each direction's window.
    pub fn stabilize(
        &mut self,
        now: Instant,
        current: u32,
        recommendation: u32,
        behavior: &Behavior,
    ) -> Stabilized {
        let up_window = behavior.scale_up.stabilization_window;
        let down_window = behavior.scale_down.stabilization_window;
        let longest = up_window.max(down_window);
        forget(&mut self.recommendations, now, longest);
        self.recommendations.push_back((now, recommendation));
        let (mut up, mut down) = (recommendation, recommendation);
        for &(at, past) in &self.recommendations {
            let age = now.since(at);
            if age < up_window {
                up = up.min(past);
            }
            if age < down_window {
                down = down.max(past);
            }
        }
        let replicas = current.clamp(up, down);
        // The youngest recommendation that is as high keeps them up; before it leaves the window nothing falls.
        let holder = self.recommendations.iter().rfind(|it| it.1 >= replicas);
        Stabilized {
            replicas,
            until: holder
                .filter(|_it| replicas > recommendation)
                .map(|(at, _past)| *at + down_window),
        }
    }

    /// Takes `wanted` as far as the rate limits let it go from `current`.
    pub fn limit(&self, now: Instant, current: u32, wanted: u32, behavior: &Behavior) -> u32 {
        if wanted > current {
            wanted.min(self.highest(now, current, &behavior.scale_up))
        } else {
            wanted.max(self.lowest(now, current, &behavior.scale_down))
        }
    }

    /// Records a change of the replicas.
    pub fn record(&mut self, now: Instant, from: u32, to: u32) {
        // The longest period that a policy may have.
        const LONGEST_PERIOD: Duration = Duration::from_secs(1_800);
        forget(&mut self.added, now, LONGEST_PERIOD);
        forget(&mut self.removed, now, LONGEST_PERIOD);
        if to > from {
            self.added.push_back((now, to - from));
        } else if to < from {
            self.removed.push_back((now, from - to));
        }
    }

    fn highest(&self, now: Instant, current: u32, rules: &ScalingRules) -> u32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.start(now, current, policy.period);
            let value = f64::from(policy.value);
            match policy.kind {
                ScalingPolicyKind::Pods => start + value,
                ScalingPolicyKind::Percent => (start * (1.0 + value / 100.0)).ceil(),
            }
        });
        let limit = match rules.select {
            SelectPolicy::Disabled => return current,
            SelectPolicy::Max => limits.reduce(f64::max),
            SelectPolicy::Min => limits.reduce(f64::min),
        };
        limit.map_or(u32::MAX, |limit| count(limit).max(current))
    }

    fn lowest(&self, now: Instant, current: u32, rules: &ScalingRules) -> u32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.start(now, current, policy.period);
            let value = f64::from(policy.value);
            match policy.kind {
                ScalingPolicyKind::Pods => start - value,
                ScalingPolicyKind::Percent => (start * (1.0 - value / 100.0)).trunc(),
            }
        });
        let limit = match rules.select {
            SelectPolicy::Disabled => return current,
            SelectPolicy::Max => limits.reduce(f64::min),
            SelectPolicy::Min => limits.reduce(f64::max),
        };
        limit.map_or(0, |limit| count(limit).min(current))
    }

    /// The replicas at the start of the period that ends now.
    fn start(&self, now: Instant, current: u32, period: Duration) -> f64 {
        let sum = |changes: &VecDeque<(Instant, u32)>| -> f64 {
            let recent = changes.iter().rev();
            recent
                .take_while(|(at, _change)| now.since(*at) < period)
                .map(|(_at, change)| f64::from(*change))
                .sum()
        };
        f64::from(current) - sum(&self.added) + sum(&self.removed)
    }
}

/// Whether a usage that is `ratio` of its target is close enough to leave the replicas alone; both ends count.
pub fn is_within_tolerance(ratio: f64, behavior: &Behavior) -> bool {
    let lower = 1.0 - behavior.scale_down.tolerance;
    let upper = 1.0 + behavior.scale_up.tolerance;
    lower <= ratio && ratio <= upper
}

fn forget(past: &mut VecDeque<(Instant, u32)>, now: Instant, window: Duration) {
    while past.front().is_some_and(|(at, _)| now.since(*at) >= window) {
        past.pop_front();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u32"
)]
fn count(replicas: f64) -> u32 {
    replicas.clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ScalingPolicy;

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    fn policy(kind: ScalingPolicyKind, value: u32, secs: u64) -> ScalingPolicy {
        ScalingPolicy {
            kind,
            value,
            period: Duration::from_secs(secs),
        }
    }

    /// The limits that HPA fills in when a behavior is given: +4 pods or +100 % per 15 s, -100 % per 15 s.
    fn kubernetes() -> Behavior {
        let mut behavior = Behavior::default();
        behavior.scale_up.policies = vec![
            policy(ScalingPolicyKind::Pods, 4, 15),
            policy(ScalingPolicyKind::Percent, 100, 15),
        ];
        behavior.scale_down.policies = vec![policy(ScalingPolicyKind::Percent, 100, 15)];
        behavior
    }

    /// Walks towards `wanted` in steps of `every` seconds.
    fn walk(behavior: &Behavior, from: u32, wanted: u32, every: u64, steps: usize) -> Vec<u32> {
        let mut pace = Pace::default();
        let mut current = from;
        let mut path = Vec::new();
        for step in 0..steps {
            let now = at(every * step as u64);
            let next = pace.limit(now, current, wanted, behavior);
            pace.record(now, current, next);
            current = next;
            path.push(current);
        }
        path
    }

    #[test]
    fn the_default_limits_of_kubernetes_give_its_published_steps() {
        assert_eq!(walk(&kubernetes(), 3, 40, 15, 4), [7, 14, 28, 40]);
    }

    #[test]
    fn ten_percent_a_minute_downwards_counts_from_the_periods_start() {
        let mut behavior = kubernetes();
        behavior.scale_down.policies = vec![policy(ScalingPolicyKind::Percent, 10, 60)];
        assert_eq!(
            walk(&behavior, 80, 10, 15, 9),
            [72, 72, 72, 72, 64, 64, 64, 64, 57]
        );
    }

    #[test]
    fn the_selected_policy_counts_and_disabled_stands_still() {
        let mut behavior = kubernetes();
        behavior.scale_up.select = SelectPolicy::Min;
        assert_eq!(walk(&behavior, 3, 40, 15, 3), [6, 10, 14]);
        behavior.scale_up.select = SelectPolicy::Disabled;
        assert_eq!(walk(&behavior, 3, 40, 15, 2), [3, 3]);
        behavior.scale_down.policies = vec![
            policy(ScalingPolicyKind::Pods, 4, 60),
            policy(ScalingPolicyKind::Percent, 10, 60),
        ];
        assert_eq!(walk(&behavior, 80, 10, 60, 2), [72, 64]);
        behavior.scale_down.select = SelectPolicy::Min;
        assert_eq!(walk(&behavior, 80, 10, 60, 2), [76, 72]);
        behavior.scale_down.select = SelectPolicy::Disabled;
        assert_eq!(walk(&behavior, 80, 10, 60, 2), [80, 80]);
    }

    #[test]
    fn what_was_removed_in_a_period_may_be_added_again() {
        let behavior = kubernetes();
        let mut pace = Pace::default();
        pace.record(at(0), 10, 4);
        // The period started with 10: + 4 pods is 14, + 100 % is 20.
        assert_eq!(pace.limit(at(5), 4, 40, &behavior), 20);
        // A change as old as the period no longer counts.
        assert_eq!(pace.limit(at(15), 4, 40, &behavior), 8);
    }

    #[test]
    fn without_policies_there_is_no_limit() {
        assert_eq!(walk(&Behavior::default(), 1, 5_000, 1, 1), [5_000]);
        assert_eq!(walk(&Behavior::default(), 5_000, 1, 1, 1), [1]);
    }

    #[test]
    fn tolerance_includes_both_ends() {
        let behavior = Behavior::default();
        for (ratio, expected) in [(0.9, true), (0.899, false), (1.1, true), (1.101, false)] {
            assert_eq!(is_within_tolerance(ratio, &behavior), expected, "{ratio}");
        }
    }

    #[test]
    fn the_highest_recommendation_of_the_window_is_kept_until_it_leaves_it() {
        let behavior = Behavior::default();
        let mut pace = Pace::seeded(at(0), 5);
        let mut check = |secs, recommendation, replicas, until: Option<u64>| {
            let expected = Stabilized {
                replicas,
                until: until.map(at),
            };
            let current = 8;
            assert_eq!(
                pace.stabilize(at(secs), current, recommendation, &behavior),
                expected,
                "at {secs} s"
            );
        };
        check(10, 8, 8, None);
        check(20, 3, 8, Some(310));
        check(30, 6, 8, Some(310));
        check(309, 2, 8, Some(310));
        // The eight is as old as the window now; the six of 30 s is next.
        check(310, 2, 6, Some(330));
        check(330, 2, 2, None);
    }

    #[test]
    fn replicas_below_the_highest_recommendation_stay_where_they_are() {
        let mut pace = Pace::seeded(at(0), 8);
        pace.stabilize(at(100), 8, 5, &Behavior::default());
        // Somebody lowered to 4: the past asks for 5 to 8, the present for 3.
        let stabilized = pace.stabilize(at(200), 4, 3, &Behavior::default());
        assert_eq!((stabilized.replicas, stabilized.until), (4, Some(at(400))));
    }

    #[test]
    fn upwards_the_lowest_recommendation_of_the_window_counts_but_never_below_current() {
        let mut behavior = Behavior::default();
        behavior.scale_up.stabilization_window = Duration::from_secs(60);
        let mut pace = Pace::seeded(at(0), 4);
        let mut replicas = |secs, recommendation| {
            pace.stabilize(at(secs), 4, recommendation, &behavior)
                .replicas
        };
        assert_eq!(replicas(10, 9), 4);
        assert_eq!(replicas(59, 7), 4);
        assert_eq!(replicas(60, 8), 7);
    }
}
