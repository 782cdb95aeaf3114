//! How to look ahead and how much to keep in hand, learnt from what each way would have cost.
//!
//! There is no one headroom that is right: a calm service wastes a third of its pods on one that a bursty service drowns
//! with. So many candidates, each a [`Sight`] (a way to look ahead), a headroom, a time for which a pod is kept and a
//! pace at which a backlog is cleared, live through the fleet's own arrivals in small worlds of their own ([`life`]), from
//! the first minute on. Each pays for its pods and for the requests that it makes wait; the one with the least cost of
//! late is followed. The reactive rules are among the candidates, so the plan is never worse than they are for long.
//!
//! This is "follow the leader" of prediction with expert advice, with discounted losses (N. Cesa-Bianchi and G. Lugosi,
//! Prediction, Learning, and Games, 2006, chapter 2). Its weakness is a tail that was not seen yet: a candidate that was
//! lucky so far is cheap. So each also bears a share of what a tighter one suffered ([`NEIGHBOURS_SHARE`]).
//!
//! All of it is a function of the history, ten seconds at a time: a new leader replays the last days and goes on where
//! the old one stood.

pub(crate) mod backlog;
mod candidates;
mod life;
mod queue;
mod sight;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

pub use self::candidates::LONGEST_HOLD;
use self::candidates::candidates;
use self::life::Life;
use self::sight::MARGIN_SECS;
pub use self::sight::Sight;
use self::sight::Sights;
use crate::ablation::Parts;
use crate::clock::Timestamp;
use crate::forecast::Forecaster;
use crate::history::{Bucket, History};
use crate::pace::Pace;

/// The step of the candidates' worlds. Cold starts are ten times as long or more.
const SLOT_MILLIS: i64 = 10_000;
const SLOT_SECS: f64 = 10.0;
/// A slot of which less was observed, in seconds, counts as missing.
const LEAST_SEEN: f64 = 2.0;
/// Costs count half after this time: a day and a half, so that yesterday's peak still counts when today's comes. At 12 h
/// each night forgets the day; at 96 h a service that changed pays for the old one for a week.
const HALF_LIFE_SECS: f64 = 36.0 * 3_600.0;
/// This far back the candidates' lives begin when a history is found: two and a half half-lives.
const LIVES_BACK_SLOTS: i64 = 4 * 8_640;
/// So much more is read before, for the seasons.
const SEASONS_BACK_SLOTS: i64 = 7 * 8_640 + 360;
/// Slots replayed in one turn at most: some tens of milliseconds of the control thread.
const SLOTS_A_TURN: i64 = 5_000;
/// After so many of them others may go first: a tenth of a millisecond.
const RESTS_EVERY_SLOTS: i64 = 32;
/// A clock that went back by more than this makes everything be learnt anew.
const LONGEST_STEP_BACK_SLOTS: i64 = 360;
/// The candidates are compared this often.
const COMPARED_EVERY_SLOTS: i64 = 30;
/// Share of what the next tighter candidate suffered that a candidate bears. 0 believes in luck (one case of the suite at
/// three times its best), a half keeps a fifth more pods than are ever needed. The first hours have seen little, so
/// more is borne at their beginning, and half of that after some eight hours.
const NEIGHBOURS_SHARE: f64 = 0.15;
const NEIGHBOURS_SHARE_FIRST: f64 = 0.5;
const FIRST_SECS: f64 = 12.0 * 3_600.0;
/// Headroom that was right most often, and how many pod-hours of doubt are held against being a factor of e away from it.
const PRIOR_HEADROOM: f64 = 1.65;
const PRIOR_POD_SECS: f64 = 7_200.0;

/// What the candidates' worlds are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// What a pod carries, requests a second; above 0.
    pub pod_rps: f64,
    /// From asking for a pod to its first answer.
    pub cold_start: Duration,
    /// The fewest and the most pods.
    pub bounds: (u32, u32),
    /// What a request that waits too long costs, in multiples of the pod-time that it needs.
    pub cost_ratio: f64,
    /// Requests that a pod serves at once; `None`: it is a rate that it serves, however that comes about.
    pub slots: Option<f64>,
}

/// One way to decide.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// How it looks ahead.
    pub sight: Sight,
    /// Capacity asked for, as a multiple of the rate that it sees coming.
    pub headroom: f64,
    /// For how long it keeps what it once asked for.
    pub hold: Duration,
    /// The time in which it wants a backlog to be gone.
    pub drain: Duration,
}

/// What the best candidate asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Advice {
    /// The candidate.
    pub candidate: Candidate,
    /// Arrivals a second that it sees coming within the cold start.
    pub rate: f64,
    /// Pods for that rate with its headroom, without any backlog.
    pub need: f64,
    /// What a pod carries, requests a second.
    pub pod_rps: f64,
    /// Its record: pod-hours paid for, counted down with age.
    pub pod_hours: f64,
    /// Requests that waited too long in its world, counted down likewise.
    pub late: f64,
    /// How many candidates were compared.
    pub compared: usize,
}

