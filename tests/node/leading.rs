//! The leader's end, at the default timing: another one leads within lease duration and retry period where it is killed, at
//! once where its pod is deleted, and no request on any other pod fails. The token of a deleted pod is void when the API
//! server next looks at it.

use std::fs;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams};
use kube::{Client, Config};
use serde_json::json;
use sidescale::clock::Clock;

use crate::cluster::{Cluster, SOON, is_ready, restarts};
use crate::doors::Door;
use crate::fleet::{Reign, reign, settled};
use crate::manifests::{TARGET, acting, injected, plain};
use crate::processes::{sidecar_of, signal};
use crate::visitors::{Visitors, Way};
use crate::wait::eventually;

const PODS: u32 = 3;

/// Lease duration and retry period. A period is up to 1.2 of itself.
const PROMISED: Duration = Duration::from_millis(15_000 + 2_400);
/// Taking the Lease, stamping the Deployment and the test's look at it, on two busy cores.
const MARGIN: Duration = Duration::from_secs(1);
/// The kubelet starts a container again at once the first time; the sidecar finds its server within a second.
const BACK: Duration = Duration::from_secs(3);
/// Nobody waits for a Lease that a goodbye gave up.
const AT_ONCE: Duration = Duration::from_secs(3);
/// For how long the API server believes a token that it has just looked at, whatever became of its pod. What a deleted
/// leader writes in this time meets the next one's stamp.
const BELIEVED: Duration = Duration::from_secs(10);

/// Where Kubernetes mounts the token of a pod's account.
const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_killed_leader_is_followed_in_time_and_no_other_pod_notices() {
    let cluster = Cluster::new("leader-killed").await;
    let (old, others, visitors) = started(&cluster).await;
    let process = sidecar_of(&old.pod)
        .expect("the nodes' processes are on this machine: see tests/node/main.rs");

    let clock = Clock::real();
    signal(process, "KILL");
    let back = eventually("its pod is ready again", SOON, async || {
        let pod = cluster.pods().get(&old.pod).await;
        let pod = pod.map_err(|error| error.to_string())?;
        let again = restarts(&pod, "sidescale") == 1 && is_ready(&pod);
        again
            .then(|| clock.instant().offset())
            .ok_or(format!("{:?}", pod.status))
    });
    let (back, (new, took)) = tokio::join!(back, successor(&cluster, &old, &clock));
    cluster.print(&format!(
        "leader killed: its pod ready again after {:.1} s, another term stamped after {:.1} s ({} -> {})",
        back.as_secs_f64(),
        took.as_secs_f64(),
        old.term,
        new.term
    ));
    assert!(took <= PROMISED + MARGIN, "{took:?}");
    assert!(back <= BACK, "{back:?}");

    let seen = visitors.assert_none_failed("the leader was killed");
    cluster.print(&format!(
        "on the other pods none failed of {:?}",
        seen.served
    ));
    for pod in cluster.pods_of(TARGET).await {
        let name = pod.metadata.name.clone().expect("a pod has a name");
        let killed = i32::from(name == old.pod);
        assert_eq!(restarts(&pod, "sidescale"), killed, "{name}");
        assert_eq!(restarts(&pod, "server"), 0, "{name}");
    }
    assert_eq!(cluster.replicas(TARGET).await, 3);
    drop((others, visitors));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_leader_whose_pod_is_force_deleted_is_followed_at_once_and_its_token_is_void_soon() {
    let cluster = Cluster::new("leader-deleted").await;
    let (old, others, visitors) = started(&cluster).await;
    let process = sidecar_of(&old.pod)
        .expect("the nodes' processes are on this machine: see tests/node/main.rs");
    let token = fs::read_to_string(format!("/proc/{process}/root/{TOKEN}"));
    let its_own = Api::<Lease>::namespaced(
        with_token(&token.expect("the sidecar has an account")).await,
        cluster.namespace(),
    );
    let lease = format!("sidescale-{TARGET}");
    its_own.get(&lease).await.expect("it may read its Lease");

    let clock = Clock::real();
    let by_force = DeleteParams::default().grace_period(0);
    let deleted = cluster.pods().delete(&old.pod, &by_force).await;
    deleted.expect("it was there");
    let void = eventually("its token is void", SOON, async || {
        match its_own.get(&lease).await {
            Err(kube::Error::Api(status)) if status.code == 401 => Ok(clock.instant().offset()),
            other => Err(format!("{other:?}")),
        }
    });
    let (void, (new, took)) = tokio::join!(void, successor(&cluster, &old, &clock));
    cluster.print(&format!(
        "leader's pod force-deleted: its token void after {:.2} s, another term stamped after {:.2} s ({} -> {})",
        void.as_secs_f64(),
        took.as_secs_f64(),
        old.term,
        new.term
    ));
    assert!(took <= AT_ONCE, "{took:?}");
    assert!(void <= BELIEVED + MARGIN, "{void:?}");
    assert_ne!(new.pod, old.pod);

    cluster.is_rolled_out(TARGET, SOON).await;
    let seen = visitors.assert_none_failed("the leader's pod was deleted");
    cluster.print(&format!(
        "on the other pods none failed of {:?}",
        seen.served
    ));
    for door in others {
        let pod = cluster.pods().get(&door.pod).await.expect("it is there");
        assert_eq!(
            (restarts(&pod, "server"), restarts(&pod, "sidescale")),
            (0, 0)
        );
    }
    cluster.end().await;
}

/// A fleet that nothing but the leader's end moves; the other pods, and clients of them alone.
async fn started(cluster: &Cluster) -> (Reign, Vec<Door>, Visitors) {
    let fleet = injected(&plain(PODS, 2), false);
    cluster.apply(&acting(fleet, "auto", PODS, PODS)).await;
    cluster.is_rolled_out(TARGET, SOON).await;
    let mut doors = Door::open_all(cluster, TARGET).await;
    let reign = settled(cluster, &doors).await;
    doors.retain(|door| door.pod != reign.pod);
    let addresses: Vec<&str> = doors.iter().map(|door| door.traffic.as_str()).collect();
    let visitors = Visitors::among(&addresses, &[(Way::Fresh, 1), (Way::Kept, 2)]);
    eventually("requests are answered", SOON, async || {
        let seen = visitors.assert_none_failed("before anything happened");
        let served = seen.served.get(&Way::Kept).copied().unwrap_or(0);
        (served >= 20).then_some(()).ok_or(format!("{served}"))
    })
    .await;
    (reign, doors, visitors)
}

/// The next reign, and when it was seen.
async fn successor(cluster: &Cluster, old: &Reign, clock: &Clock) -> (Reign, Duration) {
    eventually("another one leads", SOON, async || {
        let new = reign(cluster).await?;
        let is_next = new.holder != old.holder && new.term > old.term;
        is_next
            .then(|| (new.clone(), clock.instant().offset()))
            .ok_or(format!("{new:?} after {old:?}"))
    })
    .await
}

/// The cluster as whoever has this token sees it.
async fn with_token(token: &str) -> Client {
    let mut config = Config::infer().await.expect("as for the tests");
    let account = json!({"token": token.trim()});
    config.auth_info = serde_json::from_value(account).expect("an account");
    Client::try_from(config).expect("as for the tests")
}
