//! The fleet's demand in the minutes to come, as quantiles, learnt from its own history.
//!
//! Demand is arrivals, not replicas and not a utilisation that saturates: a fleet that was too small or clamped still
//! shows its true load.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;

/// Demand ahead: one point per step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// When it was made.
    pub made: Timestamp,
    /// In time order; the first lies within one step of `made`.
    pub points: Vec<ForecastPoint>,
    /// The seasons found, longest last; empty: none.
    pub seasons: Vec<Season>,
    /// How far this forecast may be trusted, 0 to 1, by its own record on this workload. 0: plan reactively.
    pub trust: f64,
    /// Who speaks with which weight, heaviest first.
    pub experts: Vec<ExpertWeight>,
}

/// Demand at one time to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForecastPoint {
    /// The middle of the step it speaks of.
    pub at: Timestamp,
    /// Expected arrivals a second.
    pub point: f64,
    /// The lower quantile (1 - the upper one), arrivals a second.
    pub lower: f64,
    /// The upper quantile asked for, corrected online, arrivals a second.
    pub upper: f64,
}

/// A period found in the history.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Season {
    /// Its length.
    pub period: Duration,
    /// Share of the variance that repeats with it, 0 to 1.
    pub strength: f64,
}

/// One expert's part in a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpertWeight {
    /// Its name, stable.
    pub name: &'static str,
    /// Its weight; all add to 1.
    pub weight: f64,
    /// Its running loss at the horizon that matters, arrivals a second.
    pub loss: f64,
}
