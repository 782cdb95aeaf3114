//! A KEDA `ScaledObject`: an HPA from one replica up, and KEDA's own hand between zero and one.
//!
//! KEDA feeds the HPA that it creates with an external metric as an `AverageValue`; the polling interval matters only at
//! zero, or when the metric is cached, and the cooldown only for going to zero.

use std::time::Duration;

use super::hpa::{Hpa, Replicas, average_value};
use crate::clock::Instant;

/// What a `ScaledObject` says. The defaults are KEDA's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KedaSettings {
    /// The trigger's threshold for a pod.
    pub target: f64,
    /// `minReplicaCount`.
    pub min: u32,
    /// `pollingInterval`.
    pub polling: Duration,
    /// `cooldownPeriod`: from the last activity to zero.
    pub cooldown: Duration,
    /// The trigger is active above this.
    pub activation: f64,
    /// `useCachedMetrics`: the HPA, too, gets what was polled.
    pub is_cached: bool,
}

/// One `ScaledObject` and what the operator remembers of it.
#[derive(Clone, Debug)]
pub struct Keda {
    settings: KedaSettings,
    hpa: Hpa,
    /// When it polls next; `None`: at once.
    due: Option<Instant>,
    polled: Option<f64>,
    /// When the trigger was last seen active; `None`: never.
    active: Option<Instant>,
}

// === impl KedaSettings ===

impl KedaSettings {
    /// KEDA's defaults with this threshold and `minReplicaCount`.
    pub const fn with_target(target: f64, min: u32) -> Self {
        Self {
            target,
            min,
            polling: Duration::from_secs(30),
            cooldown: Duration::from_secs(300),
            activation: 0.0,
            is_cached: false,
        }
    }
}

// === impl Keda ===

impl Keda {
    /// A `ScaledObject` with `maxReplicaCount` `max`.
    pub fn new(settings: KedaSettings, max: u32) -> Self {
        Self {
            settings,
            hpa: Hpa::new(settings.min.max(1), max, None),
            due: None,
            polled: None,
            active: None,
        }
    }

    /// One sync of the HPA, after what the operator does by now; `metric`: what the trigger's source says, in total
    /// (`None`: it says nothing).
    pub fn sync(&mut self, now: Instant, replicas: u32, metric: Option<f64>) -> u32 {
        let replicas = if self.due.is_none_or(|due| now >= due) {
            self.due = Some(now + self.settings.polling);
            self.poll(now, replicas, metric)
        } else {
            replicas
        };
        let metric = if self.settings.is_cached {
            self.polled
        } else {
            metric
        };
        let even = Replicas {
            spec: replicas,
            status: replicas,
        };
        let proposal =
            metric.map(|total| average_value(&self.hpa, total, self.settings.target, replicas));
        self.hpa.sync(now, even, &[proposal])
    }

    /// What the operator itself does: from zero when the trigger is active, to zero when it has not been for the cooldown.
    fn poll(&mut self, now: Instant, replicas: u32, metric: Option<f64>) -> u32 {
        self.polled = metric;
        let is_active = metric.is_some_and(|total| total > self.settings.activation);
        if is_active {
            self.active = Some(now);
        }
        // A source that says nothing must not take a workload to zero.
        let may_end = self.settings.min == 0 && metric.is_some();
        let cold = self
            .active
            .is_none_or(|at| now.since(at) > self.settings.cooldown);
        match replicas {
            0 if is_active => self.settings.min.max(1),
            0 => self.settings.min,
            _ if may_end && !is_active && cold => 0,
            _ => replicas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    /// Syncs every 15 s from `from` to `to`; gives the replicas at the end.
    fn sync(keda: &mut Keda, from: u64, to: u64, mut replicas: u32, metric: Option<f64>) -> u32 {
        for second in (from..to).step_by(15) {
            replicas = keda.sync(at(second), replicas, metric);
        }
        replicas
    }

    #[test]
    fn its_hpa_asks_for_total_over_threshold_outside_the_tolerance() {
        for (total, expected) in [(9.0, 2), (11.0, 2), (12.0, 3)] {
            let mut keda = Keda::new(KedaSettings::with_target(5.0, 1), 100);
            assert_eq!(keda.sync(at(0), 2, Some(total)), expected, "{total}");
        }
    }

    #[test]
    fn it_goes_to_zero_after_the_cooldown_and_back_at_the_next_poll() {
        let mut keda = Keda::new(KedaSettings::with_target(0.7, 0), 100);
        assert_eq!(sync(&mut keda, 0, 60, 1, Some(0.5)), 1);
        assert_eq!(
            sync(&mut keda, 60, 330, 1, Some(0.0)),
            1,
            "last active at 30 s"
        );
        assert_eq!(sync(&mut keda, 330, 376, 1, Some(0.0)), 0);
        // It polls every 30 s, and then the HPA may go on.
        assert_eq!(keda.sync(at(376 + 5), 0, Some(5.0)), 0);
        assert_eq!(
            keda.sync(at(376 + 20), 0, Some(5.0)),
            4,
            "one, then the HPA's limit"
        );
    }

    #[test]
    fn with_a_minimum_it_never_goes_to_zero_and_a_dead_source_holds() {
        let mut keda = Keda::new(KedaSettings::with_target(0.7, 1), 100);
        assert_eq!(sync(&mut keda, 0, 3_600, 3, Some(0.0)), 1);
        let mut keda = Keda::new(KedaSettings::with_target(0.7, 0), 100);
        assert_eq!(sync(&mut keda, 0, 3_600, 3, None), 3);
    }

    #[test]
    fn a_cached_metric_is_as_old_as_the_last_poll() {
        let settings = KedaSettings {
            is_cached: true,
            ..KedaSettings::with_target(0.7, 1)
        };
        let mut keda = Keda::new(settings, 100);
        assert_eq!(keda.sync(at(0), 2, Some(1.4)), 2);
        assert_eq!(keda.sync(at(15), 2, Some(2.8)), 2);
        assert_eq!(keda.sync(at(30), 2, Some(2.8)), 4);
    }
}
