//! The published rules as one type: each second they see the same things, and each decides on its own beat.
//!
//! What they see is concurrency in pods' worth, (served + waiting) / `pod_rps`: HPA its mean of half a minute, a quarter of
//! a minute old, because scrape, adapter and sync follow each other; KPA as fresh as it is.

use std::collections::VecDeque;
use std::time::Duration;

use super::cron::Schedule;
use super::hpa::{Hpa, Replicas, average_value};
use super::keda::{Keda, KedaSettings};
use super::kpa::{Kpa, KpaSettings};
use super::world::World;
use crate::clock::Instant;

/// HPA reads a mean of this many seconds ...
const HPA_WINDOW_SECS: usize = 30;
/// ... that is this old.
const HPA_AGE_SECS: usize = 15;
const HPA_SYNC: Duration = Duration::from_secs(15);
const KPA_TICK: Duration = Duration::from_secs(2);

/// Which rule acts.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Kubernetes' HPA without a behavior block, on concurrency as an `AverageValue`.
    Hpa {
        /// Share of a pod, in (0, 1].
        target: f64,
    },
    /// Knative's KPA on concurrency.
    Kpa {
        /// Share of a pod, in (0, 1].
        target: f64,
    },
    /// A KEDA `ScaledObject` on the same metric.
    Keda(KedaSettings),
    /// An HPA whose bounds follow the clock.
    Cron {
        /// Share of a pod, in (0, 1].
        target: f64,
        /// When which bounds hold.
        schedule: Schedule,
    },
    /// Always as many.
    Fixed {
        /// Replicas.
        replicas: u32,
    },
}

/// What a rule sees of the second that ends now.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The second's end.
    pub now: Instant,
    /// Concurrency in pods' worth.
    pub in_pods: f64,
    /// Pods that serve.
    pub ready: u32,
    /// Pods that were asked for.
    pub replicas: u32,
}

/// A rule and what it remembers.
#[derive(Clone, Debug)]
pub struct Actor {
    brain: Brain,
    bounds: (u32, u32),
    /// When the rule decides next; `None`: with the first second.
    due: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Brain {
    Hpa {
        target: f64,
        hpa: Box<Hpa>,
        metric: Metric,
        schedule: Option<Schedule>,
    },
    Kpa {
        target: f64,
        /// Made with the first second, whose time it needs.
        kpa: Option<Box<Kpa>>,
    },
    Keda {
        keda: Box<Keda>,
        metric: Metric,
    },
    Fixed(u32),
}

/// Concurrency of the last seconds, oldest first; `None`: nobody saw that second.
#[derive(Clone, Debug)]
struct Metric(VecDeque<Option<f64>>);

// === impl Seen ===

impl Seen {
    /// What is to be seen of `world` after a second in which `served` requests were served.
    pub fn of(now: Instant, world: &World, served: f64) -> Self {
        Self {
            now,
            in_pods: (served + world.waiting()) / world.pod_rps(),
            ready: world.ready(),
            replicas: world.replicas(),
        }
    }
}

// === impl Actor ===

impl Actor {
    /// A rule that starts with nothing seen.
    pub fn new(rule: Rule, (min, max): (u32, u32)) -> Self {
        let max = max.max(min);
        let brain = match rule {
            Rule::Hpa { target } => Brain::hpa(target, None, (min, max)),
            Rule::Cron { target, schedule } => Brain::hpa(target, Some(schedule), (min, max)),
            Rule::Kpa { target } => Brain::Kpa { target, kpa: None },
            Rule::Keda(settings) => Brain::Keda {
                keda: Box::new(Keda::new(settings, max)),
                metric: Metric::new(),
            },
            Rule::Fixed { replicas } => Brain::Fixed(replicas),
        };
        Self {
            brain,
            bounds: (min, max),
            due: None,
        }
    }

    /// One second was seen: the replicas it asks for, if it decides now.
    pub fn second(&mut self, seen: Seen) -> Option<u32> {
        let Seen { now, in_pods, .. } = seen;
        let period = match &mut self.brain {
            Brain::Hpa { metric, .. } | Brain::Keda { metric, .. } => {
                metric.push(Some(in_pods));
                HPA_SYNC
            }
            Brain::Kpa { target, kpa } => {
                let settings = KpaSettings::with_target(*target);
                let kpa = kpa.get_or_insert_with(|| Box::new(Kpa::new(settings, now, seen.ready)));
                kpa.record(now, in_pods);
                KPA_TICK
            }
            Brain::Fixed(replicas) => return (seen.replicas != *replicas).then_some(*replicas),
        };
        let due = self.due.unwrap_or(now);
        if now < due {
            return None;
        }
        // On the beat, unless whole periods were missed.
        self.due = Some((due + period).max(now + period - Duration::from_secs(1)));
        self.decide(seen)
    }

