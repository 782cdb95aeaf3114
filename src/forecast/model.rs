//! What was learnt from the minutes so far: the experts' states and the errors they would have made.
//!
//! Everything here is a function of the series of minutes and the horizon, computed a minute at a time. So a new leader
//! begins with nearly the record of the old one, without being told: where no season came or went, with the same, else
//! with that of a leader that had known the seasons all along.

mod record;
mod tail;

use std::collections::VecDeque;

use self::tail::Tail;
use super::Season;
use super::calibration::{Calibration, Circumstance, LEVELS, Pending};
use super::experts::{EXPERTS, Periods, REFERENCES, State};
use super::mixture::{Mixture, Record};
use super::season::{DAY, WEEK, detect};
use crate::ablation::Parts;
use crate::pace::Pace;
use crate::units::narrow;

/// Distances at which today's level is compared with that of a reference, half an hour in all. Their median is taken,
/// so that a jump that came three minutes early is no change of level.
const COMPARED: [i64; 7] = [0, 4, 8, 13, 18, 24, 30];
/// Today's level is never more than this many times that of a reference, nor less than its inverse.
const MOST_SCALE: f64 = 4.0;
/// This share of the typical load is added to both sides of the comparison: 0 against 0 is the same level.
const SCALE_FLOOR: f64 = 0.1;
/// A forecast is made every minute of the last four days before a fit, as far back as the plan's rules look, and every third
/// is graded: neighbours have the same fate.
const GRADED_EVERY: i64 = 3;
const MADE_BEFORE_FIT: i64 = 4 * 1_440;
/// The quantiles at the horizon that are remembered for each minute, indices into [`LEVELS`]: 80 % and 99 %.
const REMEMBERED: [usize; 2] = [1, 4];
/// Minutes whose mean is compared with as many before them.
const SLOPE_MINUTES: i64 = 5;
/// Seasons are looked for this often, in minutes.
const SEASONS_EVERY: i64 = 60;

/// After so many minutes that are learnt in a row others may go first: a tenth of a millisecond.
const RESTS_EVERY: usize = 16;

/// The model of one series.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Minutes ahead at which errors are kept, ascending; the horizon that matters is one of them.
    leads: Vec<usize>,
    horizon: usize,
    keeps: usize,
    /// The number of the first minute.
    base: i64,
    /// Arrivals a second by minute; NaN: missing.
    values: Vec<f32>,
    /// The median of a minute and its neighbours: one wild minute is nobody's tomorrow, and a jump stays a jump.
    smooth: Vec<f32>,
    /// What each reference says of a minute, at its own level.
    references: Tail<[f32; REFERENCES]>,
    /// At the end of a minute; `None` before the first that was seen.
    states: Tail<Option<State>>,
    /// What was forecast at the end of a minute for the horizon; NaN: nothing.
    foreseen: Vec<[f32; REMEMBERED.len()]>,
    /// By lead: the errors that forecasts for a minute would have had.
    errors: Vec<Vec<[f32; EXPERTS]>>,
    pub(super) seasons: Vec<Season>,
    periods: Periods,
    pub(super) calibration: Calibration,
    pending: VecDeque<Pending>,
    seen: usize,
    parts: Parts,
}

// === impl Model ===

impl Model {
    /// An empty model that begins with minute `base`, keeps `keeps` minutes and is judged at `horizon` minutes ahead.
    pub(super) fn new(base: i64, keeps: usize, horizon: usize, parts: Parts) -> Self {
        let mut leads = vec![1, horizon.div_ceil(3), horizon, 3 * horizon];
        leads.dedup();
        let kept = COMPARED[COMPARED.len() - 1].max(count(3 * horizon)) + 2;
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        Self {
            errors: vec![Vec::new(); leads.len()],
            leads,
            horizon,
            keeps,
            base,
            values: Vec::new(),
            smooth: Vec::new(),
            references: Tail::new(base, kept),
            states: Tail::new(base, kept),
            foreseen: Vec::new(),
            seasons: Vec::new(),
            periods: Periods {
                is_without: !parts.seasons,
                ..Periods::default()
            },
            calibration: Calibration::new(parts.calibration),
            pending: VecDeque::new(),
            seen: 0,
            parts,
        }
    }

