//! The leader scales the Deployment, and its ReplicaSet follows, by the load that really passes through the sidecars.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::front::Seen;
use crate::keepers::Way;
use crate::sidecar::{self, LEASE_DURATION};
use crate::wait::{eventually, measured};
use crate::workload::{SOON, TARGET};

crate::each_flavour![
    the_deployment_grows_and_shrinks_with_the_load,
    clients_that_keep_their_connections_find_the_pods_that_were_started_for_them,
    a_paused_deployment_is_planned_for_and_not_written,
    who_observes_writes_nothing_but_lease_history_and_events,
];

crate::each_flavour_alone![the_api_servers_load_does_not_grow_with_the_fleet];

/// Twenty renewals: long enough that one request for each member would show.
const WINDOW: Duration = Duration::from_secs(10);

/// The annotation that pauses.
const PAUSED: &str = "sidescale.dev/paused";

/// The load that is gone leaves the means of a minute first, and those of a slow machine that was behind with it later
/// still: 50 to 110 s are usual.
const SHRUNK: Duration = Duration::from_secs(300);

/// What is busy with one request each fills three pods at their target.
const KEEPERS: usize = 12;

/// New pods are known for five seconds before a round, which takes ten; a busy machine has time for another.
const SPREAD: Duration = Duration::from_secs(120);

/// Enough for five pods at their target.
const BURST: u32 = 80;

async fn the_deployment_grows_and_shrinks_with_the_load(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 8)).await;
    let leader = fleet.leader().await;
    let start = cluster.clock().instant();
    let load = fleet.load(BURST);
    fleet.is_enough_for(BURST).await;
    let first = fleet.writes(|seen| seen.at >= start && seen.writes_scale());
    measured(
        cluster,
        "burst to the scale patch",
        first[0].at.since(start),
    );
    // It may go on growing, as some are kept in hand.
    fleet.has_all_ready().await;
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
    eventually("the fleet is small again", SHRUNK, async || {
        let replicas = cluster.replicas().await;
        let plan = sidecar::api(leader.ip, "plan").await;
        (replicas == 2).then_some(()).ok_or(match plan {
            Ok(plan) => format!("{replicas} replicas; {}", plan["plan"]["reasons"]),
            Err(error) => format!("{replicas} replicas; {error}"),
        })
    })
    .await;
    fleet.has_ready(2).await;
}

/// A Service balances connections: without help, pods that are started for such clients would never see one.
async fn clients_that_keep_their_connections_find_the_pods_that_were_started_for_them(
    cluster: &Cluster,
) {
    let fleet = Fleet::start(cluster, 1, &policy(1, 3)).await;
    fleet.leader().await;
    let keepers = fleet.keepers(&[(Way::Answers, KEEPERS)]);
    fleet.has_ready(3).await;
    eventually(
        "every pod has its part of the clients",
        SPREAD,
        async || {
            let seen = keepers.seen();
            assert!(seen.failed.is_empty(), "{:?}", seen.failed);
            (seen.served.len() == 3)
                .then_some(())
                .ok_or(format!("{:?}", seen.served))
        },
    )
    .await;
}

/// A person's hand on the fleet: all goes on but the writing, and the page and an Event say what it would be.
async fn a_paused_deployment_is_planned_for_and_not_written(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 8)).await;
    let leader = fleet.leader().await;
    annotate(cluster, json!("true")).await;
    let plan = async || sidecar::api(leader.ip, "plan").await;
    eventually("the leader has seen it", SOON, async || {
        let plan = plan().await?;
        (plan["acts"] == false)
            .then_some(())
            .ok_or(plan.to_string())
    })
    .await;
    let _load = fleet.load(BURST);
    eventually(
        "more are planned, and the plan says why",
        SOON,
        async || {
            let plan = plan().await?;
            let desired = plan["plan"]["desired"].as_u64().unwrap_or(0);
            let told = plan["plan"]["reasons"].to_string().contains(PAUSED);
            (desired > 2 && told).then_some(()).ok_or(plan.to_string())
        },
    )
    .await;
    eventually("an Event says it too", SOON, async || {
        let events: Api<Event> = cluster.api();
        let events = events.list(&ListParams::default()).await;
        let notes: Vec<String> = events
            .map_err(|error| error.to_string())?
            .into_iter()
            .filter_map(|event| event.note)
            .collect();
        let would = |note: &String| note.starts_with("would go") && note.contains(PAUSED);
        notes
            .iter()
            .any(would)
            .then_some(())
            .ok_or(notes.join("\n"))
    })
    .await;
    assert!(fleet.writes(Seen::writes_scale).is_empty());
    assert_eq!(cluster.replicas().await, 2);
    annotate(cluster, json!(null)).await;
    eventually("it goes on where it was held", SOON, async || {
        let replicas = cluster.replicas().await;
        (replicas > 2)
            .then_some(())
            .ok_or(format!("{replicas} replicas"))
    })
    .await;
}

/// Sets the annotation that pauses, as a person with kubectl would; null removes it.
pub(crate) async fn annotate(cluster: &Cluster, value: Value) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { PAUSED: value } } }));
    let deployments = cluster.api::<Deployment>();
    let patched = deployments
        .patch(TARGET, &PatchParams::default(), &patch)
        .await;
    patched.expect("a person may annotate");
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

/// The requests of a window in which nothing happens; one that an election falls into is none.
async fn steady_requests(cluster: &Cluster, fleet: &Fleet<'_>) -> usize {
    eventually("one leader for a whole window", SOON * 3, async || {
        fleet.holds().await?;
        let reign = reign(cluster).await;
        // Every member has heard of the leader by then, and has nothing left to ask.
        cluster.clock().sleep(LEASE_DURATION * 3).await;
        let before = requests(cluster);
        cluster.clock().sleep(WINDOW).await;
        let counted = requests(cluster) - before;
        let later = self::reign(cluster).await;
        (reign == later)
            .then_some(counted)
            .ok_or(format!("{reign:?} became {later:?}"))
    })
    .await
}

/// Who holds the Lease, and after how many changes.
async fn reign(cluster: &Cluster) -> (Option<String>, Option<i32>) {
    let spec = cluster.lease().await.spec.unwrap_or_default();
    (spec.holder_identity, spec.lease_transitions)
}

fn requests(cluster: &Cluster) -> usize {
    cluster.front().requests_by_agent().values().sum()
}
