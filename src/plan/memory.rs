//! What a planner remembers from turn to turn: the pace of changes, and since when a pod is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::behavior::Pace;
use crate::clock::Instant;
use crate::fleet::{Member, Pod, PodPhase, Reading, Snapshot};

/// A pod that was ready and is not any more is replaced after this time; a probe that fails once is no lost pod.
pub(super) const UNREADY_GRACE: Duration = Duration::from_secs(30);

/// What a planner remembers from turn to turn.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Past recommendations and changes.
    pub(super) pace: Pace,
    /// `spec.replicas` of the turn before.
    spec_replicas: u32,
    /// When `spec.replicas` was last seen to fall, by whomever; at first the first turn, as nothing is known of before.
    pub(super) lowered: Instant,
    /// Since when each pod is unready, by uid.
    unready: BTreeMap<String, Instant>,
}

// === impl Memory ===

impl Memory {
    /// A memory that starts with what it first sees.
    pub(super) fn new(now: Instant, current: u32) -> Self {
        Self {
            pace: Pace::seeded(now, current),
            spec_replicas: current,
            lowered: now,
            unready: BTreeMap::new(),
        }
    }

    /// Takes in what changed since the last turn.
    pub(super) fn observe(&mut self, now: Instant, snapshot: &Snapshot) {
        let current = snapshot.spec_replicas;
        if current < self.spec_replicas {
            self.lowered = now;
        }
        self.pace.record(now, self.spec_replicas, current);
        self.spec_replicas = current;
        let unready: Vec<&Pod> = snapshot.pods.iter().filter(|pod| is_lost(pod)).collect();
        self.unready
            .retain(|uid, _since| unready.iter().any(|pod| pod.uid == *uid));
        for pod in unready {
            if !self.unready.contains_key(&pod.uid) {
                self.unready.insert(pod.uid.clone(), now);
            }
        }
    }

    /// Pods that have been unready for longer than [`UNREADY_GRACE`].
    pub(super) fn lost(&self, now: Instant) -> usize {
        let since = self.unready.values();
        since.filter(|at| now.since(**at) >= UNREADY_GRACE).count()
    }
}

/// Was ready, is not any more, and not because it was asked to go.
fn is_lost(pod: &Pod) -> bool {
    let is_draining = matches!(
        pod.member,
        Member::Reporting(Reading { draining: true, .. })
    );
    pod.phase == PodPhase::Unready && !is_draining
}