    /// A second passed that nobody saw: no zero, and no decision.
    pub fn blind(&mut self) {
        match &mut self.brain {
            Brain::Hpa { metric, .. } | Brain::Keda { metric, .. } => metric.push(None),
            // Its buckets go by the time of what is written.
            Brain::Kpa { .. } | Brain::Fixed(_) => {}
        }
    }

    fn decide(&mut self, seen: Seen) -> Option<u32> {
        let Seen { now, replicas, .. } = seen;
        let (min, max) = self.bounds;
        match &mut self.brain {
            Brain::Hpa {
                target,
                hpa,
                metric,
                schedule,
            } => {
                let (min, max) = match schedule {
                    Some(schedule) => schedule.bounds(now, (min, max)),
                    None => (min, max),
                };
                hpa.set_bounds(min, max);
                let mean = metric.mean();
                let proposal = mean.map(|mean| average_value(hpa, mean, *target, replicas));
                let even = Replicas {
                    spec: replicas,
                    status: replicas,
                };
                Some(hpa.sync(now, even, &[proposal]).clamp(min, max))
            }
            Brain::Keda { keda, metric } => Some(keda.sync(now, replicas, metric.mean()).min(max)),
            Brain::Kpa { kpa, .. } => Some(kpa.as_mut()?.tick(now, seen.ready)?.clamp(min, max)),
            Brain::Fixed(replicas) => Some(*replicas),
        }
    }
}

// === impl Brain ===

impl Brain {
    fn hpa(target: f64, schedule: Option<Schedule>, (min, max): (u32, u32)) -> Self {
        Self::Hpa {
            target,
            hpa: Box::new(Hpa::new(min, max, None)),
            metric: Metric::new(),
            schedule,
        }
    }
}

// === impl Metric ===

impl Metric {
    fn new() -> Self {
        Self(VecDeque::with_capacity(HPA_WINDOW_SECS + HPA_AGE_SECS))
    }

    fn push(&mut self, in_pods: Option<f64>) {
        if self.0.len() == HPA_WINDOW_SECS + HPA_AGE_SECS {
            self.0.pop_front();
        }
        self.0.push_back(in_pods);
    }

    /// What the adapter answers; `None`: it has nothing yet, or saw nothing in the window.
    fn mean(&self) -> Option<f64> {
        let window = self.0.len().checked_sub(HPA_AGE_SECS)?;
        let seen = self.0.iter().take(window).flatten();
        let (count, sum) = seen.fold((0_u32, 0.0), |(count, sum), it| (count + 1, sum + it));
        (count > 0).then(|| sum / f64::from(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(secs: u64, in_pods: f64, replicas: u32) -> Seen {
        Seen {
            now: Instant::from_offset(Duration::from_secs(secs)),
            in_pods,
            ready: replicas,
            replicas,
        }
    }

    #[test]
    fn a_second_that_nobody_saw_is_no_zero() {
        let mut metric = Metric::new();
        for _ in 0..20 {
            metric.push(None);
        }
        assert_eq!(metric.mean(), None);
        for _ in 0..25 {
            metric.push(Some(4.0));
        }
        assert_eq!(metric.mean(), Some(4.0));
    }

    #[test]
    fn hpa_holds_after_a_gap_until_it_sees_again() {
        let mut actor = Actor::new(Rule::Hpa { target: 0.7 }, (1, 20));
        for second in 0..600 {
            actor.second(seen(second, 7.0, 10));
        }
        for _ in 600..1_200 {
            actor.blind();
        }
        let asked: Vec<u32> = (1_200..1_216)
            .filter_map(|second| actor.second(seen(second, 7.0, 10)))
            .collect();
        assert_eq!(asked, [10, 10]);
    }

    #[test]
    fn a_fixed_fleet_asks_once() {
        let mut actor = Actor::new(Rule::Fixed { replicas: 5 }, (1, 20));
        assert_eq!(actor.second(seen(0, 9.0, 2)), Some(5));
        assert_eq!(actor.second(seen(1, 9.0, 5)), None);
    }
}
