//! Which pods go when the fleet gets smaller. Pure.
//!
//! A ReplicaSet gives up pods that are not ready before it looks at anything else (its documented order: unassigned,
//! pending, not ready, deletion cost, ...). So those that should go are asked to be unready for a while, and the replicas
//! fall when Kubernetes sees them so: the idlest go, and nobody needs a right to write pods. What they carry ends as it
//! does at the end of every pod.
//!
//! Asked is not given away: a member is ready again by itself when nobody repeats the order, and at once when the plan
//! changes, so a leader that dies in between costs the fleet seconds of one pod.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Instant;
use crate::fleet::{Member, Pod, PodPhase, Reading, Snapshot};
use crate::report::Down;

/// How long an order holds. It is repeated each turn until the replicas fall, and Kubernetes has a moment then to choose.
/// A leader that dies in between leaves a pod away for as long: doubled, a burst waits for it; halved, one slow write of
/// the replicas and the pod is back before Kubernetes looks.
const HOLDS: Duration = Duration::from_secs(30);
/// How long Kubernetes may take to see that they are unready: a probe (2 s apart as injected) and a watch. Then the
/// replicas fall all the same, and Kubernetes chooses: a kubelet that is late must not keep a fleet from shrinking.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who was asked to go, between two turns.
#[derive(Debug, Default)]
pub struct Parting {
    asked: BTreeSet<String>,
    since: Option<Instant>,
}

/// What to do for a smaller fleet, this turn.
#[must_use = "nobody is told, and nothing falls"]
#[derive(Debug, PartialEq)]
pub struct Lowering {
    /// Who is to stand aside, said again each turn.
    pub away: Vec<String>,
    /// Who was to and is not any more.
    pub back: Vec<String>,
    /// Whether the replicas may fall now.
    pub go: bool,
    /// Who goes, and what it has in flight.
    pub chosen: Vec<(String, f64)>,
}

// === impl Lowering ===

impl Lowering {
    /// Who goes, for a person; `None`: Kubernetes chooses.
    pub fn who(&self) -> Option<String> {
        let named: Vec<String> = self
            .chosen
            .iter()
            .map(|(pod, in_flight)| format!("{pod} with {in_flight} in flight"))
            .collect();
        (!named.is_empty()).then(|| format!("idlest first: {}", named.join(", ")))
    }
}

// === impl Parting ===

impl Parting {
    /// The plan wants `by` pods less, of which the leader's own, `me`, should not be one.
    pub fn lower(&mut self, snapshot: &Snapshot, me: &str, by: usize, now: Instant) -> Lowering {
        let chosen = self.choose(snapshot, me, by);
        let names: BTreeSet<String> = chosen.iter().map(|pod| pod.name.clone()).collect();
        let back = self.asked.difference(&names).cloned().collect();
        let away = names.iter().cloned().collect();
        if !names.is_subset(&self.asked) {
            self.since = Some(now);
        }
        let waited = self.since.is_some_and(|since| now.since(since) >= PATIENCE);
        let seen = chosen.iter().all(|pod| pod.phase != PodPhase::Ready);
        self.asked = names;
        Lowering {
            away,
            back,
            go: seen || waited,
            chosen: chosen
                .into_iter()
                .map(|pod| (pod.name.clone(), in_flight(pod)))
                .collect(),
        }
    }

    /// The plan wants no pod less: whoever was asked stays.
    pub fn keep(&mut self) -> Vec<String> {
        self.since = None;
        std::mem::take(&mut self.asked).into_iter().collect()
    }

    /// The replicas have fallen: they go.
    pub fn gone(&mut self) {
        *self = Self::default();
    }

    /// The idlest of those that can be told. Pods that are not ready anyway go before them, and there is nothing to choose
    /// then; in a rollout the Deployment shares the loss among its `ReplicaSets` by rules of its own.
    fn choose<'a>(&self, snapshot: &'a Snapshot, me: &str, by: usize) -> Vec<&'a Pod> {
        if snapshot.rollout {
            return Vec::new();
        }
        let is_asked = |pod: &Pod| self.asked.contains(&pod.name);
        let go_anyway = snapshot.pods.iter().filter(|pod| {
            let is_there = pod.phase != PodPhase::Ready && pod.phase != PodPhase::Terminating;
            is_there && !is_asked(pod)
        });
        let wanted = by.saturating_sub(go_anyway.count());
        let mut able: Vec<&Pod> = snapshot
            .pods
            .iter()
            .filter(|pod| pod.name != me && pod.phase != PodPhase::Terminating)
            .filter(|pod| matches!(pod.member, Member::Reporting(_)))
            .filter(|pod| pod.is_capacity() || is_asked(pod))
            .collect();
        // Whoever was asked has begun to lose its clients; to change one's mind with every request would empty them all.
        able.sort_by(|a, b| {
            is_asked(b)
                .cmp(&is_asked(a))
                .then_with(|| idlest_first(a, b))
        });
        able.truncate(wanted);
        able
    }
}

/// The order to stand aside.
pub fn away() -> Down {
    Down::Drain {
        for_millis: u32::try_from(HOLDS.as_millis()).unwrap_or(u32::MAX),
    }
}

/// The order to be there again.
pub const BACK: Down = Down::Drain { for_millis: 0 };

/// Of equally idle ones the youngest, as a ReplicaSet would choose: it has learnt least.
fn idlest_first(a: &Pod, b: &Pod) -> Ordering {
    let connections = |pod: &Pod| reading(pod).and_then(|reading| reading.connections);
    in_flight(a)
        .total_cmp(&in_flight(b))
        .then_with(|| connections(a).cmp(&connections(b)))
        .then_with(|| b.created.cmp(&a.created))
        .then_with(|| a.name.cmp(&b.name))
}

