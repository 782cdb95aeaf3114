//! The kubelet's Node: made, kept Ready, and shown to be alive.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::MANAGER;
use crate::clock::Clock;
use crate::local::rfc3339;

/// Time of life between two heartbeats. A real kube-controller-manager takes a node for lost after 40 s without one and
/// evicts its pods; it counts in its own time, so that a kubelet whose clock runs at twenty times life must still beat in
/// time of life. What it compares is only whether the renewal time has changed.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Pause before a heartbeat that failed is tried again, in time of life.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Makes the node, or takes over the one of this name, and says that it is Ready.
pub(super) async fn register(
    client: &Client,
    clock: &Clock,
    name: &str,
) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
    }))
    .map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_node) => {}
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
        Err(error) => return Err(error),
    }
    let patch = json!({"status": node_status(clock, name)});
    nodes
        .patch_status(name, &parameters(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// Renews the node's Lease for as long as it is polled.
#[expect(
    clippy::infinite_loop,
    reason = "a task's output is (), and this one ends with its tree"
)]
pub(super) async fn beat(client: Client, clock: Clock, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let of_life = |wait: Duration| wait.mul_f64(clock.speed());
    loop {
        let renewed = renew(&leases, &clock, &name).await;
        if let Err(error) = &renewed {
            tracing::debug!(node = name, %error, "could not renew the node's lease");
        }
        let wait = if renewed.is_ok() {
            HEARTBEAT_EVERY
        } else {
            RETRY_AFTER
        };
        clock.sleep(of_life(wait)).await;
    }
}

async fn renew(leases: &Api<Lease>, clock: &Clock, name: &str) -> Result<(), kube::Error> {
    let now = jiff::Timestamp::from_millisecond(clock.now().timestamp.as_millis())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": 40,
        "renewTime": format!("{now:.6}"),
    });
    let patch = Patch::Merge(json!({"spec": spec}));
    match leases.patch(name, &parameters(), &patch).await {
        Ok(_lease) => Ok(()),
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => {
            let lease = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))
                .map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await?;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn node_status(clock: &Clock, name: &str) -> Value {
    let now = rfc3339(clock.now().timestamp);
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "250"});
    json!({
        "capacity": room,
        "allocatable": room,
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
    })
}

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
