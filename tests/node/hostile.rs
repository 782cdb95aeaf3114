//! Hostile clients at all three ports of a sidecar that may have 64 MiB: it is never killed for want of memory, and
//! an ordinary client is answered after each attack. What it holds meanwhile, and whom it serves, are figures.
//!
//! The attacks are bounded for the sake of the machine under the cluster: what a stopped server does not take stays in the
//! kernel's buffers, some MiB for each connection.
//!
//! Some attacks need a server that takes nothing: it is stopped for as long as they last. `SIDESCALE_ATTACK` is how long one
//! lasts (seconds, default 10; a head is given up after 15 to 30).

use std::fs;
use std::time::Duration;

use serde_json::json;
use sidescale::clock::Clock;

use crate::attacks::{Attack, Attackers};
use crate::cluster::{Cluster, SOON, restarts};
use crate::doors::Door;
use crate::manifests::{TARGET, injected, limited, patient, plain, told};
use crate::processes::{Stopped, memory_of, process_of, sidecar_of};
use crate::visitors::{Visitors, Way};
use crate::wait::{eventually, wish};

/// Of the sidecar.
const LIMIT: &str = "64Mi";
/// Connections that hold little, as far as this process may have them.
const MANY: usize = 2_000;
/// Connections that bring, or ask for, much.
const SOME: usize = 250;
/// The same of HTTP/2, each with a thousand streams.
const FEW: usize = 20;
/// Where somebody answers no more, nobody is answered within.
const ANSWERED: Duration = Duration::from_secs(60);

/// The traffic port of a server that answers.
const AT_WORK: [Attack; 5] = [
    Attack::Silence,
    Attack::SlowHead,
    Attack::HugeHead,
    Attack::Unread,
    Attack::Resets,
];
/// The traffic port of a server that takes nothing.
const STALLED: [Attack; 3] = [Attack::Upload, Attack::Streams, Attack::Heads];
/// The ports of the control half.
const CONTROL: [Attack; 4] = [
    Attack::Silence,
    Attack::HugeHead,
    Attack::Heads,
    Attack::Resets,
];

struct Target {
    cluster: Cluster,
    door: Door,
    uid: String,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn no_hostile_client_makes_a_sidecar_exceed_its_memory() {
    let target = Target::new().await;
    let mut killed = Vec::new();
    for attack in AT_WORK {
        killed.extend(target.suffer(attack, "traffic", false).await);
    }
    for attack in STALLED {
        killed.extend(target.suffer(attack, "traffic", true).await);
    }
    for port in ["admin", "member"] {
        for attack in CONTROL {
            killed.extend(target.suffer(attack, port, false).await);
        }
    }
    assert!(killed.is_empty(), "killed: {killed:#?}");
    target.cluster.end().await;
}

// === impl Target ===

impl Target {
    async fn new() -> Self {
        let cluster = Cluster::new("hostile").await;
        // A token in no time, so that large answers come at once.
        let fleet = told(plain(1, 2), &["--time-per-token", "0.001ms"]);
        let fleet = limited(injected(&fleet, false), &json!({"memory": LIMIT}));
        cluster.apply(&patient(fleet)).await;
        cluster.is_rolled_out(TARGET, SOON).await;
        let door = Door::open_all(&cluster, TARGET).await.swap_remove(0);
        let pod = cluster.pods().get(&door.pod).await.expect("it is there");
        let uid = pod.metadata.uid.expect("a pod has a uid");
        Self { cluster, door, uid }
    }

    /// Attacks one port; what was wrong with the sidecar afterwards.
    async fn suffer(&self, attack: Attack, port: &str, stalled: bool) -> Option<String> {
        let address = match port {
            "traffic" => &self.door.traffic,
            "admin" => &self.door.admin,
            _ => &self.door.member,
        };
        let before = self.restarts().await;
        let process = sidecar_of(&self.door.pod)
            .expect("the nodes' processes are on this machine: see tests/node/main.rs");
        let server = process_of(&self.uid, "model").expect("the server runs");
        let stopped = stalled.then(|| Stopped::of(server));
        let ordinary = Visitors::start(&self.door.traffic, &[(Way::Fresh, 2)]);
        let count = match attack {
            Attack::Streams | Attack::Heads | Attack::Resets => FEW,
            Attack::HugeHead | Attack::Upload | Attack::Unread => SOME.min(spare_descriptors()),
            Attack::Silence | Attack::SlowHead => MANY.min(spare_descriptors()),
        };
        let attackers = Attackers::start(attack, address, count);
        let (clock, lasts) = (Clock::real(), wish("SIDESCALE_ATTACK", 10));
        let mut most = 0.0_f64;
        while clock.instant().offset() < Duration::from_secs(lasts.into()) {
            clock.sleep(Duration::from_millis(100)).await;
            most = most.max(memory_of(process));
        }
        let during = ordinary.seen();
        drop((attackers, ordinary, stopped));
        let after = self.is_answered().await;
        let restarted = self.restarts().await - before;
        let line = format!(
            "{attack:?} at the {port} port, {count} connections: at most {most:.1} MiB, killed {restarted} times; \
             ordinary clients meanwhile: {:?}, {} failed; answered {:.1} s after",
            during.served,
            during.failed.len(),
            after.as_secs_f64()
        );
        self.cluster.print(&line);
        (restarted > 0).then_some(line)
    }

    /// Returns when an ordinary client is answered; how long that took.
    async fn is_answered(&self) -> Duration {
        let clock = Clock::real();
        let again = Visitors::start(&self.door.traffic, &[(Way::Fresh, 1)]);
        eventually("an ordinary client is answered", ANSWERED, async || {
            let seen = again.seen();
            (!seen.served.is_empty())
                .then_some(())
                .ok_or(format!("{:?}", seen.failed.last()))
        })
        .await;
        clock.instant().offset()
    }

    async fn restarts(&self) -> i32 {
        let pod = self.cluster.pods().get(&self.door.pod).await;
        restarts(&pod.expect("it is there"), "sidescale")
    }
}

/// How many connections this process may have beside what it needs itself.
fn spare_descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    soft.map_or(MANY, |soft: usize| soft.saturating_sub(200))
}
