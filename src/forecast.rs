//! The fleet's demand in the minutes to come, as quantiles, learnt from its own history.
//!
//! Demand is arrivals, not replicas and not a utilisation that saturates: a fleet that was too small or clamped still
//! shows its true load.
//!
//! Several simple experts speak (`experts`); each is weighted by its own errors, of late and at this time of earlier
//! days (`mixture`); the quantiles and the trust are corrected by the forecast's own record (`calibration`). Seasons
//! are found, not configured (`season`). All of it is learnt a minute at a time (`model`).

mod calibration;
mod experts;
mod mixture;
mod model;
mod season;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

pub use self::calibration::pinball;
use self::experts::{NAMES, State};
use self::mixture::Mixture;
use self::model::{Model, count};
use crate::ablation::Parts;
use crate::clock::{Now, Timestamp};
use crate::history::History;
use crate::pace::Pace;
use crate::units::narrow;

/// Horizons in minutes. A lead time that moves by seconds with every start must not make everything be learnt anew.
const HORIZONS: [usize; 14] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 45, 60];
/// The horizon until a lead time is known: a model of a few gigabytes is loaded by then.
const FIRST_HORIZON: Duration = Duration::from_secs(300);
/// The finest step of a forecast, and the most points.
const STEP: Duration = Duration::from_secs(10);
const MOST_POINTS: u32 = 180;
/// The span whose mean is the present rate: shorter, and a forecast follows the noise; longer, and it lags a ramp.
const PRESENT: Duration = Duration::from_secs(60);
/// Less of a minute than this, in seconds, says nothing of it.
const LEAST_SEEN: f64 = 10.0;
/// After a change of the past the model is fitted again at most this often.
const FITS_EVERY: Duration = Duration::from_secs(60);
const MINUTE_MILLIS: i64 = 60_000;

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
    /// How far this forecast may be trusted, 0 to 1, by its own record on this workload. 0: the last value says as much.
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

/// Learns from a [`History`] and forecasts.
///
/// All that it knows is a function of the history, the horizon and the time; no state of it needs to be saved.
#[derive(Clone, Debug)]
pub struct Forecaster {
    horizon: usize,
    model: Option<Model>,
    /// The present rate and the share of the minute under way that it covers.
    present: Option<(f64, f64)>,
    /// The history's revision that the model was fitted to, and when.
    fitted: Option<(u64, Now)>,
    parts: Parts,
    pace: Pace,
}

/// The forecast of one minute.
#[derive(Clone, Copy, Debug)]
struct Outlook {
    point: f64,
    lower: f64,
    upper: f64,
}

// === impl Forecaster ===

impl Default for Forecaster {
    fn default() -> Self {
        Self::new(Parts::ALL)
    }
}

