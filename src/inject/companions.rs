//! The objects beside a Deployment: what its fleet elects, remembers and may do.

use serde_json::{Value, json};

use super::account::Account;
use super::deletion_costs;
use super::network::Network;
use super::rights::{self, Part};
use super::task::Task;
use super::workload::companion;

/// What says that inject has made an object, and that `uninject` may leave it out.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "sidescale");

/// Says on a RoleBinding that its sidecars may only follow.
pub(super) const FOLLOW: &str = "sidescale.dev/follow";

/// The bounds of a policy for whoever has said nothing: enough to see a plan, which `observe` does not carry out.
const MAX_REPLICAS: u64 = 10;

/// The ConfigMap that the sidecar reads its policy from.
pub(super) fn policy_name(task: &Task) -> String {
    let own = || format!("{}-policy", companion(&task.workload.name));
    task.settings.policy.clone().unwrap_or_else(own)
}

/// All of them, in the order in which they are needed.
pub(super) fn of(
    task: &Task,
    account: &Account,
    part: Part,
    bounds: Option<(Option<u64>, u64)>,
    network: Option<&Network>,
) -> Vec<Value> {
    let mut objects = Vec::new();
    if account.is_made {
        objects.push(object(
            task,
            "v1",
            "ServiceAccount",
            &account.name,
            json!({}),
        ));
    }
    if task.settings.policy.is_none() {
        let policy = json!({"data": {"policy.yaml": policy(task, bounds)}});
        objects.push(object(task, "v1", "ConfigMap", &policy_name(task), policy));
    }
    if task.settings.deletion_costs {
        // Before the right that it limits.
        let writer = deletion_costs::writer(&task.workload, account, part);
        objects.extend(deletion_costs::of(&task.workload, &writer));
    }
    objects.extend(rights(task, account, part));
    if let Some(network) = network {
        let name = companion(&task.workload.name);
        let spec = network.spec(task);
        objects.push(object(
            task,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            &name,
            json!({"spec": spec}),
        ));
    }
    objects
}

/// What the fleet elects by and remembers in, and the rights to it.
fn rights(task: &Task, account: &Account, part: Part) -> Vec<Value> {
    let name = companion(&task.workload.name);
    let history = format!("{name}-history");
    let mut objects = vec![
        // Filled by the leader; here, so that the Role needs no right to create.
        object(task, "v1", "ConfigMap", &history, json!({})),
        object(task, "coordination.k8s.io/v1", "Lease", &name, json!({})),
    ];
    objects.extend(role(task, part, &name, &account.name));
    objects
}

/// A Role, and its binding to an account.
pub(super) fn role(task: &Task, part: Part, name: &str, account: &str) -> [Value; 2] {
    let rules =
        json!({"rules": rights::rules(part, &task.workload.name, task.settings.deletion_costs)});
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account}],
    });
    let version = "rbac.authorization.k8s.io/v1";
    let mut binding = object(task, version, "RoleBinding", name, binding);
    if part == Part::Follower {
        // A webhook knows nothing else of the fleet.
        binding["metadata"]["annotations"] = json!({ FOLLOW: "true" });
    }
    [object(task, version, "Role", name, rules), binding]
}

/// Whether `uninject` may leave `object` out, when it has taken the sidecar out of `workload`.
pub(super) fn is_of(object: &Value, workload: &Value) -> bool {
    let (metadata, its) = (&object["metadata"], &workload["metadata"]);
    let name = companion(its["name"].as_str().unwrap_or_default());
    let rest = metadata["name"]
        .as_str()
        .and_then(|own| own.strip_prefix(&name));
    // A template that named it before names it still, and without it no pod is let in.
    let is_needed = object["kind"] == "ServiceAccount"
        && workload["spec"]["template"]["spec"]["serviceAccountName"] == metadata["name"];
    let beside = metadata["namespace"].as_str() == its["namespace"].as_str()
        && matches!(rest, Some("" | "-history" | "-policy" | "-lead"));
    metadata["labels"][MANAGED_BY.0] == MANAGED_BY.1
        && (beside || deletion_costs::is_of(object, its))
        && !is_needed
}

pub(super) fn object(task: &Task, version: &str, kind: &str, name: &str, body: Value) -> Value {
    let mut object = json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
    });
    if let Some(namespace) = &task.workload.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if let (Some(object), Value::Object(body)) = (object.as_object_mut(), body) {
        object.extend(body);
    }
    object
}

fn policy(task: &Task, bounds: Option<(Option<u64>, u64)>) -> String {
    let (min, max) = bounds.map_or((None, None), |(min, max)| (min, Some(max)));
    let replicas = task.workload.replicas.unwrap_or(1).max(1);
    // 0 needs the gateway.
    let min = min.unwrap_or(1).max(1);
    let max = max
        .unwrap_or_else(|| MAX_REPLICAS.max(replicas.saturating_mul(2)))
        .max(min);
    let passive = if task.settings.passive {
        "# The load comes from the server's own metrics.\ndataPath: passive\n"
    } else {
        ""
    };
    format!(
        "# observe shows what sidescale would do and writes nothing; auto lets it act.\n\
         mode: observe\n\
         {passive}\
         minReplicas: {min}\n\
         # What may be spent.\n\
         maxReplicas: {max}\n\
         # What a pod can carry, full and not overloaded: write what is known of this server, for example\n\
         # metrics: [{{type: concurrency, averageValue: 6.4}}]\n"
    )
}