/// Lets all candidates live, and knows the best.
#[derive(Clone, Debug)]
pub struct Tuner {
    candidates: Vec<Candidate>,
    /// For each candidate the next tighter of its kind.
    tighter: Vec<usize>,
    lives: Vec<Life>,
    sights: Sights,
    /// The slot that comes next; `None`: nothing was seen.
    next: Option<i64>,
    /// Lives begin with this slot.
    begins: i64,
    facts: Option<Facts>,
    best: Best,
    /// The most pods' worth of load that was lived through: beyond it, no record says anything.
    known_pods: f64,
    /// Slots lived through.
    age: u32,
    parts: Parts,
    pace: Pace,
}

/// What came in a slot.
#[derive(Clone, Copy, Debug)]
struct Arrivals {
    /// A second.
    rate: f64,
    /// In the slot's busiest second: a burst that is over within it does not show in the mean.
    busiest: f64,
}

/// The cheapest of all candidates, and of those that only look at the present.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    any: usize,
    reactive: usize,
}

/// How far ahead a forecast is needed where a new pod takes `cold_start`.
pub fn reach(cold_start: Duration) -> Duration {
    cold_start.saturating_add(Duration::from_secs_f64(MARGIN_SECS))
}

// === impl Tuner ===

impl Tuner {
    /// Knows nothing yet.
    pub fn new(parts: Parts) -> Self {
        let candidates = candidates(parts);
        let tighter = (0..candidates.len())
            .map(|index| candidates::tighter(&candidates, index))
            .collect();
        Self {
            candidates,
            tighter,
            lives: Vec::new(),
            sights: Sights::new(parts.seasons),
            next: None,
            begins: 0,
            facts: None,
            best: Best::default(),
            known_pods: 0.0,
            age: 0,
            parts,
            pace: Pace::default(),
        }
    }

    /// Takes what is new in the history, and what was forecast from it. Once a turn; costs some microseconds every ten
    /// seconds.
    pub fn observe(
        &mut self,
        now: Timestamp,
        history: &History,
        forecaster: &Forecaster,
        facts: Facts,
    ) {
        let end = now.as_millis().div_euclid(SLOT_MILLIS);
        if self
            .next
            .is_some_and(|next| next - end > LONGEST_STEP_BACK_SLOTS)
        {
            self.forget();
        }
        self.facts = Some(facts);
        let next = self.next.unwrap_or_else(|| {
            let held = history
                .span()
                .map_or(end, |span| span.start.as_millis().div_euclid(SLOT_MILLIS));
            self.begins = held.max(end - LIVES_BACK_SLOTS);
            held.max(end - LIVES_BACK_SLOTS - SEASONS_BACK_SLOTS)
        });
        let until = end.min(next.saturating_add(SLOTS_A_TURN));
        if until <= next {
            self.next = Some(next);
            return;
        }
        let at = |slot: i64| Timestamp::from_millis(slot.saturating_mul(SLOT_MILLIS));
        let mut minute = None;
        for (start, bucket) in history.tens(at(next)..at(until)) {
            let slot = start.as_millis().div_euclid(SLOT_MILLIS);
            // The finest that is still held.
            let arrivals = Arrivals::of(bucket).or_else(|| {
                let of = slot.div_euclid(6);
                let is_first = minute.is_none_or(|(before, _)| before != of);
                if is_first {
                    let whole = history
                        .minutes(start..start + Duration::from_secs(1))
                        .next();
                    minute = Some((of, Arrivals::of(whole.and_then(|(_, bucket)| bucket))));
                }
                let arrivals = minute.and_then(|(_, arrivals)| arrivals);
                // A minute has one busiest second.
                arrivals.map(|all| if is_first { all } else { all.level() })
            });
            self.live(slot, arrivals, forecaster.foreseen(start), &facts);
            if slot % RESTS_EVERY_SLOTS == 0 {
                self.pace.rest();
            }
        }
        self.next = Some(until);
    }

    /// Forgets all: the past is another than was thought, and is replayed.
    pub fn forget(&mut self) {
        *self = Self {
            pace: std::mem::take(&mut self.pace),
            ..Self::new(self.parts)
        };
    }

    /// How it rests while it replays.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// What the best candidate asks for now; `reactive`: of those that only look at the present. `None` while nothing was
    /// seen, or while the past is still being replayed.
    pub fn advice(&self, now: Timestamp, reactive: bool) -> Option<Advice> {
        let facts = self.facts?;
        if self.lives.is_empty() || self.is_replaying(now) {
            return None;
        }
        let index = if reactive {
            self.best.reactive
        } else {
            self.best.any
        };
        let (candidate, life) = (self.candidates.get(index)?, self.lives.get(index)?);
        let rate = self.sights.rate(candidate.sight)?;
        Some(Advice {
            candidate: *candidate,
            rate,
            need: rate * candidate.headroom / facts.pod_rps,
            pod_rps: facts.pod_rps,
            pod_hours: life.pod_secs / 3_600.0,
            late: life.late,
            compared: self.candidates.len(),
        })
    }

