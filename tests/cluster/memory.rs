//! What a leader knew is known to the next one: from the members, and from the ConfigMap.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use sidescale::clock::Instant;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, Leader, policy};
use crate::front::Seen;
use crate::processes::Signal;
use crate::sidecar;
use crate::wait::{eventually, throughout};
use crate::workload::{HISTORY, SOON};

crate::each_flavour![
    a_killed_leaders_history_comes_back_from_the_members,
    a_fleet_that_ended_remembers_by_its_config_map,
    a_spoilt_config_map_is_kept_aside_and_requests_flow,
    a_history_that_cannot_be_read_at_the_takeover_is_kept_and_read_later,
    a_config_map_that_is_deleted_is_filled_again,
    a_lost_history_stays_lost_for_the_next_leader,
    a_fleet_is_not_lowered_while_its_history_cannot_be_saved,
];

const RATE: u32 = 40;

/// When a new leader saves for the first time.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(10);

/// Between two tries of a leader to save before it lowers.
const SAVED_AGAIN: Duration = Duration::from_secs(2);

/// Longer than three slots of a member's own ring, so that two whole slots were seen by everybody: of one alone, two members
/// of three would remember less than a third of all.
const LOADED: Duration = Duration::from_secs(35);

async fn a_killed_leaders_history_comes_back_from_the_members(cluster: &Cluster) {
    // It can neither grow nor shrink, so nothing but time brings a checkpoint about, and the next is minutes away.
    let fleet = Fleet::start(cluster, 3, &policy(3, 3)).await;
    let old = fleet.leader().await;
    let empty = has_checkpoint(cluster).await;
    let served = loaded(cluster, &fleet).await;
    fleet.signal(&old, Signal::Kill);
    let last = has_checkpoint(cluster).await;
    assert_eq!(
        last.metadata.resource_version, empty.metadata.resource_version,
        "the only checkpoint is from before the load: what is known of it is the members' own"
    );
    let new = fleet.successor_of(&old).await;
    // A third has gone with the killed pod; half of the rest is more than chance.
    let remembered = remembers(&fleet, &new, served / 3.0).await;
    // Members remember by ten seconds, of which the first and the last may be half theirs.
    assert!(remembered < served * 1.1, "{remembered} of {served}");
}

async fn a_fleet_that_ended_remembers_by_its_config_map(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 4)).await;
    fleet.leader().await;
    let served = loaded(cluster, &fleet).await;
    park(cluster).await;
    assert!(
        checkpoint(cluster).await.is_some(),
        "the last leader has saved what it knew"
    );
    cluster.set_replicas(2).await;
    fleet.has_ready(2).await;
    // No pod is left that had seen the load.
    let leader = fleet.leader().await;
    remembers(&fleet, &leader, served / 2.0).await;
}

/// The API server fails each read of the history that a new leader makes, and works otherwise.
async fn a_history_that_cannot_be_read_at_the_takeover_is_kept_and_read_later(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 2)).await;
    fleet.leader().await;
    let served = loaded(cluster, &fleet).await;
    park(cluster).await;
    let saved = checkpoint(cluster)
        .await
        .expect("the last leader has saved");
    cluster.front().refuse(|seen| seen.path.ends_with(HISTORY));
    cluster.set_replicas(2).await;
    fleet.has_ready(2).await;
    let leader = fleet.leader().await;
    let start = cluster.clock().instant();
    // Past its first checkpoint, which must not replace what nobody has read.
    throughout(
        "the history is left alone",
        FIRST_CHECKPOINT * 2,
        async || {
            let now = checkpoint(cluster).await.ok_or("it is gone")?;
            (now.binary_data == saved.binary_data)
                .then_some(())
                .ok_or("it was replaced".to_owned())
        },
    )
    .await;
    let tried = fleet_wrote_history(cluster, start);
    assert_eq!(tried, 0, "not even tried");
    has_condition(&leader, "history").await;
    cluster.front().restore();
    remembers(&fleet, &leader, served / 2.0).await;
}

