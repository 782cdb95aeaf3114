//! What a user would have applied to the cluster: the Deployment with its sidecar, the empty Lease, the policy.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::json;

/// The demo's Deployment.
pub(super) const TARGET: &str = "llm";
/// The demo's namespace.
pub(super) const NAMESPACE: &str = "demo";
/// Ports of every pod, each pod on an address of its own.
pub(super) const PORTS: Ports = Ports {
    http: 8080,
    admin: 9090,
    member: 9190,
    server: 8000,
};

/// Ports of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// The sidecar's traffic.
    pub http: u16,
    /// The sidecar's admin port.
    pub admin: u16,
    /// The sidecar's member channel.
    pub member: u16,
    /// The model server.
    pub server: u16,
}

/// Creates everything in an empty cluster. `checkpoint`: the history of the days before, as a leader saved it.
pub(super) async fn apply(client: &Client, replicas: u32, checkpoint: Vec<u8>) -> kube::Result<()> {
    let create = PostParams::default();
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone())
        .create(&create, &namespace)
        .await?;
    let lease = Lease {
        metadata: named(format!("sidescale-{TARGET}")),
        ..Lease::default()
    };
    Api::<Lease>::namespaced(client.clone(), NAMESPACE)
        .create(&create, &lease)
        .await?;
    let history = ConfigMap {
        metadata: named(format!("sidescale-{TARGET}-history")),
        binary_data: Some([("history".to_owned(), ByteString(checkpoint))].into()),
        ..ConfigMap::default()
    };
    Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE)
        .create(&create, &history)
        .await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    deployments.create(&create, &deployment(replicas)).await?;
    Ok(())
}

fn named(name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    }
}

/// The same shape as in `sidecar.yaml`.
fn deployment(replicas: u32) -> Deployment {
    let drained = json!({"preStop": {"httpGet": {"path": "/api/v1/drained", "port": PORTS.admin}}});
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": TARGET, "namespace": NAMESPACE, "labels": {"app": TARGET}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": TARGET}},
            "template": {
                "metadata": {"labels": {"app": TARGET}},
                "spec": {
                    "terminationGracePeriodSeconds": 60,
                    "initContainers": [{
                        "name": "sidescale",
                        "image": "sidescale",
                        "restartPolicy": "Always",
                        "ports": [
                            {"name": "http", "containerPort": PORTS.http},
                            {"name": "sidescale-admin", "containerPort": PORTS.admin},
                            {"containerPort": PORTS.member},
                        ],
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORTS.admin}, // A second of the demo is a few hundredths of life, which a busy machine misses.
                            "periodSeconds": 2, "timeoutSeconds": 20},
                        "lifecycle": drained,
                    }],
                    "containers": [{"name": "server", "image": "sidescale", "lifecycle": drained}],
                },
            },
        },
    });
    serde_json::from_value(object).expect("the demo's Deployment is one")
}
