//! How those that go are given up first: they stand aside, or are marked by their deletion cost where that is wanted.

use super::Throne;
use crate::app::faults::Fault;
use crate::clock::Now;
use crate::fleet::Snapshot;
use crate::fleet::parting::{BACK, away};
use crate::plan::{Plan, Reason, Step};

// === impl Throne ===

impl Throne {
    /// Whether the replicas may fall now: those that go are known to Kubernetes, and what was learnt is saved. Says in the plan
    /// who goes.
    pub(super) async fn may_lower(
        &mut self,
        now: Now,
        plan: &mut Plan,
        snapshot: &Snapshot,
    ) -> bool {
        let me = &self.reign.shared.config.pod.name;
        let by = snapshot.spec_replicas.saturating_sub(plan.desired);
        let by = usize::try_from(by).unwrap_or(usize::MAX);
        let lowering = self.parting.lower(snapshot, me, by, now.instant);
        plan.reasons.extend(lowering.who().map(|text| Reason {
            step: Step::Down,
            text,
        }));
        let go = self.are_marked(&lowering.away, &lowering.back).await || {
            let away = lowering.away.into_iter().map(|pod| (pod, away()));
            let back = lowering.back.into_iter().map(|pod| (pod, BACK));
            self.tell(back.chain(away).collect());
            lowering.go
        };
        if go && !self.is_saved(now).await {
            self.turns.rest();
            return false;
        }
        go
    }

    /// No pod should go: whoever was to stays.
    pub(super) async fn keep_all(&mut self) {
        let kept = self.parting.keep();
        if !kept.is_empty() && !self.are_marked(&[], &kept).await {
            self.tell(kept.into_iter().map(|pod| (pod, BACK)).collect());
        }
    }

    /// Marks them, where it is wanted. Without the right to, they stand aside as they would without the wish.
    async fn are_marked(&self, away: &[String], back: &[String]) -> bool {
        let Some(costs) = &self.costs else {
            return false;
        };
        let faults = &self.reign.shared.faults;
        match costs.mark(away, back).await {
            Ok(()) => {
                faults.clear(Fault::DeletionCosts);
                true
            }
            Err(fault) => {
                let text = format!("{fault}; pods that go turn unready first instead");
                faults.raise(Fault::DeletionCosts, text);
                false
            }
        }
    }
}
