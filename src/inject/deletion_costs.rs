//! What keeps the right to patch pods to one annotation of a fleet's own pods.
//!
//! RBAC cannot say "this annotation" or "these pods", so whoever lets the leader write deletion costs gets a policy with it that
//! the API server holds every such write against.

use serde_json::{Value, json};

use super::account::Account;
use super::admission_policy::is_of as is_pod_of;
use super::cel::quoted;
use super::companions::MANAGED_BY;
use super::rights::Part;
use super::task::Task;
use super::workload::{Workload, companion};
use crate::fleet::DELETION_COST;

/// The account that writes them.
pub(super) fn writer(workload: &Workload, account: &Account, part: Part) -> String {
    match part {
        Part::Follower => format!("{}-lead", companion(&workload.name)),
        Part::Sidecar | Part::Lead => account.name.clone(),
    }
}

/// Refuses what the policy could not keep apart, and says what it means.
pub(super) fn check(task: &mut Task, account: &Account, part: Part) {
    if !task.settings.deletion_costs {
        return;
    }
    let place = "annotation sidescale.dev/deletion-costs";
    if task.workload.namespace.is_none() {
        task.refuse(
            place,
            "its policy is the whole cluster's, and without metadata.namespace another workload of this name would replace it",
            "write the namespace into the manifest",
        );
    }
    if part != Part::Follower && !account.is_made {
        let reason = format!(
            "its policy would refuse all else that {} may write of pods, wherever that account is used",
            account.name
        );
        let remedy = format!(
            "name serviceAccountName: {}, or let `sidescale lead` decide (--lead)",
            companion(&task.workload.name)
        );
        task.refuse(place, reason, remedy);
    }
    task.note(
        "a policy of the whole cluster comes with it (Kubernetes 1.30): apply it before the Role, which lets the leader patch all pods \
         of the namespace without it",
    );
}

/// The policy and its binding, for the account `writer` of the workload's namespace.
pub(super) fn of(workload: &Workload, writer: &str) -> [Value; 2] {
    let name = name(&workload.name, workload.namespace.as_deref());
    let key = quoted(DELETION_COST);
    let user = format!(
        "request.userInfo.username == \"system:serviceaccount:\" + request.namespace + \":\" + {}",
        quoted(writer)
    );
    let same = |field: &str| format!("object.metadata.?{field} == oldObject.metadata.?{field}");
    let annotations = format!(
        "{now}.all(k, k == {key} || {before}[?k] == {now}[?k]) && {before}.all(k, k == {key} || k in {now})",
        now = "object.metadata.?annotations.orValue({})",
        before = "oldObject.metadata.?annotations.orValue({})",
    );
    let nothing_else = [
        "object.spec == oldObject.spec".to_owned(),
        annotations,
        same("labels"),
        same("finalizers"),
        same("ownerReferences"),
    ];
    let spec = json!({
        // Whatever cannot be judged is not written: the replicas fall all the same.
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"],
        }]},
        "matchConditions": [{"name": "the-leaders-account", "expression": user}],
        "validations": [
            {
                "expression": is_pod_of("oldObject", &workload.name),
                "message": format!("{writer} may write pods of {} alone", workload.name),
            },
            {
                "expression": nothing_else.join(" && "),
                "message": format!("{writer} may write {DELETION_COST} of a pod, and nothing else"),
            },
        ],
    });
    let bound = json!({"policyName": name, "validationActions": ["Deny"]});
    [
        ("ValidatingAdmissionPolicy", spec),
        ("ValidatingAdmissionPolicyBinding", bound),
    ]
    .map(|(kind, spec)| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "spec": spec,
        })
    })
}

/// Whether `object` is one of them, for the workload with these metadata.
pub(super) fn is_of(object: &Value, workload: &Value) -> bool {
    let its = workload["name"].as_str().unwrap_or_default();
    object["metadata"]["name"] == name(its, workload["namespace"].as_str()).as_str()
}

/// Of the whole cluster, so the namespace is in it, as far as the manifest says it.
fn name(workload: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{workload}.{namespace}.deletion-costs.sidescale.dev"),
        None => format!("{workload}.deletion-costs.sidescale.dev"),
    }
}
