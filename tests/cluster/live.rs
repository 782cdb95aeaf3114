//! `inject --live` against a real API server, with no more rights than the documentation names.

use std::process::{Command, Output};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::api_server::{SIDECARS, sidecar_user};
use crate::cluster::{Cluster, from_json, on_real};
use crate::wait::eventually;
use crate::workload::{SOON, TARGET};

/// No other scenario's, as its rights are for the whole cluster.
const USER: usize = SIDECARS - 1;

#[test]
fn inject_asks_the_cluster_whether_its_pods_still_fit() {
    on_real("inject_asks_the_cluster", asked);
}

async fn asked(cluster: &Cluster) {
    let names = ["tight", "roomy"].map(|name| format!("{name}-of-{}", cluster.namespace()));
    let [tight, roomy] = &names;
    make_node(cluster, tight, "4").await;
    make_node(cluster, roomy, "8").await;
    let manifest = cluster.access().file("bert.json");
    std::fs::write(&manifest, deployment().to_string()).expect("the test's folder can be written");

    says(
        cluster,
        "as you may not get deployments (deployments.apps \"bert\" is forbidden",
    )
    .await;
    allow_namespaced(cluster).await;
    let absent = format!("it is not in namespace {} yet", cluster.namespace());
    says(cluster, &absent).await;

    let template = json!({"metadata": {"labels": {}}, "spec": spec("3900m")});
    cluster.deploy(0, template).await;
    place(cluster, "bert-0", tight, spec("3900m")).await;
    place(cluster, "bert-1", roomy, spec("3900m")).await;
    let mut first = spec("10m");
    // What runs first and ends has the sidecar before it beside it: together they ask for more than what comes then.
    first["initContainers"] = json!([
        {"name": "native", "image": "native:1", "restartPolicy": "Always", "resources": {"requests": {"cpu": "20m"}}},
        {"name": "first", "image": "first:1", "resources": {"requests": {"cpu": "30m"}}},
    ]);
    place(cluster, "other", tight, first).await;
    says(cluster, "as you may not get nodes (nodes \"").await;
    allow_everywhere(cluster).await;
    let expected = format!(
        "deployment/bert: with the sidecar its cpu no longer fits on 1 of its 2 nodes: on {tight} its pod will ask for 4000m, and \
         3950m are free for it"
    );
    says(cluster, &expected).await;

    // Nobody runs it, so its sidecar has no address. That this is said, and no right, is the API server's word.
    let mut with_one = spec("1m");
    with_one["initContainers"] =
        json!([{"name": "sidescale", "image": "sidescale:test", "restartPolicy": "Always"}]);
    place(cluster, "bert-2", roomy, with_one).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let pods = cluster.api::<Pod>();
    let params = PatchParams::default();
    let patched = pods
        .patch_status("bert-2", &params, &Patch::Merge(ready))
        .await;
    patched.expect("a status can be written");
    let unasked = format!(
        "1 of 1 sidecars cannot be asked how long requests take, and theirs are not counted (could not get pods/proxy \
         {}/bert-2: 400 address not allowed)",
        cluster.namespace()
    );
    says(cluster, &unasked).await;

    let seen = cluster.front().seen();
    assert!(seen.iter().all(|seen| !seen.writes()), "it only reads");
    cluster.front().cut();
    let output = inject(cluster).await;
    let said = words(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--live: the cluster cannot be asked"),
        "{said}"
    );
    assert!(output.stdout.is_empty(), "nothing is written");
    for name in &names {
        let nodes: Api<Node> = Api::all(cluster.admin());
        let gone = nodes.delete(name, &DeleteParams::default()).await;
        gone.expect("it is there");
    }
}

async fn make_node(cluster: &Cluster, name: &str, cpu: &str) {
    let nodes: Api<Node> = Api::all(cluster.admin());
    let room = json!({"cpu": cpu, "memory": "16Gi", "pods": "110"});
    let status = json!({"capacity": room, "allocatable": room});
    let node = json!({"metadata": {"name": name}, "status": status});
    let created = nodes.create(&PostParams::default(), &from_json(node)).await;
    created.expect("a node can be made");
}

/// Waits until it says `expected` beside a manifest with the sidecar: rights are known a moment after they are given.
async fn says(cluster: &Cluster, expected: &str) {
    eventually("inject says it", SOON, async || {
        let output = inject(cluster).await;
        let said = words(&output);
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("sidescale-admin"));
        said.contains(expected).then_some(()).ok_or(said)
    })
    .await;
}

/// The program, with the rights of one user alone.
async fn inject(cluster: &Cluster) -> Output {
    let access = cluster.access();
    tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_sidescale"))
            .args(["inject", "--live"])
            .arg("--kubeconfig")
            .arg(access.kubeconfig_of(USER))
            .arg(access.file("bert.json"))
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env_remove("KUBERNETES_SERVICE_PORT")
            .output()
            .expect("the program can be started")
    })
    .await
    .expect("it does not panic")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn spec(cpu: &str) -> Value {
    json!({"containers": [{
        "name": "server", "image": "vllm/vllm-openai:v0.9", "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}},
    }]})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": TARGET, "annotations": {"sidescale.dev/inject": "true"}},
        "spec": {
            "selector": {"matchLabels": {"app": TARGET}},
            "template": {"metadata": {"labels": {"app": TARGET}}, "spec": spec("3900m")},
        },
    })
}

/// A pod on `node`, of the Deployment by its label unless it is called otherwise.
async fn place(cluster: &Cluster, name: &str, node: &str, mut spec: Value) {
    spec["nodeName"] = json!(node);
    let label = name.split('-').next();
    let pod = json!({"metadata": {"name": name, "labels": {"app": label}}, "spec": spec});
    let created = cluster
        .api::<Pod>()
        .create(&PostParams::default(), &from_json(pod))
        .await;
    created.expect("a pod can be made");
}

fn subject() -> Value {
    json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": sidecar_user(USER)}])
}

fn rules(rules: &[(&str, &str, &str)]) -> Vec<PolicyRule> {
    let rules = rules.iter();
    let rule = |&(group, resource, verb): &(&str, &str, &str)| {
        from_json(json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]}))
    };
    rules.map(rule).collect()
}

/// What is needed in the namespace.
async fn allow_namespaced(cluster: &Cluster) {
    let create = PostParams::default();
    let rules = rules(&[
        ("apps", "deployments", "get"),
        ("", "pods", "list"),
        ("", "pods/proxy", "get"),
    ]);
    let role = json!({"metadata": {"name": "live"}, "rules": rules});
    let created = cluster
        .api::<Role>()
        .create(&create, &from_json(role))
        .await;
    created.expect("a Role can be made");
    let binding = json!({
        "metadata": {"name": "live"}, "subjects": subject(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "live"},
    });
    let created = cluster
        .api::<RoleBinding>()
        .create(&create, &from_json(binding))
        .await;
    created.expect("it can be bound");
}

/// What is needed in the whole cluster.
async fn allow_everywhere(cluster: &Cluster) {
    let create = PostParams::default();
    let name = format!("live-{}", cluster.namespace());
    let rules = rules(&[("", "nodes", "get"), ("", "pods", "list")]);
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let roles: Api<ClusterRole> = Api::all(cluster.admin());
    let created = roles.create(&create, &from_json(role)).await;
    created.expect("a ClusterRole can be made");
    let binding = json!({
        "metadata": {"name": name}, "subjects": subject(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.admin());
    let created = bindings.create(&create, &from_json(binding)).await;
    created.expect("it can be bound");
}
