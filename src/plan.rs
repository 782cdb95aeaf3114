//! How many replicas, and why.

use serde::Serialize;

use crate::clock::Timestamp;

/// How many replicas there should be, and why: the same text answers "why" and "why not".
#[must_use = "a plan nobody reads scales nothing"]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// When it was made.
    pub made: Timestamp,
    /// The replicas to ask for, within the bounds.
    pub desired: u32,
    /// What the present load needs, before limits.
    pub needed_now: u32,
    /// What the forecast needs within the lead time, before limits; `None` without a usable forecast.
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
    /// How far the forecast is trusted.
    Trust,
    /// Which of them the mode lets act.
    Mode,
    /// Pods that are already starting.
    Starting,
    /// `minReplicas` and `maxReplicas`.
    Bounds,
    /// Tolerance, stabilisation and rate limits.
    Behavior,
    /// What is not known: up is allowed, down is not.
    Unknown,
    /// Going down, a decision of its own.
    Down,
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
        }
    }
}