impl Forecaster {
    /// Knows nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            horizon: horizon_of(FIRST_HORIZON),
            model: None,
            present: None,
            fitted: None,
            parts,
            pace: Pace::default(),
        }
    }

    /// How it rests while it learns.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The horizon that matters: the experts are judged by what they said this long before. The lead time.
    pub fn set_horizon(&mut self, lead: Duration) {
        let horizon = horizon_of(lead);
        if horizon != self.horizon {
            self.horizon = horizon;
            self.forget();
        }
    }

    /// Forgets what was learnt: the past is another than was thought. The next [`observe`](Self::observe) learns it anew,
    /// and does not wait for its time as it does when a little of the past has changed.
    pub fn forget(&mut self) {
        self.fitted = None;
    }

    /// The horizon in use.
    pub fn horizon(&self) -> Duration {
        Duration::from_secs(60 * self.horizon as u64)
    }

    /// Takes what is new in the history. Once a turn; cheap but for once a minute.
    ///
    /// When the past itself has changed (members' pasts were merged, the clock jumped, the horizon is another), it is
    /// learnt anew: some ten milliseconds, at most once a minute.
    pub fn observe(&mut self, now: Now, history: &History) {
        let minute = now.timestamp.as_millis().div_euclid(MINUTE_MILLIS);
        let since = now.timestamp.as_millis().rem_euclid(MINUTE_MILLIS);
        self.present = history
            .recent(now.timestamp, PRESENT)
            .filter(|seen| {
                seen.seconds >= LEAST_SEEN.min(since as f64 / 1000.0) && seen.rate().is_finite()
            })
            .map(|seen| (seen.rate(), since as f64 / MINUTE_MILLIS as f64));
        let is_due = match (self.fitted, &self.model) {
            (Some((revision, at)), Some(model)) => {
                let jumped =
                    minute < model.end() || minute - model.end() > count(history.minutes_kept());
                let changed = jumped || revision != history.revision();
                changed && now.instant.since(at.instant) >= FITS_EVERY
            }
            _ => true,
        };
        if is_due {
            self.fit(now, history);
        } else if let Some(model) = self.model.as_mut() {
            let from = Timestamp::from_millis(model.end() * MINUTE_MILLIS);
            // A clock that jumped ahead by more than is kept waits for the next fit.
            let until = minute.min(model.end().saturating_add(count(history.minutes_kept())));
            for value in series(history, from, until) {
                model.observe(value, &self.pace);
            }
        }
    }

    /// The demand from now to `ahead` with the upper `quantile` (0.5 to 1), `None` when there is no data at all.
    pub fn forecast(&self, now: Now, ahead: Duration, quantile: f64) -> Option<Forecast> {
        let quantile = if quantile.is_nan() {
            0.95
        } else {
            quantile.clamp(0.5, 0.9999)
        };
        let (origin, state) = self.origin(now)?;
        let step = (ahead / MOST_POINTS).max(STEP);
        let points = ahead
            .as_millis()
            .div_ceil(step.as_millis())
            .clamp(1, u128::from(MOST_POINTS));
        let mut minutes = Minutes::new(self, origin, state, quantile);
        let points = (0..u32::try_from(points).unwrap_or(MOST_POINTS))
            .map(|index| {
                let at = now.timestamp + step * index + step / 2;
                let Outlook {
                    point,
                    lower,
                    upper,
                } = minutes.at(at);
                ForecastPoint {
                    at,
                    point,
                    lower,
                    upper,
                }
            })
            .collect();
        let judged = self.mixture(origin, &state, self.horizon);
        Some(Forecast {
            made: now.timestamp,
            points,
            seasons: self
                .model
                .as_ref()
                .map_or_else(Vec::new, |model| model.seasons.clone()),
            trust: self
                .model
                .as_ref()
                .map_or(0.0, |model| model.calibration.trust()),
            experts: weights_of(&judged),
        })
    }

    /// What was forecast at the end of the last minute before `at` for one horizon later, arrivals a second: the 80 % and
    /// the 99 % quantile. `None` where nothing had been seen, or too long ago to be remembered.
    pub fn foreseen(&self, at: Timestamp) -> Option<[f64; 2]> {
        let minute = at.as_millis().div_euclid(MINUTE_MILLIS);
        self.model.as_ref()?.foreseen(minute - 1)
    }

    /// The newest whole minute, and the state now: the experts that look at the level have seen the minute under way.
    fn origin(&self, now: Now) -> Option<(i64, State)> {
        let minute = now.timestamp.as_millis().div_euclid(MINUTE_MILLIS);
        let known = self
            .model
            .as_ref()
            .and_then(|model| Some((model.end() - 1, model.state()?)));
        match (known, self.present) {
            (Some((origin, state)), Some((rate, share))) => Some((origin, state.next(rate, share))),
            (Some(known), None) => Some(known),
            (None, Some((rate, _share))) => Some((minute - 1, State::first(rate))),
            (None, None) => None,
        }
    }

    fn fit(&mut self, now: Now, history: &History) {
        let minute = now.timestamp.as_millis().div_euclid(MINUTE_MILLIS);
        let Some(span) = history.span() else {
            return;
        };
        let keeps = history.minutes_kept();
        // A checkpoint may be years old; the years since have nothing to teach.
        let base = span
            .start
            .as_millis()
            .div_euclid(MINUTE_MILLIS)
            .max(minute - count(keeps));
        let values = series(
            history,
            Timestamp::from_millis(base * MINUTE_MILLIS),
            minute,
        );
        let known = self.model.as_ref().map_or(&[][..], |model| &model.seasons);
        self.model = Some(Model::fit(
            base,
            &values,
            keeps,
            self.horizon,
            known,
            self.parts,
            &self.pace,
        ));
        self.fitted = Some((history.revision(), now));
    }

    fn mixture(&self, origin: i64, state: &State, ahead: usize) -> Mixture {
        let outlook = |model: &Model| model.outlook(origin, state, ahead);
        self.model.as_ref().map_or_else(
            || Model::new(origin + 1, 1, self.horizon, self.parts).outlook(origin, state, ahead),
            outlook,
        )
    }

    fn outlook(&self, origin: i64, state: &State, ahead: usize, quantile: f64) -> Outlook {
        let mixture = self.mixture(origin, state, ahead);
        let median = mixture.quantile(0.5);
        let raw = mixture.quantile(quantile);
        let upper = self.model.as_ref().map_or(raw, |model| {
            let circumstance = model.circumstance(origin, origin + count(ahead));
            model
                .calibration
                .corrected(quantile, median, raw, circumstance)
        });
        Outlook {
            point: mixture.point,
            lower: mixture.quantile(1.0 - quantile).min(mixture.point),
            upper: upper.max(mixture.point),
        }
    }
}

