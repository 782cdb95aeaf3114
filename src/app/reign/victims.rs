//! How those that go are given up first: they stand aside, or are marked by their deletion cost where that is wanted.

use super::Throne;
use crate::app::faults::Fault;
use crate::clock::Now;
use crate::fleet::Snapshot;
use crate::fleet::parting::{AWAY, BACK, Lowering};
use crate::plan::{Plan, Reason, Step};

// === impl Throne ===

impl Throne {
    /// Who is to go, where the plan wants fewer and its last write did not fail; says so in the plan.
    pub(super) fn choose_who_goes(
        &mut self,
        now: Now,
        plan: &mut Plan,
        snapshot: &Snapshot,
        acts: bool,
    ) -> Option<Lowering> {
        if !acts || self.has_failed || plan.desired >= snapshot.spec_replicas {
            return None;
        }
        let me = &self.reign.shared.config.pod.name;
        let desired = usize::try_from(plan.desired).unwrap_or(usize::MAX);
        let lowering = self.parting.lower(snapshot, me, desired, now.instant);
        plan.reasons.extend(lowering.who().map(|text| Reason {
            step: Step::Down,
            text,
        }));
        Some(lowering)
    }

    /// Whether the replicas may fall now: those that go are known to Kubernetes, and what was learnt is saved. Nobody stands aside
    /// while it cannot be.
    pub(super) async fn may_lower(&mut self, now: Now, lowering: Option<Lowering>) -> bool {
        let cannot_save = self.reign.shared.faults.text(Fault::Checkpoint).is_some();
        if cannot_save && !self.is_saved_or_all_stay(now).await {
            return false;
        }
        let go = match lowering {
            Some(lowering) => self.let_go(lowering).await,
            // Kubernetes chooses.
            None => true,
        };
        go && self.is_saved_or_all_stay(now).await
    }

    /// Whether what was learnt is saved; if not, nobody goes for now.
    async fn is_saved_or_all_stay(&mut self, now: Now) -> bool {
        let is_saved = self.is_saved(now).await;
        if !is_saved {
            self.keep_all().await;
            self.turns.rest();
        }
        is_saved
    }

    /// Marks them, or asks them to stand aside; whether the replicas may fall.
    async fn let_go(&self, lowering: Lowering) -> bool {
        let Lowering { away, back, go, .. } = lowering;
        let marked = self.are_marked(&away, &back).await;
        // Whatever became of the marks: somebody may stand aside from when they could not be written.
        self.tell(back.into_iter().map(|pod| (pod, BACK)).collect());
        if !marked {
            self.tell(away.into_iter().map(|pod| (pod, AWAY)).collect());
        }
        marked || go
    }

    /// No pod should go: whoever was to stays.
    pub(super) async fn keep_all(&mut self) {
        let kept = self.parting.keep();
        self.bring_back(kept).await;
    }

    /// Whoever was to go and did not stays, also where a leader before this one wanted it.
    pub(super) async fn let_stay(&mut self, now: Now, snapshot: &Snapshot) {
        let mut stay = self.parting.survivors(snapshot, now.instant);
        if self.costs.is_some() {
            stay.extend(self.parting.marked_in_vain(snapshot));
        }
        self.bring_back(stay).await;
    }

    async fn bring_back(&self, pods: Vec<String>) {
        if pods.is_empty() {
            return;
        }
        self.are_marked(&[], &pods).await;
        self.tell(pods.into_iter().map(|pod| (pod, BACK)).collect());
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
