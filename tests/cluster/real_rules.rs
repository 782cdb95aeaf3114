//! The rules of the API server that sidescale stands on, checked themselves.
//!
//! Each was a trap for somebody: a rule that the embedded server bends would make every scenario on it worthless, and
//! one that a new release of Kubernetes changes would break elections and fences silently.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::{Cluster, from_json};
use crate::wait::eventually;
use crate::workload::{HISTORY, Right, SOON, TARGET, TERM, idle_pod};

mod lease;

crate::each_flavour![
    a_deployment_gets_its_replicaset_and_its_pods,
    a_fresh_scale_patch_moves_the_generation_and_names_its_writer,
    a_scale_patch_at_a_stale_version_is_refused,
    a_scale_patch_for_another_uid_is_refused,
    a_scale_patch_that_changes_nothing_is_no_write,
    a_stamp_moves_the_version_and_not_the_generation,
    lowering_takes_the_pod_that_is_not_ready_whatever_the_others_cost,
    a_bound_pod_stays_until_its_kubelet_lets_it_go,
    a_config_map_keeps_bytes_and_refuses_a_stale_write,
];

async fn a_deployment_gets_its_replicaset_and_its_pods(cluster: &Cluster) {
    cluster.deploy(3, idle_pod()).await;
    has_pods(cluster, 3).await;
    let replica_sets = cluster.replica_sets().await;
    let [replica_set] = replica_sets.as_slice() else {
        panic!(
            "one template has one ReplicaSet, not {}",
            replica_sets.len()
        );
    };
    owns(&cluster.deployment().await, "Deployment", replica_set);
    let hash = &replica_set.labels()["pod-template-hash"];
    assert_eq!(replica_set.name_any(), format!("{TARGET}-{hash}"));
    for pod in cluster.pods().await {
        owns(replica_set, "ReplicaSet", &pod);
        // Two hashes among the pods are how a rollout shows.
        assert_eq!(pod.labels().get("pod-template-hash"), Some(hash));
        assert!(pod.name_any().starts_with(&format!("{TARGET}-{hash}-")));
        let phase = pod.status.and_then(|status| status.phase);
        assert_eq!(phase.as_deref(), Some("Pending"));
    }
    let lower = json!({ "spec": { "replicas": 1 } });
    patch_scale(cluster, lower).await.expect("no precondition");
    has_pods(cluster, 1).await;
}

async fn a_fresh_scale_patch_moves_the_generation_and_names_its_writer(cluster: &Cluster) {
    cluster.deploy(0, idle_pod()).await;
    let (before, ()) = on_fresh(cluster, async |deployment| {
        patch_scale(cluster, scale_patch(deployment, 2)).await
    })
    .await;
    let after = cluster.deployment().await;
    assert_eq!(
        after.metadata.generation,
        before.metadata.generation.map(|generation| generation + 1)
    );
    let ours = after
        .managed_fields()
        .iter()
        .find(|entry| entry.manager.as_deref() == Some("sidescale"))
        .expect("the writer is named");
    assert_eq!(ours.subresource.as_deref(), Some("scale"));
}

