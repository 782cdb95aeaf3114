//! Every pod of a fleet is replaced, again and again, while clients of every kind go on: none of them may notice.
//!
//! A hundred restarts: `SIDESCALE_ROLLOUTS=34 SIDESCALE_LONGEST_SCENARIO=900 cargo test --test cluster -- no_request_fails`.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::keepers::Way;
use crate::wait::{counted, eventually};
use crate::workload::TARGET;

crate::each_flavour![no_request_fails_while_the_fleet_is_restarted];

const PODS: u32 = 3;

/// Rollouts where nobody asked for another number.
const ROLLOUTS: u32 = 2;

/// Of each way: enough that all pods have some at any time.
const CLIENTS: [(Way, usize); 3] = [(Way::Answers, 6), (Way::Streams, 4), (Way::Calls, 4)];

/// A pod's drain takes five seconds, and three pods go one after the other.
const ROLLED_OUT: Duration = Duration::from_secs(90);

async fn no_request_fails_while_the_fleet_is_restarted(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, PODS, &policy(PODS, PODS)).await;
    fleet.leader().await;
    let keepers = fleet.keepers(&CLIENTS);
    let rollouts = rollouts();
    for number in 1..=rollouts {
        restart(cluster, number).await;
        eventually("all pods are new", ROLLED_OUT, async || {
            let seen = keepers.seen();
            assert!(seen.failed.is_empty(), "{:#?}", seen.failed);
            is_rolled_out(&cluster.deployment().await)
        })
        .await;
    }
    let seen = keepers.seen();
    assert!(seen.failed.is_empty(), "{:#?}", seen.failed);
    assert_eq!(seen.by_way.len(), CLIENTS.len(), "{:?}", seen.by_way);
    counted(
        cluster,
        &format!(
            "{} restarts, none failed of: {:?}",
            rollouts * PODS,
            seen.by_way
        ),
    );
}

#[expect(clippy::disallowed_methods, reason = "a person's wish, at the edge")]
fn rollouts() -> u32 {
    std::env::var("SIDESCALE_ROLLOUTS").map_or(ROLLOUTS, |given| {
        given.parse().expect("SIDESCALE_ROLLOUTS is a number")
    })
}

/// As `kubectl rollout restart` does.
async fn restart(cluster: &Cluster, number: u32) {
    let annotations = json!({ "kubectl.kubernetes.io/restartedAt": number.to_string() });
    let template = json!({ "metadata": { "annotations": annotations } });
    let patch = Patch::Merge(json!({ "spec": { "template": template } }));
    let deployments = cluster.api::<Deployment>();
    let patched = deployments
        .patch(TARGET, &PatchParams::default(), &patch)
        .await;
    patched.expect("the Deployment is there");
}

/// As `kubectl rollout status` sees it.
fn is_rolled_out(deployment: &Deployment) -> Result<(), String> {
    let status = deployment.status.clone().unwrap_or_default();
    let pods = i32::try_from(PODS).ok();
    let done = status.observed_generation == deployment.metadata.generation
        && [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
        ] == [pods; 3];
    done.then_some(()).ok_or(format!("{status:?}"))
}
