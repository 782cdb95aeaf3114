//! What the server adds to an object before it keeps it, and what it refuses about one.
//!
//! Only what a client of ours can meet: the defaults of Deployments and pods that change how they run, and the
//! validation of the fields that we write. Fields that the real server would not know are kept here; it drops them.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, rbac::v1 as rbac};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::json::{copy, elements, has, number, set, set_default, text};
use super::kind::Kind;
use super::refusal::{Cause, Refusal};
use super::selector;

const LABEL_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
     and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const POD_RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Says what of the object is of a wrong type, for the kinds whose fields are read here.
pub(super) fn mistyped(kind: Kind, object: &Value) -> Option<String> {
    fn reads<T: DeserializeOwned>(object: &Value) -> Option<String> {
        serde_json::from_value::<T>(object.clone())
            .err()
            .map(|error| error.to_string())
    }
    match kind {
        Kind::Namespace => reads::<core::Namespace>(object),
        Kind::Node => reads::<core::Node>(object),
        Kind::Pod => reads::<core::Pod>(object),
        Kind::ConfigMap => reads::<core::ConfigMap>(object),
        Kind::ServiceAccount => reads::<core::ServiceAccount>(object),
        Kind::Service => reads::<core::Service>(object),
        Kind::Deployment => reads::<apps::Deployment>(object),
        Kind::ReplicaSet => reads::<apps::ReplicaSet>(object),
        Kind::Lease => reads::<Lease>(object),
        Kind::Event => reads::<Event>(object),
        Kind::Role => reads::<rbac::Role>(object),
        Kind::RoleBinding => reads::<rbac::RoleBinding>(object),
        Kind::ClusterRole => reads::<rbac::ClusterRole>(object),
        Kind::ClusterRoleBinding => reads::<rbac::ClusterRoleBinding>(object),
    }
}

/// Writes the defaults of the object's kind; the object must not be [`mistyped`].
pub(super) fn default(kind: Kind, object: &mut Value) {
    match kind {
        Kind::Deployment => {
            set_default(object, &["spec", "replicas"], json!(1));
            set_default(
                object,
                &["spec", "strategy", "type"],
                "RollingUpdate".into(),
            );
            if text(object, "/spec/strategy/type") == "RollingUpdate" {
                for bound in ["maxUnavailable", "maxSurge"] {
                    let path = ["spec", "strategy", "rollingUpdate", bound];
                    set_default(object, &path, "25%".into());
                }
            }
            set_default(object, &["spec", "revisionHistoryLimit"], json!(10));
            set_default(object, &["spec", "progressDeadlineSeconds"], json!(600));
            default_pod(&mut object["spec"]["template"]);
        }
        Kind::ReplicaSet => {
            set_default(object, &["spec", "replicas"], json!(1));
            default_pod(&mut object["spec"]["template"]);
        }
        Kind::Pod => default_pod(object),
        Kind::Namespace => {
            let name = text(object, "/metadata/name").to_owned();
            set_default(object, &["status", "phase"], "Active".into());
            set_default(
                object,
                &["metadata", "labels", "kubernetes.io/metadata.name"],
                name.into(),
            );
        }
        Kind::Node
        | Kind::ConfigMap
        | Kind::ServiceAccount
        | Kind::Service
        | Kind::Lease
        | Kind::Event
        | Kind::Role
        | Kind::RoleBinding
        | Kind::ClusterRole
        | Kind::ClusterRoleBinding => {}
    }
}

fn default_pod(pod: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
    ] {
        set_default(pod, &["spec", field], value);
    }
    for list in ["initContainers", "containers"] {
        let containers = pod
            .get_mut("spec")
            .and_then(|spec| spec.get_mut(list))
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            default_container(container);
        }
    }
}