    /// A model fitted to a series that begins with minute `base`.
    pub(super) fn fit(
        base: i64,
        values: &[f32],
        keeps: usize,
        horizon: usize,
        known: &[Season],
        parts: Parts,
        pace: &Pace,
    ) -> Self {
        let mut model = Self::new(base, keeps, horizon, parts);
        if parts.seasons {
            model.adopt(detect(values, known));
        }
        let made_from = base + count(values.len()) - MADE_BEFORE_FIT;
        model.learn(values, made_from, pace);
        model
    }

    /// The number of the minute after the newest.
    pub(super) fn end(&self) -> i64 {
        self.base + count(self.values.len())
    }

    /// Takes the next minute: its rate, or NaN when nobody saw it.
    pub(super) fn observe(&mut self, value: f32, pace: &Pace) {
        self.push(value, true);
        if self.parts.seasons && self.end().rem_euclid(SEASONS_EVERY) == 0 {
            let found = detect(&self.values, &self.seasons);
            if periods_of(&found, self.longest()) == self.periods {
                self.seasons = found;
            } else {
                self.relearn(found, pace);
            }
        }
        if self.values.len() >= self.keeps + DAY {
            self.forget(DAY);
        }
    }

    /// The state at the end of the newest minute; `None` while nothing was seen.
    pub(super) fn state(&self) -> Option<State> {
        self.states.get(self.end() - 1).flatten()
    }

    /// The 80 % and the 99 % quantile that were forecast at the end of a minute for the horizon.
    pub(super) fn foreseen(&self, minute: i64) -> Option<[f64; REMEMBERED.len()]> {
        let said = self.foreseen[self.index(minute)?].map(f64::from);
        said.iter().all(|value| value.is_finite()).then_some(said)
    }

    /// The circumstance in which the minute `target` is forecast at the end of the minute `origin`.
    pub(super) fn circumstance(&self, origin: i64, target: i64) -> Circumstance {
        let mean = |ago: i64| {
            let seen = (ago..ago + SLOPE_MINUTES)
                .filter_map(|ago| Some(f64::from(self.values[self.index(origin - ago)?])))
                .filter(|value| value.is_finite());
            let (sum, count) =
                seen.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            sum / count
        };
        let (new, old) = (mean(0), mean(SLOPE_MINUTES));
        // A request in two seconds more than none is no doubling.
        let slope = (new - old) / (new.max(old) + 0.5);
        Circumstance {
            slope: if slope.is_finite() { slope } else { 0.0 },
            minute: target,
        }
    }

    /// What will be `ahead` minutes after the minute `origin`, from the state at its end.
    pub(super) fn outlook(&self, origin: i64, state: &State, ahead: usize) -> Mixture {
        let target = origin + count(ahead);
        let said = state.predict(&self.references_at(target, origin), ahead);
        // The errors of the next longer lead: a band too wide between two leads, never one too narrow.
        let lead = self
            .leads
            .iter()
            .position(|lead| *lead >= ahead)
            .unwrap_or(self.leads.len() - 1);
        let typical = f64::from(state.typical);
        let records = std::array::from_fn(|expert| {
            if said[expert].is_finite() {
                self.record(
                    expert,
                    lead,
                    origin,
                    target,
                    f64::from(said[expert]),
                    typical,
                )
            } else {
                Record::default()
            }
        });
        Mixture::new(&said, &records, typical)
    }

    /// Learns the same minutes with other seasons. What was forecast so far and its record stay what they were.
    fn relearn(&mut self, seasons: Vec<Season>, pace: &Pace) {
        let mut model = Self::new(self.base, self.keeps, self.horizon, self.parts);
        model.adopt(seasons);
        model.learn(&self.values, i64::MAX, pace);
        model.calibration = std::mem::take(&mut self.calibration);
        model.pending = std::mem::take(&mut self.pending);
        model.foreseen = std::mem::take(&mut self.foreseen);
        *self = model;
    }

    /// Takes many minutes in a row, and makes forecasts from the minute `made_from` on.
    fn learn(&mut self, values: &[f32], made_from: i64, pace: &Pace) {
        for (done, value) in values.iter().enumerate() {
            self.push(*value, self.end() >= made_from);
            if done % RESTS_EVERY == 0 {
                pace.rest();
            }
        }
    }

