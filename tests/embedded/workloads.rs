//! Deployments, their scale and their pods, as the controllers and the server have them.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PostParams, Preconditions};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use super::place::{Place, merge, read, refusal};

crate::on_its_server! {
    a_scale_carries_its_preconditions
    an_old_leaders_patch_conflicts_after_the_stamp
    a_deployment_makes_its_set_and_pods
    a_deployment_takes_its_pods_along
    a_pod_without_a_node_goes_at_once_and_a_bound_one_with_grace
}

pub(crate) fn deployment(name: &str, replicas: i32) -> Deployment {
    read(json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        },
    }}))
}

/// Waits until the Deployment's controller has seen its present generation and counts `replicas` pods.
pub(crate) async fn settled(
    deployments: &Api<Deployment>,
    name: &str,
    replicas: i32,
) -> Deployment {
    let reached = move |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| {
            deployment.status.as_ref().is_some_and(|status| {
                status.observed_generation == deployment.metadata.generation
                    && status.replicas.unwrap_or(0) == replicas
            })
        })
    };
    await_condition(deployments.clone(), name, reached)
        .await
        .expect("the watch lives")
        .expect("the deployment is there")
}

async fn a_scale_carries_its_preconditions(place: &Place) {
    let deployments: Api<Deployment> = place.api();
    deployments
        .create(&PostParams::default(), &deployment("web", 2))
        .await
        .expect("it is new");
    let before = settled(&deployments, "web", 2).await;
    let patch = |body: Value| {
        let deployments = deployments.clone();
        async move {
            deployments
                .patch_scale("web", &merge("sidescale"), &Patch::Merge(body))
                .await
        }
    };
    let uid = before.uid().expect("it has a uid");
    let stale = refusal(
        patch(json!({"metadata": {"resourceVersion": "1", "uid": uid}, "spec": {"replicas": 3}}))
            .await,
    );
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    let other =
        refusal(patch(json!({"metadata": {"uid": "other"}, "spec": {"replicas": 3}})).await);
    assert_eq!(other.code, 409);
    assert!(
        other
            .message
            .contains("Precondition failed: UID in precondition: other"),
        "{}",
        other.message
    );
    let below = refusal(patch(json!({"spec": {"replicas": -1}})).await);
    assert_eq!(below.code, 422);

    let present = deployments.get_scale("web").await.expect("it has a scale");
    assert_eq!(
        present
            .status
            .as_ref()
            .and_then(|status| status.selector.as_deref()),
        Some("app=web")
    );
    let version = present.resource_version().expect("it has a version");
    let body =
        json!({"metadata": {"resourceVersion": version, "uid": uid}, "spec": {"replicas": 3}});
    let scaled = patch(body).await.expect("both hold");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(3));
    let after = settled(&deployments, "web", 3).await;
    assert_eq!(
        after.metadata.generation,
        before.metadata.generation.map(|generation| generation + 1)
    );
    let entry = after
        .managed_fields()
        .iter()
        .find(|entry| entry.subresource.as_deref() == Some("scale"))
        .expect("the scale's writer is named");
    assert_eq!(entry.manager.as_deref(), Some("sidescale"));
    assert_eq!(
        entry.fields_v1.as_ref().map(|fields| fields.0.clone()),
        Some(json!({"f:spec": {"f:replicas": {}}}))
    );
}

async fn an_old_leaders_patch_conflicts_after_the_stamp(place: &Place) {
    let deployments: Api<Deployment> = place.api();
    deployments
        .create(&PostParams::default(), &deployment("web", 1))
        .await
        .expect("it is new");
    let seen = settled(&deployments, "web", 1).await;
    let stamp = json!({"metadata": {"annotations": {"sidescale.dev/term": "2"}}});
    let stamped = deployments
        .patch_status("web", &merge("sidescale"), &Patch::Merge(stamp))
        .await
        .expect("the status may be written");
    assert_eq!(
        stamped
            .annotations()
            .get("sidescale.dev/term")
            .map(String::as_str),
        Some("2")
    );
    assert_eq!(stamped.metadata.generation, seen.metadata.generation);
    let old = json!({
        "metadata": {"resourceVersion": seen.resource_version(), "uid": seen.uid()},
        "spec": {"replicas": 5},
    });
    let refused = refusal(
        deployments
            .patch_scale("web", &merge("old"), &Patch::Merge(old))
            .await,
    );
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.message,
        "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
}

