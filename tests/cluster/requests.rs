//! What a fleet asks of the API server when it starts and when its leader dies, apart from the steady state.

use std::collections::{BTreeMap, BTreeSet};

use sidescale::clock::Instant;
use sidescale::leader::USER_AGENT;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::front::Seen;
use crate::processes::Signal;
use crate::wait::counted;

crate::each_flavour![a_start_and_a_takeover_cost_a_few_requests_for_each_member];

/// So many that a request for each pair of them would stand out.
const MEMBERS: u32 = 10;

/// Of a leader and its standbys, however large the fleet: stamp, history, the lists and watches, Events.
const FOR_ALL: usize = 16;

/// Of each member at its start: a look at the Lease and one at the leader's proof, and in between a look and a try once in
/// a retry period, until the leader has told it who leads. One round of them is usual, two are seen on a busy machine.
const START_FOR_EACH: usize = 6;

/// Of each member at a takeover: a look at the new leader's proof, and for a standby one at the Lease and a watch.
const TAKEOVER_FOR_EACH: usize = 2;

async fn a_start_and_a_takeover_cost_a_few_requests_for_each_member(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, MEMBERS, &policy(MEMBERS, MEMBERS)).await;
    let old = fleet.leader().await;
    fleet.has_standbys(&old).await;
    fleet.reports_to(&old, MEMBERS).await;
    let start = requests(cluster, |_seen| true);
    counted(cluster, &format!("start of {MEMBERS} pods: {start:?}"));

    let killed = fleet.signal(&old, Signal::Kill);
    let new = fleet.successor_of(&old).await;
    fleet.reports_to(&new, MEMBERS - 1).await;
    // The kubelet starts the killed one again: another start.
    let takeover = requests(cluster, |seen| seen.at >= killed && seen.user != old.user);
    counted(
        cluster,
        &format!("takeover among {MEMBERS} pods: {takeover:?}"),
    );

    let members = usize::try_from(MEMBERS).unwrap_or(usize::MAX);
    for (what, requests, for_each) in [
        ("start", start, START_FOR_EACH),
        ("takeover", takeover, TAKEOVER_FOR_EACH),
    ] {
        let agents: Vec<&str> = requests.keys().map(String::as_str).collect();
        assert_eq!(agents, [USER_AGENT], "{what}");
        let (sum, most) = (
            requests.values().sum::<usize>(),
            FOR_ALL + members * for_each,
        );
        assert!(
            sum <= most,
            "{sum} requests for a {what}, more than {most}: {:#?}",
            by_kind(cluster)
        );
    }
}

/// How many of these requests each user agent has made, without the renewals of whoever leads: those are the steady state.
fn requests(cluster: &Cluster, kind: impl Fn(&Seen) -> bool) -> BTreeMap<String, usize> {
    let mut leaders = BTreeSet::new();
    let mut counts = BTreeMap::new();
    for seen in cluster.front().seen().into_iter().filter(kind) {
        let wrote = seen.writes_lease() && seen.status.is_some_and(|status| status.is_success());
        let is_renewal = wrote && !leaders.insert(seen.user);
        if !is_renewal {
            *counts.entry(seen.agent).or_default() += 1;
        }
    }
    counts
}

/// All requests by what they do, with the first and the last time, for a failure's message.
fn by_kind(cluster: &Cluster) -> BTreeMap<String, (usize, Instant, Instant)> {
    let mut kinds = BTreeMap::new();
    for seen in cluster.front().seen() {
        let status = seen.status.map(|status| status.as_u16());
        let what = format!("{} {} {status:?}", seen.method, seen.path);
        let (count, _first, last) = kinds.entry(what).or_insert((0, seen.at, seen.at));
        (*count, *last) = (*count + 1, seen.at);
    }
    kinds
}
