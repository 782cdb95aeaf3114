//! One workload on its way to a sidecar: what all steps read and write.

use serde_json::Value;

use super::edits::{Edits, Malformed, escape};
use super::settings::Settings;
use super::verdict::{Note, Refusal};
use super::workload::Workload;

/// One workload on its way to a sidecar.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) workload: Workload,
    pub(super) settings: Settings,
    pub(super) edits: Edits,
    /// Name of the container that the sidecar stands in front of.
    pub(super) server: String,
    /// How long a drain may take in seconds, once that is settled.
    pub(super) grace: u64,
    /// Ports of the pod that nobody had before and somebody has now.
    pub(super) taken: Vec<u16>,
    pub(super) notes: Vec<Note>,
    pub(super) refusals: Vec<Refusal>,
}

/// One container of the pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
    /// Whether it runs beside the others: a container, or a native sidecar.
    pub(super) stays: bool,
}

// === impl Task ===

impl Task {
    pub(super) fn new(workload: Workload, settings: Settings, document: Value) -> Self {
        Self {
            workload,
            settings,
            edits: Edits::of(document),
            server: String::new(),
            grace: 0,
            taken: Vec::new(),
            notes: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// A way into the pod's spec.
    pub(super) fn pod(&self, at: &str) -> String {
        format!("{}/spec{at}", self.workload.kind.template())
    }

    /// A way into the server's container.
    pub(super) fn server(&self, at: &str) -> String {
        self.pod(&format!("/containers/name={}{at}", escape(&self.server)))
    }

    /// What stands in the pod's spec.
    pub(super) fn in_pod(&self, at: &str) -> &Value {
        self.edits.get(&self.pod(at)).unwrap_or(&Value::Null)
    }

    /// What stands in the server's container.
    pub(super) fn in_server(&self, at: &str) -> &Value {
        self.edits.get(&self.server(at)).unwrap_or(&Value::Null)
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        let place = self.workload.place();
        self.notes.push(Note {
            place,
            text: text.into(),
        });
    }

    /// `at` is the way within the pod's spec, in the words of the manifest.
    pub(super) fn refuse(
        &mut self,
        at: &str,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let place = format!("{} {at}", self.workload.place());
        self.refusals
            .push(Refusal::new(place.trim_end(), reason, remedy));
    }

    /// Takes an edit's failure for a refusal.
    pub(super) fn check(&mut self, edited: Result<(), Malformed>) {
        if let Err(malformed) = edited {
            let place = self.workload.place();
            self.refusals.push(Refusal::malformed(&place, &malformed));
        }
    }

    /// The words of the manifest for the server's container.
    pub(super) fn server_words(&self, at: &str) -> String {
        format!("containers[{}]{at}", self.server)
    }
}

/// All containers of a pod's spec, those that run to their end first included.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = Container<'_>> {
    let all = |key: &str| pod[key].as_array().into_iter().flatten();
    let first = all("initContainers").map(|value| (value, value["restartPolicy"] == "Always"));
    let beside = all("containers").map(|value| (value, true));
    first.chain(beside).map(|(value, stays)| Container {
        name: value["name"].as_str().unwrap_or("?"),
        value,
        stays,
    })
}

/// The ports that a container declares: name, number.
pub(super) fn declared(container: &Value) -> impl Iterator<Item = (Option<&str>, u16)> {
    let ports = container["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| {
        let is_tcp = port
            .get("protocol")
            .is_none_or(|protocol| protocol == "TCP");
        let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
        is_tcp.then_some((port["name"].as_str(), number))
    })
}