async fn a_deployment_makes_its_set_and_pods(place: &Place) {
    let deployments: Api<Deployment> = place.api();
    deployments
        .create(&PostParams::default(), &deployment("web", 3))
        .await
        .expect("it is new");
    let settled = settled(&deployments, "web", 3).await;
    let status = settled.status.expect("it has a status");
    assert_eq!(
        (status.unavailable_replicas, status.ready_replicas),
        (Some(3), None)
    );
    let sets = place
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .expect("they can be listed");
    let [set] = sets.items.as_slice() else {
        panic!("{} sets", sets.items.len());
    };
    let hash = &set.labels()["pod-template-hash"];
    assert_eq!(set.name_any(), format!("web-{hash}"));
    let owner = &set.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), owner.controller),
        ("Deployment", "web", Some(true))
    );
    let selected = ListParams::default().labels(&format!("app=web,pod-template-hash={hash}"));
    let pods = place
        .api::<Pod>()
        .list(&selected)
        .await
        .expect("they can be listed");
    assert_eq!(pods.items.len(), 3);
    for pod in &pods.items {
        assert_eq!(
            pod.owner_references()[0].uid,
            set.uid().expect("it has a uid")
        );
        assert!(pod.name_any().starts_with(&format!("web-{hash}-")));
        assert_eq!(
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref()),
            Some("Pending")
        );
    }
}

async fn a_deployment_takes_its_pods_along(place: &Place) {
    let deployments: Api<Deployment> = place.api();
    deployments
        .create(&PostParams::default(), &deployment("web", 2))
        .await
        .expect("it is new");
    settled(&deployments, "web", 2).await;
    let pods: Api<Pod> = place.api();
    let list = pods
        .list(&ListParams::default())
        .await
        .expect("they can be listed");
    deployments
        .delete("web", &DeleteParams::background())
        .await
        .expect("it is there");
    for pod in list.items {
        let gone = |pod: Option<&Pod>| pod.is_none();
        await_condition(pods.clone(), &pod.name_any(), gone)
            .await
            .expect("the watch lives");
    }
}

async fn a_pod_without_a_node_goes_at_once_and_a_bound_one_with_grace(place: &Place) {
    let pods: Api<Pod> = place.api();
    let pod = |name: &str, node: Option<&str>| -> Pod {
        read(json!({"metadata": {"name": name}, "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 20, "containers": [{"name": "c", "image": "x"}],
        }}))
    };
    let make = |pod: Pod| {
        let pods = pods.clone();
        async move {
            pods.create(&PostParams::default(), &pod)
                .await
                .expect("it is new")
        }
    };
    make(pod("free", None)).await;
    pods.delete("free", &DeleteParams::default())
        .await
        .expect("it is there");
    assert_eq!(refusal(pods.get("free").await).code, 404);

    let bound = make(pod("bound", Some("nowhere"))).await;
    let version = bound.resource_version();
    let other = Preconditions {
        uid: Some("other".to_owned()),
        resource_version: None,
    };
    let wrong = refusal(
        pods.delete("bound", &DeleteParams::default().preconditions(other))
            .await,
    );
    assert_eq!((wrong.code, wrong.reason.as_str()), (409, "Conflict"));
    pods.delete("bound", &DeleteParams::default())
        .await
        .expect("it is there");
    let ending = pods.get("bound").await.expect("its grace period runs");
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(20));
    assert!(ending.metadata.deletion_timestamp.is_some());
    assert_ne!(ending.resource_version(), version);
    assert_eq!(ending.metadata.generation, Some(2));
    pods.delete("bound", &DeleteParams::default().grace_period(0))
        .await
        .expect("it is there");
    assert_eq!(refusal(pods.get("bound").await).code, 404);
}
