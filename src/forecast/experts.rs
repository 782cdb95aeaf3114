//! The experts: simple forecasts, each right about some load.

use super::season::{DAY, WEEK};
use crate::units::narrow;

/// How many there are.
pub(super) const EXPERTS: usize = 8;
/// How many of them repeat an earlier time.
pub(super) const REFERENCES: usize = 5;
/// Their names, stable. The references begin at 3.
pub(super) const NAMES: [&str; EXPERTS] = [
    "lastValue",
    "mean",
    "trend",
    "yesterday",
    "lastWeek",
    "daily",
    "weekly",
    "cycle",
];

/// Weight of a new minute in the mean: a memory of ten minutes, in which the noise of a steady load is a fifth.
const MEAN_GAIN: f64 = 0.1;
/// Holt's gains for level and trend, and what of the trend is left after a minute: a ramp is followed within three
/// minutes, and is not drawn on for more than another ten.
const LEVEL_GAIN: f64 = 0.4;
const TREND_GAIN: f64 = 0.12;
const DAMPING: f64 = 0.9;

/// Periods whose medians are experts of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Periods {
    /// A day was found.
    pub day: bool,
    /// A week was found.
    pub week: bool,
    /// Another period that was found, in minutes.
    pub cycle: Option<usize>,
    /// Nothing that was before is looked up, not even yesterday.
    pub is_without: bool,
}

/// What is known at the end of a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    last: f32,
    mean: f32,
    level: f32,
    trend: f32,
    /// The load of these days: what is small beside it does not matter.
    pub typical: f32,
    /// Today's level over that of each reference.
    pub scale: [f32; REFERENCES],
}

// === impl Periods ===

impl Periods {
    /// The period of each reference in minutes, and over how many of its cycles the median goes.
    pub(super) fn references(self) -> [Option<(usize, usize)>; REFERENCES] {
        if self.is_without {
            return [None; REFERENCES];
        }
        [
            Some((DAY, 1)),
            Some((WEEK, 1)),
            self.day.then_some((DAY, 7)),
            self.week.then_some((WEEK, 3)),
            self.cycle.map(|minutes| (minutes, 8)),
        ]
    }

    /// The periods at whose phase the experts' record is looked up, with the number of cycles.
    pub(super) fn phases(self) -> impl Iterator<Item = (usize, usize)> {
        // The day always: before it can be found, the second day can already learn from the first one's errors.
        let week = self.week.then_some((WEEK, 2));
        let cycle = self.cycle.map(|minutes| (minutes, 5));
        let day = (!self.is_without).then_some((DAY, 5));
        [day, week, cycle].into_iter().flatten()
    }
}

// === impl State ===

impl State {
    /// After the first minute.
    pub(super) fn first(value: f64) -> Self {
        let value = narrow(value);
        Self {
            last: value,
            mean: value,
            level: value,
            trend: 0.0,
            typical: value,
            scale: [1.0; REFERENCES],
        }
    }

    /// After another share (0 to 1) of a minute with that rate.
    pub(super) fn next(mut self, value: f64, share: f64) -> Self {
        let (level, trend) = (
            f64::from(self.level),
            f64::from(self.trend) * DAMPING.powf(share),
        );
        let expected = level + trend * share;
        let error = value - expected;
        self.last = narrow(value);
        self.mean += narrow(MEAN_GAIN * share * (value - f64::from(self.mean)));
        self.level = narrow(expected + LEVEL_GAIN * share * error);
        self.trend = narrow(trend + TREND_GAIN * share * error);
        self
    }

    /// After a minute that nobody saw: nothing is learnt, and a trend does not outlive it for long.
    pub(super) fn unseen(mut self) -> Self {
        self.trend *= 0.5;
        self
    }

    /// The rate of the newest minute.
    pub(super) fn last(&self) -> f32 {
        self.last
    }

    /// The load of these days, `age` minutes after the first.
    pub(super) fn with_typical(mut self, value: f64, age: usize) -> Self {
        let typical = f64::from(self.typical);
        self.typical = narrow(typical + (value - typical) / (age.min(2 * DAY) + 1) as f64);
        self
    }

    /// What each expert says of the minute `ahead` (1: the next); NaN: it has nothing to say.
    pub(super) fn predict(&self, references: &[f32; REFERENCES], ahead: usize) -> [f32; EXPERTS] {
        let steps = i32::try_from(ahead).unwrap_or(i32::MAX);
        let drawn = DAMPING * (1.0 - DAMPING.powi(steps)) / (1.0 - DAMPING);
        let trend = f64::from(self.level) + f64::from(self.trend) * drawn;
        let mut said = [0.0; EXPERTS];
        said[0] = self.last;
        said[1] = self.mean;
        said[2] = narrow(trend.max(0.0));
        for (reference, said) in said[EXPERTS - REFERENCES..].iter_mut().enumerate() {
            *said = references[reference] * self.scale[reference];
        }
        said
    }
}
