//! A fleet whose requests pass by the sidecars: the servers' own metrics are all that the leader knows of its load.

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::sidecar;
use crate::wait::eventually;
use crate::workload::SOON;

crate::each_flavour![a_passive_fleet_grows_by_what_its_servers_say];

/// Enough for five pods at their target.
const BURST: u32 = 80;

async fn a_passive_fleet_grows_by_what_its_servers_say(cluster: &Cluster) {
    let passive = format!("dataPath: passive\n{}", policy(2, 8));
    let fleet = Fleet::start(cluster, 2, &passive).await;
    let leader = fleet.leader().await;
    fleet.reports_to(&leader, 2).await;
    let load = fleet.load_on_servers(BURST);
    fleet.is_enough_for(BURST).await;
    eventually("the leader sees the load as it is", SOON, async || {
        let plan = sidecar::api(leader.ip, "plan").await?;
        let rate = plan["arrivalsPerSecond"].as_f64().unwrap_or(0.0);
        let burst = f64::from(BURST);
        (burst * 0.75..burst * 1.25)
            .contains(&rate)
            .then_some(())
            .ok_or(plan.to_string())
    })
    .await;
    assert!(load.served() > 0);
    // Nothing of it went through a sidecar.
    let report = sidecar::api(leader.ip, "report").await.expect("it answers");
    assert_eq!(report["load_unknown"], false, "{report}");
    let metrics = sidecar::metrics(leader.ip).await.expect("it answers");
    let has = |line: &str| metrics.lines().any(|it| it == line);
    assert!(has("sidescale_server_info{engine=\"vllm\"} 1"), "{metrics}");
    assert!(has("sidescale_requests_received_total 0.0"), "{metrics}");
}
