//! The leader scales the Deployment, and its ReplicaSet follows, by the load that really passes through the sidecars.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::fleet::{CONCURRENCY, Fleet, SERVICE_TIME, policy};
use crate::front::Seen;
use crate::sidecar::LEASE_DURATION;
use crate::wait::{eventually, measured};
use crate::workload::SOON;

crate::each_flavour![
    the_deployment_grows_and_shrinks_with_the_load,
    who_observes_writes_nothing_but_lease_history_and_events,
    the_api_servers_load_does_not_grow_with_the_fleet,
];

/// Twenty renewals: long enough that one request for each member would show.
const WINDOW: Duration = Duration::from_secs(10);

/// Enough for five pods at their target.
const BURST: u32 = 80;

async fn the_deployment_grows_and_shrinks_with_the_load(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 8)).await;
    let leader = fleet.leader().await;
    let start = cluster.clock().instant();
    let load = fleet.load(BURST);
    let needed = (f64::from(BURST) * SERVICE_TIME.as_secs_f64() / f64::from(CONCURRENCY)).ceil();
    eventually("there are enough pods for the load", SOON * 2, async || {
        let replicas = cluster.replicas().await;
        (f64::from(replicas) >= needed)
            .then_some(())
            .ok_or(format!("{replicas} of {needed}"))
    })
    .await;
    let first = fleet.writes(|seen| seen.at >= start && seen.writes_scale());
    measured(
        cluster,
        "burst to the scale patch",
        first[0].at.since(start),
    );
    let grown = u32::try_from(cluster.replicas().await).expect("replicas are not negative");
    fleet.has_ready(grown).await;
    assert_eq!(
        fleet
            .writers(start, Seen::writes_deployment)
            .into_iter()
            .collect::<Vec<_>>(),
        [leader.user],
        "one leads"
    );
    let served = load.served();
    assert!(served > 0);
    drop(load);
    eventually(
        "the fleet is small again",
        Duration::from_secs(90),
        async || {
            let replicas = cluster.replicas().await;
            (replicas == 2)
                .then_some(())
                .ok_or(format!("{replicas} replicas"))
        },
    )
    .await;
    fleet.has_ready(2).await;
}

async fn who_observes_writes_nothing_but_lease_history_and_events(cluster: &Cluster) {
    let observed = policy(2, 8).replace("mode: auto", "mode: observe");
    let fleet = Fleet::start(cluster, 2, &observed).await;
    let load = fleet.load(BURST);
    eventually("it says what it would do", SOON, async || {
        let events = fleet.writes(|seen| seen.writes_event() && seen.body.contains("WouldScale"));
        (!events.is_empty())
            .then_some(())
            .ok_or("no Event".to_owned())
    })
    .await;
    eventually("it remembers", SOON, async || {
        let saved = fleet.writes(Seen::writes_history);
        (!saved.is_empty())
            .then_some(())
            .ok_or("nothing".to_owned())
    })
    .await;
    let others: Vec<Seen> = cluster
        .front()
        .seen()
        .into_iter()
        .filter(|seen| seen.writes() && !seen.writes_event())
        .filter(|seen| !seen.writes_lease() && !seen.writes_history())
        .collect();
    assert_eq!(others, [], "not even tried");
    assert_eq!(cluster.replicas().await, 2);
    assert_eq!(load.failed(), 0);
}

/// A leader and two standbys talk to the API server; everybody else hears from the leader.
async fn the_api_servers_load_does_not_grow_with_the_fleet(cluster: &Cluster) {
    // Observed only: the replicas are the test's to set.
    let observed = policy(1, 50).replace("mode: auto", "mode: observe");
    let fleet = Fleet::start(cluster, 3, &observed).await;
    let small = steady_requests(cluster, &fleet).await;
    cluster.set_replicas(50).await;
    fleet.has_ready(50).await;
    let large = steady_requests(cluster, &fleet).await;
    let what = format!("requests to the API server, {small} with 3 pods and {large} with 50, in");
    measured(cluster, &what, WINDOW);
    // A renewal more or less falls into a window.
    assert!(
        large <= small + 4,
        "{small} requests with 3 pods, {large} with 50"
    );
}

/// The requests of a window in which nothing happens.
async fn steady_requests(cluster: &Cluster, fleet: &Fleet<'_>) -> usize {
    eventually("somebody leads", SOON, async || fleet.holds().await).await;
    // Every member has heard of the leader by then, and has nothing left to ask.
    cluster.clock().sleep(LEASE_DURATION * 3).await;
    let before = requests(cluster);
    cluster.clock().sleep(WINDOW).await;
    requests(cluster) - before
}

fn requests(cluster: &Cluster) -> usize {
    cluster.front().requests_by_agent().values().sum()
}
