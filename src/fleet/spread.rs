//! Whose clients should connect anew, so that pods which are new get their part. Pure.
//!
//! A Service of Kubernetes balances connections: without this, clients that keep theirs never find the pods that were
//! started for them. While a pod is new and has fewer connections than the fleet's mean, each pod clearly above the mean is
//! asked, in rounds, to let go of what it has above it. Where a connection goes next is the Service's choice, so a part
//! comes back, and the next round asks for that again. When the pods are no longer new it ends: clients that come from
//! one address with `sessionAffinity`, or that are fewer than pods, cannot be spread, and are not sent about for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::fleet::{Member, Pod, Reading};
use crate::report::Down;

/// From a pod's first turn as capacity to the first round for it: endpoints take a second or two to reach every node.
/// Halved, clients that are sent away come back to where they were; doubled, a burst waits as much longer for its pods.
const SETTLED: Duration = Duration::from_secs(5);
/// For how long a pod is new: four rounds bring one pod's clients to within a tenth of even over ten pods.
const NEW: Duration = Duration::from_secs(65);
/// Between two rounds: one's connections are back before the next is asked for.
const ROUND: Duration = Duration::from_secs(15);
/// Over which a round is spread. Halved, a pod with a thousand connections has a hundred handshakes a second to others.
const OVER_MILLIS: u32 = 10_000;
/// The most of its connections that a pod lets go in a round: each costs its client a handshake, and a fleet that is
/// mistaken about one pod must not move all at once.
const MOST_PER_MILLE: f64 = 500.0;
/// A pod is asked when it has so many times the mean; what a Service draws by chance differs as much. Nearer to 1 the
/// rounds follow chance, at 1.5 the last pods of a fleet that has doubled get two thirds of their part.
const ABOVE: f64 = 1.25;

/// Which pods are new, between two rounds.
#[derive(Debug, Default)]
pub struct Spread {
    /// Since when each pod, by its uid, is capacity. A leader that is new takes all pods for new: the one before it may
    /// have died in the middle.
    since: BTreeMap<String, Instant>,
    last: Option<Instant>,
}

// === impl Spread ===

impl Spread {
    /// What to say to which pod now; to be asked once a turn.
    pub fn orders(&mut self, pods: &[Pod], now: Instant) -> Vec<(String, Down)> {
        self.note(pods, now);
        let carrying: Vec<(&Pod, f64)> = pods
            .iter()
            .filter_map(|pod| Some((pod, connections(pod)?)))
            .collect();
        let mean = carrying.iter().map(|(_, count)| count).sum::<f64>() / carrying.len() as f64;
        let starved = carrying
            .iter()
            .any(|(pod, count)| self.is_new(pod, now) && *count < mean);
        let rests = self.last.is_some_and(|last| now.since(last) < ROUND);
        if !starved || rests {
            return Vec::new();
        }
        self.last = Some(now);
        carrying
            .into_iter()
            .filter_map(|(pod, count)| {
                let per_mille = per_mille(count, mean);
                let retire = Down::Retire {
                    per_mille,
                    over_millis: OVER_MILLIS,
                };
                (per_mille > 0).then(|| (pod.name.clone(), retire))
            })
            .collect()
    }

    fn note(&mut self, pods: &[Pod], now: Instant) {
        let mut known = std::mem::take(&mut self.since);
        for pod in pods.iter().filter(|pod| pod.is_capacity()) {
            let since = known.remove(&pod.uid).unwrap_or(now);
            self.since.insert(pod.uid.clone(), since);
        }
    }

    fn is_new(&self, pod: &Pod, now: Instant) -> bool {
        self.since
            .get(&pod.uid)
            .is_some_and(|since| (SETTLED..NEW).contains(&now.since(*since)))
    }
}

/// Connections of a pod that takes requests and says how many it has.
fn connections(pod: &Pod) -> Option<f64> {
    match pod.member {
        Member::Reporting(Reading {
            connections: Some(count),
            ..
        }) if pod.is_capacity() => Some(count as f64),
        Member::Reporting(_) | Member::Silent { .. } | Member::Unknown => None,
    }
}

