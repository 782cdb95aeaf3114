//! The leader of a simulated fleet: each second it is shown what a real one would see, and calls the production turn.
//!
//! What a simulated pod is. Its world knows only that it serves `pod_rps` requests a second. Here it is a server whose
//! requests take one second each, `pod_rps` of them at a time: then requests in flight, waiting ones included, are served +
//! waiting, and in pods' worth that is exactly the concurrency which the baselines see. Any other service time would show
//! sidescale another load than them. A request's time from arrival to end is its second and its wait; summed over a fleet,
//! waits are the waiting of each second (Little's law), so that no request has to be followed.
//!
//! Pods are told apart by nothing but their age: one that serves has become ready in the order of the asking, and the
//! youngest goes first.

use std::time::Duration;

use super::{Settings, VIOLATION_PRICE};
use crate::clock::{Instant, Now, Timestamp};
use crate::controller::{Controller, Turn};
use crate::fleet::{Member, Pod, PodPhase, Reading, Snapshot};
use crate::forecast::ForecastPoint;
use crate::history::History;
use crate::policy::{LeadTime, Metric, Mode, Policy};
use crate::report::Load;

/// What a leader sees of the second that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// The second, counted from the trace's zero.
    pub offset: u64,
    /// Requests that came in it.
    pub arrivals: f64,
    /// Requests that wait at its end.
    pub waiting: f64,
    /// Requests that were started in it.
    pub served: f64,
    /// Pods that served in it.
    pub ready: u32,
    /// Pods that were asked for and do not serve yet.
    pub starting: u32,
}

/// The production turn, with eyes and a memory.
#[derive(Debug)]
pub struct Leader {
    controller: Controller,
    policy: Policy,
    /// The wall clock at the trace's zero.
    zero: Timestamp,
    /// Kept from second to second: of its pods, those that serve come first, each kind oldest first.
    snapshot: Snapshot,
    /// How many pods there ever were.
    named: u64,
    last: Option<(Observed, Now, Turn)>,
}

// === impl Leader ===

impl Leader {
    /// A leader of a fleet that was just made: there is no past to read.
    pub fn new(settings: &Settings) -> Self {
        let policy = policy(settings);
        Self {
            controller: Controller::without(
                settings.parts,
                Some(History::new(policy.prediction.history)),
                &policy,
            ),
            policy,
            zero: settings.zero,
            snapshot: Snapshot::default(),
            named: 0,
            last: None,
        }
    }

    /// The replicas it asks for after this second.
    pub fn second(&mut self, seen: Observed) -> u32 {
        let now = Now::at(
            self.zero,
            Duration::from_secs(seen.offset.saturating_add(1)),
        );
        self.see(now.instant, &seen);
        let turn = self.controller.turn(now, &self.snapshot, &self.policy);
        let desired = turn.plan.desired;
        self.last = Some((seen, now, turn));
        desired
    }

    /// What was seen in the second `offset`, and the turn after it, if that was the last.
    pub(super) fn at(self, offset: u64) -> Option<(String, Now, Turn)> {
        let (seen, now, turn) = self.last.filter(|(seen, ..)| seen.offset == offset)?;
        let Observed {
            arrivals,
            waiting,
            served,
            ready,
            starting,
            ..
        } = seen;
        let fleet = format!(
            "{ready} pods serve and {starting} are starting; in this second {arrivals:.1} requests came, {served:.1} were started and {waiting:.1} wait"
        );
        Some((fleet, now, turn))
    }

    /// What the last turn expects one lead time later, and at which offset that is.
    pub fn ahead(&self) -> Option<(u64, ForecastPoint)> {
        let (_seen, now, turn) = self.last.as_ref()?;
        let point = turn.ahead(now.timestamp)?;
        Some((point.at.since(self.zero).as_secs(), point))
    }

    /// Brings the snapshot to the end of this second.
    fn see(&mut self, now: Instant, seen: &Observed) {
        let in_flight = seen.served + seen.waiting;
        self.move_pods(now, seen);
        let snapshot = &mut self.snapshot;
        snapshot.spec_replicas = seen.ready.saturating_add(seen.starting);
        snapshot.in_flight = in_flight;
        // A fleet without a ready pod still has the sidecars that wait beside their servers: somebody looks.
        let reporting = f64::from(seen.ready.max(1));
        snapshot.load = Load {
            pod_seconds: reporting,
            arrivals: seen.arrivals,
            completions: seen.served,
            busy_seconds: in_flight,
            service_seconds: in_flight,
            ..Load::default()
        };
        let in_flight = in_flight / reporting;
        for pod in &mut snapshot.pods {
            let ready = pod.phase == PodPhase::Ready;
            pod.member = Member::Reporting(Reading {
                in_flight: if ready { in_flight } else { 0.0 },
                ready,
                ..Reading::default()
            });
        }
    }

