//! One turn of the right half: from a snapshot of the fleet to a plan, as a pure function of what it is given.
//!
//! The live loop, the demo, the simulator and the live shadows all call [`Controller::turn`]. It keeps what must survive
//! from turn to turn (history, forecaster, stabilisation windows) and nothing else; a takeover rebuilds it from the
//! checkpoint and the members' own rings.

mod shadows;

use std::time::Duration;

use serde::Serialize;

pub use self::shadows::{ShadowState, Shadows};
use crate::ablation::Parts;
use crate::clock::{Instant, Now, Timestamp};
use crate::fleet::Snapshot;
use crate::forecast::{Forecast, ForecastPoint, Forecaster};
use crate::history::{Bucket, History};
use crate::pace::Pace;
use crate::plan::{
    FAST_WINDOW, Inputs, Plan, Planner, Recent, SLOW_WINDOW, Unlearnt, Window, Work,
};
use crate::policy::{LeadTime, Metric, Mode, Policy};
use crate::report::Past;
use crate::tuning::{Advice, Facts, Tuner, reach};

/// The share of cold starts that a plan expects to be no slower. Half of them would be a coin toss on every burst; the
/// very slowest one (a node that had to be bought) would keep a pod too many for ever.
const LEAD_TIME_QUANTILE: f64 = 0.9;
/// What a cold start is taken for until one was seen: the lower end of what loading a model takes on a GPU node.
const ASSUMED_LEAD_TIME: Duration = Duration::from_secs(120);
/// A turn, a patch and the way of a new endpoint to the clients lie around every start. Half of it and pods come as the
/// load does; double and every pod is paid for ten seconds more.
const LEAD_TIME_MARGIN: Duration = Duration::from_secs(10);
/// How far the forecast reaches at least, so that the page has something to show.
const LEAST_AHEAD: Duration = Duration::from_secs(15 * 60);
/// What a request costs changes with the minutes; looked up every turn, it would be most of the turn's time.
const WORK_EVERY_MILLIS: i64 = 10_000;
/// The forecast that is shown; the plan has its own, of each whole minute.
const FORECAST_EVERY_MILLIS: i64 = 60_000;
/// A fleet without its history may shrink again after its leader has seen it whole for this long, or three lead times, or
/// the scale-down window, whichever is longest: a lost `ConfigMap` must not pin a fleet at its maximum.
const WITHOUT_HISTORY: Duration = Duration::from_secs(30 * 60);

/// Everything that survives from turn to turn.
#[derive(Debug)]
pub struct Controller {
    history: History,
    forecaster: Forecaster,
    tuner: Tuner,
    planner: Planner,
    /// The newest forecast, and how far ahead and with which quantile it was asked for.
    forecast: Option<Forecast>,
    asked: (Duration, f64),
    /// What a request costs, and in which slot that was looked up.
    work: Option<(i64, Work)>,
    shadows: Option<Shadows>,
    memory: Memory,
}

/// Whether the past is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// It was read, or there was never anything to read, or enough was seen since.
    Back,
    /// It was not read.
    Awaited {
        /// For how long leaders before this one saw the whole fleet without it.
        carried: Duration,
        /// Since when this leader sees the whole fleet; `None`: it does not.
        complete_since: Option<Instant>,
    },
}

/// What a pod can carry.
#[derive(Clone, Copy, Debug)]
struct Carries {
    /// Requests a second.
    pod_rps: f64,
    /// Requests at once, at that rate (Little's law); `None`: no metric speaks of requests at once.
    slots: Option<f64>,
}

/// What a turn came to.
#[must_use = "a turn nobody acts on scales nothing"]
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// How many replicas, and why.
    pub plan: Plan,
    /// The way to decide that is followed, and its record; `None` while nothing was learnt.
    pub advice: Option<Advice>,
    /// Demand ahead; `None` before anything was seen. It is shown; the ways to decide have asked the forecaster themselves.
    pub forecast: Option<Forecast>,
    /// How long a new pod takes.
    pub lead_time: Lead,
    /// The baselines in the same world; `None` until it is known what a pod serves.
    pub shadows: Option<ShadowStates>,
}

/// How long a new pod takes, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lead {
    /// From asking for a pod to its first answer, at a high quantile.
    pub time: Duration,
    /// How it is known.
    pub source: LeadSource,
}

/// How a lead time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LeadSource {
    /// By the policy.
    Given,
    /// From starts that were seen.
    Measured,
    /// Nothing was seen yet.
    Assumed,
}

/// The baselines at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowStates {
    /// Kubernetes' Horizontal Pod Autoscaler at 70 %.
    pub hpa: ShadowState,
    /// Knative's Pod Autoscaler at 70 %.
    pub kpa: ShadowState,
}

// === impl Turn ===

impl Turn {
    /// The forecast for one lead time after `now`.
    pub fn ahead(&self, now: Timestamp) -> Option<ForecastPoint> {
        let at = now + self.lead_time.time;
        let points = &self.forecast.as_ref()?.points;
        points.iter().find(|point| point.at >= at).copied()
    }
}

