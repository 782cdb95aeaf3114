//! How good the forecast is on a measured trace, beside what anybody could have said.
//!
//! The production [`Forecaster`](crate::forecast::Forecaster) is shown the trace second by second through a
//! [`History`](crate::history::History), as the leader is. At the end of each whole minute it says what the one-minute mean
//! will be some minutes later; when that minute has passed, what was said is held against it. Nothing is fitted to what is
//! scored: everybody, the baselines included, knows at each minute only what was observed by then.
//!
//! The baselines give a point (`point`, `holt_winters`), and what surrounds it comes from their own errors of the last seven
//! days (`conformal`). A baseline that had no day to look back to says the last value.
//!
//! # Beside other people's models
//!
//! `tests/fixtures/statsforecast.py` lets Nixtla's `AutoETS` and MSTL forecast the same minutes of three traces and says how;
//! `statsforecast.json` beside it is what came of it. Means of the three, in per cent: geometric of the errors, arithmetic of
//! the share of minutes above the quantile.
//!
//! | ahead | model | WAPE | loss at 95 % | loss at 99 % | above 95 % | above 99 % |
//! |---|---|---:|---:|---:|---:|---:|
//! | 2 min | sidescale | 12.0 | 2.3 | 1.0 | 4.9 | 1.0 |
//! | | `AutoETS` | 11.6 | 2.9 | 1.2 | 4.4 | 2.1 |
//! | | MSTL | 13.3 | 3.3 | 1.4 | 6.4 | 3.1 |
//! | 5 min | sidescale | 16.7 | 3.8 | 1.6 | 5.0 | 1.1 |
//! | | `AutoETS` | 17.4 | 4.7 | 2.1 | 3.0 | 1.6 |
//! | | MSTL | 19.7 | 5.2 | 2.2 | 4.6 | 2.3 |
//! | 10 min | sidescale | 20.8 | 5.6 | 2.3 | 5.4 | 1.6 |
//! | | `AutoETS` | 23.7 | 7.0 | 3.0 | 2.1 | 1.3 |
//! | | MSTL | 25.6 | 7.4 | 3.1 | 3.6 | 2.1 |
//!
//! `AutoETS` is ahead in the points of the trace with bins of ten minutes (WAPE 3.3, 7.5 and 15.7 % against our 4.3, 9.7 and
//! 17.0 %), between whose centres the load is drawn along a line, which a trend follows.

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
