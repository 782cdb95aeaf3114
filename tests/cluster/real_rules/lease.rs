//! Rules of a Lease: one writer wins, a watch misses nothing, and a Role holds to its names.

use std::pin::pin;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::refused;
use crate::cluster::{Cluster, from_json};
use crate::workload::{LEASE, Right, TARGET, idle_pod};

crate::each_flavour![
    of_two_candidates_one_takes_the_lease,
    a_released_lease_has_no_holder_and_keeps_its_transitions,
    a_watch_goes_on_from_a_version,
    a_right_by_name_covers_a_watch_by_name_alone,
    a_refusal_names_the_right_that_is_missing,
];

async fn of_two_candidates_one_takes_the_lease(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let take = async |number: usize| {
        let leases: Api<Lease> = Api::default_namespaced(cluster.client_of(number));
        let lease = leases.get(LEASE).await.expect("the Role allows it");
        let mine = held_by(lease, &format!("sidecar-{number}"), 15);
        (leases, mine)
    };
    let ((first, mine), (second, yours)) = (take(0).await, take(1).await);
    let create = PostParams::default();
    let (first, second) = tokio::join!(
        first.replace(LEASE, &create, &mine),
        second.replace(LEASE, &create, &yours)
    );
    let (winner, loser, holder) = match (first, second) {
        (Ok(winner), Err(loser)) => (winner, loser, "sidecar-0"),
        (Err(loser), Ok(winner)) => (winner, loser, "sidecar-1"),
        (Ok(_), Ok(_)) => panic!("both candidates took the Lease"),
        (Err(one), Err(other)) => panic!("neither took it: {one}, {other}"),
    };
    assert_eq!(refused::<()>(Err(loser)).code, 409);
    let lease = cluster.lease().await;
    assert_eq!(lease.resource_version(), winner.resource_version());
    assert_eq!(holder_of(&lease), Some(holder));
}

async fn a_released_lease_has_no_holder_and_keeps_its_transitions(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let leases: Api<Lease> = Api::default_namespaced(cluster.client_of(0));
    let put = async |lease: &Lease| leases.replace(LEASE, &PostParams::default(), lease).await;
    let held = held_by(cluster.lease().await, "sidecar-0", 15);
    let mut held = put(&held).await.expect("a fresh version");
    // What client-go writes on a release: an empty holder, and one second, since none is not valid.
    held.spec.get_or_insert_default().lease_transitions = Some(4);
    let mut nobody = held_by(held.clone(), "", 0);
    let refusal = refused(put(&nobody).await);
    assert_eq!((refusal.code, &*refusal.reason), (422, "Invalid"));
    nobody = held_by(held, "", 1);
    let released = put(&nobody).await.expect("client-go releases the same way");
    assert_eq!(holder_of(&released).unwrap_or_default(), "");
    let spec = released.spec.expect("a Lease has a spec");
    assert_eq!(spec.lease_transitions, Some(4));
}

async fn a_watch_goes_on_from_a_version(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let leases: Api<Lease> = cluster.api();
    let known = cluster.lease().await;
    let next = held_by(known.clone(), "sidecar-0", 15);
    let next = leases.replace(LEASE, &PostParams::default(), &next).await;
    let next = next.expect("a fresh version");
    let version = known.resource_version().expect("the server sets it");
    let by_name = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
    let mut watch = pin!(
        leases
            .watch(&by_name, &version)
            .await
            .expect("a known version")
    );
    // What happened before the watch began, and after the version: nothing falls between the two.
    let seen = modified(watch.next().await);
    assert_eq!(seen.resource_version(), next.resource_version());
    let other = from_json(json!({ "metadata": { "name": "other" }, "spec": {} }));
    leases
        .create(&PostParams::default(), &other)
        .await
        .expect("a new Lease");
    let released = held_by(next, "", 1);
    let released = leases
        .replace(LEASE, &PostParams::default(), &released)
        .await;
    let seen = modified(watch.next().await);
    assert_eq!(
        seen.resource_version(),
        released.expect("a fresh version").resource_version(),
        "the other Lease is not of this watch"
    );
}

async fn a_right_by_name_covers_a_watch_by_name_alone(cluster: &Cluster) {
    cluster.grant(&[Right::Lease]).await;
    let leases: Api<Lease> = Api::default_namespaced(cluster.client_of(0));
    let by_name = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
    let version = cluster
        .lease()
        .await
        .resource_version()
        .expect("the server sets it");
    let allowed = leases.watch(&by_name, &version).await.map(|_stream| ());
    allowed.expect("a watch of the one object that the Role names");
    let all = leases.watch(&WatchParams::default(), &version).await;
    assert_eq!(refused(all.map(|_stream| ())).code, 403);
}

async fn a_refusal_names_the_right_that_is_missing(cluster: &Cluster) {
    let every_right_but_two: Vec<Right> = Right::ALL
        .into_iter()
        .filter(|right| ![Right::Lease, Right::Scale].contains(right))
        .collect();
    cluster.deploy(1, idle_pod()).await;
    cluster.grant(&every_right_but_two).await;
    let client = cluster.client_of(3);
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let refusal = refused(leases.get(LEASE).await);
    assert_eq!((refusal.code, &*refusal.reason), (403, "Forbidden"));
    assert_eq!(
        refusal.message,
        format!(
            "leases.coordination.k8s.io \"{LEASE}\" is forbidden: User \"sidecar-3\" cannot get resource \"leases\" in \
             API group \"coordination.k8s.io\" in the namespace \"{}\"",
            cluster.namespace()
        )
    );
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let patch = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let patched = deployments
        .patch_scale(TARGET, &PatchParams::default(), &patch)
        .await;
    let refusal = refused(patched);
    assert_eq!(refusal.code, 403);
    assert!(
        refusal
            .message
            .contains("cannot patch resource \"deployments/scale\" in API group \"apps\""),
        "{}",
        refusal.message
    );
}

fn held_by(mut lease: Lease, holder: &str, seconds: i32) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(holder.to_owned());
    spec.lease_duration_seconds = Some(seconds);
    lease
}

fn holder_of(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

fn modified(event: Option<kube::Result<WatchEvent<Lease>>>) -> Lease {
    match event {
        Some(Ok(WatchEvent::Modified(lease))) => lease,
        other => panic!("not a change: {other:?}"),
    }
}
