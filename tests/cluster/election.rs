//! Who leads: one at a time, and soon another one when it is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, Leader, policy};
use crate::front::Seen;
use crate::processes::Signal;
use crate::sidecar::{LEASE_DURATION, RETRY_PERIOD};
use crate::wait::{measured, throughout};
use crate::workload::{LEASE, Right};

crate::each_flavour![
    three_sidecars_elect_one_leader,
    a_killed_leader_is_followed_within_lease_duration_and_retry_period,
    a_leader_that_is_told_to_end_hands_over_at_once,
    of_two_that_meet_an_expired_lease_one_wins,
    a_leader_that_slept_past_its_lease_never_writes,
];

/// What the machine may add: two busy cores, and a look every few hundredths of a second.
const SLACK: Duration = Duration::from_secs(1);

async fn three_sidecars_elect_one_leader(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 3)).await;
    let leader = fleet.leader().await;
    throughout("the same one leads", LEASE_DURATION * 3, async || {
        let now = fleet.leads().await?;
        (now == leader)
            .then_some(())
            .ok_or(format!("{now:?}, no longer {leader:?}"))
    })
    .await;
    let alone = BTreeSet::from([leader.user]);
    let start = sidescale::clock::Instant::default();
    assert_eq!(fleet.writers(start, Seen::writes_lease), alone);
    assert_eq!(fleet.writers(start, Seen::writes_deployment), alone);
}

async fn a_killed_leader_is_followed_within_lease_duration_and_retry_period(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 3)).await;
    let old = fleet.leader().await;
    fleet.has_standbys(&old).await;
    let killed = fleet.signal(&old, Signal::Kill);
    fleet.successor_of(&old).await;
    let write = first_of_another(&fleet, &old, Seen::writes_deployment);
    let took = write.at.since(killed);
    measured(cluster, "SIGKILL of the leader to the next write", took);
    // A jittered retry takes up to 1.2 periods.
    let at_most = LEASE_DURATION + RETRY_PERIOD.mul_f64(1.2) + SLACK;
    assert!(took <= at_most, "{took:?}, more than {at_most:?}");
}

async fn a_leader_that_is_told_to_end_hands_over_at_once(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 3)).await;
    let old = fleet.leader().await;
    // It can only name a successor whom it knows.
    fleet.has_standbys(&old).await;
    let told = fleet.signal(&old, Signal::Term);
    fleet.successor_of(&old).await;
    let took = first_of_another(&fleet, &old, Seen::writes_deployment)
        .at
        .since(told);
    measured(cluster, "SIGTERM of the leader to the next write", took);
    assert!(
        took <= SLACK,
        "{took:?}: nobody has to wait for a lease that was released"
    );
}

async fn of_two_that_meet_an_expired_lease_one_wins(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let held = json!({ "spec": {
        "holderIdentity": "gone_0",
        "leaseDurationSeconds": LEASE_DURATION.as_secs(),
        "leaseTransitions": 4,
        // Long ago by the writer's clock: that must not count, its clock may be wrong.
        "renewTime": MicroTime(Timestamp::UNIX_EPOCH),
    }});
    let params = PatchParams::default();
    let patched = cluster
        .api::<Lease>()
        .patch(LEASE, &params, &Patch::Merge(held))
        .await;
    patched.expect("the test may write the Lease");
    let fleet = Fleet::beside(cluster, 2, &policy(2, 2)).await;
    let leader = fleet.leader().await;

    let seen = cluster.front().seen();
    let first_look = seen
        .iter()
        .find(|seen| seen.path.contains("/leases/") && seen.user == leader.user)
        .expect("it looked before it wrote");
    let taken = fleet.writes(Seen::writes_lease);
    let waited = taken[0].at.since(first_look.at);
    assert!(
        waited >= LEASE_DURATION,
        "it took the Lease after it had seen it unchanged for {waited:?} only"
    );
    // The loser may have tried; the version that both had read let one in.
    let start = sidescale::clock::Instant::default();
    let winners = fleet.writers(start, Seen::writes_lease);
    assert_eq!(winners, BTreeSet::from([leader.user]));
    let lease = cluster.lease().await.spec.expect("a Lease has a spec");
    assert_eq!(lease.lease_transitions, Some(5), "one change of holder");
    assert!(
        leader.term >= 5,
        "a term is never below the Lease's transitions"
    );
}

async fn a_leader_that_slept_past_its_lease_never_writes(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 9)).await;
    let old = fleet.leader().await;
    fleet.signal(&old, Signal::Stop);
    let new = fleet.successor_of(&old).await;
    // Load that wants more pods: awake, the old leader has every reason to act.
    let _load = fleet.load(80);
    let awake = fleet.signal(&old, Signal::Continue);
    throughout("the new one leads", LEASE_DURATION * 3, async || {
        let now = fleet.leads().await?;
        (now.pod == new.pod)
            .then_some(())
            .ok_or(format!("{now:?}, no longer {new:?}"))
    })
    .await;
    let late: Vec<Seen> = cluster
        .front()
        .seen()
        .into_iter()
        .filter(|seen| {
            seen.at >= awake && seen.user == old.user && seen.writes() && !seen.writes_lease()
        })
        .collect();
    assert_eq!(
        late,
        [],
        "not even refused: it knows that its claim has lapsed"
    );
    // It may try for the Lease, which it saw last with its own name on it: the version says no.
    assert!(!fleet.writers(awake, Seen::writes_lease).contains(&old.user));
    assert!(
        fleet.writers(awake, Seen::writes_scale).contains(&new.user),
        "the load was enough to act on"
    );
}

fn first_of_another(fleet: &Fleet<'_>, old: &Leader, kind: impl Fn(&Seen) -> bool) -> Seen {
    let writes = fleet.writes(kind);
    let last = writes.iter().rposition(|seen| seen.user == old.user);
    let first = last.map_or(0, |last| last + 1);
    writes.get(first).expect("another one has written").clone()
}
