//! Deployments and their scale, as the controllers and the server have them.
//!
//! What sidescale's own writes stand on is in `tests/cluster/real_rules`, which both servers pass in every test run.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

use super::place::{Place, merge, read, refusal};

crate::on_its_server! {
    a_scale_shows_its_selector_and_names_its_one_field
    a_deployment_takes_its_pods_along
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

async fn a_scale_shows_its_selector_and_names_its_one_field(place: &Place) {
    let deployments: Api<Deployment> = place.api();
    deployments
        .create(&PostParams::default(), &deployment("web", 2))
        .await
        .expect("it is new");
    let patch = |replicas: i32| {
        let (deployments, body) = (deployments.clone(), json!({"spec": {"replicas": replicas}}));
        async move {
            deployments
                .patch_scale("web", &merge("sidescale"), &Patch::Merge(body))
                .await
        }
    };
    assert_eq!(refusal(patch(-1).await).code, 422);
    let scaled = patch(3).await.expect("there is no precondition");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(3));
    let shown = scaled.status.and_then(|status| status.selector);
    assert_eq!(shown.as_deref(), Some("app=web"));
    let after = settled(&deployments, "web", 3).await;
    let entry = after
        .managed_fields()
        .iter()
        .find(|entry| entry.subresource.as_deref() == Some("scale"))
        .expect("the scale's writer is named");
    assert_eq!(
        entry.fields_v1.as_ref().map(|fields| fields.0.clone()),
        Some(json!({"f:spec": {"f:replicas": {}}}))
    );
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
