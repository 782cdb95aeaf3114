//! What the demo itself sees of the fleet: through the API, as any client would.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::sync::mpsc;

use super::objects::{NAMESPACE, PORTS, TARGET};
use crate::clock::Now;
use crate::fleet::view::View;
use crate::fleet::watch::{self, EVENTS_BOUND, Event};
use crate::fleet::{PodPhase, Snapshot};
use crate::lifecycle::Tasks;
use crate::scale::DeploymentView;

/// The fleet as its users and its owner see it.
#[derive(Debug, Default)]
pub(super) struct FleetSeen {
    view: View,
    /// `spec.replicas`.
    pub(super) desired: u32,
    /// The highest term stamped.
    pub(super) term: u64,
    /// Ready pods.
    pub(super) ready: u32,
    /// Pods that are paid for.
    pub(super) pods: u32,
    /// Cold starts seen.
    pub(super) starts: Vec<Duration>,
    /// Where requests can go.
    pub(super) endpoints: Vec<SocketAddr>,
}

/// Watches pods and Deployment until `tasks` go.
pub(super) fn watch_fleet(client: kube::Client, tasks: &Tasks) -> mpsc::Receiver<Event> {
    let (events, seen) = mpsc::channel(EVENTS_BOUND);
    tasks.spawn(async move {
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
        let deployments = Api::<Deployment>::namespaced(client, NAMESPACE);
        watch::run(pods, &format!("app={TARGET}"), deployments, TARGET, events).await;
    });
    seen
}

// === impl FleetSeen ===

impl FleetSeen {
    pub(super) fn take(&mut self, event: Event, now: Now) {
        match event {
            Event::Pods(pods) => self.view.watched(&pods, now),
            Event::Deployment(object) => {
                if let Ok(view) = DeploymentView::from_object(&object) {
                    self.desired = view.spec_replicas;
                    self.term = self.term.max(view.stamp);
                }
            }
            Event::Leads(_) | Event::DeploymentDeleted | Event::Lost(_) => {}
        }
        let snapshot = self.view.snapshot(now, self.desired);
        self.starts.extend(&snapshot.starts);
        self.ready = count(&snapshot, |phase| phase == PodPhase::Ready);
        self.pods = count(&snapshot, |_phase| true);
        self.endpoints = endpoints(&snapshot);
    }

    /// The middle one of the cold starts seen.
    pub(super) fn cold_start(&self) -> Option<Duration> {
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        starts.get(starts.len() / 2).copied()
    }
}

fn count(snapshot: &Snapshot, which: impl Fn(PodPhase) -> bool) -> u32 {
    let count = snapshot.pods.iter().filter(|pod| which(pod.phase)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What a Service would list: Ready pods that are not on their way out.
fn endpoints(snapshot: &Snapshot) -> Vec<SocketAddr> {
    let ready = snapshot
        .pods
        .iter()
        .filter(|pod| pod.phase == PodPhase::Ready);
    let addresses = ready.filter_map(|pod| pod.ip.as_ref()?.parse::<IpAddr>().ok());
    addresses
        .map(|ip| SocketAddr::new(ip, PORTS.http))
        .collect()
}
