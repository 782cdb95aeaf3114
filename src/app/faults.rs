//! What is wrong right now, in words: logged once, shown in metrics, page and API until it is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::admin::Condition;
use crate::clock::{Clock, Timestamp};
use crate::telemetry;

/// What can be wrong with the control half. None of it touches a request.
///
/// One for each source that raises and clears it: two that shared one would clear what the other still suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// No way to the Kubernetes API.
    Cluster,
    /// The Deployment to scale is not known.
    Target,
    /// The Lease cannot be read or written.
    Lease,
    /// It is not known whether who says to lead does.
    Verify,
    /// Nobody is heard to lead, by one who should be told.
    Leader,
    /// The pods cannot be watched.
    WatchPods,
    /// The leads' pods cannot be watched.
    WatchLeads,
    /// The Deployment cannot be watched, or is gone.
    WatchDeployment,
    /// Most of the ready pods are out of reach.
    Members,
    /// The Deployment cannot be read, stamped or scaled.
    Scale,
    /// Pods that go cannot be marked, as was wanted.
    DeletionCosts,
    /// The past of the fleet is not known: its checkpoint cannot be read, or was lost.
    History,
    /// The checkpoint cannot be written.
    Checkpoint,
    /// The policy is missing or refused.
    Policy,
    /// The server's own metrics cannot be read.
    Server,
}

/// The faults of one sidecar; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    clock: Clock,
    known: Arc<Mutex<BTreeMap<Fault, Known>>>,
}

/// One kind of fault since the start.
#[derive(Clone, Debug, Default)]
struct Known {
    count: u64,
    now: Option<(Timestamp, String)>,
}

// === impl Fault ===

impl Fault {
    /// Those that only a leader can have: they end with its reign.
    pub(super) const OF_A_REIGN: [Self; 8] = [
        Self::WatchPods,
        Self::WatchLeads,
        Self::WatchDeployment,
        Self::Members,
        Self::Scale,
        Self::DeletionCosts,
        Self::History,
        Self::Checkpoint,
    ];

    /// A stable word for metrics and JSON.
    const fn label(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Target => "target",
            Self::Lease => "lease",
            Self::Verify => "verify",
            Self::Leader => "leader",
            Self::WatchPods => "watch_pods",
            Self::WatchLeads => "watch_leads",
            Self::WatchDeployment => "watch_deployment",
            Self::Members => "members",
            Self::Scale => "scale",
            Self::DeletionCosts => "deletion_costs",
            Self::History => "history",
            Self::Checkpoint => "checkpoint",
            Self::Policy => "policy",
            Self::Server => "server",
        }
    }
}

// === impl Faults ===

impl Faults {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            known: Arc::default(),
        }
    }

    /// Sets the text of a fault. Logs it when it is news, so that it stands in the log once and not once a turn.
    pub(super) fn raise(&self, fault: Fault, text: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(fault).or_default();
        if known.now.as_ref().is_some_and(|(_, now)| *now == text) {
            return;
        }
        tracing::warn!(fault = fault.label(), "{text}");
        known.count += 1;
        let since = known
            .now
            .as_ref()
            .map_or_else(|| self.clock.now().timestamp, |(since, _)| *since);
        known.now = Some((since, text));
    }

    /// The fault is over.
    pub(super) fn clear(&self, fault: Fault) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&fault)
            && known.now.take().is_some()
        {
            tracing::info!(fault = fault.label(), "over");
        }
    }

    /// All of these are over.
    pub(super) fn clear_all(&self, faults: &[Fault]) {
        for fault in faults {
            self.clear(*fault);
        }
    }

    /// The text of a fault, while it lasts.
    pub(super) fn text(&self, fault: Fault) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (_since, text) = known.get(&fault)?.now.as_ref()?;
        Some(text.clone())
    }

    /// All that is wrong now, worst first.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let active = known.iter().filter_map(|(fault, known)| {
            let (since, text) = known.now.clone()?;
            Some(Condition {
                kind: fault.label(),
                since,
                text,
                remedy: None,
            })
        });
        active.collect()
    }

    /// For the metrics.
    pub(super) fn counts(&self) -> Vec<telemetry::Fault> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = known.iter().map(|(fault, known)| telemetry::Fault {
            kind: fault.label(),
            count: known.count,
            is_active: known.now.is_some(),
        });
        counts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_once_until_its_text_changes_or_it_is_over() {
        let faults = Faults::new(Clock::scaled(Timestamp::default(), 1.0));
        for text in ["a", "a", "b"] {
            faults.raise(Fault::Lease, text.to_owned());
        }
        assert_eq!(faults.conditions()[0].text, "b");
        assert_eq!(faults.counts()[0].count, 2);
        faults.clear(Fault::Lease);
        assert!(faults.conditions().is_empty());
        faults.raise(Fault::Lease, "b".to_owned());
        assert_eq!(faults.counts()[0].count, 3);
    }
}
