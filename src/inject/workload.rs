//! Workloads: what has a pod template, and who asked for a sidecar in it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::selection::Selector;
use super::settings::{INJECT, is_true};
use super::verdict::Refusal;

/// What can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
    Pod,
    /// A pod as a Deployment's template has it: what can be settled ahead of admission.
    Template,
    /// A pod of a Deployment on its way into the cluster.
    Admitted,
}

/// A workload's own words, read once.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Of its pods.
    pub(super) labels: BTreeMap<String, String>,
    /// `spec.replicas`, where it is written.
    pub(super) replicas: Option<u64>,
    /// The workload's own, not the template's.
    pub(super) metadata: Value,
    /// `spec.selector`.
    pub(super) selector: Value,
}

// === impl Kind ===

impl Kind {
    pub(super) fn of(object: &Value) -> Option<Self> {
        match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
            ("apps/v1", "Deployment") => Some(Self::Deployment),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            ("v1", "Pod") => Some(Self::Pod),
            _ => None,
        }
    }

    /// Where the pod's `metadata` and `spec` stand.
    pub(super) fn template(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "/spec/template",
            Self::Pod | Self::Template | Self::Admitted => "",
        }
    }

    /// As kubectl says it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Deployment | Self::Template | Self::Admitted => "deployment",
            Self::StatefulSet => "statefulset",
            Self::Pod => "pod",
        }
    }

    /// Whether the pod alone can be changed: not what stands in its Deployment, and not its account.
    pub(super) fn is_at_admission(self) -> bool {
        matches!(self, Self::Template | Self::Admitted)
    }
}

// === impl Workload ===

impl Workload {
    /// `Ok(None)`: `object` is something else.
    pub(super) fn of(object: &Value) -> Result<Option<Self>, Refusal> {
        let Some(kind) = Kind::of(object) else {
            return Ok(None);
        };
        let missing = |place: &str, reason| {
            Err(Refusal::new(
                format!("{}/{place}", kind.word()),
                reason,
                "is it whole?",
            ))
        };
        let Some(name) = object["metadata"]["name"].as_str() else {
            return missing("?", "has no metadata.name");
        };
        let pod = object.pointer(&format!("{}/spec", kind.template()));
        if !pod.is_some_and(|pod| pod["containers"].is_array()) {
            return missing(name, "has no list of containers");
        }
        let template = object.pointer(kind.template()).unwrap_or(&Value::Null);
        Ok(Some(Self {
            kind,
            name: name.to_owned(),
            namespace: text(&object["metadata"]["namespace"]),
            labels: strings(&template["metadata"]["labels"]),
            replicas: object["spec"]["replicas"].as_u64(),
            metadata: object["metadata"].clone(),
            selector: object["spec"]["selector"].clone(),
        }))
    }

    /// `deployment/bert`.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.kind.word(), self.name)
    }
}

/// Whether somebody wants a sidecar in `object`.
pub(super) fn is_asked(object: &Value, selector: Option<&Selector>) -> Result<bool, Refusal> {
    let template = &object["spec"]["template"]["metadata"]["annotations"];
    let said = [template, &object["metadata"]["annotations"]];
    if let Some(said) = said.iter().find_map(|place| place.get(INJECT)) {
        return is_true(said).ok_or_else(|| {
            Refusal::new(
                described(object),
                format!("{INJECT} is {said}"),
                "write \"true\" or \"false\", in quotes",
            )
        });
    }
    Ok(selector.is_some_and(|selector| selector.picks(object)))
}

/// What objects of this workload's fleet are called.
pub(super) fn companion(workload: &str) -> String {
    format!("sidescale-{workload}")
}

/// `deployment/bert`, of whatever kind it is.
pub(super) fn described(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("?").to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or("?");
    format!("{kind}/{name}")
}

/// Whether two documents may be of one namespace: one that names none goes where the other one does.
pub(super) fn is_one_namespace(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || other.is_none() || one == other
}

pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// What of an object is a string.
pub(super) fn strings(object: &Value) -> BTreeMap<String, String> {
    let entries = object.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
        .collect()
}