/// A person deletes the ConfigMap while a leader lives, and applies the empty one again.
async fn a_config_map_that_is_deleted_is_filled_again(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 4)).await;
    let old = fleet.leader().await;
    has_checkpoint(cluster).await;
    let maps = cluster.api::<ConfigMap>();
    let deleted = maps.delete(HISTORY, &DeleteParams::default()).await;
    deleted.expect("it is there");
    let mut empty = ConfigMap::default();
    empty.metadata.name = Some(HISTORY.to_owned());
    let created = maps.create(&PostParams::default(), &empty).await;
    created.expect("nobody else makes it");
    // The handover saves.
    fleet.signal(&old, Signal::Term);
    fleet.successor_of(&old).await;
    has_checkpoint(cluster).await;
}

/// A leader that found no history saves what it saw since; the next one must not take that for the fleet's past.
async fn a_lost_history_stays_lost_for_the_next_leader(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 3)).await;
    let first = fleet.leader().await;
    fleet.signal(&first, Signal::Term);
    let second = next_reign(&fleet, &first).await;
    // Gone between two reigns: the one who leads now saves no more.
    fleet.signal(&second, Signal::Kill);
    let lost = json!({ "binaryData": null });
    let params = PatchParams::default();
    let patch = Patch::Merge(lost);
    let maps = cluster.api::<ConfigMap>();
    maps.patch(HISTORY, &params, &patch)
        .await
        .expect("a person may do this");
    let third = next_reign(&fleet, &second).await;
    has_condition(&third, "history").await;
    has_checkpoint(cluster).await;
    fleet.has_ready(3).await;
    fleet.signal(&third, Signal::Term);
    let fourth = next_reign(&fleet, &third).await;
    has_condition(&fourth, "history").await;
}

async fn a_spoilt_config_map_is_kept_aside_and_requests_flow(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 4)).await;
    fleet.leader().await;
    // A leader that is told to end while it still reads what was saved saves nothing.
    has_checkpoint(cluster).await;
    park(cluster).await;
    let mut map = checkpoint(cluster).await.expect("it was there before");
    let spoilt = ByteString(b"not a checkpoint".to_vec());
    for bytes in map
        .binary_data
        .iter_mut()
        .flat_map(|data| data.values_mut())
    {
        *bytes = spoilt.clone();
    }
    let maps = cluster.api::<ConfigMap>();
    let spoiling = maps.replace(HISTORY, &PostParams::default(), &map).await;
    spoiling.expect("nobody else writes it now");
    cluster.set_replicas(2).await;
    fleet.has_ready(2).await;
    let load = fleet.load(RATE);
    eventually("it is kept as `previous`", SOON, async || {
        let map = maps.get(HISTORY).await.map_err(|error| error.to_string())?;
        let data = map.binary_data.unwrap_or_default();
        (data.get("previous") == Some(&spoilt))
            .then_some(())
            .ok_or(format!("{:?}", data.keys()))
    })
    .await;
    eventually("requests flow", SOON, async || {
        (load.served() > 0)
            .then_some(())
            .ok_or("none yet".to_owned())
    })
    .await;
    assert_eq!(load.failed(), 0);
}

/// Waits until somebody leads after `old`, be it the same pod's next process.
async fn next_reign(fleet: &Fleet<'_>, old: &Leader) -> Leader {
    eventually("another reign begins", SOON, async || {
        let leader = fleet.leads().await?;
        (leader.term > old.term)
            .then_some(leader)
            .ok_or(format!("still {old:?}"))
    })
    .await
}