fn default_container(container: &mut Value) {
    set_default(container, &["resources"], json!({}));
    set_default(container, &["imagePullPolicy"], "IfNotPresent".into());
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        set_default(port, &["protocol"], "TCP".into());
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if !has(container, &format!("/{probe}")) {
            continue;
        }
        for (field, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            set_default(container, &[probe, field], value.into());
        }
        if has(container, &format!("/{probe}/httpGet")) {
            set_default(container, &[probe, "httpGet", "path"], "/".into());
            set_default(container, &[probe, "httpGet", "scheme"], "HTTP".into());
        }
    }
}

/// The status that a new object starts with, whatever its maker wrote; a Node's and a Namespace's maker may write one.
pub(super) fn first_status(kind: Kind, object: &mut Value) {
    match kind {
        Kind::Pod => set(
            object,
            &["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"}),
        ),
        Kind::Deployment | Kind::ReplicaSet | Kind::Service => {
            set(object, &["status"], json!({}));
        }
        Kind::Node
        | Kind::Namespace
        | Kind::ConfigMap
        | Kind::ServiceAccount
        | Kind::Lease
        | Kind::Event
        | Kind::Role
        | Kind::RoleBinding
        | Kind::ClusterRole
        | Kind::ClusterRoleBinding => {}
    }
}

/// Refuses an object that its kind does not allow.
pub(super) fn validate(kind: Kind, object: &Value) -> Result<(), Refusal> {
    let name = text(object, "/metadata/name");
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if !is_subdomain(name) && !takes_any_name(kind) {
        causes.push(Cause::value(
            "metadata.name",
            &format!("{name:?}"),
            LABEL_RULE,
        ));
    }
    match kind {
        Kind::Lease => {
            if let Some(secs) =
                number(object, "/spec/leaseDurationSeconds").filter(|secs| *secs <= 0)
            {
                causes.push(Cause::value(
                    "spec.leaseDurationSeconds",
                    &secs,
                    "must be greater than 0",
                ));
            }
            at_least_zero(object, "spec.leaseTransitions", &mut causes);
        }
        Kind::Deployment | Kind::ReplicaSet => validate_workload(object, &mut causes),
        Kind::Pod => {
            if elements(object, "/spec/containers").is_empty() {
                causes.push(Cause::required("spec.containers", ""));
            }
        }
        Kind::Namespace
        | Kind::Node
        | Kind::ConfigMap
        | Kind::ServiceAccount
        | Kind::Service
        | Kind::Event
        | Kind::Role
        | Kind::RoleBinding
        | Kind::ClusterRole
        | Kind::ClusterRoleBinding => {}
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Refusal::invalid(kind, name, causes))
    }
}

fn validate_workload(object: &Value, causes: &mut Vec<Cause>) {
    at_least_zero(object, "spec.replicas", causes);
    let labels = object.pointer("/spec/template/metadata/labels");
    let matches = object
        .pointer("/spec/selector")
        .filter(|selector| !selector::shown(selector).is_empty())
        .map(|selector| selector::selects(selector, labels));
    match matches {
        None => causes.push(Cause::required("spec.selector", "")),
        Some(false) => causes.push(Cause::value(
            "spec.template.metadata.labels",
            labels.unwrap_or(&Value::Null),
            "`selector` does not match template `labels`",
        )),
        Some(true) => {}
    }
    if elements(object, "/spec/template/spec/containers").is_empty() {
        causes.push(Cause::required("spec.template.spec.containers", ""));
    }
}

/// Pushes a cause if the number at the field is negative.
pub(super) fn at_least_zero(object: &Value, field: &'static str, causes: &mut Vec<Cause>) {
    let pointer = format!("/{}", field.replace('.', "/"));
    if let Some(below) = number(object, &pointer).filter(|number| *number < 0) {
        causes.push(Cause::value(
            field,
            &below,
            "must be greater than or equal to 0",
        ));
    }
}

