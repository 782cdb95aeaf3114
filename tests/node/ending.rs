//! Pods end, again and again, beside a server that cuts everything at its SIGTERM.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{Cluster, SOON};
use crate::manifests::{TARGET, injected, plain};
use crate::visitors::{Visitors, Way};
use crate::wait::wish;

const PODS: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn no_stream_breaks_at_rollouts_and_scale_downs_of_native_sidecars() {
    no_stream_breaks("native", false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn no_stream_breaks_at_rollouts_and_scale_downs_of_classic_sidecars() {
    no_stream_breaks("classic", true).await;
}

async fn no_stream_breaks(name: &str, classic: bool) {
    let cluster = Cluster::new(name).await;
    let (rounds, stream) = (wish("SIDESCALE_ROUNDS", 1), wish("SIDESCALE_STREAM", 20));
    cluster.apply(&injected(&plain(PODS, 2), classic)).await;
    cluster.is_rolled_out(TARGET, SOON).await;
    let long_ones = [Way::Stream(stream), Way::Call(stream)];
    let clients = [
        (Way::Fresh, 4),
        (Way::Kept, 4),
        (long_ones[0], 8),
        (long_ones[1], 8),
    ];
    let visitors = Visitors::start(&cluster.address(TARGET).await, &clients);
    // Pods are replaced one after the other, and each waits for its streams.
    let long = SOON + Duration::from_secs(u64::from(2 * PODS * stream));
    for round in 0..rounds {
        let restart = json!({"kubectl.kubernetes.io/restartedAt": round.to_string()});
        let restart = json!({"spec": {"template": {"metadata": {"annotations": restart}}}});
        cluster.patch(TARGET, &restart).await;
        cluster.is_rolled_out(TARGET, long).await;
        visitors.assert_none_failed("a rollout");
        for replicas in [PODS + 1, PODS] {
            cluster
                .patch(TARGET, &json!({"spec": {"replicas": replicas}}))
                .await;
            cluster.is_rolled_out(TARGET, long).await;
            visitors.assert_none_failed("a change of replicas");
        }
    }
    let seen = visitors.assert_none_failed("the end");
    for way in long_ones {
        let of_streams = seen.served.get(&way).copied().unwrap_or(0);
        assert!(of_streams >= 8, "{:?}", seen.served);
    }
    cluster.print(&format!(
        "{rounds} rollouts and scale-downs, none failed of {:?}",
        seen.served
    ));
    cluster.end().await;
}
