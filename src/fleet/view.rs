//! The leader's picture of the fleet: pod events and member lines go in, a [`Snapshot`] comes out. Pure.
//!
//! Nothing here asks anybody anything. When the API server is away the pods stay as they were last seen while the members
//! go on reporting, so there is no jump when it comes back: the relist replaces the pods and keeps what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use crate::clock::{Instant, Now};
use crate::fleet::counted::Counted;
use crate::fleet::watch::Pods;
use crate::fleet::{Member, Pod, PodPhase, Reading, Snapshot, phase};
use crate::report::{Load, Report, WIRE_VERSION};

/// Without a report for this long a member is silent: five are missing.
///
/// Halved, one late turn of a throttled member looks like silence and holds the fleet's scale-down back; doubled, the plan
/// goes on with a load that is ten seconds old.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);

/// The same once the member's stream has ended: long enough to reconnect after a reset, shorter than waiting for reports
/// that nobody sends any more.
pub const SILENT_AFTER_END: Duration = Duration::from_secs(2);

/// What the leader knows, between two snapshots.
#[derive(Debug, Default)]
pub struct View {
    pods: BTreeMap<String, Tracked>,
    load: Load,
    starts: Vec<Duration>,
    is_complete: bool,
}

/// A pod as it was last seen, and what its member said.
#[derive(Debug)]
struct Tracked {
    uid: String,
    ip: Option<String>,
    phase: PodPhase,
    template: Option<String>,
    was_ready: bool,
    /// First seen before it was Ready, so its cold start can be told.
    is_start_watched: bool,
    seen: Instant,
    created: Instant,
    marked: bool,
    line: Line,
}

/// What came over the member's channel.
#[derive(Debug, Default)]
struct Line {
    counted: Option<Counted>,
    last: Option<(Instant, Reading)>,
    has_ended: bool,
}

/// How a pod object came: alone by the watch, the moment it changed, or in a list, who knows how long after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Live,
    Listed,
}

// === impl View ===

impl View {
    /// Whether the first list of pods has come. Before that a snapshot shows a fleet without pods, which is no reason to
    /// plan anything.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Takes in what a watch shows.
    pub fn watched(&mut self, pods: &Pods, now: Now) {
        match pods {
            Pods::Listed(pods) => self.listed(pods, now),
            Pods::Applied(pod) => self.applied(pod, now),
            Pods::Deleted(pod) => self.deleted(pod),
        }
    }

    /// Whether a pod of this name is known.
    pub fn knows(&self, pod: &str) -> bool {
        self.pods.contains_key(pod)
    }

    /// A pod was added or changed.
    pub fn applied(&mut self, pod: &core::Pod, now: Now) {
        let came = if self.is_complete {
            Came::Live
        } else {
            Came::Listed
        };
        self.take(pod, now, came);
    }

    /// A pod is gone.
    pub fn deleted(&mut self, pod: &core::Pod) {
        let (Some(name), uid) = (&pod.metadata.name, &pod.metadata.uid) else {
            return;
        };
        // A late deletion of an older pod of the same name is not this one's.
        if let Some(tracked) = self.pods.get(name)
            && uid.as_ref().is_none_or(|uid| *uid == tracked.uid)
        {
            self.pods.remove(name);
        }
    }

    /// These are all pods there are: after a start, or after the watch was lost.
    pub fn listed(&mut self, pods: &[core::Pod], now: Now) {
        let names: BTreeSet<&str> = pods
            .iter()
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        self.pods
            .retain(|name, _gone| names.contains(name.as_str()));
        for pod in pods {
            self.take(pod, now, Came::Listed);
        }
        self.is_complete = true;
    }

    /// A member's report, received at `now`. One of a pod that no watch has shown is dropped; one of another major
    /// version makes the member unknown.
    pub fn reported(&mut self, pod: &str, report: &Report, now: Instant) {
        let Some(tracked) = self.pods.get_mut(pod) else {
            return;
        };
        if report.v != WIRE_VERSION {
            tracked.line = Line::default();
            return;
        }
        let line = &mut tracked.line;
        let load = if let Some(counted) = &mut line.counted {
            let Some(load) = counted.next(report) else {
                return;
            };
            load
        } else {
            let (counted, load) = Counted::first(report, now, tracked.seen);
            line.counted = Some(counted);
            load
        };
        self.load.add(&load);
        // A report without a load is a sign of life and no more: after a while the member is as silent as one that sends
        // nothing, and not idle. Who drains is no capacity, and holds nothing back by what is not known of it.
        if !report.load_unknown || report.draining {
            line.last = Some((now, reading(report)));
        }
        line.has_ended = false;
    }

    /// A member speaks another major version of the wire format.
    pub fn foreign(&mut self, pod: &str) {
        if let Some(tracked) = self.pods.get_mut(pod) {
            tracked.line = Line::default();
        }
    }

