//! Sidecars that are stopped and killed.

use std::time::Duration;

use sidescale::clock::Clock;

use crate::cluster::{Cluster, SOON, is_ready, restarts};
use crate::manifests::{TARGET, injected, plain};
use crate::processes::{sidecar_of, signal};
use crate::visitors::{Visitors, Way};
use crate::wait::{eventually, wish};

const PODS: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_killed_sidecar_is_back_in_seconds_and_only_its_own_requests_are_lost() {
    let cluster = started("killed").await;
    let clients = 4;
    let visitors = Visitors::start(&cluster.address(TARGET).await, &[(Way::Kept, clients)]);
    let name = first_pod(&cluster).await;
    eventually("requests are answered", SOON, async || {
        let seen = visitors.assert_none_failed("before anything happened");
        let served = seen.served.get(&Way::Kept).copied().unwrap_or(0);
        (served >= 20).then_some(()).ok_or(format!("{served}"))
    })
    .await;

    let process = sidecar_of(&name)
        .expect("the nodes' processes are on this machine: see tests/node/main.rs");
    let clock = Clock::real();
    signal(process, "KILL");
    eventually("the kubelet starts it again", SOON, async || {
        let pod = cluster
            .pods()
            .get(&name)
            .await
            .map_err(|error| error.to_string())?;
        let again = restarts(&pod, "sidescale") == 1;
        (again && is_ready(&pod))
            .then_some(())
            .ok_or(format!("{:?}", pod.status))
    })
    .await;
    let took = clock.instant().offset();
    cluster.print(&format!(
        "killed sidecar ready again: {:.1} s",
        took.as_secs_f64()
    ));
    let pod = cluster.pods().get(&name).await.expect("it is there");
    assert_eq!(restarts(&pod, "server"), 0, "the server goes on");
    // Whoever had a connection there lost what was in flight on it, and new ones may have met a closed port until the pod
    // was out of the endpoints.
    let seen = visitors.seen();
    cluster.print(&format!(
        "{} of {:?} failed",
        seen.failed.len(),
        seen.served
    ));
    let broken = seen
        .failed
        .iter()
        .filter(|failed| !failed.contains("Refused"));
    assert!(broken.count() <= clients, "{:#?}", seen.failed);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_stopped_sidecar_does_not_make_the_kubelet_restart_its_server() {
    let cluster = started("stopped").await;
    let name = first_pod(&cluster).await;
    let process = sidecar_of(&name)
        .expect("the nodes' processes are on this machine: see tests/node/main.rs");
    let stopped = Duration::from_secs(wish("SIDESCALE_STOPPED", 20).into());
    let clock = Clock::real();
    signal(process, "STOP");
    eventually("its pod is unready", SOON, async || {
        let pod = cluster
            .pods()
            .get(&name)
            .await
            .map_err(|error| error.to_string())?;
        (!is_ready(&pod)).then_some(()).ok_or("ready".to_owned())
    })
    .await;
    // The other pod takes all requests.
    let visitors = Visitors::start(&cluster.address(TARGET).await, &[(Way::Fresh, 4)]);
    while clock.instant().offset() < stopped {
        clock.sleep(Duration::from_secs(1)).await;
        visitors.assert_none_failed("a pod's sidecar is stopped");
    }
    signal(process, "CONT");
    eventually("its pod is ready again", SOON, async || {
        let pod = cluster
            .pods()
            .get(&name)
            .await
            .map_err(|error| error.to_string())?;
        is_ready(&pod).then_some(()).ok_or("unready".to_owned())
    })
    .await;
    let seen = visitors.assert_none_failed("its sidecar goes on");
    let pod = cluster.pods().get(&name).await.expect("it is there");
    assert_eq!(
        (restarts(&pod, "server"), restarts(&pod, "sidescale")),
        (0, 0)
    );
    cluster.print(&format!(
        "stopped for {stopped:?}: no restarts, none failed of {:?}",
        seen.served
    ));
    cluster.end().await;
}

async fn started(test: &str) -> Cluster {
    let cluster = Cluster::new(test).await;
    cluster.apply(&injected(&plain(PODS, 2), false)).await;
    cluster.is_rolled_out(TARGET, SOON).await;
    cluster
}

async fn first_pod(cluster: &Cluster) -> String {
    let pods = cluster.pods_of(TARGET).await;
    pods[0].metadata.name.clone().expect("a pod has a name")
}
