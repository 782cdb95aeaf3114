//! How many replicas, and why.
//!
//! [`Planner::plan`] goes through the steps of [`Step`] in their order. Each says what it did with its numbers, and none
//! fails: what is not known makes the answer more careful and the reasons longer.

use std::time::Duration;

use serde::Serialize;

use crate::clock::{Now, Timestamp};
use crate::fleet::Snapshot;
use crate::policy::Policy;
use crate::tuning::Advice;
use crate::units::pods;

mod memory;
mod planner;
mod present;
#[cfg(test)]
mod tests;

pub use planner::Planner;

/// What [`Recent::slow`] looks back on: long enough that the arrivals of a calm fleet do not flutter. Doubled, a ramp
/// is seen half a minute later; halved, Poisson noise alone moves small fleets.
pub const SLOW_WINDOW: Duration = Duration::from_secs(60);

/// What [`Recent::fast`] looks back on: a burst fills it in seconds. What in it is no more than noise is not acted on.
pub const FAST_WINDOW: Duration = Duration::from_secs(10);

/// All that a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The time of this turn.
    pub now: Now,
    /// What the user wants.
    pub policy: &'a Policy,
    /// The fleet as it is.
    pub snapshot: &'a Snapshot,
    /// Its load in the last minute.
    pub recent: Recent,
    /// What one request costs; `None`: not known yet.
    pub work: Option<Work>,
    /// What the way to decide asks for that would have cost least, or why none is known: the plan is then reactive.
    pub advice: Result<Advice, Unlearnt>,
    /// From asking for a pod to its first answer, already at a high quantile.
    pub lead_time: Duration,
    /// Whether the history is there that a new leader waits for before it lowers.
    pub history_back: bool,
}

/// Why nothing was learnt yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlearnt {
    /// What a pod carries a second is not known: no request has ended, or no GPU was seen.
    Work,
    /// Nobody has looked for as long as it takes to tell a rate.
    Load,
    /// The days before are still being lived through.
    Replay,
}

/// The load that members reported, over two windows that end now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// The last [`SLOW_WINDOW`].
    pub slow: Window,
    /// The last [`FAST_WINDOW`].
    pub fast: Window,
}

/// Means over a window, or over the part of it that was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Pods that reported; 0: nothing was observed, the rest says nothing.
    pub pods: f64,
    /// Arrivals a second, all reporting pods together.
    pub arrivals: f64,
    /// Requests in flight, waiting ones included, all reporting pods together.
    pub in_flight: f64,
    /// GPU utilisation of the reporting pods that have one, 0 to 1.
    pub gpu_utilization: Option<f64>,
}

/// What one request costs on a pod that is not overloaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// From arrival to end, without waiting for other requests to end, in seconds.
    pub service_seconds: f64,
    /// GPU busy time, in seconds of the pod's whole GPU; `None`: no GPU was seen.
    pub gpu_seconds: Option<f64>,
}

/// How many replicas there should be, and why: the same text answers "why" and "why not".
#[must_use = "a plan nobody reads scales nothing"]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// When it was made.
    pub made: Timestamp,
    /// The replicas to ask for, within the bounds.
    pub desired: u32,
    /// What the present load needs, before limits; the replicas asked for where no load is known.
    pub needed_now: u32,
    /// What will be needed within the lead time, by what was learnt, before limits; `None`: nothing was learnt yet.
    pub needed_ahead: Option<u32>,
    /// One for each step that had something to say, in order.
    pub reasons: Vec<Reason>,
    /// The plan holds at least until then unless the load changes; `None`: the next turn may differ.
    pub until: Option<Timestamp>,
}

/// Why a step said what it said, with its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The step that speaks.
    pub step: Step,
    /// One sentence with the numbers, for a person.
    pub text: String,
}

/// The steps of a plan, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// What is needed now, by each metric and the backlog.
    Now,
    /// What will be needed within the lead time.
    Ahead,
    /// What that rests on: the record of the way to decide that is followed, or why none is.
    Trust,
    /// Which of them the mode lets act.
    Mode,
    /// Pods that are already starting.
    Starting,
    /// `minReplicas` and `maxReplicas`.
    Bounds,
    /// How long a pod is kept, tolerance, stabilisation and rate limits.
    Behavior,
    /// What is not known: up is allowed, down is not.
    Unknown,
    /// Going down.
    Down,
    /// A person has paused the Deployment: the plan is not carried out.
    Paused,
}

// === impl Unlearnt ===

impl Unlearnt {
    /// For a sentence: "nothing was learnt yet, as ...".
    const fn words(self) -> &'static str {
        match self {
            Self::Work => "what a pod carries a second is not known",
            Self::Load => "no load was seen for long enough",
            Self::Replay => "the days before are still being lived through",
        }
    }
}

// === impl Reason ===

impl Reason {
    fn new(step: Step, text: String) -> Self {
        Self { step, text }
    }
}

// === impl Step ===

impl Step {
    /// A stable word for metrics, events and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Ahead => "ahead",
            Self::Trust => "trust",
            Self::Mode => "mode",
            Self::Starting => "starting",
            Self::Bounds => "bounds",
            Self::Behavior => "behavior",
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Paused => "paused",
        }
    }
}
