//! Every default of a policy, in one place, with its reason.

use std::time::Duration;

use super::{
    Behavior, DataPath, LeadTime, Metric, Mode, Policy, Prediction, ScalingPolicy, ScalingRules,
    SelectPolicy,
};

/// One replica: a service that is never gone. Zero needs the gateway, which holds requests while there are no pods.
pub const MIN_REPLICAS: u32 = 1;

/// Requests in flight that a pod is taken to carry while nobody said what it can: continuous batching servers are well
/// filled at eight and not yet slow. Doubled, a small model's requests queue before a pod is asked for; halved, a
/// batching server runs half empty. Whoever knows the server writes a metric.
pub const CONCURRENCY: f64 = 8.0;

/// The band that is shown: at 99 % a single odd day makes it too wide to tell anything, at 80 % demand leaves it every five
/// minutes.
pub const QUANTILE: f64 = 0.95;

/// One request in fifty that waits too long is as bad as twice the pods. Doubled, a bursty service keeps a fifth more pods
/// idle; halved, its bursts are let wait.
pub const COST_RATIO: f64 = 50.0;

/// Two weeks: the least that shows each weekday twice, so that a weekly season can be told from one odd day.
pub const HISTORY: Duration = Duration::from_secs(14 * 86_400);

/// HPA's own tolerance, so that whoever comes from it sees the same calm.
pub const TOLERANCE: f64 = 0.1;

/// HPA's own scale-down stabilisation. Halved, a load with a five-minute beat makes pods come and go with it;
/// doubled, every short burst is paid for ten minutes.
pub const SCALE_DOWN_STABILIZATION: Duration = Duration::from_secs(300);

// === impl Policy ===

impl Policy {
    /// The defaults between these bounds.
    ///
    /// There is no default for `max`: the user must say what may be spent.
    #[must_use]
    pub fn with_bounds(min: u32, max: u32) -> Self {
        let min = min.max(1);
        Self {
            target: None,
            mode: Mode::default(),
            data_path: DataPath::default(),
            min_replicas: min,
            max_replicas: max.max(min),
            metrics: vec![Metric::Concurrency {
                average_value: CONCURRENCY,
            }],
            prediction: Prediction::default(),
            behavior: Behavior::default(),
        }
    }
}

// === impl Prediction ===

impl Default for Prediction {
    fn default() -> Self {
        Self {
            quantile: QUANTILE,
            cost_ratio: COST_RATIO,
            lead_time: LeadTime::Auto,
            history: HISTORY,
            max_ahead: None,
        }
    }
}

// === impl Behavior ===

impl Default for Behavior {
    /// No limit upwards: HPA's four pods in 15 s would hold back exactly the pods that the forecast asked for in time.
    fn default() -> Self {
        Self {
            scale_up: ScalingRules::without_limits(Duration::ZERO),
            scale_down: ScalingRules::without_limits(SCALE_DOWN_STABILIZATION),
        }
    }
}

// === impl Behavior ===

impl Behavior {
    /// No tolerance, no window, no limit: where the user wrote nothing and it was learnt how long to keep a pod.
    #[must_use]
    pub fn unlimited() -> Self {
        let rules = ScalingRules {
            tolerance: 0.0,
            ..ScalingRules::without_limits(Duration::ZERO)
        };
        Self {
            scale_up: rules.clone(),
            scale_down: rules,
        }
    }
}

// === impl ScalingRules ===

impl ScalingRules {
    /// The usual tolerance, this stabilisation, and no rate limit.
    #[must_use]
    pub fn without_limits(stabilization_window: Duration) -> Self {
        Self {
            stabilization_window,
            select: SelectPolicy::default(),
            policies: Vec::<ScalingPolicy>::new(),
            tolerance: TOLERANCE,
        }
    }
}
