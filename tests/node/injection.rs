//! A sidecar comes and goes, under load, beside a server that takes a minute to load.

use std::time::Duration;

use crate::cluster::{Cluster, SOON};
use crate::manifests::{TARGET, injected, plain};
use crate::visitors::{Visitors, Way};

/// Seconds that the server loads.
const COLD_START: u32 = 60;
const PODS: u32 = 2;

/// A Service's clients, each request on a connection of its own: a pod without a sidecar cuts what is kept when it ends.
const CLIENTS: [(Way, usize); 1] = [(Way::Fresh, 8)];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn no_request_fails_while_the_sidecar_comes_and_goes() {
    let cluster = Cluster::new("injection").await;
    let without = plain(PODS, COLD_START);
    let with = injected(&without, false);
    let long = SOON + Duration::from_secs(u64::from(2 * COLD_START * PODS));
    cluster.apply(&without).await;
    cluster.is_rolled_out(TARGET, long).await;
    let visitors = Visitors::start(&cluster.address(TARGET).await, &CLIENTS);
    visitors.are_served(50).await;

    cluster.apply(&with).await;
    cluster.is_rolled_out(TARGET, long).await;
    visitors.assert_none_failed("the sidecar came");
    visitors.are_served(50).await;
    for pod in cluster.pods_of(TARGET).await {
        let name = pod.metadata.name.expect("a pod has a name");
        let plan = cluster
            .ask(&name, "/api/v1/plan")
            .await
            .expect("it answers");
        assert!(plan.contains("observe"), "{plan}");
        let metrics = cluster.ask(&name, "/metrics").await.expect("it answers");
        let counted = metrics.lines().any(|line| {
            let mut words = line.split_whitespace();
            let is_it = words
                .next()
                .is_some_and(|name| name.starts_with("sidescale_requests_total"));
            is_it && words.next().and_then(|value| value.parse::<f64>().ok()) > Some(0.0)
        });
        assert!(counted, "requests go through it: {metrics}");
    }

    cluster.apply(&without).await;
    cluster.is_rolled_out(TARGET, long).await;
    let seen = visitors.assert_none_failed("the sidecar went");
    cluster.print(&format!(
        "a sidecar came and went, {PODS} pods, none failed of {:?}",
        seen.served
    ));
    cluster.end().await;
}
