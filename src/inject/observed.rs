//! How long a workload's requests were seen to take, beside how long a drain may.
//!
//! The sidecars tell the time from a request's arrival to its end, the whole of a stream included, counted by bounds that
//! double from half a millisecond to nine minutes. So a quantile is known to lie between two bounds, and the upper one is
//! what a drain needs: to wait too long costs nothing, and to cut a stream off costs a client.

use std::collections::BTreeMap;
use std::time::Duration;

use super::prospect::Prospect;
use super::verdict::{Note, Refusal};
use crate::engine::text::lines;

/// The metric, as `telemetry` names it.
const METRIC: &str = "sidescale_request_duration_seconds_bucket";
/// Of fewer requests nobody knows the hundredth: at 100 the p99 is the second longest.
const LEAST_REQUESTS: f64 = 100.0;

/// The requests of a workload's pods, by how long they took.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pods: usize,
    /// How many took no longer than this bound, and longer than the one before; [`Duration::MAX`]: without a bound.
    counts: BTreeMap<Duration, f64>,
}

/// Where the p99 lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail {
    longer_than: Duration,
    /// `None`: there is no bound.
    at_most: Option<Duration>,
}

// === impl Observed ===

impl Observed {
    /// Adds what `/metrics` of a pod's sidecar says.
    pub fn add(&mut self, metrics: &str) {
        let buckets = lines(metrics).filter(|line| line.name == METRIC);
        // A pod of another version may have other bounds: what lies between two of its own is counted.
        let mut bounds: BTreeMap<Duration, f64> = BTreeMap::new();
        for bucket in buckets {
            let Some(bound) = bucket.label("le").and_then(|bound| bound.parse().ok()) else {
                continue;
            };
            let bound = Duration::try_from_secs_f64(bound).unwrap_or(Duration::MAX);
            bounds.insert(bound, bucket.value);
        }
        self.pods += usize::from(!bounds.is_empty());
        let mut below = 0.0;
        for (bound, upto) in bounds {
            *self.counts.entry(bound).or_default() += (upto - below).max(0.0);
            below = upto;
        }
    }

    fn requests(&self) -> f64 {
        self.counts.values().sum()
    }

    /// `None`: too few requests.
    fn p99(&self) -> Option<Tail> {
        let all = self.requests();
        if all < LEAST_REQUESTS {
            return None;
        }
        let (mut seen, mut before) = (0.0, Duration::ZERO);
        for (bound, count) in &self.counts {
            seen += count;
            if seen >= 0.99 * all {
                return Some(Tail {
                    longer_than: before,
                    at_most: Some(*bound).filter(|bound| *bound != Duration::MAX),
                });
            }
            before = *bound;
        }
        None
    }
}

