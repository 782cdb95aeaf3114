//! The sidecar's container.

use serde_json::{Value, json};

use super::account;
use super::companions::policy_name;
use super::ending::{Ending, PROPAGATION, drained};
use super::ports::Route;
use super::settings::Settings;
use super::task::Task;
use super::workload::Kind;
pub(super) use crate::fleet::sidecar::{ADMIN, NAME};

/// The volume with the policy.
const POLICY: &str = "sidescale-policy";

/// What the steps before have settled.
#[derive(Debug)]
pub(super) struct Settled<'a> {
    pub(super) routes: &'a [Route],
    /// In the words of `--upstream-ready`.
    pub(super) ready: &'a str,
    pub(super) ending: Ending,
    /// `null`: it asks for nothing.
    pub(super) resources: Value,
    /// It never leads.
    pub(super) follows: bool,
}

/// Puts the container and its volumes into the pod.
pub(super) fn insert(task: &mut Task, image: &str, classic: bool, settled: &Settled<'_>) {
    let container = container(task, image, classic, settled);
    let list = if classic {
        "/containers"
    } else {
        "/initContainers"
    };
    let at = task.pod(list);
    let edited = task.edits.insert(&at, true, container);
    task.check(edited);
    let at = task.pod("/volumes");
    let policy = json!({
        "name": POLICY,
        // Without it requests flow and nothing is scaled; a pod that cannot start would be worse.
        "configMap": {"name": policy_name(task), "optional": true},
    });
    let edited = task.edits.insert(&at, false, policy);
    task.check(edited);
    if is_in_the_cluster(task) {
        let edited = task.edits.insert(&at, false, account::volume());
        task.check(edited);
    }
    let template = task.workload.kind.template();
    let at = format!("{template}/metadata/annotations/kubectl.kubernetes.io~1default-container");
    if classic && task.edits.get(&at).is_none() {
        // kubectl logs and exec would else take the first.
        let server = json!(task.server);
        let edited = task.edits.set(&at, server);
        task.check(edited);
    }
}

/// Whether the sidecar works with the API server: only the fleet of a Deployment is scaled.
pub(super) fn is_in_the_cluster(task: &Task) -> bool {
    matches!(
        task.workload.kind,
        Kind::Deployment | Kind::Template | Kind::Admitted
    )
}

fn container(task: &Task, image: &str, classic: bool, settled: &Settled<'_>) -> Value {
    let settings = &task.settings;
    let mut container = json!({
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": ["run"],
        "ports": [
            {"name": ADMIN, "containerPort": settings.admin_port},
            {"containerPort": settings.member_port},
        ],
        "env": environment(task, settled),
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": ADMIN},
            "periodSeconds": 2,
            "failureThreshold": 1,
            "timeoutSeconds": 2,
        },
        "lifecycle": {"preStop": drained(settings.admin_port)},
        "resources": settled.resources,
        "securityContext": locked(settings),
        "volumeMounts": [{"name": POLICY, "mountPath": "/etc/sidescale"}],
    });
    if is_in_the_cluster(task)
        && let Some(mounts) = container["volumeMounts"].as_array_mut()
    {
        mounts
            .push(json!({"name": account::VOLUME, "mountPath": account::MOUNT, "readOnly": true}));
    }
    if let Some(container) = container.as_object_mut() {
        if classic {
            container.shift_remove("restartPolicy");
        }
        if settled.resources.is_null() {
            container.shift_remove("resources");
        }
    }
    container
}

/// What differs from the defaults of `sidescale run`, and who the pod is.
fn environment(task: &Task, settled: &Settled<'_>) -> Vec<Value> {
    let settings = &task.settings;
    let each = |address: &dyn Fn(&Route) -> String| {
        let all: Vec<String> = settled.routes.iter().map(address).collect();
        all.join(",")
    };
    let mut list = vec![
        variable(
            "SIDESCALE_LISTEN",
            each(&|route| format!("0.0.0.0:{}", route.listen)),
        ),
        variable(
            "SIDESCALE_UPSTREAM",
            each(&|route| format!("127.0.0.1:{}", route.upstream)),
        ),
    ];
    if settled.ready != "tcp" {
        list.push(variable("SIDESCALE_UPSTREAM_READY", settled.ready));
    }
    if let Some(protocol) = &settings.upstream_protocol {
        list.push(variable("SIDESCALE_UPSTREAM_PROTOCOL", protocol));
    }
    list.extend(own_ports(settings));
    if settled.ending.propagation != PROPAGATION {
        let propagation = format!("{}s", settled.ending.propagation);
        list.push(variable("SIDESCALE_PROPAGATION", propagation));
    }
    list.push(variable(
        "SIDESCALE_GRACE",
        format!("{}s", settled.ending.grace),
    ));
    if !is_in_the_cluster(task) {
        list.push(variable("SIDESCALE_NO_CLUSTER", "true"));
    } else if settled.follows {
        list.push(variable("SIDESCALE_FOLLOW", "true"));
    } else {
        list.extend(costs(settings));
    }
    list.extend(names());
    list
}

fn variable(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}

/// Where it listens for others than clients, as far as that is not the default.
pub(super) fn own_ports(settings: &Settings) -> impl Iterator<Item = Value> {
    let usual = Settings::default();
    let ports = [
        ("SIDESCALE_ADMIN", settings.admin_port, usual.admin_port),
        ("SIDESCALE_MEMBER", settings.member_port, usual.member_port),
    ];
    let others = ports.into_iter().filter(|(_, port, usual)| port != usual);
    others.map(|(name, port, _)| variable(name, format!("0.0.0.0:{port}")))
}

/// Whether it may write which pods go first.
pub(super) fn costs(settings: &Settings) -> Option<Value> {
    let is_asked = settings.deletion_costs;
    is_asked.then(|| variable("SIDESCALE_DELETION_COSTS", "true"))
}

/// Who the pod is.
pub(super) fn names() -> impl Iterator<Item = Value> {
    let fields = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IP", "status.podIP"),
    ];
    fields
        .into_iter()
        .map(|(name, field)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}))
}

/// What the `restricted` pod security standard asks for, and a root filesystem that nobody writes to.
pub(super) fn locked(settings: &Settings) -> Value {
    let mut locked = json!({
        "runAsNonRoot": true,
        "runAsUser": settings.user,
        "runAsGroup": settings.user,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if let (None, Some(locked)) = (settings.user, locked.as_object_mut()) {
        locked.retain(|_, value| !value.is_null());
    }
    locked
}