    /// A member's stream has ended.
    pub fn ended(&mut self, pod: &str) {
        if let Some(tracked) = self.pods.get_mut(pod) {
            tracked.line.has_ended = true;
        }
    }

    /// The fleet now; what happened since the last snapshot is handed out once.
    pub fn snapshot(&mut self, now: Now, spec_replicas: u32) -> Snapshot {
        let pods: Vec<Pod> = self
            .pods
            .iter()
            .map(|(name, tracked)| tracked.pod(name, now.instant))
            .collect();
        let in_flight = pods
            .iter()
            .filter_map(|pod| match pod.member {
                Member::Reporting(reading) => Some(reading.in_flight),
                Member::Unknown | Member::Silent { .. } => None,
            })
            .sum();
        Snapshot {
            spec_replicas,
            pods,
            load: std::mem::take(&mut self.load),
            in_flight,
            starts: std::mem::take(&mut self.starts),
            rollout: self.is_rolling_out(),
            // Stands on the Deployment, which this view does not know.
            paused: false,
        }
    }

    /// Pods on their way out are left aside: a revision that only has those left is through.
    fn is_rolling_out(&self) -> bool {
        let revisions: BTreeSet<&str> = self
            .pods
            .values()
            .filter(|tracked| tracked.phase != PodPhase::Terminating)
            .filter_map(|tracked| tracked.template.as_deref())
            .collect();
        revisions.len() > 1
    }

    fn take(&mut self, pod: &core::Pod, now: Now, came: Came) {
        let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else {
            return;
        };
        if !phase::exists(pod) {
            self.pods.remove(name);
            return;
        }
        match self.pods.get_mut(name) {
            Some(tracked) if tracked.uid == *uid => {
                if let Some(took) = tracked.update(pod, now.instant, came) {
                    self.starts.push(took);
                }
            }
            _ => {
                self.pods
                    .insert(name.clone(), Tracked::new(pod, uid, now, came));
            }
        }
    }
}

// === impl Tracked ===

impl Tracked {
    fn new(pod: &core::Pod, uid: &str, now: Now, came: Came) -> Self {
        let phase = phase::phase(pod, phase::shows_it_was_ready(pod));
        let age =
            phase::created(pod).map_or(Duration::ZERO, |created| now.timestamp.since(created));
        // A pod that the watch shows at its birth is as old as the event. For all others the age is what the API
        // server's clock and ours make of it, which is off by as much as they differ.
        let is_newborn = came == Came::Live && phase == PodPhase::Pending;
        Self {
            uid: uid.to_owned(),
            ip: address(pod),
            phase,
            template: phase::template_hash(pod).map(str::to_owned),
            was_ready: matches!(phase, PodPhase::Ready | PodPhase::Unready),
            is_start_watched: matches!(phase, PodPhase::Pending | PodPhase::Starting),
            seen: now.instant,
            created: if is_newborn {
                now.instant
            } else {
                now.instant - age
            },
            marked: phase::is_marked(pod),
            line: Line::default(),
        }
    }

    /// Takes the newer object over; gives the cold start if it just ended.
    fn update(&mut self, pod: &core::Pod, now: Instant, came: Came) -> Option<Duration> {
        self.phase = phase::phase(pod, self.was_ready);
        self.ip = address(pod);
        self.marked = phase::is_marked(pod);
        if self.phase != PodPhase::Ready {
            return None;
        }
        self.was_ready = true;
        if !std::mem::take(&mut self.is_start_watched) {
            return None;
        }
        // In a list the pod may have been Ready for long; Kubernetes' stamps know when, to a second.
        let stamped = phase::stamped_start(pod).filter(|_took| came == Came::Listed);
        Some(stamped.unwrap_or_else(|| now.since(self.created)))
    }

    fn pod(&self, name: &str, now: Instant) -> Pod {
        Pod {
            name: name.to_owned(),
            uid: self.uid.clone(),
            ip: self.ip.clone(),
            phase: self.phase,
            created: self.created,
            member: self.line.member(now),
            marked: self.marked,
        }
    }
}

// === impl Line ===

impl Line {
    fn member(&self, now: Instant) -> Member {
        let Some((since, reading)) = self.last else {
            return Member::Unknown;
        };
        let patience = if self.has_ended {
            SILENT_AFTER_END
        } else {
            SILENT_AFTER
        };
        if now.since(since) > patience {
            Member::Silent { since }
        } else {
            Member::Reporting(reading)
        }
    }
}

fn reading(report: &Report) -> Reading {
    Reading {
        in_flight: report.in_flight as f64,
        ready: report.ready,
        draining: report.draining,
        gpu: report.gpu,
        connections: report.connections,
        follows: report.follows,
    }
}

fn address(pod: &core::Pod) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?;
    (!ip.is_empty()).then(|| ip.clone())
}

#[cfg(test)]
mod tests;
