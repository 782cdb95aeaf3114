//! Injection at admission on a real API server: by its own policies, and by the webhook. The embedded one has no admission.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use sidescale::inject::{self, Ahead, Network, Options, Selector, Source};
use sidescale::webhook;

use crate::api_server::sidecar_user;
use crate::cluster::{Cluster, from_json, on_real};
use crate::processes::Process;
use crate::wait::eventually;

/// Policies and configurations are known to the API server a moment after they are made.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_policy_puts_the_sidecar_first() {
    on_real("a_policy_puts_the_sidecar_first", by_policy);
}

#[test]
fn a_webhook_puts_the_sidecar_first_and_without_it_pods_come_as_they_are() {
    on_real("a_webhook_puts_the_sidecar_first", by_webhook);
}

#[test]
fn all_that_inject_and_webhook_print_is_accepted() {
    on_real("all_that_inject_prints_is_accepted", accepted);
}

async fn by_policy(cluster: &Cluster) {
    let manifest = deployment(cluster.namespace());
    apply_ahead(cluster, &manifest, true).await;
    // The annotation is the Deployment's own: the policy knows of it.
    let mut pod = pod(&manifest);
    pod["metadata"]["annotations"] = Value::Null;
    let injected = eventually("the policy puts it in", SOON, async || {
        has_one(create(cluster, &pod).await.0)
    })
    .await;
    assert_is_handed_over(&injected);

    let mut other = pod.clone();
    other["spec"]["serviceAccountName"] = json!("default");
    let warned = eventually("the policy warns", SOON, async || {
        let (unchanged, warnings) = create(cluster, &other).await;
        assert_eq!(first(&unchanged), Some("before"));
        (!warnings.is_empty())
            .then_some(warnings)
            .ok_or_else(|| "no warning".to_owned())
    })
    .await;
    assert!(warned.contains("no sidescale sidecar"), "{warned}");

    let mut hooked = pod.clone();
    hooked["spec"]["containers"][1]["lifecycle"] =
        json!({"preStop": {"exec": {"command": ["/save"]}}});
    let (unchanged, warnings) = create(cluster, &hooked).await;
    assert_eq!(
        first(&unchanged),
        Some("before"),
        "the template is another one"
    );
    assert!(warnings.contains("no sidescale sidecar"), "{warnings}");

    let mut probed = pod.clone();
    probed["spec"]["containers"][1]["livenessProbe"] = json!({"tcpSocket": {"port": "http"}});
    let mut crowded = pod.clone();
    crowded["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080}]);
    for (changed, what) in [(probed, "a probe by the name"), (crowded, "a port in use")] {
        let (unchanged, _) = create(cluster, &changed).await;
        assert_eq!(first(&unchanged), Some("before"), "{what}");
    }

    // What a ReplicaSet's controller creates.
    let params = PostParams::default();
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = cluster.api();
    let created = deployments.create(&params, &from_json(manifest)).await;
    created.expect("a new Deployment");
    let made = eventually("its pod is there", SOON, async || {
        let pod = cluster.pods().await.into_iter().next();
        pod.ok_or_else(|| "no pod".to_owned())
    })
    .await;
    assert!(made.name_any().starts_with("bert-"));
    assert_is_handed_over(&serde_json::to_value(made).expect("a pod is JSON"));
}

async fn by_webhook(cluster: &Cluster) {
    let namespace = cluster.namespace().to_owned();
    let manifest = deployment(&namespace);
    let pod = pod(&manifest);
    let name = format!("webhook-{namespace}");
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.admin());
    for mut object in webhook::manifests(&name, &namespace, "sidescale:test") {
        match object["kind"].as_str().expect("a kind") {
            // The test's namespace is not locked down, and the program is a process of this machine.
            "Namespace" | "Deployment" => continue,
            "RoleBinding" | "ClusterRoleBinding" => {
                // Here its account is a user.
                object["subjects"] = json!([{
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": sidecar_user(0),
                }]);
            }
            "MutatingWebhookConfiguration" => {
                let asked = &mut object["webhooks"][0];
                // No Service leads out of this cluster. Where it listens is known when it does.
                asked["clientConfig"] = json!({"url": "https://127.0.0.1:1/inject"});
                asked["namespaceSelector"] =
                    json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
            }
            _ => {}
        }
        apply(&cluster.admin(), &namespace, &object, false)
            .await
            .expect("it is accepted");
    }
    let process = start(cluster, &name);
    let address = eventually("the webhook listens", SOON, async || {
        let said = process.said();
        let address = said.split_once("running listen=").map(|(_, rest)| rest);
        let address = address.and_then(|rest| rest.split_whitespace().next());
        address.map(str::to_owned).ok_or(said)
    })
    .await;
    let url = json!({"webhooks": [{
        "name": "inject.sidescale.dev", "clientConfig": {"url": format!("https://{address}/inject")},
    }]});
    let patched = configurations
        .patch(&name, &PatchParams::default(), &Patch::Strategic(url))
        .await;
    patched.expect("an administrator may");

    let warned = eventually("the webhook warns", SOON, async || {
        let (unchanged, warnings) = create(cluster, &pod).await;
        assert_eq!(first(&unchanged), Some("before"));
        (!warnings.is_empty())
            .then_some(warnings)
            .ok_or_else(|| process.last_words())
    })
    .await;
    assert!(warned.contains("its Role is not there"), "{warned}");
    apply_ahead(cluster, &manifest, false).await;
    let injected = eventually("the webhook puts it in", SOON, async || {
        has_one(create(cluster, &pod).await.0)
    })
    .await;
    assert_is_handed_over(&injected);

    drop(process);
    let (unchanged, _) = create(cluster, &pod).await;
    assert_eq!(first(&unchanged), Some("before"));
    let now = DeleteParams::default();
    let gone = configurations.delete(&name, &now).await;
    gone.expect("it is there");
}

