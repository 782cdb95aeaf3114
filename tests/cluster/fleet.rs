//! A Deployment with its sidecars running, and the questions that scenarios ask about who leads it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::Value;
use sidescale::clock::Instant;

use crate::cluster::Cluster;
use crate::front::Seen;
use crate::keepers::{Keepers, Way};
use crate::load::Load;
use crate::manifest::template;
use crate::model_server;
use crate::node::Node;
use crate::processes::Signal;
use crate::sidecar::{self, Sidecar, Surroundings, TRAFFIC};
use crate::wait::eventually;
use crate::workload::{Right, SOON, TERM};

/// How long a request takes in these fleets' model servers.
pub(crate) const SERVICE_TIME: Duration = Duration::from_millis(250);

/// What a pod of these fleets should carry at once.
pub(crate) const CONCURRENCY: u32 = 4;

/// A Deployment, its pods as processes, and their cluster.
pub(crate) struct Fleet<'a> {
    cluster: &'a Cluster,
    node: Node,
}

/// A pod that leads, or led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The pod.
    pub(crate) pod: String,
    /// Its address.
    pub(crate) ip: Ipv4Addr,
    /// The user of its token.
    pub(crate) user: String,
    /// The stamp it wrote.
    pub(crate) term: u64,
}

/// A policy that acts within seconds and is content with `min` pods while there is no load.
pub(crate) fn policy(min: u32, max: u32) -> String {
    format!(
        "mode: auto
minReplicas: {min}
maxReplicas: {max}
metrics: [{{type: concurrency, averageValue: {CONCURRENCY}}}]
prediction: {{leadTime: 2s}}
behavior:
  scaleUp: {{stabilizationWindowSeconds: 0}}
  scaleDown: {{stabilizationWindowSeconds: 0, policies: [{{type: Percent, value: 100, periodSeconds: 1}}]}}
"
    )
}

// === impl Fleet ===

impl<'a> Fleet<'a> {
    /// `replicas` pods, ready, with every right and this policy.
    pub(crate) async fn start(cluster: &'a Cluster, replicas: u32, policy: &str) -> Self {
        let fleet = Self::start_with(cluster, replicas, policy, &Right::ALL).await;
        fleet.has_ready(replicas).await;
        fleet
    }

    /// The same with these rights alone, and ready or not.
    pub(crate) async fn start_with(
        cluster: &'a Cluster,
        replicas: u32,
        policy: &str,
        rights: &[Right],
    ) -> Self {
        cluster.grant(rights).await;
        Self::beside(cluster, replicas, policy).await
    }

    /// The same where [`Cluster::grant`] was called before.
    pub(crate) async fn beside(cluster: &'a Cluster, replicas: u32, policy: &str) -> Self {
        Self::around(cluster, replicas, Surroundings::with(policy)).await
    }

    /// The same of sidecars that only follow, with the rights that inject gives them.
    pub(crate) async fn following(cluster: &'a Cluster, replicas: u32, policy: &str) -> Self {
        cluster.grant_following().await;
        let around = Surroundings {
            follow: true,
            ..Surroundings::with(policy)
        };
        Self::around(cluster, replicas, around).await
    }

    /// The same where the pods that go are to be marked, with or without the right to.
    pub(crate) async fn marking(cluster: &'a Cluster, replicas: u32, policy: &str) -> Self {
        let around = Surroundings {
            costs: true,
            ..Surroundings::with(policy)
        };
        Self::around(cluster, replicas, around).await
    }

    async fn around(cluster: &'a Cluster, replicas: u32, around: Surroundings) -> Self {
        cluster.deploy(replicas, template()).await;
        let node = Node::join(cluster, around, SERVICE_TIME);
        Self { cluster, node }
    }

    /// Waits until this many pods take requests.
    pub(crate) async fn has_ready(&self, count: u32) {
        let endpoints = self.node.endpoints();
        eventually(&format!("{count} pods are ready"), SOON * 2, async || {
            let ready = endpoints.borrow().len();
            if u32::try_from(ready) == Ok(count) {
                return Ok(());
            }
            Err(format!("{ready} are; {}", self.last_words().await))
        })
        .await;
    }

    /// Waits until all pods that are asked for by then take requests.
    pub(crate) async fn has_all_ready(&self) {
        let endpoints = self.node.endpoints();
        eventually("all pods are ready", SOON * 2, async || {
            let replicas = self.cluster.replicas().await;
            let ready = endpoints.borrow().len();
            if usize::try_from(replicas) == Ok(ready) {
                return Ok(());
            }
            let words = self.last_words().await;
            Err(format!("{ready} of {replicas} are; {words}"))
        })
        .await;
    }

    /// Waits until so many pods are asked for as this load fills.
    pub(crate) async fn is_enough_for(&self, per_second: u32) {
        let at_once = f64::from(per_second) * SERVICE_TIME.as_secs_f64();
        let needed = (at_once / f64::from(CONCURRENCY)).ceil();
        eventually("there are enough pods for the load", SOON * 2, async || {
            let replicas = self.cluster.replicas().await;
            (f64::from(replicas) >= needed)
                .then_some(())
                .ok_or(format!("{replicas} of {needed}"))
        })
        .await;
    }

    /// Requests through the Service of this fleet.
    pub(crate) fn load(&self, per_second: u32) -> Load {
        Load::start(self.node.endpoints(), TRAFFIC, per_second)
    }

    /// Requests that pass by the sidecars: the Service has the servers' own port as its target.
    pub(crate) fn load_on_servers(&self, per_second: u32) -> Load {
        Load::start(self.node.endpoints(), model_server::PORT, per_second)
    }