    /// Pods become ready, are new, or have gone.
    fn move_pods(&mut self, now: Instant, seen: &Observed) {
        let (ready, starting) = (as_usize(seen.ready), as_usize(seen.starting));
        let pods = &mut self.snapshot.pods;
        self.snapshot.starts.clear();
        let served = pods.partition_point(|pod| pod.phase == PodPhase::Ready);
        if ready < served {
            pods.drain(ready..served);
        } else {
            for pod in pods.iter_mut().take(ready).skip(served) {
                pod.phase = PodPhase::Ready;
                self.snapshot.starts.push(now.since(pod.created));
            }
        }
        pods.truncate(ready + starting);
        // What is starting now was asked for at the end of the second before.
        let asked = now - Duration::from_secs(1);
        while pods.len() < ready + starting {
            let phase = if pods.len() < ready {
                PodPhase::Ready
            } else {
                PodPhase::Starting
            };
            self.named += 1;
            pods.push(pod(self.named, asked, phase));
        }
    }
}

/// What a user of such a fleet would write, with nothing tuned: what a pod can do, the cold start, the bounds.
fn policy(settings: &Settings) -> Policy {
    let (min, max) = settings.bounds;
    let mut policy = Policy::with_bounds(min, max);
    policy.mode = Mode::Auto;
    policy.metrics = vec![Metric::RequestRate {
        per_second: settings.pod_rps,
    }];
    policy.prediction.cost_ratio = VIOLATION_PRICE;
    policy.prediction.lead_time = LeadTime::Fixed(settings.cold_start);
    policy
}

fn pod(number: u64, created: Instant, phase: PodPhase) -> Pod {
    Pod {
        // Pods stand in the order of their names.
        name: format!("pod-{number:010}"),
        uid: format!("uid-{number:010}"),
        ip: None,
        phase,
        created,
        marked: false,
        member: Member::Unknown,
    }
}

fn as_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(offset: u64, ready: u32, starting: u32) -> Observed {
        Observed {
            offset,
            ready,
            starting,
            ..Observed::default()
        }
    }

    fn see(leader: &mut Leader, seen: &Observed) {
        let now = Instant::from_offset(Duration::from_secs(seen.offset + 1));
        leader.see(now, seen);
    }

    #[test]
    fn the_snapshot_counts_what_the_world_shows_and_starts_as_they_end() {
        let mut leader = Leader::new(&Settings::default());
        for (offset, ready, starting, starts) in [
            (0, 2, 0, vec![]),
            (1, 2, 3, vec![]),
            (59, 2, 3, vec![]),
            (60, 4, 1, vec![60, 60]),
            (62, 3, 1, vec![]),
            (63, 3, 0, vec![]),
            (64, 3, 2, vec![]),
            (65, 1, 0, vec![]),
            (66, 5, 0, vec![]),
        ] {
            see(&mut leader, &seen(offset, ready, starting));
            let snapshot = &leader.snapshot;
            let counted = (
                snapshot.ready(),
                snapshot.starting(),
                snapshot.spec_replicas,
            );
            let expected = (ready as usize, starting as usize, ready + starting);
            assert_eq!(counted, expected, "at {offset} s");
            let took: Vec<u64> = snapshot.starts.iter().map(Duration::as_secs).collect();
            assert_eq!(took, starts, "at {offset} s");
            assert!(
                snapshot
                    .pods
                    .is_sorted_by(|a, b| a.phase == PodPhase::Ready || b.phase != PodPhase::Ready)
            );
        }
    }

    #[test]
    fn concurrency_in_pods_is_what_the_baselines_see() {
        let settings = Settings {
            pod_rps: 5.0,
            ..Settings::default()
        };
        let mut leader = Leader::new(&settings);
        let observed = Observed {
            served: 10.0,
            waiting: 20.0,
            ..seen(0, 2, 0)
        };
        for offset in 0..120 {
            leader.second(Observed { offset, ..observed });
        }
        assert!((leader.snapshot.in_flight / settings.pod_rps - 6.0).abs() < 1e-9);
        assert!((leader.snapshot.load.busy_seconds - 30.0).abs() < 1e-9);
    }
}