async fn accepted(cluster: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject");
    let (mut count, mut unknown) = (0, Vec::new());
    let mut texts: Vec<(String, String)> = ["cases", "admission"]
        .iter()
        .flat_map(|part| folder.join(part).read_dir().expect("a folder"))
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "out"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("it can be read");
            (path.display().to_string(), text)
        })
        .filter(|(_, text)| !text.starts_with("refused: "))
        .collect();
    let image = "ghcr.io/sidescale/sidescale:0.1.0";
    let objects = webhook::manifests("sidescale-webhook", "sidescale", image);
    let text = inject::yaml(objects).expect("it is YAML");
    texts.push(("webhook --manifests".to_owned(), text));
    let client = cluster.admin();
    for (name, text) in texts {
        for object in objects_of(&text) {
            if let Some(namespace) = object["metadata"]["namespace"].as_str() {
                let namespaces: Api<Namespace> = Api::all(client.clone());
                let namespace = json!({"metadata": {"name": namespace}});
                let made = namespaces
                    .create(&PostParams::default(), &from_json(namespace))
                    .await;
                if let Err(error) = made {
                    let is_there = matches!(&error, kube::Error::Api(status) if status.code == 409);
                    assert!(is_there, "{error}");
                }
            }
            match apply(&client, cluster.namespace(), &object, true).await {
                Ok(true) => count += 1,
                Ok(false) => unknown.push(object["kind"].clone()),
                Err(error) => panic!("{name}: {error}\n{object:#}"),
            }
        }
    }
    assert!(count > 150, "only {count} objects");
    fits_where_pods_are_restricted(cluster).await;
    // What somebody else's definitions are needed for.
    let foreign = ["ScaledObject", "InferenceService"];
    assert!(
        unknown
            .iter()
            .all(|kind| foreign.iter().any(|one| kind == one)),
        "{unknown:?}"
    );
}

/// That the webhook's namespace, as it is printed, lets its pods in.
async fn fits_where_pods_are_restricted(cluster: &Cluster) {
    let name = format!("{}-webhook", cluster.namespace());
    let objects = webhook::manifests(&name, &name, "sidescale:test");
    let client = cluster.admin();
    for object in &objects {
        if object["kind"] == "Namespace" || object["kind"] == "ServiceAccount" {
            let applied = apply(&client, &name, object, false).await;
            applied.expect("it is accepted");
        }
    }
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let mut pod = deployment.expect("there is one")["spec"]["template"].clone();
    pod["metadata"]["name"] = json!("webhook");
    let pods: Api<Pod> = Api::namespaced(client, &name);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let created = pods.create(&dry_run, &from_json(pod)).await;
    created.expect("it keeps to the restricted standard");
}

/// Applies what stands beside `manifest`, and its policies.
pub(crate) async fn apply_ahead(cluster: &Cluster, manifest: &Value, policy: bool) {
    let source = Source {
        name: "bert.json".to_owned(),
        text: manifest.to_string(),
    };
    let options = Options {
        image: "sidescale:test".to_owned(),
        classic: false,
        selector: None::<Selector>,
        lead: false,
        network: None::<Network>,
    };
    let wanted = Ahead { rbac: true, policy };
    let output = inject::ahead(&[source], &options, wanted).expect("it can have a sidecar");
    for object in objects_of(&output.manifests) {
        let applied = apply(&cluster.admin(), cluster.namespace(), &object, false).await;
        assert!(applied.expect("it is accepted"), "{object}");
    }
}

