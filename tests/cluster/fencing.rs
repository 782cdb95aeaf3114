//! An old leader's write that comes late is refused, whatever became of its writer.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::front::Seen;
use crate::real_rules::{on_fresh, scale_patch, stamp};
use crate::wait::eventually;
use crate::workload::{Right, SOON, TARGET, TERM, idle_pod};

crate::each_flavour![
    a_patch_that_was_held_back_past_a_stamp_is_refused,
    a_patch_that_was_held_back_without_a_stamp_is_applied,
    a_deposed_leaders_patch_that_comes_late_is_refused,
    a_leader_whose_stamp_was_removed_stamps_again_and_scales,
];

async fn a_patch_that_was_held_back_past_a_stamp_is_refused(cluster: &Cluster) {
    let late = late_patch(cluster, true).await;
    assert_eq!(late, (409, 1));
}

/// The counterpart: it is the stamp that fences, not the front.
async fn a_patch_that_was_held_back_without_a_stamp_is_applied(cluster: &Cluster) {
    let late = late_patch(cluster, false).await;
    assert_eq!(late, (200, 9));
}

/// The status of a patch that a network swallows and delivers after its sender has gone, and the replicas then.
async fn late_patch(cluster: &Cluster, stamped_meanwhile: bool) -> (u16, i32) {
    cluster.deploy(1, idle_pod()).await;
    cluster.grant(&Right::ALL).await;
    // The controller must have finished with the status: its writes would refuse the patch too.
    cluster.settled().await;
    let (_before, ()) = on_fresh(cluster, async |read| stamp(cluster, read, 1).await).await;
    let read = cluster.deployment().await;
    let held = cluster.front().hold(Seen::writes_scale);
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client_of(0));
    let patch = Patch::Merge(scale_patch(&read, 9));
    let params = PatchParams::default();
    let held = tokio::select! {
        held = held.caught() => held,
        answered = deployments.patch_scale(TARGET, &params, &patch) => {
            panic!("answered while it was held: {answered:?}")
        }
    };
    assert_eq!(held.request.user, "sidecar-0");
    drop(deployments);
    if stamped_meanwhile {
        on_fresh(cluster, async |read| stamp(cluster, read, 2).await).await;
    }
    let (status, _body) = held.deliver().await;
    (status.as_u16(), cluster.replicas().await)
}

/// The same with the program itself on both ends: a leader whose patch lies in a network loses its Lease meanwhile.
async fn a_deposed_leaders_patch_that_comes_late_is_refused(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 8)).await;
    let old = fleet.leader().await;
    let user = old.user.clone();
    let held = cluster
        .front()
        .hold(move |seen| seen.writes_scale() && seen.user == user);
    let load = fleet.load(80);
    let held = cluster
        .clock()
        .timeout(Duration::from_secs(30), held.caught())
        .await
        .expect("the leader answers the load with a patch");
    // It cannot renew either: the partition that swallowed its patch.
    cluster.front().cut_off(&old.user);
    let new = fleet.successor_of(&old).await;
    let before = cluster.replicas().await;
    let (status, body) = held.deliver().await;
    assert_eq!(status, 409, "{body}");
    assert!(
        cluster.replicas().await >= before,
        "the old patch did nothing"
    );
    // The fence does not keep the new leader from acting.
    eventually(
        "the new leader scales",
        Duration::from_secs(30),
        async || {
            let writes = fleet.writes(|seen| seen.writes_scale() && seen.user == new.user);
            (!writes.is_empty())
                .then_some(())
                .ok_or("no write".to_owned())
        },
    )
    .await;
    assert_eq!(load.failed(), 0);
}

/// As `kubectl replace` of a manifest without the annotation does it.
async fn a_leader_whose_stamp_was_removed_stamps_again_and_scales(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 8)).await;
    let leader = fleet.leader().await;
    let bare = Patch::Merge(json!({ "metadata": { "annotations": { TERM: null } } }));
    let deployments: Api<Deployment> = cluster.api();
    let params = PatchParams::default();
    let patched = deployments.patch(TARGET, &params, &bare).await;
    patched.expect("a person may do this");
    let removed = cluster.clock().instant();
    let load = fleet.load(80);
    eventually("it scales all the same", SOON, async || {
        let writes = fleet.writes(|seen| seen.at >= removed && seen.writes_scale());
        (!writes.is_empty())
            .then_some(())
            .ok_or("no write".to_owned())
    })
    .await;
    let now = fleet.leads().await.expect("it still leads");
    assert_eq!(now.pod, leader.pod);
    assert!(now.term >= leader.term, "{now:?} after {leader:?}");
    assert_eq!(load.failed(), 0);
}
