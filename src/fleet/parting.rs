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
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Instant;
use crate::fleet::{Member, Pod, PodPhase, Reading, Snapshot};
use crate::report::Down;

/// How long an order holds. It is repeated each turn until the replicas fall, and Kubernetes has a moment then to choose.
/// A leader that dies in between leaves a pod away for as long: doubled, a burst waits for it; halved, one slow write of
/// the replicas and the pod is back before Kubernetes looks.
const HOLDS_MILLIS: u32 = 30_000;
/// How long Kubernetes may take to see that the first of them is unready: a probe (2 s apart as injected) and a watch. Then the
/// replicas fall all the same, and Kubernetes chooses among the others: neither a kubelet that is late nor a plan that
/// falls by one pod a second keeps a fleet from shrinking.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the replicas fell those that go may still look as if they stayed: a ReplicaSet deletes within a second.
const SETTLES: Duration = Duration::from_secs(3);

/// Who was asked to go, between two turns.
#[derive(Debug, Default)]
pub struct Parting {
    asked: BTreeSet<String>,
    /// Since when somebody is.
    since: Option<Instant>,
    /// Who was when the replicas fell, and when that was.
    left: BTreeMap<String, Instant>,
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
    /// The plan wants `desired` pods, fewer than there are to be; the leader's own, `me`, should be one of them.
    pub fn lower(
        &mut self,
        snapshot: &Snapshot,
        me: &str,
        desired: usize,
        now: Instant,
    ) -> Lowering {
        let chosen = self.choose(snapshot, me, desired);
        let names: BTreeSet<String> = chosen.iter().map(|pod| pod.name.clone()).collect();
        let back = self.asked.difference(&names).cloned().collect();
        let away = names.iter().cloned().collect();
        let since = *self.since.get_or_insert(now);
        let seen = chosen.iter().all(|pod| pod.phase != PodPhase::Ready);
        self.asked = names;
        Lowering {
            away,
            back,
            go: seen || now.since(since) >= PATIENCE,
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
    pub fn gone(&mut self, now: Instant) {
        let asked = self.keep().into_iter();
        self.left.extend(asked.map(|pod| (pod, now)));
    }

    /// Those that were to go when the replicas fell and are there still: Kubernetes has chosen others.
    pub fn survivors(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<String> {
        let stays = |name: &String| {
            let mut pods = snapshot.pods.iter();
            pods.any(|pod| pod.name == *name && pod.phase != PodPhase::Terminating)
        };
        let (settled, open) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|(_, fell)| now.since(*fell) >= SETTLES);
        self.left = open;
        let settled: BTreeMap<String, Instant> = settled;
        let survivors = settled.into_keys().filter(stays);
        survivors.filter(|pod| !self.asked.contains(pod)).collect()
    }

    /// Those that are marked and should not be: a leader before this one has died, or it could not take the mark back.
    pub fn marked_in_vain(&self, snapshot: &Snapshot) -> Vec<String> {
        let marked = snapshot.pods.iter().filter(|pod| pod.marked);
        marked
            .filter(|pod| pod.phase != PodPhase::Terminating)
            .map(|pod| &pod.name)
            .filter(|pod| !self.asked.contains(*pod) && !self.left.contains_key(*pod))
            .cloned()
            .collect()
    }

    /// The idlest of those that can be told, so many as serve beyond what is wanted: pods that are not ready go before them, and
    /// what was asked for and has no pod yet is given up without one. In a rollout the Deployment shares the loss among its
    /// `ReplicaSets` by rules of its own.
    fn choose<'a>(&self, snapshot: &'a Snapshot, me: &str, desired: usize) -> Vec<&'a Pod> {
        if snapshot.rollout {
            return Vec::new();
        }
        let is_asked = |pod: &Pod| self.asked.contains(&pod.name);
        let serving: Vec<&Pod> = snapshot
            .pods
            .iter()
            .filter(|pod| pod.phase != PodPhase::Terminating)
            .filter(|pod| pod.is_capacity() || is_asked(pod))
            .collect();
        let beyond = serving.len().saturating_sub(desired);
        let mut able = serving;
        able.retain(|pod| pod.name != me && matches!(pod.member, Member::Reporting(_)));
        // Whoever was asked has begun to lose its clients; to change one's mind with every request would empty them all.
        able.sort_by(|a, b| {
            is_asked(b)
                .cmp(&is_asked(a))
                .then_with(|| idlest_first(a, b))
        });
        able.truncate(beyond);
        able
    }
}

