//! What a leader knew is known to the next one: from the members, and from the ConfigMap.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams};

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::processes::Signal;
use crate::wait::eventually;
use crate::workload::{HISTORY, SOON};

crate::each_flavour![
    a_killed_leaders_history_comes_back_from_the_members,
    a_fleet_that_ended_remembers_by_its_config_map,
    a_spoilt_config_map_is_kept_aside_and_requests_flow,
];

const RATE: u32 = 40;

/// Longer than two slots of a member's own ring, so that at least one whole slot was seen by everybody.
const LOADED: Duration = Duration::from_secs(25);

async fn a_killed_leaders_history_comes_back_from_the_members(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 4)).await;
    let old = fleet.leader().await;
    let served = loaded(cluster, &fleet).await;
    // Without a goodbye, and long before the next checkpoint is due.
    fleet.signal(&old, Signal::Kill);
    let new = fleet.successor_of(&old).await;
    // A third has gone with the killed pod; half of the rest is more than chance.
    remembers(&fleet, &new, served / 3.0).await;
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

async fn a_spoilt_config_map_is_kept_aside_and_requests_flow(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 2, &policy(2, 4)).await;
    fleet.leader().await;
    park(cluster).await;
    let mut map = checkpoint(cluster)
        .await
        .expect("the last leader has saved what it knew");
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

/// Puts load on the fleet and ends it; the requests that were served.
async fn loaded(cluster: &Cluster, fleet: &Fleet<'_>) -> f64 {
    let load = fleet.load(RATE);
    cluster.clock().sleep(LOADED).await;
    assert_eq!(load.failed(), 0);
    let served = u32::try_from(load.served()).expect("a few hundred");
    f64::from(served)
}

async fn remembers(fleet: &Fleet<'_>, leader: &crate::fleet::Leader, at_least: f64) {
    eventually("the history is back", SOON, async || {
        let remembered = fleet.remembered_by(leader).await?;
        (remembered >= at_least)
            .then_some(())
            .ok_or(format!("{remembered} requests, not {at_least}"))
    })
    .await;
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

/// The ConfigMap, once something was saved into it.
async fn checkpoint(cluster: &Cluster) -> Option<ConfigMap> {
    let map = cluster.api::<ConfigMap>().get(HISTORY).await;
    let map = map.expect("the ConfigMap is there");
    map.binary_data
        .as_ref()
        .is_some_and(|data| !data.is_empty())
        .then_some(map)
}