// === impl Memory ===

impl Memory {
    const AWAITED: Self = Self::Awaited {
        carried: Duration::ZERO,
        complete_since: None,
    };
}

// === impl Controller ===

impl Controller {
    /// A controller over what is remembered; `None`: the past could not be read, and nothing is lowered until this leader
    /// has seen enough itself.
    pub fn new(history: Option<History>, policy: &Policy) -> Self {
        Self::without(Parts::ALL, history, policy)
    }

    /// As [`Controller::new`], with some parts taken away.
    pub fn without(parts: Parts, history: Option<History>, policy: &Policy) -> Self {
        let memory = match history {
            Some(_) => Memory::Back,
            None => Memory::AWAITED,
        };
        let mut history = history.unwrap_or_else(|| History::new(policy.prediction.history));
        history.set_length(policy.prediction.history);
        Self {
            history,
            forecaster: Forecaster::new(parts),
            tuner: Tuner::new(parts),
            planner: Planner::new(),
            forecast: None,
            asked: (Duration::ZERO, 0.0),
            work: None,
            shadows: None,
            memory,
        }
    }

    /// How its long computations rest.
    pub fn set_pace(&mut self, pace: &Pace) {
        self.forecaster.set_pace(pace.clone());
        self.tuner.set_pace(pace.clone());
    }

    /// All that is remembered.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The past came late: this controller has recorded since `begun`.
    pub fn bring_back(&mut self, past: &History, begun: Timestamp) {
        self.history.merge_earlier(past, begun);
        // What was learnt since knows nothing of it. Both at once: the tuner lives through what was forecast at the time.
        self.forecaster.forget();
        self.tuner.forget();
        self.memory = Memory::Back;
    }

    /// The past that came back was saved by a leader without it, which had seen the whole fleet for so long: it is waited
    /// for as before. Without this, a lost past would count as known from the next handover on.
    pub fn go_on_awaiting(&mut self, seen: Duration) {
        self.memory = Memory::Awaited {
            carried: seen,
            complete_since: None,
        };
    }

    /// For how long the whole fleet was seen without its past; `None`: the past is known, or enough was seen since.
    pub fn awaits(&self, now: Instant) -> Option<Duration> {
        match self.memory {
            Memory::Back => None,
            Memory::Awaited {
                carried,
                complete_since,
            } => Some(carried + complete_since.map_or(Duration::ZERO, |since| now.since(since))),
        }
    }

    /// Adds what a member remembers of the time between the checkpoint and this leader's first turn.
    pub fn remember(&mut self, past: &Past, between: std::ops::Range<Timestamp>) {
        self.history.merge_past(past, between);
    }

    /// Arrivals a second at the fleet in the last ten seconds.
    pub fn arrivals_per_second(&self, now: Timestamp) -> Option<f64> {
        let recent = self.history.recent(now, FAST_WINDOW)?;
        recent.is_observed().then(|| recent.rate())
    }

    /// One turn.
    pub fn turn(&mut self, now: Now, snapshot: &Snapshot, policy: &Policy) -> Turn {
        self.history.record(now.timestamp, &snapshot.load);
        for &took in &snapshot.starts {
            self.history.record_start(took);
        }
        let lead_time = self.lead_time(policy);
        self.forecaster.set_horizon(reach(lead_time.time));
        self.forecaster.observe(now, &self.history);
        let ahead = LEAST_AHEAD.max(lead_time.time + LEAD_TIME_MARGIN);
        let forecast = self.forecast(now, ahead, policy.prediction.quantile);
        let work = self.work(now.timestamp);
        let carries = Carries::of(policy, work);
        let advice = self.advice(now.timestamp, policy, carries, lead_time.time);
        let history_back = self.is_back(now.instant, snapshot, policy, lead_time.time);
        let plan = self.planner.plan(&Inputs {
            now,
            policy,
            snapshot,
            recent: self.recent(now.timestamp),
            work,
            advice,
            lead_time: lead_time.time,
            history_back,
        });
        let shadows = self.shadow(now.instant, snapshot, policy, carries, lead_time.time);
        Turn {
            plan,
            advice: advice.ok(),
            forecast,
            lead_time,
            shadows,
        }
    }

    /// The forecast, made anew every [`FORECAST_EVERY_MILLIS`].
    fn forecast(&mut self, now: Now, ahead: Duration, quantile: f64) -> Option<Forecast> {
        let slot = |at| slot_of(at, FORECAST_EVERY_MILLIS);
        let is_fresh = |forecast: &Forecast| slot(forecast.made) == slot(now.timestamp);
        if self.asked != (ahead, quantile) || !self.forecast.as_ref().is_some_and(is_fresh) {
            self.asked = (ahead, quantile);
            self.forecast = self.forecaster.forecast(now, ahead, quantile);
        }
        self.forecast.clone()
    }