/// The order to stand aside.
pub const AWAY: Down = Down::Drain {
    for_millis: HOLDS_MILLIS,
};

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
            marked: false,
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
        parting.gone(at(12));
        assert!(parting.keep().is_empty(), "they are gone");
    }

    #[test]
    fn whoever_kubernetes_has_spared_is_taken_back() {
        let mut parting = Parting::default();
        let mut seen = fleet(&[3.0, 0.0, 1.0, 2.0]);
        assert_eq!(parting.lower(&seen, "llm-0", 2, at(10)).away.len(), 2);
        parting.gone(at(20));
        // It chose another one, after a kubelet that was late.
        seen.pods[1].phase = PodPhase::Unready;
        seen.pods[2].phase = PodPhase::Terminating;
        seen.pods.remove(3);
        assert!(
            parting.survivors(&seen, at(22)).is_empty(),
            "it may be slow"
        );
        assert_eq!(parting.survivors(&seen, at(23)), ["llm-1"]);
        assert!(parting.survivors(&seen, at(24)).is_empty(), "said once");
    }

    #[test]
    fn marks_that_nobody_wants_any_more_are_found() {
        let mut parting = Parting::default();
        let mut seen = fleet(&[3.0, 0.0, 1.0, 2.0]);
        for pod in &mut seen.pods[1..] {
            pod.marked = true;
        }
        seen.pods[3].phase = PodPhase::Terminating;
        assert_eq!(parting.marked_in_vain(&seen), ["llm-1", "llm-2"]);
        assert_eq!(parting.lower(&seen, "llm-0", 2, at(10)).away, ["llm-1"]);
        assert_eq!(parting.marked_in_vain(&seen), ["llm-2"]);
        parting.gone(at(10));
        assert_eq!(parting.marked_in_vain(&seen), ["llm-2"]);
        assert_eq!(parting.survivors(&seen, at(13)), ["llm-1"]);
        assert_eq!(parting.marked_in_vain(&seen), ["llm-1", "llm-2"]);
    }

    /// A plan that falls by one pod a second would else have a new pod to wait for with each turn.
    #[test]
    fn a_ramp_down_does_not_wait_for_its_newest_pod() {
        let mut parting = Parting::default();
        let mut seen = fleet(&[9.0; 20]);
        let falls = (0..=10_u8).find(|second| {
            let (desired, now) = (19 - usize::from(*second), at(10 + u64::from(*second)));
            let step = parting.lower(&seen, "llm-0", desired, now);
            for (pod, _) in &step.chosen[..step.chosen.len() - 1] {
                let mut pods = seen.pods.iter_mut();
                let pod = pods.find(|seen| seen.name == *pod);
                pod.expect("it is there").phase = PodPhase::Unready;
            }
            step.go
        });
        assert_eq!(falls, Some(10));
    }

    #[test]
    fn what_has_no_pod_is_given_up_without_one() {
        let mut seen = fleet(&[0.0, 1.0, 2.0]);
        seen.spec_replicas = 12;
        let step = Parting::default().lower(&seen, "lead", 3, at(10));
        assert_eq!((step.away.len(), step.go), (0, true));
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
        let step = parting.lower(&seen, "llm-0", 1, at(10));
        assert_eq!(step.chosen.len(), 2);
        // The one that was asked first goes on to be the one, though another is idler by now.
        for pod in &mut seen.pods[1..] {
            pod.phase = PodPhase::Unready;
        }
        let step = parting.lower(&seen, "llm-0", 2, at(11));
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
        let step = Parting::default().lower(&seen, "llm-0", 3, at(10));
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
        let step = Parting::default().lower(&seen, "llm-0", 3, at(10));
        assert_eq!(step.away, ["llm-3"]);
    }

    #[test]
    fn a_pod_that_cannot_be_told_is_left_to_kubernetes() {
        let mut seen = fleet(&[0.0, 0.0, 7.0]);
        seen.pods[1].member = Member::Unknown;
        let step = Parting::default().lower(&seen, "llm-0", 1, at(10));
        assert_eq!(step.away, ["llm-2"]);
    }

    proptest! {
        #[test]
        fn as_many_as_are_wanted_go_on_serving_and_the_leader_does(
            loads in prop::collection::vec((0.0..9.0_f64, 0..4), 1..8), missing in 0..3_u32, desired in 0_usize..9,
        ) {
            let (loads, phases): (Vec<f64>, Vec<i32>) = loads.into_iter().unzip();
            let mut seen = fleet(&loads);
            seen.spec_replicas += missing;
            for (pod, phase) in seen.pods.iter_mut().zip(phases) {
                pod.phase = match phase {
                    0 => PodPhase::Starting,
                    1 => PodPhase::Terminating,
                    _ => PodPhase::Ready,
                };
            }
            let mut parting = Parting::default();
            let step = parting.lower(&seen, "llm-0", desired, at(1));
            prop_assert!(step.away.is_empty() || seen.ready() - step.away.len() >= desired);
            prop_assert!(step.away.iter().all(|pod| pod != "llm-0"));
            prop_assert_eq!(step.go, step.away.is_empty());
            prop_assert_eq!(parting.keep().len(), step.away.len());
        }
    }
}
