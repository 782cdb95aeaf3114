//! A trace in simulated time, through the production turn and through the baselines.
//!
//! The world has steps of a second (`baseline::World`): first in, first out; perfect balancing; a ready pod serves
//! `pod_rps` requests a second; a pod asked for at t serves from t + cold start and is paid for from the asking to the
//! removal. A request violates when it waits longer than the SLO to be started. [`Leader`] shows the production turn what
//! a leader would see there, and nothing of the future.
//!
//! What a policy came to is its *regret*: pod-seconds over those of somebody who knew everything, less 1, plus
//! [`VIOLATION_PRICE`] times the share of requests that violate.
//!
//! Many worlds at once come from a file of cases ([`read_cases`]) and end in a [`Summary`].
//!
//! [`trace`](Trace) reads, [`Timeline`] draws the seconds, [`simulate`] plays and scores, [`drive`] lets somebody else's
//! world ask the turn line by line, [`explain()`] says why one decision was taken.

mod cases;
mod clairvoyant;
mod columns;
mod contestant;
mod cores;
mod driven;
mod explain;
mod foresight;
mod leader;
mod ledger;
mod misplaced;
mod page;
mod play;
mod poisson;
mod run;
mod score;
mod summary;
#[cfg(test)]
mod tests;
mod timeline;
mod trace;

use std::time::Duration;

pub use self::cases::{Case, CasesError, read as read_cases};
pub use self::columns::aligned;
pub use self::contestant::{Contestant, ContestantError, Kind, read as read_contestants};
pub use self::cores::{Progress, on_all_cores};
pub use self::driven::{DriveError, drive};
pub use self::explain::{Explanation, explain};
pub use self::leader::{Leader, Observed};
pub use self::misplaced::Misplaced;
pub use self::page::page;
pub use self::run::{Job, Outcome, Scaled, SimulateError, simulate};
pub use self::score::{Score, table};
pub use self::summary::{Scored, Summary};
pub use self::timeline::Timeline;
pub use self::trace::{Arrivals, Trace, TraceError};
use crate::ablation::Parts;
use crate::clock::Timestamp;

/// What a violating request costs, in multiples of the pod-time that all requests together needed: the policy's
/// `costRatio`. At 50, one request in fifty that waits too long is as bad as twice the pods.
pub const VIOLATION_PRICE: f64 = 50.0;

/// A regret below this counts as this much in means and ratios: on an easy trace 0.005 against 0.01 is nothing to anybody,
/// and would weigh like 0.5 against 1.
pub const LEAST_REGRET: f64 = 0.03;

/// More pods than this are a typing error, and each is an object of a few hundred bytes here.
pub const MOST_PODS: u32 = 100_000;

/// The world that everybody acts in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Requests that a pod serves a second.
    pub pod_rps: f64,
    /// From asking for a pod to its first request.
    pub cold_start: Duration,
    /// The longest that a request may wait to be started.
    pub slo: Duration,
    /// The fewest and the most pods.
    pub bounds: (u32, u32),
    /// Played and not scored, from the trace's start.
    pub warmup: Duration,
    /// The mean over all observed bins that the trace is scaled to, requests a second.
    pub mean_rps: Option<f64>,
    /// Repeats the arrivals that are drawn.
    pub seed: u64,
    /// The wall clock at the trace's zero.
    pub zero: Timestamp,
    /// What of sidescale works.
    pub parts: Parts,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            pod_rps: 1.0,
            cold_start: Duration::from_secs(300),
            slo: Duration::from_secs(2),
            bounds: (1, 48),
            warmup: Duration::ZERO,
            mean_rps: None,
            seed: 1,
            // A Monday at midnight: most traces begin at midnight, and none says of which day.
            zero: Timestamp::from_secs(1_767_571_200),
            parts: Parts::ALL,
        }
    }
}
