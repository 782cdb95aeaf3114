//! The JSON of the leader's endpoints. Times are milliseconds since the Unix epoch, rates are per second.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::plan::{Plan, Reason};
use crate::tuning::Advice;

/// `/api/v1/plan`: the plan and what stands beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The leader's wall clock.
    pub now: Timestamp,
    /// How many of its seconds pass in one of life: 1, except in a demo.
    pub speed: f64,
    /// The program's version.
    pub version: &'static str,
    /// The Deployment, as `namespace/name`.
    pub workload: String,
    /// The pod that leads, where one does.
    pub leader: Option<String>,
    /// Its term.
    pub term: u64,
    /// How often the leader changed in the time shown.
    pub leader_changes: u64,
    /// The policy's mode, as the file spells it.
    pub mode: &'static str,
    /// Whether plans are carried out now (not in `observe`, nor while a fault forbids it).
    pub acts: bool,
    /// The last plan; `None` where no leader answers: `conditions` say why.
    pub plan: Option<Plan>,
    /// The way to decide that the plan follows, and its record; `None` while nothing was learnt.
    pub advice: Option<Advice>,
    /// The fleet's pods.
    pub replicas: Replicas,
    /// Requests that arrive at the fleet each second.
    pub arrivals_per_second: f64,
    /// Requests in flight over the reporting pods.
    pub in_flight: f64,
    /// How long a new pod is expected to take until it answers, seconds.
    pub lead_time_seconds: Option<f64>,
    /// Requests since the leader's start, where requests are followed one by one (the demo).
    pub requests: Option<u64>,
    /// Those of them that waited longer than the objective allows.
    pub slo_violations: Option<u64>,
    /// What other rules would have asked for on the same load.
    pub shadows: Vec<Shadow>,
    /// What is wrong now, worst first.
    pub conditions: Vec<Condition>,
}

/// The fleet's pods by what they are good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// The policy's lower bound.
    pub min: u32,
    /// The policy's upper bound.
    pub max: u32,
    /// `spec.replicas`.
    pub spec: u32,
    /// Pods that can serve.
    pub ready: usize,
    /// Pods on their way to their first Ready.
    pub starting: usize,
    /// Ready pods whose load is not known.
    pub unknown: usize,
}

/// Another rule in the same world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// `HPA` or `KPA`.
    pub name: &'static str,
    /// Replicas it would ask for.
    pub desired: u32,
    /// Replicas it would have ready.
    pub ready: u32,
    /// Requests that would have waited longer than the objective allows.
    pub slo_violations: u64,
}

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// A stable word, the same as in `sidescale_fault`.
    pub kind: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong, for a person.
    pub text: String,
    /// What to do about it, where anything can be done.
    pub remedy: Option<String>,
}

/// `/api/v1/decisions`, one of them: a plan that differed from the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// In which term.
    pub term: u64,
    /// `spec.replicas` before.
    pub from: u32,
    /// Replicas planned.
    pub to: u32,
    /// Whether it was written to the Deployment.
    pub acted: bool,
    /// Why, in the order of the steps.
    pub reasons: Vec<Reason>,
}

/// `/api/v1/history`: the last stretch, a column for each series; all have the length of `at`, `null` is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Seconds from one row to the next.
    pub step_seconds: u32,
    /// The end of each row's step, in time order.
    pub at: Vec<Timestamp>,
    /// Arrivals a second.
    pub arrivals: Vec<Option<f64>>,
    /// What had been forecast for then, one lead time before: the upper quantile, arrivals a second.
    pub expected: Vec<Option<f64>>,
    /// Replicas asked for.
    pub desired: Vec<Option<u32>>,
    /// Replicas that could serve.
    pub ready: Vec<Option<u32>>,
    /// What other rules asked for.
    pub shadows: Vec<ShadowSeries>,
}

/// One other rule's column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowSeries {
    /// `HPA` or `KPA`.
    pub name: &'static str,
    /// Replicas it would have asked for.
    pub desired: Vec<Option<u32>>,
}
