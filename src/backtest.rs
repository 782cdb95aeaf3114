//! How good the forecast is on a measured trace, beside what anybody could have said.
//!
//! The production [`Forecaster`](crate::forecast::Forecaster) is shown the trace second by second through a
//! [`History`](crate::history::History), as the leader is. At the end of each whole minute it says what the one-minute mean
//! will be some minutes later; when that minute has passed, what was said is held against it. Nothing is fitted to what is
//! scored: everybody, the baselines included, knows at each minute only what was observed by then.
//!
//! The baselines give a point (`point`, `holt_winters`), and what surrounds it comes from their own errors of the last seven
//! days (`conformal`). A baseline that had no day to look back to says the last value.

mod conformal;
mod holt_winters;
mod measure;
mod minutes;
mod ours;
mod point;
mod run;
mod table;

pub use self::measure::Measures;
pub use self::run::{Forecasted, Report, backtest};
pub use self::table::table;

/// Minutes of a day, the season that every workload is suspected of.
const DAY: usize = 1_440;

/// What was said of one minute, before it came. Arrivals a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Said {
    /// What is expected, taken for the median.
    point: f64,
    /// The quantile at 0.95.
    upper95: f64,
    /// The quantile at 0.99.
    upper99: f64,
}