async fn a_scale_patch_at_a_stale_version_is_refused(cluster: &Cluster) {
    cluster.deploy(1, idle_pod()).await;
    let (stale, ()) = on_fresh(cluster, async |deployment| {
        stamp(cluster, deployment, 1).await
    })
    .await;
    let refusal = refused(patch_scale(cluster, scale_patch(&stale, 7)).await);
    assert_eq!((refusal.code, &*refusal.reason), (409, "Conflict"));
    let words = format!(
        "Operation cannot be fulfilled on deployments.apps \"{TARGET}\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    assert_eq!(refusal.message, words);
    assert_eq!(cluster.replicas().await, 1);
}

async fn a_scale_patch_for_another_uid_is_refused(cluster: &Cluster) {
    // A Deployment that was deleted and made again has the same name, and a patch from before must not scale it.
    cluster.deploy(1, idle_pod()).await;
    let mut patch = json!({ "spec": { "replicas": 7 } });
    patch["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    let refusal = refused(patch_scale(cluster, patch).await);
    assert_eq!((refusal.code, &*refusal.reason), (409, "Conflict"));
    let words = "Precondition failed: UID in precondition: 00000000-0000-4000-8000-000000000000";
    assert!(refusal.message.contains(words), "{}", refusal.message);
    assert_eq!(cluster.replicas().await, 1);
}

async fn a_scale_patch_that_changes_nothing_is_no_write(cluster: &Cluster) {
    cluster.deploy(0, idle_pod()).await;
    let (before, ()) = on_fresh(cluster, async |deployment| {
        patch_scale(cluster, scale_patch(deployment, 2)).await
    })
    .await;
    has_pods(cluster, 2).await;
    let (again, ()) = on_fresh(cluster, async |deployment| {
        patch_scale(cluster, scale_patch(deployment, 2)).await?;
        let after = cluster.deployment().await;
        if after.resource_version() == deployment.resource_version() {
            return Ok(());
        }
        // The controller wrote the status meanwhile: look again.
        Err(conflict())
    })
    .await;
    assert_ne!(again.resource_version(), before.resource_version());
}

async fn a_stamp_moves_the_version_and_not_the_generation(cluster: &Cluster) {
    // A stamp that moved the generation would look like a new template to everybody who watches.
    cluster.deploy(1, idle_pod()).await;
    let (before, ()) = on_fresh(cluster, async |deployment| {
        stamp(cluster, deployment, 7).await
    })
    .await;
    let after = cluster.deployment().await;
    assert_eq!(after.annotations().get(TERM).map(|term| &**term), Some("7"));
    assert_eq!(after.metadata.generation, before.metadata.generation);
    assert_ne!(after.resource_version(), before.resource_version());
    assert_eq!(after.spec, before.spec);
}

async fn lowering_takes_the_pod_that_is_not_ready_whatever_the_others_cost(cluster: &Cluster) {
    cluster.deploy(3, idle_pod()).await;
    has_pods(cluster, 3).await;
    let pods: Api<Pod> = cluster.api();
    let params = PatchParams::default();
    let names: Vec<String> = cluster
        .pods()
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    for (name, ready) in names.iter().zip(["False", "True", "True"]) {
        let status = json!({ "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        }});
        let patched = pods
            .patch_status(name, &params, &Patch::Merge(status))
            .await;
        patched.expect("a kubelet may do this");
    }
    // By cost alone the second would go.
    let cheap = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "-1000" } } });
    let patched = pods.patch(&names[1], &params, &Patch::Merge(cheap)).await;
    patched.expect("an annotation may be set");
    eventually("the ReplicaSet has seen who is ready", SOON, async || {
        let ready = cluster.replica_sets().await[0]
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas);
        (ready == Some(2)).then_some(()).ok_or(format!("{ready:?}"))
    })
    .await;
    let lower = json!({ "spec": { "replicas": 2 } });
    patch_scale(cluster, lower).await.expect("no precondition");
    has_pods(cluster, 2).await;
    let mut left: Vec<String> = cluster
        .pods()
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    left.sort();
    let mut ready = names[1..].to_vec();
    ready.sort();
    assert_eq!(left, ready);
}

async fn a_bound_pod_stays_until_its_kubelet_lets_it_go(cluster: &Cluster) {
    let pods: Api<Pod> = cluster.api();
    let create = PostParams::default();
    let make = async |name: &str| {
        let mut pod = idle_pod();
        pod["metadata"]["name"] = json!(name);
        let made = pods.create(&create, &from_json(pod)).await;
        made.expect("a new pod");
    };
    make("free").await;
    let deleted = pods.delete("free", &DeleteParams::default()).await;
    deleted.expect("it is there");
    assert_eq!(refused(pods.get("free").await).code, 404, "nobody has it");

    make("alone").await;
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": "alone" },
        "target": { "apiVersion": "v1", "kind": "Node", "name": "some-node" },
    });
    let bound: Result<Value, _> = pods
        .create_subresource("binding", "alone", &create, &binding)
        .await;
    bound.expect("a scheduler may do this");
    let spec = pods.get("alone").await.expect("it is there").spec;
    let node = spec.and_then(|spec| spec.node_name);
    assert_eq!(node.as_deref(), Some("some-node"));

    let another = Preconditions {
        uid: Some("another".to_owned()),
        resource_version: None,
    };
    let wrong = DeleteParams::default().preconditions(another);
    let refusal = refused(pods.delete("alone", &wrong).await.map(|_deleted| ()));
    assert_eq!((refusal.code, &*refusal.reason), (409, "Conflict"));
    let graceful = DeleteParams::default().grace_period(30);
    pods.delete("alone", &graceful).await.expect("it is there");
    let going = pods
        .get("alone")
        .await
        .expect("its kubelet has not let it go");
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    let now = DeleteParams::default().grace_period(0);
    pods.delete("alone", &now).await.expect("it is still there");
    assert_eq!(refused(pods.get("alone").await).code, 404);
}

