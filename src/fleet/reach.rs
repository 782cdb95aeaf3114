//! Whether the leader reaches its members at all. Pure.
//!
//! Single members are silent for many reasons. When most of a fleet's ready pods cannot be heard for a minute, the way to
//! them is closed, and what closes it stands in the cluster and not in a pod: the plan goes on without lowering, and
//! somebody should know where to look.

use std::time::Duration;

use crate::clock::Instant;
use crate::fleet::{Member, Pod};

/// How long most of the members must be out of reach. A leader's first streams stand within seconds, and a rollout of a
/// whole small fleet is over; doubled, the reason is told later to whoever waits for their fleet to be lowered.
const LONG: Duration = Duration::from_secs(60);

/// Since when most of the members are out of reach.
#[derive(Debug, Default)]
pub struct Reach {
    since: Option<Instant>,
}

/// Most of a fleet's ready pods are out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Ready pods that cannot be heard.
    pub unheard: usize,
    /// All ready pods.
    pub ready: usize,
}

// === impl Reach ===

impl Reach {
    /// What to say about the members of this moment; to be asked once a turn.
    pub fn note(&mut self, pods: &[Pod], now: Instant) -> Option<Lost> {
        let ready: Vec<&Pod> = pods.iter().filter(|pod| pod.is_capacity()).collect();
        let heard = |pod: &&&Pod| matches!(pod.member, Member::Reporting(_));
        let unheard = ready.len() - ready.iter().filter(heard).count();
        if unheard * 2 <= ready.len() {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        (now.since(since) >= LONG).then_some(Lost {
            unheard,
            ready: ready.len(),
        })
    }
}

// === impl Lost ===

impl Lost {
    /// In words, for the member port of this fleet.
    pub fn explained(self, port: u16) -> String {
        let Self { unheard, ready } = self;
        format!(
            "{unheard} of {ready} ready pods could not be reached on their member port {port} for a minute, so the fleet is not \
             lowered (look for a NetworkPolicy that selects the pods and does not let them reach each other on {port}: \
             `sidescale inject --network-policy isolated` prints one that does; in a mesh with strict mTLS, exclude the port)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{PodPhase, Reading};

    fn pod(phase: PodPhase, member: Member) -> Pod {
        Pod {
            name: "a".to_owned(),
            uid: "a".to_owned(),
            ip: None,
            phase,
            created: at(0),
            marked: false,
            member,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(seconds))
    }

    /// So many ready pods that are heard, and so many that are not.
    fn fleet(heard: usize, unheard: usize) -> Vec<Pod> {
        let reporting = || {
            Member::Reporting(Reading {
                ready: true,
                ..Reading::default()
            })
        };
        let heard = (0..heard).map(|_| pod(PodPhase::Ready, reporting()));
        let silent = (0..unheard).map(|number| {
            // Never heard, and not any more.
            let member = if number % 2 == 0 {
                Member::Unknown
            } else {
                Member::Silent { since: at(0) }
            };
            pod(PodPhase::Ready, member)
        });
        heard.chain(silent).collect()
    }

    #[test]
    fn most_members_out_of_reach_for_a_minute_are_told_and_half_of_them_are_not() {
        let mut reach = Reach::default();
        assert_eq!(reach.note(&fleet(1, 3), at(10)), None);
        assert_eq!(reach.note(&fleet(1, 3), at(69)), None);
        let lost = Lost {
            unheard: 3,
            ready: 4,
        };
        assert_eq!(reach.note(&fleet(1, 3), at(70)), Some(lost));
        assert!(lost.explained(9190).contains("3 of 4"));
        assert_eq!(reach.note(&fleet(2, 2), at(71)), None, "the half of them");
        assert_eq!(reach.note(&fleet(1, 3), at(72)), None, "a new minute");
        assert_eq!(reach.note(&[], at(200)), None, "nobody is there");
    }

    #[test]
    fn pods_that_are_no_capacity_need_not_be_heard() {
        let mut reach = Reach::default();
        let mut pods = fleet(1, 0);
        pods.extend(
            [PodPhase::Pending, PodPhase::Starting, PodPhase::Unready]
                .map(|phase| pod(phase, Member::Unknown)),
        );
        for second in [0, 60, 120] {
            assert_eq!(reach.note(&pods, at(second)), None);
        }
    }
}
