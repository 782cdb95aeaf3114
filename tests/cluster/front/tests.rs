//! The front does what the scenarios take for granted.

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::WatchParams;

use crate::cluster::Cluster;
use crate::wait::eventually;
use crate::workload::{LEASE, Right};

crate::each_flavour![
    requests_are_written_down_with_user_agent_and_answer,
    a_cut_ends_one_users_connections_and_no_others,
    a_cut_for_everyone_ends_when_it_is_restored,
];

fn leases_of(cluster: &Cluster, number: usize) -> Api<Lease> {
    Api::default_namespaced(cluster.client_of(number))
}

async fn requests_are_written_down_with_user_agent_and_answer(cluster: &Cluster) {
    cluster.grant(&[Right::Lease]).await;
    let before = cluster.front().requests_by_agent();
    assert!(before.is_empty(), "the test's own requests do not count");
    leases_of(cluster, 4)
        .get(LEASE)
        .await
        .expect("the Role allows it");
    leases_of(cluster, 4)
        .get("other")
        .await
        .expect_err("the Role names one Lease");
    let seen = cluster.front().seen();
    let statuses: Vec<_> = seen
        .iter()
        .map(|seen| {
            (
                seen.user.as_str(),
                seen.status.map(|status| status.as_u16()),
            )
        })
        .collect();
    assert_eq!(
        statuses,
        [("sidecar-4", Some(200)), ("sidecar-4", Some(403))]
    );
    assert_eq!(
        cluster.front().requests_by_agent().values().sum::<usize>(),
        2
    );
}

async fn a_cut_ends_one_users_connections_and_no_others(cluster: &Cluster) {
    cluster.grant(&[Right::Lease]).await;
    let by_name = WatchParams::default()
        .fields(&format!("metadata.name={LEASE}"))
        .disable_bookmarks();
    let mut watches = Vec::new();
    for number in [0, 1] {
        let watch = leases_of(cluster, number).watch(&by_name, "0").await;
        let mut watch = Box::pin(watch.expect("the Role allows it"));
        watch
            .next()
            .await
            .expect("what is there comes first")
            .expect("a Lease");
        watches.push(watch);
    }
    cluster.front().cut_off("sidecar-0");
    // The stream ends or breaks; what matters is that the watcher hears of it.
    let cut = watches[0].next().await;
    assert!(
        !matches!(cut, Some(Ok(_))),
        "nothing happened to the Lease: {cut:?}"
    );
    leases_of(cluster, 0)
        .get(LEASE)
        .await
        .expect_err("it is cut off");
    leases_of(cluster, 1)
        .get(LEASE)
        .await
        .expect("it is not cut off");
    let quiet = cluster
        .clock()
        .timeout(Duration::from_millis(100), watches[1].next());
    quiet.await.expect_err("the other watch stays open");
}

async fn a_cut_for_everyone_ends_when_it_is_restored(cluster: &Cluster) {
    cluster.grant(&[Right::Lease]).await;
    let leases = leases_of(cluster, 0);
    leases.get(LEASE).await.expect("the Role allows it");
    cluster.front().cut();
    leases.get(LEASE).await.expect_err("its connection is cut");
    leases_of(cluster, 1)
        .get(LEASE)
        .await
        .expect_err("a new one is cut too");
    cluster.front().restore();
    eventually("it is back", Duration::from_secs(5), async || {
        leases.get(LEASE).await.map_err(|error| error.to_string())
    })
    .await;
}
