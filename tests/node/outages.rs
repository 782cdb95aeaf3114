//! The node's agent and the API server stand still for a while (`SIDESCALE_STOPPED` seconds): requests flow, nobody's server
//! is started again, the replicas stay as they are, and afterwards one leads and scales.
//!
//! After 40 to 50 s without its kubelet a node is called not ready, and its pods with it: where it is the only one, Services
//! have no endpoints, and fresh connections by a Service are refused by Kubernetes' own rule. So each pod is
//! asked past its Service, and what a Service's clients meet meanwhile is a figure.

use std::time::Duration;

use serde_json::Value;
use sidescale::clock::Clock;

use crate::cluster::{Cluster, SOON, is_ready, restarts};
use crate::doors::Door;
use crate::fleet::{Reign, settled};
use crate::manifests::{TARGET, acting, injected, plain};
use crate::processes::{Stopped, daemon};
use crate::visitors::{Visitors, Way};
use crate::wait::{eventually, wish};

const MIN: u32 = 2;
const MAX: u32 = 8;
/// What the load of [`CLIENTS`] at each of the first two pods and of [`BY_SERVICE`] needs: 18 requests at once, 6.4 a pod.
const NEEDED: i32 = 3;
/// Clients of one pod, with one request at a time each.
const CLIENTS: [(Way, usize); 4] = [
    (Way::Fresh, 1),
    (Way::Kept, 2),
    (Way::Stream(5), 3),
    (Way::Call(5), 2),
];
/// Clients of the Service.
const BY_SERVICE: [(Way, usize); 2] = [(Way::Fresh, 1), (Way::Kept, 1)];
/// Between two looks at what goes on.
const LOOK: Duration = Duration::from_secs(1);
/// Time for a fleet to grow: seen within seconds, a pod is ready in three.
const GROWN: Duration = Duration::from_secs(60);

/// A fleet that carries a steady load.
struct Loaded {
    cluster: Cluster,
    doors: Vec<Door>,
    reign: Reign,
    /// Those who come past the Service, to all pods.
    visitors: Visitors,
    by_service: Visitors,
    replicas: i32,
    /// So much was served before.
    served: u64,
}

