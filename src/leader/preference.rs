//! Who should lead, as a leader sees it: processes of `sidescale lead` first, since a scale-down may take any sidecar.
//!
//! Nobody takes the Lease from a leader that lives. A leader that is a sidecar gives it up by itself, to a lead that has been
//! able to lead for a while, by the same goodbye as at its end; and it names leads before sidecars as those who watch the
//! Lease and follow it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Part, Timings};
use crate::clock::Instant;

/// The label by which a leader finds the pods of `sidescale lead`; its value is the Deployment's name. Pods that carry it are
/// never members of a fleet.
pub const LABEL_LEAD: &str = "sidescale.dev/lead";

/// What a label's value holds at most. The API server refuses a pod with a longer one, and a watch that asks for it.
const LONGEST_LABEL: usize = 63;

/// A process that could lead right now, by its own word and by Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its holder identity.
    pub identity: String,
    /// What it is to the election.
    pub part: Part,
    /// Since when its pod exists.
    pub since: Instant,
}

/// For how long leads have been able to lead, between two looks.
#[derive(Debug)]
pub struct Preference {
    able_since: BTreeMap<String, Instant>,
    settled: Duration,
}

/// Whether pods can be labelled as leads of this Deployment.
pub fn can_have_lead(target: &str) -> bool {
    target.len() <= LONGEST_LABEL
}

/// Those who may follow a leader, in the order in which they should: leads first, and of equals the oldest pod, which is the
/// last that a scale-down takes.
pub fn succession(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.retain(|candidate| candidate.part.may_lead());
    candidates.sort_by(|one, other| {
        let key = |candidate: &Candidate| (candidate.part, candidate.since);
        key(one)
            .cmp(&key(other))
            .then_with(|| one.identity.cmp(&other.identity))
    });
    candidates
}

// === impl Preference ===

impl Preference {
    /// A lead counts once it has been able for a lease duration: one that dies again and again after its start would
    /// otherwise cost the fleet its leader each time it comes back. Doubled, a rolling update of the leads leaves a sidecar in
    /// charge for half a minute.
    pub fn new(timings: &Timings) -> Self {
        Self {
            able_since: BTreeMap::new(),
            settled: timings.lease_duration(),
        }
    }

    /// To whom a leader that is `part` should give the Lease up, of those in its `succession`; to be asked once a turn.
    pub fn heir<'a>(
        &mut self,
        part: Part,
        succession: &'a [Candidate],
        now: Instant,
    ) -> Option<&'a str> {
        let known = std::mem::take(&mut self.able_since);
        let leads = succession
            .iter()
            .filter(|candidate| candidate.part == Part::Lead);
        for lead in leads {
            let since = known.get(&lead.identity).copied().unwrap_or(now);
            self.able_since.insert(lead.identity.clone(), since);
        }
        // One lead is as good as another.
        if part == Part::Lead {
            return None;
        }
        let settled = |candidate: &&Candidate| {
            self.able_since
                .get(&candidate.identity)
                .is_some_and(|since| now.since(*since) >= self.settled)
        };
        succession
            .iter()
            .find(settled)
            .map(|lead| lead.identity.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(seconds))
    }

    fn candidate(identity: &str, part: Part, since: u64) -> Candidate {
        Candidate {
            identity: identity.to_owned(),
            part,
            since: at(since),
        }
    }

    #[test]
    fn leads_come_first_then_the_oldest_and_never_a_follower() {
        let order = succession(vec![
            candidate("llm-2", Part::Sidecar, 2),
            candidate("llm-0", Part::Follower, 0),
            candidate("lead-1", Part::Lead, 9),
            candidate("llm-1", Part::Sidecar, 1),
            candidate("lead-b", Part::Lead, 8),
            candidate("lead-a", Part::Lead, 8),
        ]);
        let names: Vec<_> = order.iter().map(|one| one.identity.as_str()).collect();
        assert_eq!(names, ["lead-a", "lead-b", "lead-1", "llm-1", "llm-2"]);
    }

    #[test]
    fn a_sidecar_gives_up_to_a_lead_that_was_able_for_a_lease_duration() {
        let mut preference = Preference::new(&Timings::default());
        let both = [
            candidate("lead-0", Part::Lead, 0),
            candidate("llm-0", Part::Sidecar, 0),
        ];
        assert_eq!(preference.heir(Part::Sidecar, &both, at(100)), None);
        assert_eq!(preference.heir(Part::Sidecar, &both, at(114)), None);
        assert_eq!(
            preference.heir(Part::Sidecar, &both, at(115)),
            Some("lead-0")
        );
    }

    #[test]
    fn a_lead_that_comes_and_goes_begins_anew_each_time() {
        let mut preference = Preference::new(&Timings::default());
        let there = [candidate("lead-0", Part::Lead, 0)];
        assert_eq!(preference.heir(Part::Sidecar, &there, at(0)), None);
        assert_eq!(preference.heir(Part::Sidecar, &[], at(10)), None);
        assert_eq!(preference.heir(Part::Sidecar, &there, at(20)), None);
        assert_eq!(preference.heir(Part::Sidecar, &there, at(34)), None);
        assert!(preference.heir(Part::Sidecar, &there, at(35)).is_some());
        // Another process of the same pod is another candidate.
        let restarted = [candidate("lead-0'", Part::Lead, 0)];
        assert_eq!(preference.heir(Part::Sidecar, &restarted, at(36)), None);
    }

    #[test]
    fn a_lead_gives_up_to_nobody_and_nobody_to_a_sidecar() {
        let mut preference = Preference::new(&Timings::default());
        let leads = [candidate("lead-1", Part::Lead, 0)];
        let sidecars = [candidate("llm-1", Part::Sidecar, 0)];
        for second in 0..60 {
            assert_eq!(preference.heir(Part::Lead, &leads, at(second)), None);
        }
        for second in 60..120 {
            assert_eq!(preference.heir(Part::Sidecar, &sidecars, at(second)), None);
        }
    }

    #[test]
    fn a_name_that_is_too_long_for_a_label_has_no_lead() {
        assert!(can_have_lead(&"a".repeat(63)));
        assert!(!can_have_lead(&"a".repeat(64)));
    }
}
