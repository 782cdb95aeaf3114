//! A workload as it will be, for who compares it with what runs in a cluster.

use std::time::Duration;

use serde_json::Value;

use super::task::Task;
use super::verdict::{Note, Refusal};

/// A workload as it will be.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// As kubectl says it: `deployment`, `statefulset` or `pod`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// As the manifest has it; `None`: it does not say.
    pub namespace: Option<String>,
    /// The spec of its pods, with the sidecar.
    pub(super) pod: Value,
    /// How long a drain may take.
    pub(super) grace: Duration,
    /// The document it stands in.
    pub(super) document: String,
}

// === impl Prospect ===

impl Prospect {
    /// What has become of `task`, whose steps are done.
    pub(super) fn of(task: &Task) -> Self {
        Self {
            kind: task.workload.kind.word(),
            name: task.workload.name.clone(),
            namespace: task.workload.namespace.clone(),
            pod: task.in_pod("").clone(),
            grace: Duration::from_secs(task.grace),
            document: String::new(),
        }
    }

    /// The same, with the document that it stands in.
    pub(super) fn within(mut self, document: &str) -> Self {
        document.clone_into(&mut self.document);
        self
    }

    /// `deployment/bert`.
    pub fn place(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// Something to know about it.
    pub fn note(&self, text: impl Into<String>) -> Note {
        Note {
            place: self.place(),
            text: text.into(),
        }
    }

    pub(super) fn refuse(
        &self,
        at: &str,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Refusal {
        let place = format!("{} {at}", self.place());
        Refusal::new(place, reason, remedy).within(&self.document)
    }
}
