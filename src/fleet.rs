//! All pods of the Deployment as one: gathered from the pod watch and the member channels, joined in a [`Snapshot`].
//!
//! [`watch`] brings the pods, [`channel`] is the leader's end of the lines to the members and [`member`] the members' own,
//! [`view`] joins what they bring. [`spread`] says whose clients should connect anew, so that new pods are found, and [`parting`] which pods go
//! when there are to be fewer.
//!
//! A silent member is unknown, not idle; a pod whose server does not answer yet is starting, not capacity.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Instant;
use crate::report::{GpuReading, Load};

pub mod channel;
mod counted;
mod lines;
pub mod member;
pub mod parting;
pub(crate) mod phase;
pub mod reach;
pub(crate) mod sidecar;
pub mod spread;
pub mod view;
pub mod watch;

pub use phase::{DELETION_COST, LEAST_COST};

/// The fleet at one moment, as the leader sees it. Pods in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// `spec.replicas` of the Deployment: what was last asked for, by whomever.
    pub spec_replicas: u32,
    /// Every pod of the Deployment that exists.
    pub pods: Vec<Pod>,
    /// What the reporting members did since the last snapshot, summed.
    pub load: Load,
    /// Requests in flight over the reporting members at their last report.
    pub in_flight: f64,
    /// Cold starts that ended since the last snapshot: from the pod's creation to its first Ready.
    pub starts: Vec<Duration>,
    /// Whether two revisions of the pod template have pods, i.e. a rollout runs.
    pub rollout: bool,
    /// A person wants nothing to be written for now: the plan is made and shown.
    pub paused: bool,
}

/// One pod of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// What Kubernetes says of it.
    pub phase: PodPhase,
    /// When it was asked for, in this leader's time (a pod older than the leader: the leader's first sight, less its
    /// age by the API server's clock; the clock's start at the earliest).
    pub created: Instant,
    /// What is known of its load.
    pub member: Member,
    /// It has the least of all deletion costs: a leader has marked it to go.
    pub marked: bool,
}

/// What Kubernetes says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PodPhase {
    /// Not scheduled, or not running yet.
    Pending,
    /// Running, and never yet Ready: it loads its model. Not capacity, but on its way.
    Starting,
    /// Ready.
    Ready,
    /// Was Ready and is not any more: not capacity.
    Unready,
    /// Has a deletion timestamp: not capacity.
    Terminating,
}

/// What is known of a pod's load.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// No report was ever received.
    Unknown,
    /// Reports come.
    Reporting(Reading),
    /// Reports stopped.
    Silent {
        /// When the last one came.
        since: Instant,
    },
}

/// A member's last report, as the leader keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests in flight.
    pub in_flight: f64,
    /// Whether it takes requests by its own word.
    pub ready: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Its GPU, where it has one.
    pub gpu: Option<GpuReading>,
    /// Connections of its clients, where it says so.
    pub connections: Option<u64>,
    /// Whether it leads in no case.
    pub follows: bool,
}

// === impl Snapshot ===

impl Snapshot {
    /// Pods that can serve: Ready by Kubernetes' word and not draining by their own.
    pub fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_capacity()).count()
    }

    /// Pods asked for and not yet ready for the first time.
    pub fn starting(&self) -> usize {
        self.pods
            .iter()
            .filter(|pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Starting))
            .count()
    }

    /// Ready pods whose load is not known.
    pub fn unknown(&self) -> usize {
        self.pods
            .iter()
            .filter(|pod| pod.is_capacity() && !matches!(pod.member, Member::Reporting(_)))
            .count()
    }

    /// How many pods are in each phase.
    pub fn by_phase(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for pod in &self.pods {
            *counts.entry(pod.phase.label()).or_default() += 1;
        }
        counts
    }
}

// === impl Pod ===

impl Pod {
    /// Whether it can serve.
    pub fn is_capacity(&self) -> bool {
        let draining = matches!(
            self.member,
            Member::Reporting(Reading { draining: true, .. })
        );
        self.phase == PodPhase::Ready && !draining
    }
}

// === impl PodPhase ===

impl PodPhase {
    /// A stable word for metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Terminating => "terminating",
        }
    }
}