fn in_flight(pod: &Pod) -> f64 {
    reading(pod).map_or(0.0, |reading| reading.in_flight)
}

fn reading(pod: &Pod) -> Option<Reading> {
    match pod.member {
        Member::Reporting(reading) => Some(reading),
        Member::Silent { .. } | Member::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(seconds))
    }

    fn pod(name: &str, in_flight: f64) -> Pod {
        Pod {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            ip: None,
            phase: PodPhase::Ready,
            created: at(0),
            member: Member::Reporting(Reading {
                in_flight,
                ready: true,
                ..Reading::default()
            }),
        }
    }

    fn fleet(in_flight: &[f64]) -> Snapshot {
        let pod = |(at, count): (usize, &f64)| pod(&format!("llm-{at}"), *count);
        Snapshot {
            spec_replicas: u32::try_from(in_flight.len()).expect("few"),
            pods: in_flight.iter().enumerate().map(pod).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_idlest_are_asked_and_the_replicas_fall_when_kubernetes_sees_it() {
        let mut parting = Parting::default();
        let mut seen = fleet(&[0.0, 5.0, 2.0, 1.0]);
        let step = parting.lower(&seen, "llm-0", 2, at(10));
        assert_eq!(step.away, ["llm-2", "llm-3"], "not the leader");
        assert_eq!(
            step.chosen,
            [("llm-3".to_owned(), 1.0), ("llm-2".to_owned(), 2.0)]
        );
        assert!(!step.go);
        seen.pods[2].phase = PodPhase::Unready;
        assert!(!parting.lower(&seen, "llm-0", 2, at(11)).go);
        seen.pods[3].phase = PodPhase::Unready;
        let step = parting.lower(&seen, "llm-0", 2, at(12));
        assert_eq!(step.away, ["llm-2", "llm-3"], "said again");
        assert!(step.go);
        parting.gone();
        assert!(parting.keep().is_empty(), "they are gone");
    }

    #[test]
    fn a_kubelet_that_is_late_does_not_keep_the_fleet_from_shrinking() {
        let mut parting = Parting::default();
        let seen = fleet(&[3.0, 1.0]);
        assert!(!parting.lower(&seen, "llm-0", 1, at(10)).go);
        assert!(!parting.lower(&seen, "llm-0", 1, at(19)).go);
        assert!(parting.lower(&seen, "llm-0", 1, at(20)).go);
    }

    #[test]
    fn whoever_was_asked_is_taken_back_when_the_plan_changes() {
        let mut parting = Parting::default();
        let mut seen = fleet(&[9.0, 1.0, 2.0]);
        let step = parting.lower(&seen, "llm-0", 2, at(10));
        assert_eq!(step.chosen.len(), 2);
        // The one that was asked first goes on to be the one, though another is idler by now.
        for pod in &mut seen.pods[1..] {
            pod.phase = PodPhase::Unready;
        }
        let step = parting.lower(&seen, "llm-0", 1, at(11));
        assert_eq!(
            (step.away, step.back),
            (vec!["llm-1".to_owned()], vec!["llm-2".to_owned()])
        );
        assert!(step.go);
        assert_eq!(parting.keep(), ["llm-1"]);
        assert!(parting.keep().is_empty());
    }

    #[test]
    fn pods_that_go_anyway_spare_those_that_serve() {
        let mut seen = fleet(&[3.0, 1.0, 2.0, 0.0]);
        seen.pods[3].phase = PodPhase::Starting;
        let step = Parting::default().lower(&seen, "llm-0", 1, at(10));
        assert_eq!((step.away.len(), step.go), (0, true));
        let step = Parting::default().lower(&seen, "llm-0", 2, at(10));
        assert_eq!(step.away, ["llm-1"]);
        seen.rollout = true;
        let step = Parting::default().lower(&seen, "llm-0", 2, at(10));
        assert_eq!((step.away.len(), step.go), (0, true));
    }

    #[test]
    fn of_equally_idle_pods_the_one_with_fewest_clients_and_then_the_youngest_goes() {
        let mut seen = fleet(&[0.0, 0.0, 0.0, 0.0]);
        for (pod, connections) in seen.pods.iter_mut().zip([1, 5, 4, 4]) {
            let Member::Reporting(reading) = &mut pod.member else {
                panic!("{pod:?}");
            };
            reading.connections = Some(connections);
        }
        seen.pods[3].created = at(5);
        let step = Parting::default().lower(&seen, "llm-0", 1, at(10));
        assert_eq!(step.away, ["llm-3"]);
    }

    #[test]
    fn a_pod_that_cannot_be_told_is_left_to_kubernetes() {
        let mut seen = fleet(&[0.0, 0.0, 7.0]);
        seen.pods[1].member = Member::Unknown;
        let step = Parting::default().lower(&seen, "llm-0", 2, at(10));
        assert_eq!(step.away, ["llm-2"]);
    }

    proptest! {
        #[test]
        fn never_more_than_asked_for_and_never_the_leader(
            loads in prop::collection::vec(0.0..9.0_f64, 1..8), by in 0_usize..9,
        ) {
            let seen = fleet(&loads);
            let mut parting = Parting::default();
            let step = parting.lower(&seen, "llm-0", by, at(1));
            prop_assert!(step.away.len() <= by);
            prop_assert!(step.away.iter().all(|pod| pod != "llm-0"));
            prop_assert_eq!(step.go, step.away.is_empty());
            prop_assert_eq!(parting.keep().len(), step.away.len());
        }
    }
}
