//! What the user wants: targets, bounds, mode. One type for the file and, later, the custom resource.
//!
//! [`Policy`] is complete and valid: every default is filled in and every range was checked when it was read
//! ([`read()`]). A stage that is given a policy has nothing left to check.

use std::time::Duration;

pub mod defaults;
mod field;
mod metric;
mod node;
mod read;
mod render;
mod schema;
mod spelling;
#[cfg(test)]
mod tests;

pub use read::{PolicyError, Problem, read};

/// What the user wants of one workload, complete and valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The workload to scale; `None`: the Deployment that owns this pod.
    pub target: Option<Target>,
    /// Who may act.
    pub mode: Mode,
    /// How the load of a pod becomes known.
    pub data_path: DataPath,
    /// The fewest replicas, at least 1 (scale to zero needs the gateway).
    pub min_replicas: u32,
    /// The most replicas, at least `min_replicas`.
    pub max_replicas: u32,
    /// What a pod can carry, by each signal; never empty. The signal that a pod is full by first decides.
    pub metrics: Vec<Metric>,
    /// How far and how carefully to look ahead.
    pub prediction: Prediction,
    /// HPA v2's scaleUp and scaleDown.
    pub behavior: Behavior,
}

/// A workload by name, in the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Deployment's name.
    pub name: String,
}

/// Who may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Plans and explains, writes no scale. The default: nobody is scaled by surprise.
    #[default]
    Observe,
    /// The larger of what is needed now and what will be needed, by what was learnt.
    Auto,
    /// As `Auto`, but never lowers.
    ScaleUpOnly,
    /// What will be needed alone.
    Proactive,
    /// Only ways to decide that look at the present, as HPA does.
    Reactive,
}

/// How the load of a pod becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DataPath {
    /// The requests pass through the sidecar, which counts them.
    #[default]
    Proxy,
    /// They go to the server directly; its own metrics are read.
    Passive,
}

/// A signal and what one pod can carry of it: full, and not yet overloaded. What is kept in hand beside that is learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// GPU utilisation averaged over the pods, in percent of each device.
    Gpu {
        /// Percent, in (0, 100].
        average_utilization: f64,
    },
    /// Requests that a pod can answer each second.
    RequestRate {
        /// Requests a second, above 0.
        per_second: f64,
    },
    /// Requests that a pod can have in flight on average with hardly one waiting: some fewer than its slots where they are spread
    /// at random.
    Concurrency {
        /// Requests, above 0.
        average_value: f64,
    },
}

/// How far and how carefully to look ahead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The share of time that demand stays within the forecast's band that is shown, in (0.5, 1): 0.95 for `quantile: 95`.
    pub quantile: f64,
    /// What a request that waits too long costs, in multiples of the pod-time that it needs, from 1 to 10,000: the extra
    /// pod-time that one would pay to keep all requests of a period within the SLO, over what they needed. How far to look
    /// ahead and how much to keep in hand is learnt by this price.
    pub cost_ratio: f64,
    /// How long a new pod takes until it answers.
    pub lead_time: LeadTime,
    /// How much history is kept and learnt from, between 1 h and 28 d.
    pub history: Duration,
    /// The most that looking ahead may add to what is needed now, as a share of `max(needed now, 1)`; `None`: no limit but
    /// `max_replicas`.
    pub max_ahead: Option<f64>,
}

/// How long a new pod takes until it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadTime {
    /// Measured from the starts that were seen.
    Auto,
    /// Given.
    Fixed(Duration),
}

/// HPA v2's `behavior` block: how fast replicas may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Rules for going up.
    pub scale_up: ScalingRules,
    /// Rules for going down.
    pub scale_down: ScalingRules,
}

/// One direction of a [`Behavior`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingRules {
    /// Look back this far and take the most careful recommendation; 0 s to 1 h.
    pub stabilization_window: Duration,
    /// Which of the policies counts.
    pub select: SelectPolicy,
    /// How much may change within a period; empty: no limit.
    pub policies: Vec<ScalingPolicy>,
    /// Changes whose ratio is at most this far from 1 are not worth making, 0 to 1.
    pub tolerance: f64,
}

/// Which of several scaling policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SelectPolicy {
    /// The one that allows most change.
    #[default]
    Max,
    /// The one that allows least change.
    Min,
    /// No change in this direction at all.
    Disabled,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// How `value` counts.
    pub kind: ScalingPolicyKind,
    /// Pods or percent, above 0.
    pub value: u32,
    /// The period, above 0 s and at most 30 min.
    pub period: Duration,
}

/// How the value of a scaling policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalingPolicyKind {
    /// That many pods.
    Pods,
    /// That many percent of the replicas at the period's start.
    Percent,
}
