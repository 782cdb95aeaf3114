//! What the demo's kubelet runs: complete sidecars and model servers, as tasks instead of processes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use kube::ResourceExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::model::{self, ModelServer};
use super::objects::{NAMESPACE, PORTS, TARGET};
use crate::app::{self, Connection, Connector, Sidecar};
use crate::clock::Clock;
use crate::config::{Cluster, Config, Election, Pod, Route, UpstreamReady};
use crate::leader::Part;
use crate::lifecycle::Tasks;
use crate::local;
use crate::local::kubelet::{Running, Runtime, Signal, Start};
use crate::proxy::{Protocol, Upstream};

/// Exit code of what was killed: 128 + SIGKILL.
const KILLED: i32 = 137;

/// Runs the demo's containers.
pub(super) struct Pods {
    pub(super) cluster: Arc<local::Cluster>,
    pub(super) clock: Clock,
    pub(super) traffic: Handle,
    pub(super) policy: PathBuf,
    pub(super) server: model::Settings,
    pub(super) seed: u64,
    /// The sidecars that run, by pod.
    pub(super) sidecars: Sidecars,
}

/// The sidecars that run, by pod; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sidecars {
    by_pod: Arc<Mutex<BTreeMap<String, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    running: Weak<app::Running>,
    signals: mpsc::UnboundedSender<Signal>,
}

// === impl Sidecars ===

impl Sidecars {
    /// All that run now.
    pub(super) fn all(&self) -> Vec<Arc<app::Running>> {
        let by_pod = self.by_pod.lock().unwrap_or_else(PoisonError::into_inner);
        by_pod
            .values()
            .filter_map(|entry| entry.running.upgrade())
            .collect()
    }

    /// Ends the sidecar of `pod` without a goodbye. Says whether there was one.
    pub(super) fn kill(&self, pod: &str) -> bool {
        let by_pod = self.by_pod.lock().unwrap_or_else(PoisonError::into_inner);
        by_pod
            .get(pod)
            .is_some_and(|entry| entry.signals.send(Signal::Kill).is_ok())
    }

    fn enter(
        &self,
        pod: &str,
        running: &Arc<app::Running>,
        signals: mpsc::UnboundedSender<Signal>,
    ) {
        let mut by_pod = self.by_pod.lock().unwrap_or_else(PoisonError::into_inner);
        by_pod.retain(|_, entry| entry.running.strong_count() > 0);
        let running = Arc::downgrade(running);
        by_pod.insert(pod.to_owned(), Entry { running, signals });
    }
}

// === impl Pods ===

impl Runtime for Pods {
    fn start(&self, start: Start<'_>) -> Running {
        let (signals, received) = mpsc::unbounded_channel();
        let exit: BoxFuture<'static, i32> = if start.container.name == "server" {
            Box::pin(serve(self.server(start.ip), received, self.traffic.clone()))
        } else {
            let pod = start.pod.name_any();
            let sidecar = self.sidecar(&pod, start.ip, start.restarts);
            let sidecars = self.sidecars.clone();
            Box::pin(accompany(sidecar, pod, sidecars, signals.clone(), received))
        };
        Running::new(exit, move |signal| {
            if signals.send(signal).is_err() {
                tracing::debug!(?signal, "a container had ended before its signal");
            }
        })
    }
}

impl Pods {
    fn server(&self, ip: Ipv4Addr) -> Result<ModelServer, model::Error> {
        let address = SocketAddr::from((ip, PORTS.server));
        ModelServer::bind(address, self.server.clone(), self.clock.clone())
    }

    fn sidecar(&self, pod: &str, ip: Ipv4Addr, restarts: i32) -> Sidecar {
        let at = |port| SocketAddr::from((ip, port));
        let config = Config {
            part: Part::Sidecar,
            routes: vec![Route {
                listen: at(PORTS.http),
                upstream: Upstream::new(at(PORTS.server)),
            }],
            upstream_protocol: Protocol::default(),
            upstream_ready: UpstreamReady::Tcp,
            server_metrics: None,
            limit: None,
            admin: at(PORTS.admin),
            member: at(PORTS.member),
            policy: self.policy.clone(),
            cluster: Some(Cluster {
                kubeconfig: None,
                namespace: None,
                target: None,
            }),
            deletion_costs: false,
            memory_limit: None,
            gpu_devices: Vec::new(),
            election: Election {
                lease_duration: Duration::from_secs(15),
                renew_deadline: Duration::from_secs(10),
                retry_period: Duration::from_secs(2),
            },
            propagation: Duration::from_secs(5),
            grace: Duration::from_secs(45),
            pod: Pod {
                name: pod.to_owned(),
                ip: Some(ip.into()),
            },
        };
        let connection = Connection {
            client: self.cluster.client(&format!("sidescale/{pod}")),
            namespace: NAMESPACE.to_owned(),
        };
        // A seed of its own for every process: names and tokens must differ.
        let own = pod.bytes().fold(self.seed, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
        });
        Sidecar {
            config,
            accounts: None,
            connector: Some(Connector::Given(connection)),
            clock: self.clock.clone(),
            seed: own.wrapping_add(restarts.unsigned_abs().into()),
            traffic: Tasks::on(self.traffic.clone()),
            control: Handle::current(),
        }
    }
}

/// A sidecar's container: runs until SIGTERM has drained it, or until it is killed.
async fn accompany(
    sidecar: Sidecar,
    pod: String,
    sidecars: Sidecars,
    signals: mpsc::UnboundedSender<Signal>,
    mut received: mpsc::UnboundedReceiver<Signal>,
) -> i32 {
    let running = match sidecar.start() {
        Ok(running) => Arc::new(running),
        Err(error) => {
            tracing::error!(pod, error = %error, "a sidecar does not start");
            return 64;
        }
    };
    sidecars.enter(&pod, &running, signals);
    if received.recv().await != Some(Signal::Terminate) {
        return KILLED;
    }
    tokio::select! {
        () = running.drain() => 0,
        _again = received.recv() => KILLED,
    }
}

/// A model server's container: SIGTERM cuts everything, as vLLM does.
async fn serve(
    server: Result<ModelServer, model::Error>,
    mut received: mpsc::UnboundedReceiver<Signal>,
    traffic: Handle,
) -> i32 {
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(%error, "a model server does not start");
            return 1;
        }
    };
    let tasks = Tasks::on(traffic);
    tasks.spawn(async move {
        let Err(error) = server.run().await;
        tracing::error!(%error, "a model server ended");
    });
    let signal = received.recv().await;
    drop(tasks);
    if signal == Some(Signal::Terminate) {
        0
    } else {
        KILLED
    }
}

/// The name of the workload, as people see it.
pub(super) fn workload() -> String {
    format!("{NAMESPACE}/{TARGET}")
}
