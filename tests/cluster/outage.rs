//! The API server is away for a minute: requests flow, nothing scales, then it goes on.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::front::Seen;
use crate::wait::{eventually, measured, throughout};

crate::each_flavour![requests_flow_and_nothing_scales_while_the_api_server_is_away];

/// Twenty lease durations of these tests, and longer than most clients' patience.
const AWAY: Duration = Duration::from_secs(60);

async fn requests_flow_and_nothing_scales_while_the_api_server_is_away(cluster: &Cluster) {
    let fleet = Fleet::start(cluster, 3, &policy(3, 9)).await;
    fleet.leader().await;
    let calm = fleet.load(20);
    eventually("requests flow", Duration::from_secs(10), async || {
        (calm.served() > 20)
            .then_some(())
            .ok_or("too few".to_owned())
    })
    .await;
    let replicas = cluster.replicas().await;
    let before = calm.served();
    cluster.front().cut();
    let cut = cluster.clock().instant();
    // More than the fleet should carry: there is every reason to scale.
    let burst = fleet.load(80);
    throughout("nothing scales", AWAY, async || {
        let now = cluster.replicas().await;
        (now == replicas)
            .then_some(())
            .ok_or(format!("{now} replicas"))
    })
    .await;
    assert_eq!((calm.failed(), burst.failed()), (0, 0), "requests flow");
    // 20 a second for a minute, less what is in flight.
    assert!(
        calm.served() - before >= 1_100,
        "{} in a minute",
        calm.served() - before
    );
    assert_eq!(
        fleet.writes(|seen| seen.at > cut).len(),
        0,
        "nothing came through"
    );
    cluster.front().restore();
    let back = cluster.clock().instant();
    let first = eventually("it scales again", Duration::from_secs(60), async || {
        let writes = fleet.writes(|seen| seen.at >= back && seen.writes_scale());
        writes.first().cloned().ok_or("no scale write".to_owned())
    })
    .await;
    measured(
        cluster,
        "API server back to the next scale write",
        first.at.since(back),
    );
    assert!(
        cluster.replicas().await > replicas,
        "without a jump the other way"
    );
    assert_eq!(
        (calm.failed(), burst.failed()),
        (0, 0),
        "requests still flow"
    );
    let leaders = fleet.writers(back, Seen::writes_deployment);
    assert_eq!(leaders.len(), 1, "one leads: {leaders:?}");
}