/// What was seen while something stood still.
#[derive(Debug, Default)]
struct Log {
    desired: Vec<u64>,
    ready: Vec<u64>,
    silent: u32,
    reasons: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_kubelet_that_stands_still_moves_nothing() {
    let loaded = loaded("no-kubelet").await;
    let kubelet = daemon("kubelet", "SIDESCALE_KUBELET");
    let (stopped, clock) = (Stopped::of(kubelet), Clock::real());
    let mut log = Log::default();
    while clock.instant().offset() < time() {
        clock.sleep(LOOK).await;
        loaded.look(&mut log).await;
        assert_eq!(
            loaded.cluster.replicas(TARGET).await,
            loaded.replicas,
            "{log:#?}"
        );
    }
    let went = unready(&loaded.cluster).await;
    drop(stopped);
    eventually("all pods are ready again", SOON, async || {
        let unready = unready(&loaded.cluster).await;
        (unready == 0)
            .then_some(())
            .ok_or(format!("{unready} are not"))
    })
    .await;
    let now = settled(&loaded.cluster, &loaded.doors).await;
    assert_eq!(now, loaded.reign, "the API server was there all the time");
    // Some turns with everything back.
    let back = clock.instant();
    while clock.instant().since(back) < LOOK * 10 {
        clock.sleep(LOOK).await;
        loaded.look(&mut log).await;
    }
    loaded.assert_calm("the kubelet", &log).await;
    let seen = loaded.by_service.seen();
    loaded.cluster.print(&format!(
        "kubelet stopped for {:?}: {went} pods were called unready; by the Service {} failed of {:?}: {:#?}",
        time(),
        seen.failed.len(),
        seen.served,
        seen.failed.first()
    ));
    loaded.cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn an_api_server_that_stands_still_moves_nothing_and_then_the_fleet_scales() {
    let loaded = loaded("no-api").await;
    let by_service = &loaded.by_service;
    let before = loaded.cluster.deployment(TARGET).await.metadata.generation;
    let api = daemon("kube-apiserver", "SIDESCALE_API_SERVER");
    let (stopped, clock) = (Stopped::of(api), Clock::real());
    let mut log = Log::default();
    while clock.instant().offset() < time() {
        clock.sleep(LOOK).await;
        loaded.look(&mut log).await;
        by_service.assert_none_failed("the API server stands still");
    }
    drop(stopped);
    let back = clock.instant();
    let now = settled(&loaded.cluster, &loaded.doors).await;
    let took = clock.instant().since(back);
    let mut leading = Vec::new();
    for door in &loaded.doors {
        if door.metric("sidescale_leader").await == Ok(Some(1.0)) {
            leading.push(door.pod.as_str());
        }
    }
    assert_eq!(leading, [now.pod.as_str()], "one leads");
    // Some turns with everything back.
    while clock.instant().since(back) < took + LOOK * 10 {
        clock.sleep(LOOK).await;
        loaded.look(&mut log).await;
    }
    loaded.assert_calm("the API server", &log).await;
    // The node controller has missed the kubelet's word, too: see above.
    let seen = by_service.seen();
    let mut failed = seen.failed.iter();
    assert!(
        failed.all(|failed| failed.contains("Refused")),
        "{failed:#?}"
    );
    let after = loaded.cluster.deployment(TARGET).await.metadata.generation;
    assert_eq!(after, before, "nobody has written its spec");
    loaded.cluster.print(&format!(
        "API server stopped for {:?}: by the Service none failed, and {} when the API server was back, of {:?}; \
         {:.1} s later one leads, term {} -> {}",
        time(),
        seen.failed.len(),
        seen.served,
        took.as_secs_f64(),
        loaded.reign.term,
        now.term
    ));

    // More than the fleet should carry.
    let service = loaded.cluster.address(TARGET).await;
    let burst = Visitors::start(&service, &[(Way::Kept, 12)]);
    let clock = Clock::real();
    let replicas = eventually("it scales again", GROWN, async || {
        let replicas = loaded.cluster.replicas(TARGET).await;
        (replicas > loaded.replicas)
            .then_some(replicas)
            .ok_or(format!("{replicas}"))
    })
    .await;
    loaded.cluster.print(&format!(
        "12 more clients: {} -> {replicas} replicas after {:.1} s",
        loaded.replicas,
        clock.instant().offset().as_secs_f64()
    ));
    burst.assert_none_failed("it scales");
    loaded.visitors.assert_none_failed("it scales");
    loaded.cluster.end().await;
}

fn time() -> Duration {
    Duration::from_secs(wish("SIDESCALE_STOPPED", 20).into())
}

async fn unready(cluster: &Cluster) -> usize {
    let pods = cluster.pods_of(TARGET).await;
    pods.iter().filter(|pod| !is_ready(pod)).count()
}

async fn loaded(test: &str) -> Loaded {
    let cluster = Cluster::new(test).await;
    let fleet = injected(&plain(MIN, 2), false);
    // What looks ahead may change its mind at any time, and would be taken for a jump.
    cluster.apply(&acting(fleet, "reactive", MIN, MAX)).await;
    cluster.is_rolled_out(TARGET, SOON).await;
    let doors = Door::open_all(&cluster, TARGET).await;
    let addresses: Vec<&str> = doors.iter().map(|door| door.traffic.as_str()).collect();
    let visitors = Visitors::among(&addresses, &CLIENTS);
    let by_service = Visitors::start(&cluster.address(TARGET).await, &BY_SERVICE);
    // Grown to the load, and there for as long as a window of the present is.
    let mut since = None;
    let clock = Clock::real();
    let replicas = eventually("its size fits the load", SOON, async || {
        let replicas = cluster.replicas(TARGET).await;
        let now = clock.instant();
        let (size, begin) = *since.get_or_insert((replicas, now));
        if size != replicas {
            since = Some((replicas, now));
        }
        let is_steady = now.since(begin) >= Duration::from_secs(30);
        (replicas >= NEEDED && size == replicas && is_steady)
            .then_some(replicas)
            .ok_or(format!("{since:?}"))
    })
    .await;
    cluster.is_rolled_out(TARGET, SOON).await;
    let doors = Door::open_all(&cluster, TARGET).await;
    let reign = settled(&cluster, &doors).await;
    let served = visitors.assert_none_failed("it grew").served.values().sum();
    Loaded {
        cluster,
        doors,
        reign,
        visitors,
        by_service,
        replicas,
        served,
    }
}

// === impl Loaded ===

impl Loaded {
    /// What the leader says now; without one, that nobody does.
    async fn look(&self, log: &mut Log) {
        self.visitors.assert_none_failed("something stands still");
        let mut plans = Vec::new();
        for door in &self.doors {
            plans.extend(
                door.plan()
                    .await
                    .ok()
                    .filter(|plan| plan["plan"].is_object()),
            );
            if !plans.is_empty() {
                break;
            }
        }
        let Some(plan) = plans.first() else {
            log.silent += 1;
            return;
        };
        log.note(plan);
    }

    /// Nothing was lost, started again, asked for or given up.
    async fn assert_calm(&self, what: &str, log: &Log) {
        let seen = self.visitors.assert_none_failed(what);
        let served = seen.served.values().sum::<u64>() - self.served;
        self.cluster.print(&format!(
            "{what} stood still for {:?}: past the Service none failed of {served} ({:?}); replicas {}; {log:#?}",
            time(),
            seen.served,
            self.replicas
        ));
        assert_eq!(
            self.cluster.replicas(TARGET).await,
            self.replicas,
            "{log:#?}"
        );
        for pod in self.cluster.pods_of(TARGET).await {
            let restarted = (restarts(&pod, "server"), restarts(&pod, "sidescale"));
            assert_eq!(restarted, (0, 0), "{:?}", pod.metadata.name);
        }
        // A pod of two or so serves on, whatever anybody says of it.
        assert!(served > time().as_secs(), "{served}");
    }
}

// === impl Log ===

impl Log {
    fn note(&mut self, plan: &Value) {
        for (list, number) in [
            (&mut self.desired, &plan["plan"]["desired"]),
            (&mut self.ready, &plan["replicas"]["ready"]),
        ] {
            let number = number.as_u64().unwrap_or(u64::MAX);
            if list.last() != Some(&number) {
                list.push(number);
                if self.reasons.len() < 12 {
                    self.reasons.push(plan["plan"].to_string());
                }
            }
        }
    }
}
