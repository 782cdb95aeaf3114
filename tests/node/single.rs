//! `sidecar.yaml`, as it is.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, image};
use crate::wait::eventually;

/// The demo's day passes in an hour, and begins before its first busy morning; its server loads for a minute.
const MORNING: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn the_single_manifest_elects_a_leader_and_scales_real_pods() {
    let cluster = Cluster::new("single").await;
    let manifest = include_str!("../../sidecar.yaml");
    let list: Value = serde_saphyr::from_str(manifest).expect("it is YAML");
    let named = format!("ghcr.io/sidescale/sidescale:{}", env!("CARGO_PKG_VERSION"));
    let list = list.to_string().replace(&named, &image());
    let list: Value = serde_json::from_str(&list).expect("as before");
    cluster
        .apply(list["items"].as_array().expect("a list"))
        .await;
    let replicas = eventually("it has scaled its Deployment", MORNING, async || {
        let deployment = cluster.deployment("demo").await;
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let ready = deployment
            .status
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        if wanted > 1 && ready == wanted {
            Ok(wanted)
        } else {
            Err(format!("{ready} of {wanted} replicas are ready"))
        }
    })
    .await;
    let pods = cluster.pods_of("demo").await;
    let name = pods[0].metadata.name.clone().expect("a pod has a name");
    let plan = cluster
        .ask(&name, "/api/v1/plan")
        .await
        .expect("any pod answers");
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    cluster.print(&format!("{replicas} pods are ready; the plan: {plan}"));
    assert!(plan.to_string().contains("reasons"), "{plan}");
    cluster.end().await;
}
