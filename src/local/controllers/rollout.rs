//! The arithmetic of a rollout: how large the new and the old `ReplicaSets` are to be next.

use serde_json::Value;

use crate::local::json::{number, text};

/// How a Deployment goes from one template to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Never more than `surge` pods above, never more than `unavailable` below what is asked for.
    Rolling { surge: i64, unavailable: i64 },
    /// All old pods go first.
    Recreate,
}

/// A `ReplicaSet`: its `spec.replicas`, and how many of its pods are available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) asked: i64,
    pub(super) available: i64,
}

// === impl Strategy ===

impl Strategy {
    /// Reads it from a Deployment: of percentages the surge is rounded up and the unavailability down.
    pub(super) fn of(deployment: &Value) -> Self {
        if text(deployment, "/spec/strategy/type") == "Recreate" {
            return Self::Recreate;
        }
        let replicas = number(deployment, "/spec/replicas").unwrap_or(0);
        let bound = |name: &str, round_up: i64| {
            let pointer = format!("/spec/strategy/rollingUpdate/{name}");
            let percent = text(deployment, &pointer).strip_suffix('%');
            match percent.and_then(|percent| percent.parse::<i64>().ok()) {
                Some(percent) => (replicas * percent + round_up) / 100,
                None => number(deployment, &pointer).unwrap_or(0),
            }
        };
        let (surge, unavailable) = (bound("maxSurge", 99), bound("maxUnavailable", 0));
        Self::Rolling {
            surge,
            // With neither, nothing could ever move.
            unavailable: if surge == 0 {
                unavailable.max(1)
            } else {
                unavailable
            },
        }
    }

    /// How many of the replicas must be available for the Deployment to count as such.
    pub(super) fn minimum(self, replicas: i64) -> i64 {
        match self {
            Self::Rolling { unavailable, .. } => (replicas - unavailable).max(0),
            Self::Recreate => replicas,
        }
    }

    /// What `spec.replicas` may reach during a rollout.
    pub(super) fn maximum(self, replicas: i64) -> i64 {
        match self {
            Self::Rolling { surge, .. } => replicas + surge,
            Self::Recreate => replicas,
        }
    }

    /// The size of the new set. `old_pods` counts those that are still ending, too.
    pub(super) fn grow(self, replicas: i64, new: Size, old: &[Size], old_pods: usize) -> i64 {
        if new.asked >= replicas {
            return replicas;
        }
        match self {
            Self::Recreate if old_pods > 0 => new.asked,
            Self::Recreate => replicas,
            Self::Rolling { .. } => {
                let total = new.asked + sum(old, |size| size.asked);
                let room = (self.maximum(replicas) - total).max(0);
                (new.asked + room).min(replicas)
            }
        }
    }

    /// The sizes of the old sets, oldest first: what is not available goes before what is.
    pub(super) fn shrink(self, replicas: i64, new: Size, old: &[Size]) -> Vec<i64> {
        if self == Self::Recreate {
            return vec![0; old.len()];
        }
        let minimum = self.minimum(replicas);
        let total = new.asked + sum(old, |size| size.asked);
        let mut spare = total - minimum - (new.asked - new.available).max(0);
        let mut sizes: Vec<i64> = old.iter().map(|size| size.asked).collect();
        for (size, was) in sizes.iter_mut().zip(old) {
            let broken = (was.asked - was.available).clamp(0, spare.max(0));
            *size -= broken;
            spare -= broken;
        }
        let mut beyond = new.available + sum(old, |size| size.available) - minimum;
        for (size, was) in sizes.iter_mut().zip(old) {
            let healthy = was.available.min(*size).clamp(0, beyond.max(0));
            *size -= healthy;
            beyond -= healthy;
        }
        sizes
    }
}

fn sum(sizes: &[Size], of: impl Fn(&Size) -> i64) -> i64 {
    sizes.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn size(asked: i64, available: i64) -> Size {
        Size { asked, available }
    }

    #[test]
    fn a_rollout_keeps_between_its_bounds_at_every_step() {
        let strategy = Strategy::Rolling {
            surge: 1,
            unavailable: 1,
        };
        let (replicas, mut new, mut old) = (4, size(0, 0), [size(4, 4)]);
        for step in 0..20 {
            new.asked = strategy.grow(replicas, new, &old, 4);
            old[0].asked = strategy.shrink(replicas, new, &old)[0];
            assert!(new.asked + old[0].asked <= 5, "step {step}: too many");
            // The worst order: the old ones end at once, then one new one gets ready.
            old[0].available = old[0].asked;
            assert!(
                new.available + old[0].available >= 3,
                "step {step}: too few"
            );
            new.available = (new.available + 1).min(new.asked);
        }
        assert_eq!((new.asked, old[0].asked), (4, 0));
    }

    #[test]
    fn a_scaling_alone_goes_to_the_size_at_once() {
        let strategy = Strategy::Rolling {
            surge: 1,
            unavailable: 0,
        };
        assert_eq!(strategy.grow(9, size(2, 2), &[], 0), 9);
        assert_eq!(strategy.grow(1, size(9, 9), &[], 0), 1);
    }

    #[test]
    fn percentages_round_in_favour_of_the_available() {
        let deployment = json!({"spec": {"replicas": 5, "strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
        }}});
        let strategy = Strategy::of(&deployment);
        assert_eq!(
            strategy,
            Strategy::Rolling {
                surge: 2,
                unavailable: 1
            }
        );
        assert_eq!((strategy.minimum(5), strategy.maximum(5)), (4, 7));
    }

    #[test]
    fn recreating_waits_until_the_last_old_pod_is_gone() {
        let old = [size(0, 0)];
        assert_eq!(Strategy::Recreate.shrink(3, size(0, 0), &[size(2, 2)]), [0]);
        assert_eq!(Strategy::Recreate.grow(3, size(0, 0), &old, 1), 0);
        assert_eq!(Strategy::Recreate.grow(3, size(0, 0), &old, 0), 3);
    }
}