/// Refuses a drain that has less time than the p99 of the requests; a note where that cannot be told.
pub fn enough_grace(prospect: &Prospect, observed: &Observed) -> Result<Option<Note>, Refusal> {
    let Some(tail) = observed.p99() else {
        return Ok(None);
    };
    let grace = prospect.grace.as_secs();
    let longer_than = tail.longer_than.as_secs_f64();
    let requests = observed.requests();
    let place = "annotation sidescale.dev/grace";
    let whose = match observed.pods {
        1 => "its pod has".to_owned(),
        pods => format!("its {pods} pods have"),
    };
    let seen = |p99: &str| {
        format!(
            "a drain would have {grace} s, and the p99 of the {requests} requests that {whose} carried {p99}"
        )
    };
    match tail.at_most {
        Some(at_most) if prospect.grace < at_most => {
            let at_most = at_most.as_secs_f64();
            let p99 = format!("lies between {longer_than:.1} s and {at_most:.1} s");
            let remedy = format!(
                "write sidescale.dev/grace: \"{:.0}s\", or what your longest stream takes",
                at_most.ceil()
            );
            Err(prospect.refuse(place, seen(&p99), remedy))
        }
        Some(_) => Ok(None),
        None => {
            let p99 = seen(&format!("is longer than {longer_than:.1} s"));
            let remedy = "write what your longest stream takes";
            if prospect.grace <= tail.longer_than {
                return Err(prospect.refuse(place, p99, remedy));
            }
            Ok(Some(prospect.note(format!(
                "{p99}, of which no more is known: {remedy} into its {place}"
            ))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::proxy::Latencies;
    use crate::telemetry::{Readings, Requests, render};

    /// What the sidecar of a pod tells that has carried so many requests of so many seconds each.
    fn pod(taken: &[(usize, f64)]) -> String {
        let taken = taken.iter();
        let each = taken.flat_map(|&(count, secs)| vec![Duration::from_secs_f64(secs); count]);
        let took = Latencies {
            service: each.collect(),
            ..Latencies::default()
        };
        render(Readings {
            requests: Some(Requests {
                took,
                ..Requests::default()
            }),
            ..Readings::default()
        })
    }

    fn judged(grace: u64, pods: &[String]) -> Result<Option<String>, String> {
        let mut observed = Observed::default();
        for pod in pods {
            observed.add(pod);
        }
        let prospect = Prospect {
            kind: "deployment",
            name: "bert".to_owned(),
            namespace: None,
            pod: Value::Null,
            grace: Duration::from_secs(grace),
            document: "bert.yaml".to_owned(),
        };
        let judged = enough_grace(&prospect, &observed);
        let judged = judged.map(|note| note.map(|note| note.to_string()));
        judged.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_grace_below_the_p99_of_all_pods_is_refused_with_one_that_is_enough() {
        let pods = [pod(&[(900, 0.3), (4, 40.0)]), pod(&[(96, 0.3), (7, 50.0)])];
        assert_eq!(
            judged(50, &pods),
            Err(
                "bert.yaml: deployment/bert annotation sidescale.dev/grace: a drain would have 50 s, and the p99 of the 1007 \
                 requests that its 2 pods have carried lies between 33.6 s and 67.1 s; write sidescale.dev/grace: \"68s\", or \
                 what your longest stream takes"
                    .to_owned()
            )
        );
        assert_eq!(judged(68, &pods), Ok(None));
        // Ten of a thousand are the hundredth that may be longer.
        assert_eq!(judged(1, &[pod(&[(990, 0.3), (10, 40.0)])]), Ok(None));
    }

    #[test]
    fn too_few_requests_and_texts_without_any_are_no_ground() {
        assert_eq!(judged(1, &[pod(&[(99, 400.0)])]), Ok(None));
        assert!(judged(1, &[pod(&[(100, 400.0)])]).is_err());
        let texts = [
            String::new(),
            "<html>".to_owned(),
            render(Readings::default()),
        ];
        assert_eq!(judged(1, &texts), Ok(None));
    }

    #[test]
    fn beyond_the_last_bound_only_a_shorter_grace_is_refused() {
        let long = [pod(&[(100, 3_600.0)])];
        let refused = judged(536, &long).expect_err("it is longer");
        assert!(
            refused.contains("is longer than 536.9 s; write what your longest stream takes"),
            "{refused}"
        );
        let noted = judged(537, &long).map(Option::unwrap_or_default);
        let noted = noted.expect("nobody knows");
        assert!(
            noted.contains("is longer than 536.9 s, of which no more is known: write"),
            "{noted}"
        );
    }

    #[test]
    fn a_pod_with_other_bounds_counts_within_its_own() {
        let other = |bounds: &[(&str, u32)]| {
            let lines = bounds.iter();
            let lines = lines.map(|(bound, count)| format!("{METRIC}{{le=\"{bound}\"}} {count}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let coarse = other(&[("30.0", 0), ("60.0", 50), ("+Inf", 50)]);
        let pods = [pod(&[(60, 40.0)]), coarse];
        let refused = judged(60, &pods).expect_err("most lie below 67.1 s");
        assert!(refused.contains("between 60.0 s and 67.1 s"), "{refused}");
    }
}