/// A pod that goes takes along what it remembers: without a checkpoint nobody would know of it any more.
async fn a_fleet_is_not_lowered_while_its_history_cannot_be_saved(cluster: &Cluster) {
    cluster.front().refuse(Seen::writes_history);
    let fleet = Fleet::start(cluster, 4, &policy(2, 8)).await;
    let leader = fleet.leader().await;
    eventually("the plan is to be smaller", SOON * 2, async || {
        let plan = sidecar::api(leader.ip, "plan").await?;
        let desired = plan["plan"]["desired"].as_u64();
        desired
            .is_some_and(|desired| desired < 4)
            .then_some(())
            .ok_or(plan.to_string())
    })
    .await;
    has_condition(&leader, "checkpoint").await;
    // Some times as long as the leader takes to try again.
    throughout("it stays as it is", SAVED_AGAIN * 4, async || {
        let replicas = cluster.replicas().await;
        (replicas == 4)
            .then_some(())
            .ok_or(format!("{replicas} replicas"))
    })
    .await;
    cluster.front().restore();
    eventually("it shrinks", SOON * 2, async || {
        let replicas = cluster.replicas().await;
        (replicas < 4)
            .then_some(())
            .ok_or(format!("{replicas} replicas"))
    })
    .await;
}

/// Puts load on the fleet and ends it; the requests that were served.
async fn loaded(cluster: &Cluster, fleet: &Fleet<'_>) -> f64 {
    let load = fleet.load(RATE);
    cluster.clock().sleep(LOADED).await;
    assert_eq!(load.failed(), 0);
    let served = u32::try_from(load.served()).expect("a few hundred");
    f64::from(served)
}

/// Waits until the leader's history holds at least so many requests. It must not hold them twice: no slot shows much more
/// than was sent in it.
async fn remembers(fleet: &Fleet<'_>, leader: &Leader, at_least: f64) -> f64 {
    let remembered = eventually("the history is back", SOON, async || {
        let remembered = fleet.remembered_by(leader).await?;
        (remembered >= at_least)
            .then_some(remembered)
            .ok_or(format!("{remembered} requests, not {at_least}"))
    })
    .await;
    let history = sidecar::api(leader.ip, "history").await;
    let history = history.expect("it has just answered");
    let rates = history["arrivals"].as_array().into_iter().flatten();
    let highest = rates
        .filter_map(serde_json::Value::as_f64)
        .fold(0.0, f64::max);
    assert!(
        highest < f64::from(RATE) * 1.5,
        "{highest} a second in {history}"
    );
    remembered
}

/// Waits until the leader says that this is wrong.
async fn has_condition(leader: &Leader, kind: &str) {
    let what = format!("{} says that its {kind} is wrong", leader.pod);
    eventually(&what, SOON, async || {
        let plan = sidecar::api(leader.ip, "plan").await?;
        let conditions = plan["conditions"].as_array();
        let found = conditions
            .into_iter()
            .flatten()
            .any(|found| found["kind"] == kind);
        found.then_some(()).ok_or(plan["conditions"].to_string())
    })
    .await;
}

/// How often somebody tried to write the history since `since`.
fn fleet_wrote_history(cluster: &Cluster, since: Instant) -> usize {
    let seen = cluster.front().seen();
    let tries = seen
        .iter()
        .filter(|seen| seen.at >= since && seen.writes_history());
    tries.count()
}

/// Ends every pod as a person does who parks a workload.
async fn park(cluster: &Cluster) {
    cluster.set_replicas(0).await;
    eventually("no pod is left", SOON * 2, async || {
        let left = cluster.api::<Pod>().list(&ListParams::default()).await;
        let left = left.map_err(|error| error.to_string())?.items.len();
        (left == 0).then_some(()).ok_or(format!("{left} are"))
    })
    .await;
}

/// Waits for the first checkpoint.
async fn has_checkpoint(cluster: &Cluster) -> ConfigMap {
    eventually("something was saved", SOON, async || {
        checkpoint(cluster).await.ok_or("nothing yet".to_owned())
    })
    .await
}

/// The ConfigMap, once something was saved into it.
async fn checkpoint(cluster: &Cluster) -> Option<ConfigMap> {
    let map = cluster.api::<ConfigMap>().get(HISTORY).await;
    let map = map.expect("the ConfigMap is there");
    map.binary_data
        .as_ref()
        .is_some_and(|data| !data.is_empty())
        .then_some(map)
}