    fn longest(&self) -> usize {
        self.leads.last().copied().unwrap_or(1)
    }

    fn adopt(&mut self, seasons: Vec<Season>) {
        self.periods = periods_of(&seasons, self.longest());
        self.seasons = seasons;
    }

    fn push(&mut self, value: f32, promises: bool) {
        let value = if value >= 0.0 && value.is_finite() {
            value
        } else {
            f32::NAN
        };
        self.make_room();
        let minute = self.end();
        self.references.push(self.references_at(minute, minute - 1));
        self.values.push(value);
        self.smooth.push(self.median_about(minute));
        if let Some(index) = self.index(minute - 1) {
            // Its right neighbour was not known before.
            self.smooth[index] = self.median_about(minute - 1);
        }
        self.seen += usize::from(value.is_finite());
        for lead in 0..self.leads.len() {
            let errors = self.errors_of(minute, self.leads[lead], f64::from(value));
            self.errors[lead].push(errors);
        }
        let state = self.next_state(minute, f64::from(value));
        self.states.push(state);
        self.grade(minute, f64::from(value));
        let promised = state
            .filter(|_| promises)
            .map(|state| self.promise(minute, &state));
        self.foreseen
            .push(promised.unwrap_or([f32::NAN; REMEMBERED.len()]));
    }

    fn next_state(&self, minute: i64, value: f64) -> Option<State> {
        let before = self.states.get(minute - 1).flatten();
        let mut state = match before {
            _ if value.is_nan() => before?.unseen(),
            None => State::first(value),
            Some(before) => before.next(value, 1.0).with_typical(value, self.seen),
        };
        for (reference, scale) in state.scale.iter_mut().enumerate() {
            *scale = self.scale_of(reference, minute, f64::from(state.typical));
        }
        Some(state)
    }

    /// Scores the forecasts that were made for this minute.
    fn grade(&mut self, minute: i64, truth: f64) {
        while let Some(pending) = self
            .pending
            .front()
            .copied()
            .filter(|p| p.circumstance.minute <= minute)
        {
            self.pending.pop_front();
            if pending.circumstance.minute == minute && truth.is_finite() {
                self.calibration.score(&pending, truth);
            }
        }
    }

    /// Makes the forecast of the horizon; some are graded.
    fn promise(&mut self, minute: i64, state: &State) -> [f32; REMEMBERED.len()] {
        let mixture = self.outlook(minute, state, self.horizon);
        let circumstance = self.circumstance(minute, minute + count(self.horizon));
        let median = mixture.quantile(0.5);
        let levels = LEVELS.map(|level| {
            let raw = mixture.quantile(level);
            self.calibration.corrected(level, median, raw, circumstance)
        });
        if minute.rem_euclid(GRADED_EVERY) == 0 {
            self.pending.push_back(Pending {
                circumstance,
                levels,
                median,
                last: f64::from(state.last()),
                typical: f64::from(state.typical),
            });
        }
        REMEMBERED.map(|level| narrow(levels[level]))
    }

    fn errors_of(&self, minute: i64, lead: usize, truth: f64) -> [f32; EXPERTS] {
        let Some(state) = self.states.get(minute - count(lead)).flatten() else {
            return [f32::NAN; EXPERTS];
        };
        let references = self.references.get(minute);
        let references = references.unwrap_or([f32::NAN; REFERENCES]);
        state
            .predict(&references, lead)
            .map(|said| narrow(truth - f64::from(said)))
    }

    /// What each reference says of a minute, from what was known at `origin`.
    fn references_at(&self, minute: i64, origin: i64) -> [f32; REFERENCES] {
        if let Some(known) = self.references.get(minute) {
            return known;
        }
        self.periods.references().map(|reference| {
            let Some((period, cycles)) = reference else {
                return f32::NAN;
            };
            // Further ahead than a period: the newest cycle stands for those to come.
            let back = usize::try_from(minute - origin)
                .unwrap_or(1)
                .div_ceil(period)
                .max(1);
            let mut values = [f32::NAN; 8];
            let mut found = 0;
            for cycle in back..back + cycles.min(8) {
                let value = self
                    .index(minute - count(period * cycle))
                    .map(|index| self.smooth[index]);
                if let Some(value) = value.filter(|value| value.is_finite()) {
                    values[found] = value;
                    found += 1;
                }
            }
            median(&mut values[..found])
        })
    }

