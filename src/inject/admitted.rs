//! A pod on its way into the cluster.
//!
//! Nothing here may keep a pod out: it comes with a sidecar, or as it was and with a reason. What its Deployment's objects
//! are called is told by the owner: a ReplicaSet of a Deployment is called after it and the hash of the template, which
//! stands in the pod's label, so what is left is the Deployment's name. (The label alone could be anybody's, and a name
//! alone could be cut anywhere.)

use serde_json::Value;

use super::companions::FOLLOW;
use super::settings::{INJECT, Settings, is_true};
use super::steps::take;
use super::task::{Task, containers};
use super::verdict::Refusal;
use super::workload::{Kind, Workload, companion, strings, text};
use super::{Options, Surroundings, sidecar};

/// The longest warning that clients are shown whole.
const LONGEST: usize = 256;
/// What a ReplicaSet of a Deployment and its pods have in common.
const HASH: &str = "pod-template-hash";

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// It has not asked, or has a sidecar already.
    Unchanged,
    /// It gets one.
    Injected(Admitted),
}

/// A pod that gets its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// JSON patch (RFC 6902).
    pub patch: Vec<Value>,
    /// The pod's account.
    pub account: String,
    /// The RoleBinding that must give this account the Role: see [`has_the_role`].
    pub binding: String,
    /// `deployment/bert`.
    pub place: String,
}

/// The sidecar for `pod`, which is about to be created.
pub fn pod(pod: &Value, options: &Options) -> Result<Admission, Refusal> {
    let asked = match pod["metadata"]["annotations"].get(INJECT) {
        None => false,
        Some(said) => is_true(said).ok_or_else(|| {
            let reason = format!("{INJECT} is {said}");
            Refusal::new("pod", reason, "write \"true\" or \"false\", in quotes")
        })?,
    };
    let has_one = containers(&pod["spec"]).any(|container| container.name == sidecar::NAME);
    if !asked || has_one {
        return Ok(Admission::Unchanged);
    }
    let Some(name) = deployment(pod) else {
        return Err(Refusal::new(
            "pod",
            "no ReplicaSet of a Deployment owns it",
            "use `sidescale inject` on its manifest",
        ));
    };
    let workload = Workload {
        kind: Kind::Admitted,
        name,
        namespace: text(&pod["metadata"]["namespace"]),
        labels: strings(&pod["metadata"]["labels"]),
        replicas: None,
        metadata: pod["metadata"].clone(),
        selector: Value::Null,
    };
    let place = workload.place();
    let first = |refusals: Vec<Refusal>| {
        let nothing = || Refusal::new(&place, "something was refused", "look at the log");
        refusals.into_iter().next().unwrap_or_else(nothing)
    };
    let annotations = &pod["metadata"]["annotations"];
    let settings = Settings::read(&place, &Value::Null, annotations).map_err(first)?;
    let binding = companion(&workload.name);
    let mut task = Task::new(workload, settings, pod.clone());
    take(&mut task, &Surroundings::default(), options).map_err(first)?;
    Ok(Admission::Injected(Admitted {
        patch: task.edits.patch().to_vec(),
        account: text(task.in_pod("/serviceAccountName")).unwrap_or_default(),
        binding,
        place,
    }))
}

/// Whether a RoleBinding of the fleet, `null` where there is none, gives `account` its Role.
pub fn has_the_role(binding: &Value, account: &str, place: &str) -> Result<(), Refusal> {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    let mut accounts = subjects.filter(|subject| subject["kind"] == "ServiceAccount");
    if accounts.any(|subject| subject["name"] == account) {
        return Ok(());
    }
    let reason = if binding.is_null() {
        "its Role is not there".to_owned()
    } else {
        format!("its Role is not for the account {account}")
    };
    let remedy = "apply what `sidescale inject --rbac` prints for its manifest";
    Err(Refusal::new(place, reason, remedy))
}

/// Whether sidecars with the Role of this RoleBinding may only follow, because `sidescale lead` leads their fleet.
pub fn only_follows(binding: &Value) -> bool {
    binding["metadata"]["annotations"][FOLLOW] == "true"
}

/// The name of the Deployment that the pod's owner belongs to.
fn deployment(pod: &Value) -> Option<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let of_apps = owner["apiVersion"].as_str()?.starts_with("apps/");
    if !of_apps || owner["kind"] != "ReplicaSet" {
        return None;
    }
    let hash = pod["metadata"]["labels"][HASH].as_str()?;
    let name = owner["name"]
        .as_str()?
        .strip_suffix(hash)?
        .strip_suffix('-')?;
    (!name.is_empty()).then(|| name.to_owned())
}

// === impl Refusal ===

impl Refusal {
    /// As one admission warning.
    pub fn warning(&self) -> String {
        let whole = format!("no sidescale sidecar: {self}");
        if whole.len() <= LONGEST {
            return whole;
        }
        let cut = "..";
        let ends = whole.char_indices().map(|(end, _)| end);
        let end = ends
            .take_while(|end| end + cut.len() <= LONGEST)
            .last()
            .unwrap_or(0);
        format!("{}{cut}", &whole[..end])
    }
}