async fn a_config_map_keeps_bytes_and_refuses_a_stale_write(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client_of(0));
    let put = async |map: &ConfigMap| maps.replace(HISTORY, &PostParams::default(), map).await;
    let empty = maps.get(HISTORY).await.expect("the Role allows it");
    let mut first = empty.clone();
    let bytes = ByteString((0..=255).collect());
    first.binary_data = Some([("checkpoint".to_owned(), bytes.clone())].into());
    put(&first).await.expect("a fresh version");
    let read = maps.get(HISTORY).await.expect("the Role allows it");
    assert_eq!(
        read.binary_data.expect("it was written")["checkpoint"],
        bytes
    );
    let mut stale = empty;
    stale.binary_data = Some([("checkpoint".to_owned(), ByteString(vec![1]))].into());
    assert_eq!(refused(put(&stale).await).code, 409);
}

/// The body of sidescale's scale write, made from what was read.
pub(crate) fn scale_patch(read: &Deployment, replicas: u32) -> Value {
    json!({
        "metadata": { "uid": read.uid(), "resourceVersion": read.resource_version() },
        "spec": { "replicas": replicas },
    })
}

/// Patches the scale as a sidecar would, with every right.
async fn patch_scale(cluster: &Cluster, patch: Value) -> kube::Result<()> {
    let params = PatchParams {
        field_manager: Some("sidescale".to_owned()),
        ..PatchParams::default()
    };
    let deployments: Api<Deployment> = cluster.api();
    let patched = deployments
        .patch_scale(TARGET, &params, &Patch::Merge(patch))
        .await;
    patched.map(|_scale| ())
}

/// Stamps a term as a new leader would, on the version that was read.
pub(crate) async fn stamp(cluster: &Cluster, read: &Deployment, term: u64) -> kube::Result<()> {
    let patch = json!({ "metadata": {
        "uid": read.uid(),
        "resourceVersion": read.resource_version(),
        "annotations": { TERM: term.to_string() },
    }});
    let deployments: Api<Deployment> = cluster.api();
    let params = PatchParams::default();
    let patched = deployments
        .patch_status(TARGET, &params, &Patch::Merge(patch))
        .await;
    patched.map(|_deployment| ())
}

/// Reads the Deployment and does `write` with it, again on each conflict: its controller writes the status meanwhile.
pub(crate) async fn on_fresh<T>(
    cluster: &Cluster,
    mut write: impl AsyncFnMut(&Deployment) -> kube::Result<T>,
) -> (Deployment, T) {
    eventually("a write on a fresh version is accepted", SOON, async || {
        let read = cluster.deployment().await;
        match write(&read).await {
            Ok(done) => Ok((read, done)),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(status.message),
            Err(error) => panic!("not a conflict: {error}"),
        }
    })
    .await
}

async fn has_pods(cluster: &Cluster, count: usize) {
    eventually(&format!("there are {count} pods"), SOON, async || {
        let there = cluster.pods().await.len();
        (there == count)
            .then_some(())
            .ok_or(format!("{there} pods"))
    })
    .await;
}

/// The Status of a refusal.
pub(crate) fn refused<T>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        Err(error) => panic!("the server did not answer: {error}"),
        Ok(_accepted) => panic!("the server accepted it"),
    }
}

fn conflict() -> kube::Error {
    let status = Status::failure("the status moved", "Conflict").with_code(409);
    kube::Error::Api(status.boxed())
}

fn owns<O, D>(owner: &O, kind: &str, dependent: &D)
where
    O: kube::Resource,
    D: kube::Resource,
{
    let [reference] = dependent.owner_references() else {
        panic!("{} has not one owner", dependent.name_any());
    };
    assert_eq!(reference.kind, kind);
    assert_eq!(reference.name, owner.name_any());
    assert_eq!(Some(reference.uid.clone()), owner.uid());
    assert_eq!(reference.controller, Some(true));
}