    /// Today's level over that of a reference: the median of the last half hour.
    fn scale_of(&self, reference: usize, minute: i64, typical: f64) -> f32 {
        let floor = (SCALE_FLOOR * typical).max(1e-9);
        let mut ratios = [f32::NAN; COMPARED.len()];
        let mut found = 0;
        for age in COMPARED {
            let Some(index) = self.index(minute - age) else {
                break;
            };
            let theirs = self.references.get(minute - age);
            let theirs = theirs.map_or(f64::NAN, |said| f64::from(said[reference]));
            let ours = f64::from(self.values[index]);
            let ratio = (ours + floor) / (theirs + floor);
            if ratio.is_finite() {
                ratios[found] = narrow(ratio.clamp(1.0 / MOST_SCALE, MOST_SCALE));
                found += 1;
            }
        }
        let scale = median(&mut ratios[..found]);
        if scale.is_finite() { scale } else { 1.0 }
    }

    fn median_about(&self, minute: i64) -> f32 {
        let mut near = [f32::NAN; 3];
        let mut found = 0;
        for offset in -1..=1 {
            let value = self.index(minute + offset).map(|index| self.values[index]);
            if let Some(value) = value.filter(|value| value.is_finite()) {
                near[found] = value;
                found += 1;
            }
        }
        median(&mut near[..found])
    }

    fn index(&self, minute: i64) -> Option<usize> {
        let index = usize::try_from(minute.checked_sub(self.base)?).ok()?;
        (index < self.values.len()).then_some(index)
    }

    /// A day at a time: doubled, two weeks would take the room of four.
    fn make_room(&mut self) {
        if self.values.len() < self.values.capacity() {
            return;
        }
        self.values.reserve_exact(DAY);
        self.smooth.reserve_exact(DAY);
        self.foreseen.reserve_exact(DAY);
        for errors in &mut self.errors {
            errors.reserve_exact(DAY);
        }
    }

    fn forget(&mut self, minutes: usize) {
        self.values.drain(..minutes);
        self.smooth.drain(..minutes);
        self.foreseen.drain(..minutes);
        for errors in &mut self.errors {
            errors.drain(..minutes);
        }
        self.base += count(minutes);
    }
}

fn periods_of(seasons: &[Season], longest_lead: usize) -> Periods {
    let mut periods = Periods::default();
    let mut strongest = 0.0;
    for season in seasons {
        let minutes = usize::try_from(season.period.as_secs() / 60).unwrap_or(0);
        match minutes {
            DAY => periods.day = true,
            WEEK => periods.week = true,
            0 => {}
            _ if season.strength > strongest => {
                strongest = season.strength;
                // As many cycles as have to be over when it is asked for the longest lead ahead.
                periods.cycle = Some(minutes * (longest_lead + 2).div_ceil(minutes));
            }
            _ => {}
        }
    }
    periods
}

/// NaN of nothing; of an even number the mean of the middle two.
fn median(values: &mut [f32]) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    match values {
        [] => f32::NAN,
        _ if values.len() % 2 == 1 => values[values.len() / 2],
        _ => f32::midpoint(values[values.len() / 2 - 1], values[values.len() / 2]),
    }
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_weeks_of_minutes_take_less_than_four_mebibytes() {
        let mut model = Model::new(0, 14 * DAY, 5, Parts::ALL);
        for _minute in 0..15 * DAY - 1 {
            model.push(30.0, false);
        }
        let by_minute = size_of::<[f32; 2]>() + size_of::<[f32; REMEMBERED.len()]>();
        let mut bytes = model.values.capacity() * by_minute;
        for errors in &model.errors {
            bytes += errors.capacity() * size_of::<[f32; EXPERTS]>();
        }
        assert!(model.values.len() == 15 * DAY - 1 && model.foreseen.len() == model.values.len());
        assert!(bytes < 4 << 20, "{bytes}");
    }
}