/// Refuses a change that the kind does not allow, after [`validate`] has found the new object itself good.
pub(super) fn validate_change(kind: Kind, before: &Value, after: &Value) -> Result<(), Refusal> {
    let name = text(before, "/metadata/name");
    let immutable = |field: &'static str, pointer: &str| {
        let given = after.pointer(pointer).unwrap_or(&Value::Null);
        Refusal::invalid(
            kind,
            name,
            vec![Cause::value(field, given, "field is immutable")],
        )
    };
    if text(after, "/metadata/uid") != text(before, "/metadata/uid") {
        return Err(immutable("metadata.uid", "/metadata/uid"));
    }
    match kind {
        Kind::Deployment | Kind::ReplicaSet
            if before.pointer("/spec/selector") != after.pointer("/spec/selector") =>
        {
            Err(immutable("spec.selector", "/spec/selector"))
        }
        Kind::Pod if fixed_part(before) != fixed_part(after) => Err(Refusal::invalid(
            kind,
            name,
            vec![Cause::forbidden("spec", POD_RULE)],
        )),
        Kind::Namespace
        | Kind::Node
        | Kind::Pod
        | Kind::ConfigMap
        | Kind::ServiceAccount
        | Kind::Service
        | Kind::Deployment
        | Kind::ReplicaSet
        | Kind::Lease
        | Kind::Event
        | Kind::Role
        | Kind::RoleBinding
        | Kind::ClusterRole
        | Kind::ClusterRoleBinding => Ok(()),
    }
}

/// The spec of a pod without the fields that may change.
fn fixed_part(pod: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    for field in ["activeDeadlineSeconds", "tolerations"] {
        set(&mut spec, &[field], Value::Null);
    }
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            set(container, &["image"], Value::Null);
        }
    }
    spec
}

/// What a write through `status` may not touch is taken from `before`: labels of all but pods, owners, the spec.
pub(super) fn keep_all_but_status(kind: Kind, before: &Value, after: &mut Value) {
    copy(after, before, &["spec"]);
    copy(after, before, &["metadata", "ownerReferences"]);
    if kind != Kind::Pod && kind != Kind::Node {
        copy(after, before, &["metadata", "labels"]);
    }
}

/// A Role's name is a path segment, not a subdomain: `system:node` is one.
fn takes_any_name(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Role | Kind::RoleBinding | Kind::ClusterRole | Kind::ClusterRoleBinding
    )
}

fn is_subdomain(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            label.starts_with(alphanumeric)
                && label.ends_with(alphanumeric)
                && label.chars().all(|c| alphanumeric(c) || c == '-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_gets_the_defaults_that_decide_how_it_runs() {
        let mut object = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "readinessProbe": {"httpGet": {"port": 1}}},
        ]}}}});
        default(Kind::Deployment, &mut object);
        assert_eq!(number(&object, "/spec/replicas"), Some(1));
        assert_eq!(
            text(&object, "/spec/strategy/rollingUpdate/maxSurge"),
            "25%"
        );
        let pod = "/spec/template/spec";
        assert_eq!(
            number(&object, &format!("{pod}/terminationGracePeriodSeconds")),
            Some(30)
        );
        assert_eq!(
            object.pointer(&format!("{pod}/containers/0/readinessProbe")),
            Some(&json!({
                "httpGet": {"port": 1, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
            }))
        );
    }

    #[test]
    fn names_are_subdomains() {
        for (name, good) in [
            ("a", true),
            ("a-b.c0", true),
            ("", false),
            ("UP", false),
            ("-a", false),
            ("a..b", false),
            ("a_b", false),
        ] {
            let lease = json!({"metadata": {"name": name}});
            assert_eq!(validate(Kind::Lease, &lease).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn of_a_pod_only_images_may_change() {
        let pod = |image: &str, node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": image}]}});
        let change = |after| validate_change(Kind::Pod, &pod("1", "n"), &after);
        assert_eq!(change(pod("2", "n")), Ok(()));
        assert!(change(pod("1", "m")).is_err());
    }
}
