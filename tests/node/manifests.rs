//! The workload that knows nothing of sidescale, and the same with a sidecar.

use serde_json::{Value, json};
use sidescale::inject::{self, Options, Source};

use crate::cluster::image;

/// What the Deployment and its Service are called.
pub(crate) const TARGET: &str = "bert";

/// A server that loads for so many seconds and, as vLLM does, cuts all that it has at its SIGTERM.
pub(crate) fn plain(replicas: u32, cold_start: u32) -> Vec<Value> {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let server = json!({
        "name": "server",
        "image": image(),
        "imagePullPolicy": "IfNotPresent",
        "args": ["model", "--listen", "0.0.0.0:8000", "--slots", "64", "--cold-start", format!("{cold_start}s")],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "initialDelaySeconds": cold_start + 30,
            "periodSeconds": 2,
        },
        // What careful people write where nothing else sees to it.
        "lifecycle": {"preStop": {"sleep": {"seconds": 8}}},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
        "securityContext": security,
    });
    let labels = json!({"app": TARGET});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": TARGET, "annotations": {"sidescale.dev/inject": "true", "sidescale.dev/grace": "120s"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [server],
                },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": TARGET},
        "spec": {
            "type": "NodePort",
            "selector": labels,
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    });
    vec![deployment, service]
}

/// What `sidescale inject` makes of it.
pub(crate) fn injected(objects: &[Value], classic: bool) -> Vec<Value> {
    let options = Options {
        image: image(),
        classic,
        selector: None,
        lead: false,
        network: None,
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let source = Source {
        name: "-".to_owned(),
        text: list.to_string(),
    };
    let output = inject::inject(&[source], &options).expect("it can be injected");
    let list: Value = serde_saphyr::from_str(&output.manifests).expect("inject writes YAML");
    list["items"].as_array().expect("a list stays one").clone()
}