    /// Whether a part of the past is not lived through yet.
    pub fn is_replaying(&self, now: Timestamp) -> bool {
        let end = now.as_millis().div_euclid(SLOT_MILLIS);
        self.next.is_some_and(|next| next < end)
    }

    /// Ten seconds pass in all worlds; `None`: nobody looked, and the worlds stand still.
    fn live(
        &mut self,
        slot: i64,
        arrivals: Option<Arrivals>,
        foreseen: Option<[f64; 2]>,
        facts: &Facts,
    ) {
        let cold_start = facts.cold_start.as_secs_f64();
        let rate = arrivals.map(|arrivals| arrivals.rate);
        self.sights.see(slot, rate, cold_start, foreseen);
        let Some(arrivals) = arrivals.filter(|_| slot >= self.begins) else {
            return;
        };
        let rate = arrivals.rate;
        if self.lives.is_empty() {
            self.be_born(rate, facts);
        }
        let decay = 0.5_f64.powf(SLOT_SECS / HALF_LIFE_SECS);
        let seen = Sight::ALL.map(|sight| self.sights.rate(sight).unwrap_or(rate));
        let level = seen[Sight::Level as usize];
        self.doubt_anew(level / facts.pod_rps);
        for (candidate, life) in self.candidates.iter().zip(&mut self.lives) {
            life.pass(arrivals, facts, decay);
            let need = seen[candidate.sight as usize] * candidate.headroom / facts.pod_rps;
            life.ask(need, level, candidate, facts);
        }
        self.age = self.age.saturating_add(1);
        if slot.rem_euclid(COMPARED_EVERY_SLOTS) == 0 {
            self.compare(facts);
        }
    }

    fn be_born(&mut self, rate: f64, facts: &Facts) {
        let pods = PRIOR_HEADROOM * rate / facts.pod_rps;
        self.lives = (self.candidates.iter())
            .map(|_| Life::new(pods, facts))
            .collect();
        // All headrooms of a load below one pod come to one pod, or two: that tells nothing of more.
        self.known_pods = 0.0;
        self.doubt_anew((rate / facts.pod_rps).max(1.0));
        self.compare(facts);
    }

    /// A record counts for the load that it was made at. Each pod's worth that was never seen before is doubted as the first one
    /// was: after a jump from four requests a second to forty, the tightest headroom has no record of a queue, because at one
    /// pod it never had one.
    fn doubt_anew(&mut self, pods: f64) {
        let unknown = pods - self.known_pods;
        if unknown <= 0.0 || unknown.is_nan() {
            return;
        }
        self.known_pods = pods;
        for (candidate, life) in self.candidates.iter().zip(&mut self.lives) {
            let away = (candidate.present_headroom() / PRIOR_HEADROOM).ln();
            life.doubt += PRIOR_POD_SECS * away * away * unknown;
        }
    }

    fn compare(&mut self, facts: &Facts) {
        let late_cost = facts.cost_ratio / facts.pod_rps;
        let age = f64::from(self.age) * SLOT_SECS;
        let share = NEIGHBOURS_SHARE + NEIGHBOURS_SHARE_FIRST * (-age / FIRST_SECS).exp();
        let cost = |index: usize| {
            let (own, near) = (&self.lives[index], &self.lives[self.tighter[index]]);
            let late = own.late + share * (near.late - own.late);
            own.doubt + own.pod_secs + late_cost * late
        };
        let cheapest = |reactive: bool| {
            (0..self.lives.len())
                .filter(|index| !reactive || self.candidates[*index].sight == Sight::Level)
                .min_by(|a, b| cost(*a).total_cmp(&cost(*b)))
        };
        self.best = Best {
            any: if self.parts.tuning {
                cheapest(false).unwrap_or(0)
            } else {
                candidates::untuned(&self.candidates)
            },
            reactive: cheapest(true).unwrap_or(0),
        };
    }
}

// === impl Arrivals ===

impl Arrivals {
    /// `None`: too little was seen of the slot.
    fn of(bucket: Option<Bucket>) -> Option<Self> {
        let bucket = bucket.filter(|bucket| bucket.seconds >= LEAST_SEEN)?;
        let (rate, busiest) = (bucket.rate(), bucket.busiest());
        let is_rate = |rate: f64| rate.is_finite() && rate >= 0.0;
        (is_rate(rate) && is_rate(busiest)).then_some(Self { rate, busiest })
    }

    /// The same, evenly spread.
    fn level(self) -> Self {
        Self {
            busiest: self.rate,
            ..self
        }
    }
}