/// Looks minutes up once and goes straight from the middle of one to the next.
struct Minutes<'a> {
    forecaster: &'a Forecaster,
    origin: i64,
    state: State,
    quantile: f64,
    /// The two newest looked up, by their distance from the origin.
    known: [Option<(usize, Outlook)>; 2],
}

// === impl Minutes ===

impl<'a> Minutes<'a> {
    fn new(forecaster: &'a Forecaster, origin: i64, state: State, quantile: f64) -> Self {
        Self {
            forecaster,
            origin,
            state,
            quantile,
            known: [None; 2],
        }
    }

    fn at(&mut self, at: Timestamp) -> Outlook {
        // In minutes from the middle of the origin.
        let middle = self.origin * MINUTE_MILLIS + MINUTE_MILLIS / 2;
        let distance = (at.as_millis() - middle).max(MINUTE_MILLIS);
        let before = usize::try_from(distance / MINUTE_MILLIS).unwrap_or(1);
        let share = (distance % MINUTE_MILLIS) as f64 / MINUTE_MILLIS as f64;
        let (low, high) = (self.minute(before), self.minute(before + 1));
        let between = |low: f64, high: f64| low + (high - low) * share;
        Outlook {
            point: between(low.point, high.point),
            lower: between(low.lower, high.lower),
            upper: between(low.upper, high.upper),
        }
    }

    fn minute(&mut self, ahead: usize) -> Outlook {
        let known = self
            .known
            .iter()
            .flatten()
            .find(|(minute, _)| *minute == ahead);
        if let Some((_, outlook)) = known {
            return *outlook;
        }
        let outlook = self
            .forecaster
            .outlook(self.origin, &self.state, ahead, self.quantile);
        self.known = [self.known[1], Some((ahead, outlook))];
        outlook
    }
}

/// The rates of the minutes from `from` to `end`; NaN where nobody looked, or hardly.
fn series(history: &History, from: Timestamp, end: i64) -> Vec<f32> {
    history
        .minutes(from..Timestamp::from_millis(end * MINUTE_MILLIS))
        .map(|(_start, bucket)| match bucket {
            Some(bucket) if bucket.seconds >= LEAST_SEEN => narrow(bucket.rate()),
            _ => f32::NAN,
        })
        .collect()
}

fn weights_of(mixture: &Mixture) -> Vec<ExpertWeight> {
    let mut experts: Vec<ExpertWeight> = NAMES
        .iter()
        .zip(mixture.experts)
        .filter_map(|(name, spoke)| {
            let (weight, loss) = spoke?;
            Some(ExpertWeight { name, weight, loss })
        })
        .collect();
    experts.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    experts
}

fn horizon_of(lead: Duration) -> usize {
    let minutes = usize::try_from(lead.as_secs().div_ceil(60)).unwrap_or(usize::MAX);
    let longest = HORIZONS[HORIZONS.len() - 1];
    HORIZONS
        .into_iter()
        .find(|horizon| *horizon >= minutes)
        .unwrap_or(longest)
}