/// Applies `object`; `Ok(false)`: its kind is not served.
async fn apply(
    client: &Client,
    namespace: &str,
    object: &Value,
    dry_run: bool,
) -> kube::Result<bool> {
    let object: DynamicObject = from_json(object.clone());
    let types = object.types.clone().expect("a manifest has a kind");
    let kind = GroupVersionKind::try_from(&types).expect("a version and a kind");
    let Ok((resource, capabilities)) = pinned_kind(client, &kind).await else {
        return Ok(false);
    };
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or(namespace);
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let mut params = PatchParams::apply("test").force();
    params.dry_run = dry_run;
    api.patch(&object.name_any(), &params, &Patch::Apply(&object))
        .await
        .map(|_applied| true)
}

fn objects_of(text: &str) -> Vec<Value> {
    let read = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Option<Value>> =
        serde_saphyr::from_multiple_with_options(text, read).expect("it is YAML");
    let mut objects = Vec::new();
    for document in documents.into_iter().flatten() {
        match document["items"].as_array() {
            Some(items) => objects.extend(items.clone()),
            None => objects.push(document),
        }
    }
    objects
}

/// A Deployment with containers before and beside its server, whose account is its fleet's.
pub(crate) fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bert", "namespace": namespace, "annotations": {
            "sidescale.dev/inject": "true", "sidescale.dev/container": "server",
        }},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "bert"}},
            "template": {
                "metadata": {
                    "labels": {"app": "bert"},
                    "annotations": {"sidescale.dev/inject": "true", "sidescale.dev/container": "server"},
                },
                "spec": {
                    "serviceAccountName": "sidescale-bert",
                    "automountServiceAccountToken": false,
                    "initContainers": [{"name": "before", "image": "before:1"}],
                    "containers": [
                        {"name": "other", "image": "other:1"},
                        {
                            "name": "server",
                            "image": "server:1",
                            "ports": [{"name": "http", "containerPort": 8000}],
                            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
                        },
                    ],
                },
            },
        },
    })
}

/// A pod of it, as its ReplicaSet would be called and would create it.
pub(crate) fn pod(deployment: &Value) -> Value {
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["generateName"] = json!("bert-5d9f7-");
    pod["metadata"]["labels"]["pod-template-hash"] = json!("5d9f7");
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "bert-5d9f7", "controller": true,
        "uid": "00000000-0000-4000-8000-000000000000",
    }]);
    pod
}

/// Creates `pod` without keeping it: what would have been kept, and the warnings.
async fn create(cluster: &Cluster, pod: &Value) -> (Value, String) {
    let mut pod = pod.clone();
    if pod["spec"]["serviceAccountName"] == "sidescale-bert" {
        // Without it the pod is refused, whoever injects.
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sidescale-bert"},
        });
        let applied = apply(&cluster.admin(), cluster.namespace(), &account, false).await;
        applied.expect("an account can be made");
    }
    pod["metadata"]["namespace"] = json!(cluster.namespace());
    let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", cluster.namespace());
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(pod.to_string().into_bytes().into())
        .expect("a request");
    let response = cluster.admin().send(request).await.expect("it answers");
    let warnings = response.headers().get_all("warning").iter();
    let warnings: Vec<_> = warnings
        .map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned())
        .collect();
    let code = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .expect("a whole body")
        .to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(code, 201, "{body}");
    (body, warnings.join("\n"))
}

fn first(pod: &Value) -> Option<&str> {
    pod["spec"]["initContainers"][0]["name"].as_str()
}

fn has_one(pod: Value) -> Result<Value, String> {
    match first(&pod) {
        Some("sidescale") => Ok(pod),
        other => Err(format!("{other:?} is first")),
    }
}

/// The sidecar stands first, the port's name is its own, and the server waits for the drain.
fn assert_is_handed_over(pod: &Value) {
    assert_eq!(first(pod), Some("sidescale"));
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "before");
    assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
    let server = &pod["spec"]["containers"][1];
    assert_eq!(server["name"], "server");
    assert_eq!(server["ports"][0]["containerPort"], 8080);
    assert!(server.get("readinessProbe").is_none());
    assert_eq!(
        server["lifecycle"]["preStop"]["httpGet"]["path"],
        "/api/v1/drained"
    );
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 60);
    let volumes = pod["spec"]["volumes"].as_array().expect("a list");
    for name in ["sidescale-policy", "sidescale-account"] {
        assert!(
            volumes.iter().any(|volume| volume["name"] == name),
            "{name}"
        );
    }
}

/// The program, with the rights of the user `sidecar-0` alone.
fn start(cluster: &Cluster, name: &str) -> Process {
    let access = cluster.access();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidescale"));
    command
        .arg("webhook")
        .args(["--listen", "127.0.0.1:0", "--host", "127.0.0.1"])
        .args(["--service", name, "--namespace", access.namespace()])
        .args(["--image", "sidescale:test"])
        .arg("--kubeconfig")
        .arg(access.kubeconfig_of(0))
        .env("HOME", access.file("nobody"))
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("KUBERNETES_SERVICE_PORT");
    Process::start(name, command, &access.file("webhook.log")).expect("the program can be started")
}