    /// Clients of that Service which keep their connections.
    pub(crate) fn keepers(&self, clients: &[(Way, usize)]) -> Keepers {
        Keepers::start(&self.node.endpoints(), clients)
    }

    /// Asks a pod's sidecar something.
    pub(crate) fn sidecar<T>(&self, pod: &str, ask: impl FnOnce(&mut Sidecar) -> T) -> T {
        self.node
            .sidecar(pod, ask)
            .unwrap_or_else(|| panic!("pod {pod} does not run"))
    }

    /// Sends a signal to a leader's process; the moment it was sent.
    pub(crate) fn signal(&self, leader: &Leader, signal: Signal) -> Instant {
        let now = self.cluster.clock().instant();
        self.sidecar(&leader.pod, |sidecar| sidecar.signal(signal));
        now
    }

    /// Waits until somebody holds the Lease and has stamped the Deployment.
    pub(crate) async fn leader(&self) -> Leader {
        eventually("somebody leads", SOON, async || self.leads().await).await
    }

    /// Waits until another one than `old` does.
    pub(crate) async fn successor_of(&self, old: &Leader) -> Leader {
        eventually("another one leads", SOON, async || {
            let leader = self.leads().await?;
            if leader.pod != old.pod && leader.term > old.term {
                return Ok(leader);
            }
            Err(format!("{leader:?} after {old:?}"))
        })
        .await
    }

    /// Waits until two members beside the leader watch the Lease: the fleet is prepared to lose it.
    pub(crate) async fn has_standbys(&self, leader: &Leader) {
        eventually("two standbys watch the Lease", SOON, async || {
            let seen = self.cluster.front().seen();
            let watching: BTreeSet<&str> = seen
                .iter()
                .filter(|seen| seen.path.ends_with("/leases") && seen.query.contains("watch=true"))
                .map(|seen| seen.user.as_str())
                .filter(|user| *user != leader.user)
                .collect();
            (watching.len() == 2)
                .then_some(())
                .ok_or(format!("{watching:?} do"))
        })
        .await;
    }

    /// Waits until `count` pods report to `leader`, who believes none that has not believed it first.
    pub(crate) async fn reports_to(&self, leader: &Leader, count: u32) {
        let what = format!("{count} pods report to the leader");
        eventually(&what, SOON * 2, async || {
            let plan = sidecar::api(leader.ip, "plan").await?;
            let of = |what: &str| plan["replicas"][what].as_u64().unwrap_or(0);
            let reporting = of("ready").saturating_sub(of("unknown"));
            (reporting >= u64::from(count))
                .then_some(())
                .ok_or(format!("{reporting} do: {}", plan["replicas"]))
        })
        .await;
    }

    /// Who leads now, or why nobody does.
    pub(crate) async fn leads(&self) -> Result<Leader, String> {
        let pod = self.holds().await?;
        let deployment = self.cluster.deployment().await;
        let Some(term) = deployment.annotations().get(TERM) else {
            return Err(format!(
                "{pod} has not stamped its term; {}",
                self.last_words().await
            ));
        };
        let term = term.parse().map_err(|error| format!("{term}: {error}"))?;
        let found = self
            .node
            .sidecar(&pod, |sidecar| (sidecar.ip, sidecar.user()));
        let (ip, user) = found.ok_or_else(|| format!("{pod} does not run"))?;
        let stamped = self.writes(Seen::writes_deployment);
        if !stamped.iter().any(|seen| seen.user == user) {
            return Err(format!("the stamp {term} is not {pod}'s"));
        }
        Ok(Leader {
            pod,
            ip,
            user,
            term,
        })
    }

    /// The pod that holds the Lease, stamped or not: in `observe` nothing is stamped.
    pub(crate) async fn holds(&self) -> Result<String, String> {
        let spec = self.cluster.lease().await.spec.unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        // An identity is `<pod>_<process>`: a restarted sidecar of the same pod is another candidate.
        match holder.split_once('_') {
            Some((pod, _process)) => Ok(pod.to_owned()),
            None => Err(format!(
                "the Lease is held by `{holder}`; {}",
                self.last_words().await
            )),
        }
    }

    /// The requests that a leader's history has, all in all.
    pub(crate) async fn remembered_by(&self, leader: &Leader) -> Result<f64, String> {
        let history = sidecar::api(leader.ip, "history").await?;
        let rates = history["arrivals"]
            .as_array()
            .ok_or_else(|| format!("no arrivals in {history}"))?;
        let step = history["stepSeconds"]
            .as_f64()
            .ok_or_else(|| format!("no step in {history}"))?;
        // What nobody saw is null.
        Ok(rates.iter().filter_map(Value::as_f64).sum::<f64>() * step)
    }

    /// The accepted requests of a kind, in order.
    pub(crate) fn writes(&self, kind: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let mut seen = self.cluster.front().seen();
        seen.retain(|seen| kind(seen) && seen.status.is_some_and(|status| status.is_success()));
        seen
    }

    /// The users who had requests of a kind accepted since `since`.
    pub(crate) fn writers(&self, since: Instant, kind: impl Fn(&Seen) -> bool) -> BTreeSet<String> {
        let writes = self.writes(|seen| seen.at >= since && kind(seen));
        writes.into_iter().map(|seen| seen.user).collect()
    }

    /// What the sidecars said last, for a failure's message.
    async fn last_words(&self) -> String {
        let mut words = Vec::new();
        for pod in self.cluster.pods().await {
            let pod = pod.name_any();
            let said = |sidecar: &mut Sidecar| sidecar.process().last_words();
            let said = self.node.sidecar(&pod, said);
            words.push(format!("{pod} said:\n{}", said.unwrap_or_default()));
        }
        words.join("\n")
    }
}
