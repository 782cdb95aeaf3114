//! The node of a test: the kubelet that the demo has too, with processes for containers, and what a Service would know.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sidescale::clock::Clock;
use sidescale::lifecycle::Tasks;
use sidescale::local::kubelet::{Addresses, Kubelet, Settings};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::containers::Containers;
use crate::sidecar::{Sidecar, Surroundings, TRAFFIC};
use crate::workload::TARGET;

/// How often the endpoints are brought up to date. A real kube-proxy has them within a second.
const LOOK: Duration = Duration::from_millis(100);

/// A running node; dropped, all its containers are killed.
pub(crate) struct Node {
    containers: Arc<Containers>,
    endpoints: watch::Receiver<Vec<SocketAddr>>,
    _kubelet: Kubelet,
    _tasks: Tasks,
}

// === impl Node ===

impl Node {
    /// Joins the cluster and takes the pods of the test's namespace.
    pub(crate) fn join(cluster: &Cluster, around: Surroundings, service_time: Duration) -> Self {
        let containers = Arc::new(Containers::new(cluster.access(), around, service_time));
        let settings = Settings {
            node: format!("node-of-{}", cluster.namespace()),
            namespace: Some(cluster.namespace().to_owned()),
        };
        let kubelet = Kubelet::start(
            cluster.admin(),
            cluster.clock().clone(),
            containers.clone(),
            addresses(),
            settings,
        );
        let (sender, endpoints) = watch::channel(Vec::new());
        let tasks = Tasks::here();
        tasks.spawn(keep(cluster.api(), cluster.clock().clone(), sender));
        Self {
            containers,
            endpoints,
            _kubelet: kubelet,
            _tasks: tasks,
        }
    }

    /// Where a Service would send requests, now and from now on: the traffic ports of the pods that are ready.
    pub(crate) fn endpoints(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.endpoints.clone()
    }

    /// Asks the sidecar of a pod something; `None`: it does not run here.
    pub(crate) fn sidecar<T>(&self, pod: &str, ask: impl FnOnce(&mut Sidecar) -> T) -> Option<T> {
        self.containers.sidecar(pod, ask)
    }
}

/// A network of loopback addresses of its own, so that every pod has the same ports.
pub(crate) fn addresses() -> Addresses {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let seed = u64::from(std::process::id()) << 32 | TAKEN.fetch_add(1, Ordering::Relaxed);
    Addresses::claim(&mut StdRng::seed_from_u64(seed)).expect("some loopback network is free")
}

/// Keeps the endpoints for as long as somebody looks at them.
async fn keep(pods: Api<Pod>, clock: Clock, endpoints: watch::Sender<Vec<SocketAddr>>) {
    let ours = ListParams::default().labels(&format!("app={TARGET}"));
    while !endpoints.is_closed() {
        // A request that failed is made again at the next look.
        if let Ok(pods) = pods.list(&ours).await {
            let ready: Vec<SocketAddr> = pods.iter().filter_map(endpoint).collect();
            endpoints.send_if_modified(|known| {
                let is_new = *known != ready;
                *known = ready;
                is_new
            });
        }
        clock.sleep(LOOK).await;
    }
}

/// Where a pod takes requests, if it is ready and not on its way out.
fn endpoint(pod: &Pod) -> Option<SocketAddr> {
    let status = pod.status.as_ref()?;
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let ip: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    (is_ready && pod.metadata.deletion_timestamp.is_none()).then_some((ip, TRAFFIC).into())
}
