//! The sidecar by a policy that the API server evaluates itself: no process, no certificate, no request to anybody.
//!
//! Everything is known when it is made, so it says one Deployment's changes. It finds the RoleBinding of the fleet as its
//! parameter, in the pod's own namespace: where `--rbac` was not applied there is none, and the policy does nothing. A
//! policy that changes cannot warn, so a second one, which only validates, warns about pods that came without.

use serde_json::{Value, json};

use super::cel::{Change, change, quoted, unchanged};
use super::companions::MANAGED_BY;
use super::edits::Edits;
use super::probes::CALLERS;
use super::settings::INJECT;
use super::sidecar;
use super::task::Task;
use super::workload::companion;

const API: &str = "admissionregistration.k8s.io/v1";

/// The policies for the pods of a Deployment, of whose template `settled` has taken the steps and `template` is what it was.
pub(super) fn of(settled: &Task, template: &Value) -> Vec<Value> {
    let workload = &settled.workload;
    let binding = companion(&workload.name);
    let name = match &workload.namespace {
        Some(namespace) => format!("{}.{namespace}.sidescale.dev", workload.name),
        None => format!("{}.sidescale.dev", workload.name),
    };
    let changes = changes(settled, template);
    let asked = [
        condition("pods-of-the-deployment", &is_of("object", &workload.name)),
        condition("asked", &is_not_declined()),
    ];
    let mut conditions = asked.to_vec();
    conditions.push(condition("without-a-sidecar", &format!("!({})", has_one())));
    conditions.push(condition("account-with-the-role", HAS_THE_ROLE));
    conditions.push(condition("free-ports", &free_ports(&settled.taken)));
    for (name, guard) in callers(settled, template) {
        conditions.push(condition(&name, &guard));
    }
    for (number, change) in changes.iter().enumerate() {
        conditions.push(condition(&format!("as-applied-{number}"), &change.guard));
    }
    let constraints = constraints(settled);
    let mutating = json!({
        // A pod without a sidecar serves; one that is refused does not.
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "IfNeeded",
        "paramKind": {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"},
        "matchConstraints": constraints,
        "matchConditions": conditions,
        "mutations": [{
            "patchType": "JSONPatch",
            "jsonPatch": {"expression": expression(&changes)},
        }],
    });
    let bound = json!({
        "policyName": name,
        "paramRef": {"name": binding, "parameterNotFoundAction": "Allow"},
    });
    let validating = json!({
        "failurePolicy": "Ignore",
        "matchConstraints": constraints,
        "matchConditions": asked,
        "validations": [{
            "expression": has_one(),
            "message": format!(
                "no sidescale sidecar: the RoleBinding {binding} is not there or not for the pod's account, or the template is not \
                 the one that was given; apply what `sidescale inject --rbac --admission-policy` prints for it"
            ),
        }],
    });
    let warns = json!({"policyName": name, "validationActions": ["Warn"]});
    let objects = [
        ("MutatingAdmissionPolicy", mutating),
        ("MutatingAdmissionPolicyBinding", bound),
        ("ValidatingAdmissionPolicy", validating),
        ("ValidatingAdmissionPolicyBinding", warns),
    ];
    let object = |(kind, spec)| {
        json!({
            "apiVersion": API,
            "kind": kind,
            "metadata": {"name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "spec": spec,
        })
    };
    objects.into_iter().map(object).collect()
}

/// That the fleet's RoleBinding, the parameter, is for the pod's account.
const HAS_THE_ROLE: &str = "has(params.subjects) && params.subjects.exists(s, s.kind == \"ServiceAccount\" && s.name == \
                            object.spec.serviceAccountName)";

fn changes(settled: &Task, template: &Value) -> Vec<Change> {
    let before = Edits::of(template.clone());
    let steps = settled.edits.before().iter().zip(settled.edits.patch());
    // What a step found may be what another one has put there.
    steps
        .map(|(place, patch)| change(place, patch, before.get(&place.at)))
        .collect()
}

/// All changes, as the one list of steps that the API server wants.
fn expression(changes: &[Change]) -> String {
    let mut patches: Vec<&str> = Vec::new();
    for change in changes {
        // Made twice, a list would lose what the first change has put there.
        let list = change.list.as_deref();
        patches.extend(list.filter(|list| !patches.contains(list)));
        patches.push(&change.patch);
    }
    patches.join(" +\n")
}

/// That what calls the server by its ports is what it was: a probe that came later would ask the sidecar instead.
fn callers(settled: &Task, template: &Value) -> Vec<(String, String)> {
    let before = Edits::of(template.clone());
    let mut guards = Vec::new();
    for caller in CALLERS {
        let name = caller.trim_start_matches('/').replace('/', "-");
        // A hook stands in `lifecycle`, which a container need not have.
        let (holder, _) = caller.rsplit_once('/').unwrap_or_default();
        let whole = settled.server(holder);
        let at = settled.server(caller);
        let guard = match (before.get(&whole), before.get(&at)) {
            (None | Some(Value::Null), _) => unchanged(&whole, None),
            (_, None | Some(Value::Null)) => unchanged(&at, None),
            (_, was) => unchanged(&at, was),
        };
        guards.push((format!("server-{name}"), guard));
    }
    guards
}

/// That nobody listens where the sidecar will, and that the pod has a network of its own.
fn free_ports(taken: &[u16]) -> String {
    let free = |list: &str, stays: &str| {
        format!(
            "{list}.all(c, {stays}!has(c.ports) || c.ports.all(p, (has(p.protocol) && p.protocol != \"TCP\") || !(p.containerPort in \
             {taken:?})))"
        )
    };
    let beside = free("object.spec.containers", "");
    let first = free(
        "object.spec.initContainers",
        "!has(c.restartPolicy) || c.restartPolicy != \"Always\" || ",
    );
    format!(
        "(!has(object.spec.hostNetwork) || !object.spec.hostNetwork) && {beside} && (!has(object.spec.initContainers) || {first})"
    )
}

fn constraints(settled: &Task) -> Value {
    let mut constraints = json!({
        "objectSelector": settled.workload.selector,
        "resourceRules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
        }],
    });
    if let Some(namespace) = &settled.workload.namespace {
        let labels = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        constraints["namespaceSelector"] = labels;
    }
    constraints
}

fn condition(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

/// A ReplicaSet of a Deployment is called after it and the hash of the template.
/// That the pod in a variable was made for the Deployment.
pub(super) fn is_of(pod: &str, deployment: &str) -> String {
    format!(
        "has({pod}.metadata.labels) && \"pod-template-hash\" in {pod}.metadata.labels && has({pod}.metadata.ownerReferences) && \
         {pod}.metadata.ownerReferences.exists(o, has(o.controller) && o.controller && o.kind == \"ReplicaSet\" && o.name == {} + \
         {pod}.metadata.labels[\"pod-template-hash\"])",
        quoted(&format!("{deployment}-"))
    )
}

fn is_not_declined() -> String {
    let key = quoted(INJECT);
    format!(
        "!has(object.metadata.annotations) || !({key} in object.metadata.annotations) || object.metadata.annotations[{key}] != \
         \"false\""
    )
}

fn has_one() -> String {
    let name = quoted(sidecar::NAME);
    format!(
        "(has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == {name})) || \
         object.spec.containers.exists(c, c.name == {name})"
    )
}
