//! What a planner remembers from turn to turn: the pace of changes, and since when a pod is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::behavior::Pace;
use crate::clock::Instant;
use crate::fleet::{Member, Pod, PodPhase, Reading, Snapshot};
use crate::tuning::LONGEST_HOLD;

/// A pod that was ready and is not any more is replaced after this time; a probe that fails once is no lost pod.
pub(super) const UNREADY_GRACE: Duration = Duration::from_secs(30);

/// What the ready pods hold counts as held if they have held it for so long. Halved, a Poisson stream at its target,
/// which strays by the root of the count every service time, adds a pod to a small fleet several times an hour; doubled,
/// a burst is acted on a fifth of a second later.
pub(super) const HELD: Duration = Duration::from_millis(200);

/// What a planner remembers from turn to turn.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Past recommendations and changes.
    pub(super) pace: Pace,
    /// `spec.replicas` of the turn before.
    spec_replicas: u32,
    /// When `spec.replicas` was last seen to fall, by whomever; at first the first turn, as nothing is known of before.
    pub(super) lowered: Instant,
    /// Since when each pod is unready, by uid.
    unready: BTreeMap<String, Instant>,
    /// Requests in flight on the ready pods at the turns of the last [`HELD`], and at the one before them.
    looks: VecDeque<(Instant, f64)>,
    /// What was asked for within the last [`LONGEST_HOLD`], falling; at first the replicas that were found, as nothing is
    /// known of before.
    asked: VecDeque<(Instant, u32)>,
}

// === impl Memory ===

impl Memory {
    /// A memory that starts with what it first sees.
    pub(super) fn new(now: Instant, current: u32) -> Self {
        Self {
            pace: Pace::seeded(now, current),
            spec_replicas: current,
            lowered: now,
            unready: BTreeMap::new(),
            looks: VecDeque::new(),
            asked: VecDeque::from([(now, current)]),
        }
    }

    /// Takes in what changed since the last turn.
    pub(super) fn observe(&mut self, now: Instant, snapshot: &Snapshot) {
        let current = snapshot.spec_replicas;
        if current < self.spec_replicas {
            self.lowered = now;
        }
        self.pace.record(now, self.spec_replicas, current);
        self.spec_replicas = current;
        self.look(now, snapshot);
        let unready: Vec<&Pod> = snapshot.pods.iter().filter(|pod| is_lost(pod)).collect();
        self.unready
            .retain(|uid, _since| unready.iter().any(|pod| pod.uid == *uid));
        for pod in unready {
            if !self.unready.contains_key(&pod.uid) {
                self.unready.insert(pod.uid.clone(), now);
            }
        }
    }

    /// Notes what is asked for before anything is kept.
    pub(super) fn ask(&mut self, now: Instant, wanted: u32) {
        while self.asked.back().is_some_and(|(_, least)| *least <= wanted) {
            self.asked.pop_back();
        }
        self.asked.push_back((now, wanted));
        while (self.asked.front()).is_some_and(|(at, _)| now.since(*at) > LONGEST_HOLD) {
            self.asked.pop_front();
        }
    }

    /// The most that was asked for within the last `hold`, and when.
    pub(super) fn most_asked(&self, now: Instant, hold: Duration) -> Option<(Instant, u32)> {
        let mut held = self.asked.iter().filter(|(at, _)| now.since(*at) <= hold);
        held.next().copied()
    }

    /// Requests that the ready pods have had in flight throughout the last [`HELD`]; 0 where that is not known.
    ///
    /// The windows of a plan are means: one of ten seconds shows a burst of half a second as a twentieth of what it is.
    pub(super) fn held(&self, now: Instant) -> f64 {
        let covers = |(at, _): &(Instant, f64)| now.since(*at) >= HELD;
        if !self.looks.front().is_some_and(covers) {
            return 0.0;
        }
        let held = self.looks.iter().map(|(_at, in_flight)| *in_flight);
        held.min_by(f64::total_cmp).unwrap_or_default()
    }

    fn look(&mut self, now: Instant, snapshot: &Snapshot) {
        // Those that drain or are not ready are left out: more pods would not help them.
        let ready = snapshot.pods.iter().filter(|pod| pod.is_capacity());
        let in_flight = ready.filter_map(|pod| match &pod.member {
            Member::Reporting(reading) => Some(reading.in_flight),
            Member::Unknown | Member::Silent { .. } => None,
        });
        self.looks.push_back((now, in_flight.sum()));
        while self
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.since(*at) >= HELD)
        {
            self.looks.pop_front();
        }
    }

    /// Pods that have been unready for longer than [`UNREADY_GRACE`].
    pub(super) fn lost(&self, now: Instant) -> usize {
        let since = self.unready.values();
        since.filter(|at| now.since(**at) >= UNREADY_GRACE).count()
    }
}

/// Was ready, is not any more, and not because it was asked to go.
fn is_lost(pod: &Pod) -> bool {
    let is_draining = matches!(
        pod.member,
        Member::Reporting(Reading { draining: true, .. })
    );
    pod.phase == PodPhase::Unready && !is_draining
}
