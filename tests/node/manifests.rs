//! The workload that knows nothing of sidescale, and the same with a sidecar.

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use sidescale::inject::{self, Ahead, Options, Source};

use crate::cluster::image;

/// What the Deployment and its Service are called.
pub(crate) const TARGET: &str = "bert";

/// What a pod of these fleets should carry at once.
pub(crate) const CONCURRENCY: f64 = 6.4;

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
    let output = inject::inject(&[source(objects)], &options(classic)).expect("it can be injected");
    let list: Value = serde_saphyr::from_str(&output.manifests).expect("inject writes YAML");
    list["items"].as_array().expect("a list stays one").clone()
}

/// The plain workload whose pods ask for a sidecar at their admission.
pub(crate) fn asking(mut objects: Vec<Value>) -> Vec<Value> {
    let deployment = named(&mut objects, "Deployment", TARGET);
    let wishes = deployment["metadata"]["annotations"].clone();
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["annotations"] = wishes;
    template["spec"]["serviceAccountName"] = json!(format!("sidescale-{TARGET}"));
    objects
}

/// What stands beside it: `sidescale inject --rbac`.
pub(crate) fn companions(objects: &[Value]) -> Vec<Value> {
    let wanted = Ahead {
        rbac: true,
        policy: false,
    };
    let output = inject::ahead(&[source(objects)], &options(false), wanted).expect("as asked for");
    documents(&output.manifests)
}

/// The objects of a text with many documents.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let texts = yaml.split("---\n").filter(|text| !text.trim().is_empty());
    let objects = texts.map(|text| serde_saphyr::from_str(text).expect("it is YAML"));
    objects.collect()
}

fn source(objects: &[Value]) -> Source {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Source {
        name: "-".to_owned(),
        text: list.to_string(),
    }
}

fn options(classic: bool) -> Options {
    Options {
        image: image(),
        classic,
        selector: None,
        lead: false,
        network: None,
    }
}

/// The same fleet with `more` words of its server's command line.
pub(crate) fn told(mut objects: Vec<Value>, more: &[&str]) -> Vec<Value> {
    let server = &mut objects[0]["spec"]["template"]["spec"]["containers"][0];
    let words = server["args"].as_array_mut().expect("it has some");
    words.extend(more.iter().map(|word| json!(word)));
    objects
}

/// The injected fleet under a policy that acts, in this mode.
pub(crate) fn acting(mut objects: Vec<Value>, mode: &str, min: u32, max: u32) -> Vec<Value> {
    let policy = format!(
        "mode: {mode}\nminReplicas: {min}\nmaxReplicas: {max}\nmetrics: [{{type: concurrency, averageValue: {CONCURRENCY}}}]\n"
    );
    let map = named(
        &mut objects,
        "ConfigMap",
        &format!("sidescale-{TARGET}-policy"),
    );
    map["data"]["policy.yaml"] = json!(policy);
    objects
}

/// The injected fleet whose leader finds this in its history.
pub(crate) fn remembering(mut objects: Vec<Value>, checkpoint: Vec<u8>) -> Vec<Value> {
    let map = named(
        &mut objects,
        "ConfigMap",
        &format!("sidescale-{TARGET}-history"),
    );
    map["binaryData"] = json!({"history": ByteString(checkpoint)});
    objects
}

/// The injected fleet with limits for each sidecar.
pub(crate) fn limited(mut objects: Vec<Value>, limits: &Value) -> Vec<Value> {
    let deployment = named(&mut objects, "Deployment", TARGET);
    let pod = &mut deployment["spec"]["template"]["spec"];
    let first = pod["initContainers"].as_array_mut().expect("a sidecar");
    let mut sidecars = first.iter_mut().filter(|one| one["name"] == "sidescale");
    let sidecar = sidecars.next().expect("inject has put it there");
    sidecar["resources"] = json!({"limits": limits});
    objects
}

/// The injected fleet whose servers nobody takes for dead while they are stopped.
pub(crate) fn patient(mut objects: Vec<Value>) -> Vec<Value> {
    let deployment = named(&mut objects, "Deployment", TARGET);
    let server = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    let server = server.as_object_mut().expect("a container");
    server.remove("livenessProbe").expect("it has one");
    objects
}

/// One of the objects.
pub(crate) fn named<'a>(objects: &'a mut [Value], kind: &str, name: &str) -> &'a mut Value {
    let mut found = objects
        .iter_mut()
        .filter(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}
