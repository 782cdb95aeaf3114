//! `sidescale lead` beside a Deployment whose sidecars only follow.

use serde_json::{Value, json};

use super::account;
use super::companions::{object, policy_name, role};
use super::rights::Part;
use super::sidecar::{ADMIN, NAME, costs, locked, names, own_ports};
use super::task::Task;
use super::workload::companion;
use crate::leader::preference::LABEL_LEAD;

/// One leads, and one takes over at once.
const REPLICAS: u32 = 2;

/// Its account, its rights and its Deployment.
pub(super) fn of(task: &mut Task, image: &str) -> Vec<Value> {
    let target = task.workload.name.clone();
    if target.len() > 63 {
        task.refuse(
            "metadata.name",
            "its leads are found by a label with its name, which may have 63 characters",
            "give it a shorter one, or let its sidecars lead",
        );
        return Vec::new();
    }
    let name = format!("{}-lead", companion(&target));
    let mut objects = vec![object(task, "v1", "ServiceAccount", &name, json!({}))];
    objects.extend(role(task, Part::Lead, &name, &name));
    let labels = json!({ LABEL_LEAD: target });
    let spec = json!({
        "replicas": REPLICAS,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod(task, &name, image)},
    });
    objects.push(object(
        task,
        "apps/v1",
        "Deployment",
        &name,
        json!({"spec": spec}),
    ));
    objects
}

fn pod(task: &Task, account: &str, image: &str) -> Value {
    let (admin, member) = (task.settings.admin_port, task.settings.member_port);
    let env = own_ports(&task.settings).chain(costs(&task.settings));
    let env: Vec<Value> = env.chain(names()).collect();
    let container = json!({
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["lead", "--target", task.workload.name],
        "ports": [{"name": ADMIN, "containerPort": admin}, {"containerPort": member}],
        "env": env,
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": ADMIN}, "periodSeconds": 2},
        // 60 MiB before 200 members with two weeks of history: `cargo bench --bench memory`.
        "resources": {"requests": {"cpu": "100m", "memory": "96Mi"}},
        "securityContext": locked(&task.settings),
        "volumeMounts": [
            {"name": "policy", "mountPath": "/etc/sidescale"},
            {"name": account::VOLUME, "mountPath": account::MOUNT, "readOnly": true},
        ],
    });
    json!({
        "serviceAccountName": account,
        "automountServiceAccountToken": false,
        "containers": [container],
        "volumes": [
            {"name": "policy", "configMap": {"name": policy_name(task), "optional": true}},
            account::volume(),
        ],
    })
}