/// The part of a pod's connections that is above the mean, where that is worth a word.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 500"
)]
fn per_mille(count: f64, mean: f64) -> u16 {
    if count <= ABOVE * mean {
        return 0;
    }
    ((count - mean) / count * 1_000.0)
        .min(MOST_PER_MILLE)
        .round() as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::PodPhase;

    fn at(seconds: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(seconds))
    }

    fn pod(name: &str, connections: Option<u64>) -> Pod {
        Pod {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            ip: None,
            phase: PodPhase::Ready,
            created: at(0),
            marked: false,
            member: Member::Reporting(Reading {
                ready: true,
                connections,
                ..Reading::default()
            }),
        }
    }

    fn fleet(counts: &[u64]) -> Vec<Pod> {
        let pod = |(at, count): (usize, &u64)| pod(&format!("llm-{at}"), Some(*count));
        counts.iter().enumerate().map(pod).collect()
    }

    fn shares(orders: &[(String, Down)]) -> Vec<(&str, u16)> {
        let share = |order: &Down| {
            let Down::Retire { per_mille, .. } = order else {
                panic!("{order:?}");
            };
            *per_mille
        };
        orders
            .iter()
            .map(|(pod, order)| (pod.as_str(), share(order)))
            .collect()
    }

    /// One that has led for so long that none of these pods is new.
    fn long_reigning(pods: &[Pod]) -> Spread {
        let mut spread = Spread::default();
        spread.orders(pods, at(0));
        spread
    }

    #[test]
    fn pods_above_the_mean_let_go_of_what_they_have_above_it() {
        let mut spread = long_reigning(&fleet(&[12, 10, 4]));
        let grown = fleet(&[12, 10, 4, 0]);
        assert!(spread.orders(&grown, at(1_000)).is_empty(), "not known yet");
        assert!(spread.orders(&grown, at(1_004)).is_empty());
        let orders = spread.orders(&grown, at(1_005));
        // The mean is 6.5.
        assert_eq!(shares(&orders), [("llm-0", 458), ("llm-1", 350)]);
    }

    #[test]
    fn no_pod_lets_go_of_more_than_half_in_a_round() {
        let mut spread = long_reigning(&fleet(&[100]));
        let grown = fleet(&[100, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        spread.orders(&grown, at(1_000));
        let orders = spread.orders(&grown, at(1_005));
        assert_eq!(shares(&orders), [("llm-0", 500)]);
    }

    #[test]
    fn rounds_go_on_until_the_new_pods_have_their_part_and_not_for_ever() {
        let mut spread = long_reigning(&fleet(&[8]));
        let grown = fleet(&[8, 0]);
        spread.orders(&grown, at(1_000));
        let rounds: Vec<u64> = (1_000..1_200)
            .filter(|second| !spread.orders(&grown, at(*second)).is_empty())
            .collect();
        assert_eq!(rounds, [1_005, 1_020, 1_035, 1_050]);
        let mut spread = long_reigning(&fleet(&[8]));
        spread.orders(&grown, at(1_000));
        assert!(!spread.orders(&grown, at(1_005)).is_empty());
        let even = fleet(&[5, 4]);
        assert!(spread.orders(&even, at(1_020)).is_empty());
    }

    #[test]
    fn without_new_pods_nothing_is_moved() {
        let uneven = fleet(&[9, 1]);
        let mut spread = long_reigning(&uneven);
        for second in 65..200 {
            assert!(spread.orders(&uneven, at(second)).is_empty(), "{second}");
        }
    }

    #[test]
    fn a_new_leader_goes_on_with_what_the_last_one_began() {
        let mut spread = Spread::default();
        let uneven = fleet(&[9, 1]);
        assert!(spread.orders(&uneven, at(0)).is_empty());
        assert!(!spread.orders(&uneven, at(5)).is_empty());
    }

    #[test]
    fn only_pods_that_serve_and_say_what_they_have_take_part() {
        let mut spread = Spread::default();
        let mut pods = fleet(&[8, 0, 0, 0]);
        pods[1].phase = PodPhase::Starting;
        pods[2].member = Member::Silent { since: at(0) };
        pods[3] = pod("old-version", None);
        spread.orders(&pods, at(0));
        assert!(spread.orders(&pods, at(5)).is_empty(), "one is alone");
        pods[1].phase = PodPhase::Ready;
        spread.orders(&pods, at(10));
        let orders = spread.orders(&pods, at(15));
        assert_eq!(shares(&orders), [("llm-0", 500)]);
    }

    /// Connections that are let go land anywhere, as kube-proxy draws.
    fn play(counts: &mut [u64], draws: &mut impl Iterator<Item = usize>) {
        let mut spread = long_reigning(&fleet(&counts[..1]));
        for second in 1_000..1_070 {
            let orders = spread.orders(&fleet(counts), at(second));
            for (pod, per_mille) in shares(&orders) {
                let from: usize = pod["llm-".len()..].parse().expect("a number");
                let leaving = counts[from] * u64::from(per_mille) / 1_000;
                counts[from] -= leaving;
                for _connection in 0..leaving {
                    counts[draws.next().expect("endless") % counts.len()] += 1;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_fleet_that_grows_is_nearly_even_after_a_minute(seed in any::<u64>(), pods in 2_usize..12) {
            use rand::{RngExt as _, SeedableRng as _};
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut draws = std::iter::repeat_with(move || rng.random_range(0..usize::MAX));
            let mut counts = vec![0; pods];
            counts[0] = 1_000;
            play(&mut counts, &mut draws);
            let mean = 1_000.0 / pods as f64;
            prop_assert_eq!(counts.iter().sum::<u64>(), 1_000);
            for count in &counts {
                // By chance alone they would differ by the root of the mean.
                let off = (*count as f64 - mean).abs();
                prop_assert!(off <= 0.25 * mean + 4.0 * mean.sqrt(), "{:?}", counts);
            }
        }

        #[test]
        fn nothing_that_pods_say_is_too_much(counts in prop::collection::vec(any::<u64>(), 0..6)) {
            let mut spread = Spread::default();
            let pods = fleet(&counts);
            spread.orders(&pods, at(0));
            for (_, per_mille) in shares(&spread.orders(&pods, at(5))) {
                prop_assert!((1..=500).contains(&per_mille));
            }
        }
    }
}