    /// What a request costs. Known, it is looked up every [`WORK_EVERY_MILLIS`]: a day of minutes is sorted for it.
    fn work(&mut self, now: Timestamp) -> Option<Work> {
        let slot = slot_of(now, WORK_EVERY_MILLIS);
        if self.work.is_none_or(|(of, _)| of != slot) {
            self.work = self.history.work(now).map(|work| {
                let work = Work {
                    service_seconds: work.service_seconds,
                    gpu_seconds: work.gpu_seconds,
                };
                (slot, work)
            });
        }
        self.work.map(|(_slot, work)| work)
    }

    /// What would have cost least so far, or why that is not known.
    fn advice(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        carries: Option<Carries>,
        cold_start: Duration,
    ) -> Result<Advice, Unlearnt> {
        let Carries { pod_rps, slots } = carries.ok_or(Unlearnt::Work)?;
        let facts = Facts {
            cost_ratio: policy.prediction.cost_ratio,
            pod_rps,
            slots,
            cold_start,
            bounds: (policy.min_replicas, policy.max_replicas),
        };
        self.tuner
            .observe(now, &self.history, &self.forecaster, facts);
        let advice = self.tuner.advice(now, policy.mode == Mode::Reactive);
        advice.ok_or(if self.tuner.is_replaying(now) {
            Unlearnt::Replay
        } else {
            Unlearnt::Load
        })
    }

    fn lead_time(&self, policy: &Policy) -> Lead {
        let (time, source) = match policy.prediction.lead_time {
            LeadTime::Fixed(given) => (given, LeadSource::Given),
            LeadTime::Auto => match self.history.lead_time(LEAD_TIME_QUANTILE) {
                Some(measured) => (measured + LEAD_TIME_MARGIN, LeadSource::Measured),
                None => (ASSUMED_LEAD_TIME, LeadSource::Assumed),
            },
        };
        Lead { time, source }
    }

    fn recent(&self, now: Timestamp) -> Recent {
        let window = |length| {
            let seen = self.history.recent(now, length).filter(Bucket::is_observed);
            seen.as_ref().map(window).unwrap_or_default()
        };
        Recent {
            slow: window(SLOW_WINDOW),
            fast: window(FAST_WINDOW),
        }
    }

    fn is_back(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        policy: &Policy,
        lead_time: Duration,
    ) -> bool {
        let Memory::Awaited {
            carried,
            complete_since,
        } = &mut self.memory
        else {
            return true;
        };
        if snapshot.unknown() > 0 {
            *complete_since = None;
            return false;
        }
        let since = *complete_since.get_or_insert(now);
        let enough = WITHOUT_HISTORY
            .max(3 * lead_time)
            .max(policy.behavior.scale_down.stabilization_window);
        if *carried + now.since(since) >= enough {
            self.memory = Memory::Back;
        }
        self.memory == Memory::Back
    }

    fn shadow(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        policy: &Policy,
        carries: Option<Carries>,
        cold_start: Duration,
    ) -> Option<ShadowStates> {
        let Carries { pod_rps, .. } = carries?;
        let bounds = (policy.min_replicas, policy.max_replicas);
        let shadows = self.shadows.get_or_insert_with(|| {
            let ready = u32::try_from(snapshot.ready()).unwrap_or(u32::MAX);
            Shadows::new(ready, bounds, pod_rps, cold_start)
        });
        shadows.measured(pod_rps, cold_start);
        shadows.advance(now, snapshot.load.arrivals);
        Some(shadows.read())
    }
}

/// Slots aligned to the wall clock: two runs from the same second agree.
fn slot_of(at: Timestamp, millis: i64) -> i64 {
    at.as_millis().div_euclid(millis)
}

fn window(seen: &Bucket) -> Window {
    let load = &seen.load;
    let gpu = load.gpu_busy_seconds / load.gpu_observed_seconds;
    Window {
        pods: seen.pods(),
        arrivals: seen.rate(),
        in_flight: seen.in_flight(),
        gpu_utilization: gpu.is_finite().then_some(gpu),
    }
}

// === impl Carries ===

impl Carries {
    /// By the metric that allows least; `None`: that is not known yet.
    fn of(policy: &Policy, work: Option<Work>) -> Option<Self> {
        let rates = policy.metrics.iter().filter_map(|metric| match metric {
            Metric::RequestRate { per_second } => Some(*per_second),
            Metric::Concurrency { average_value } => Some(average_value / work?.service_seconds),
            Metric::Gpu {
                average_utilization,
            } => Some(average_utilization / 100.0 / work?.gpu_seconds?),
        });
        let pod_rps = rates
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .min_by(f64::total_cmp)?;
        let is_counted = |metric: &Metric| matches!(metric, Metric::Concurrency { .. });
        let slots = work
            .filter(|_| policy.metrics.iter().any(is_counted))
            .map(|work| pod_rps * work.service_seconds);
        Some(Self { pod_rps, slots })
    }
}

#[cfg(test)]
mod tests;
