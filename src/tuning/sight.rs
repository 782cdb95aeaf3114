//! Ways to look ahead: what each says will arrive within a cold start.
//!
//! They are simple on purpose. Which one is right differs from service to service and from week to week, and that is
//! found out by what it would have cost, not argued.

use std::collections::VecDeque;

use serde::Serialize;

use crate::units::narrow;

const SLOTS_A_MINUTE: i64 = 6;
const DAY_MINUTES: usize = 1_440;
/// Days whose course is looked at.
const DAYS: usize = 7;
/// Minutes kept: the days, and what is drained at once.
const MINUTES_KEPT: usize = (DAYS + 1) * DAY_MINUTES;
/// Slots whose mean is the present level: a minute.
const LEVEL_SLOTS: usize = 6;
/// A ramp is what came in this minute over what came two minutes before.
const RAMP_SLOTS: usize = 18;
/// Standard deviations of a Poisson count that are no burst.
const BURST_NOISE: f64 = 2.0;
/// How a trend fades, per minute: a rise of ten minutes seldom goes on for an hour.
const TREND_DAMPING: f64 = 0.9;
/// Until a turn has asked and a new pod has been found, in seconds.
pub(super) const MARGIN_SECS: f64 = 15.0;
/// A pattern of the past makes the present at most so many times as large: a day that began at nothing is no pattern.
const MOST_GROWTH: f64 = 8.0;
/// Arrivals a second added to both sides of a ratio: nothing to one is no growth without bound.
const RATIO_FLOOR: f64 = 0.5;

/// A way to look ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Sight {
    /// What is now stays: the reactive rule.
    Level,
    /// The trend of the last ten minutes, damped.
    Trend,
    /// The rise of the last two minutes goes on, or the season says more.
    Ramp,
    /// As the median of the last seven days went on from here, or the trend says more.
    Season,
    /// As one of the steepest of the last seven days went on from here.
    HighSeason,
    /// As high as the median of the last seven days was at this time.
    SeasonLevel,
    /// The forecast's 80 % quantile at the cold start, or the present level.
    Forecast80,
    /// Its 99 % quantile, or the present level.
    Forecast99,
    /// The highest of the last hour.
    PeakOfHour,
    /// The highest of the last six hours.
    PeakOfSixHours,
    /// The highest of the last day.
    PeakOfDay,
}

/// What is needed to look, ten seconds at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Sights {
    /// The newest slots, oldest first; NaN: missing.
    slots: VecDeque<f64>,
    /// Sum and count of the minute under way.
    minute: (f64, u32),
    /// Minutes, oldest first, and a short mean of them; NaN: missing.
    minutes: Vec<f32>,
    smooth: Vec<f32>,
    /// The last seven days' growth from this time of day to the highest within the cold start, and those heights; both
    /// ascending.
    growth: Vec<f64>,
    heights: Vec<f64>,
    peaks: [Peak; 3],
    /// The days before are not looked at.
    is_without_seasons: bool,
    rates: Option<[f64; Sight::ALL.len()]>,
}

/// The highest of a trailing span.
#[derive(Clone, Debug, Default)]
struct Peak(VecDeque<(i64, f64)>);

// === impl Sight ===

impl Sight {
    /// All, those that see least first.
    pub const ALL: [Self; 11] = [
        Self::Level,
        Self::Trend,
        Self::Ramp,
        Self::Season,
        Self::HighSeason,
        Self::SeasonLevel,
        Self::Forecast80,
        Self::Forecast99,
        Self::PeakOfHour,
        Self::PeakOfSixHours,
        Self::PeakOfDay,
    ];

    /// For a sentence: "it looks at ...".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Level => "the present level",
            Self::Trend => "the trend of ten minutes",
            Self::Ramp => "the ramp of two minutes and the usual course of the day",
            Self::Season => "the usual course of the day and the trend",
            Self::HighSeason => "the steepest days at this time",
            Self::SeasonLevel => "the usual height at this time",
            Self::Forecast80 => "the forecast's 80 % quantile",
            Self::Forecast99 => "the forecast's 99 % quantile",
            Self::PeakOfHour => "the peak of the last hour",
            Self::PeakOfSixHours => "the peak of the last six hours",
            Self::PeakOfDay => "the peak of the last day",
        }
    }

    /// Whether it knows the days before.
    pub(super) const fn is_seasonal(self) -> bool {
        matches!(self, Self::Season | Self::HighSeason | Self::SeasonLevel)
    }

    /// Whether it is the forecaster's.
    pub(super) const fn is_forecast(self) -> bool {
        matches!(self, Self::Forecast80 | Self::Forecast99)
    }

    /// Whether it says something of what has not come yet.
    pub(super) const fn looks_ahead(self) -> bool {
        !self.is_peak() && !matches!(self, Self::Level)
    }

    pub(super) const fn is_peak(self) -> bool {
        matches!(
            self,
            Self::PeakOfHour | Self::PeakOfSixHours | Self::PeakOfDay
        )
    }
}

// === impl Sights ===

impl Sights {
    /// Nothing was seen yet; `seasons`: the days before will be looked at.
    pub(super) fn new(seasons: bool) -> Self {
        Self {
            is_without_seasons: !seasons,
            ..Self::default()
        }
    }

    /// What `sight` says will arrive, a second; `None` before anything was seen.
    pub(super) fn rate(&self, sight: Sight) -> Option<f64> {
        self.rates.map(|rates| rates[sight as usize])
    }

    /// Ten seconds have passed; `foreseen`: what the forecaster said for a cold start later, its two quantiles.
    pub(super) fn see(
        &mut self,
        slot: i64,
        rate: Option<f64>,
        cold_start_secs: f64,
        foreseen: Option<[f64; 2]>,
    ) {
        if self.slots.len() == RAMP_SLOTS {
            self.slots.pop_front();
        }
        self.slots.push_back(rate.unwrap_or(f64::NAN));
        if let Some(rate) = rate {
            self.minute.0 += rate;
            self.minute.1 += 1;
        }
        let ahead = (cold_start_secs + MARGIN_SECS) / 60.0;
        if slot.rem_euclid(SLOTS_A_MINUTE) == SLOTS_A_MINUTE - 1 {
            self.end_minute();
            if !self.is_without_seasons {
                self.look_back(ahead);
            }
        }
        if rate.is_some() {
            self.look_ahead(slot, ahead, foreseen);
        }
    }

    fn end_minute(&mut self) {
        let (sum, count) = std::mem::take(&mut self.minute);
        let mean = if count > 0 {
            narrow(sum / f64::from(count))
        } else {
            f32::NAN
        };
        if self.minutes.len() == MINUTES_KEPT {
            self.minutes.drain(..DAY_MINUTES / 2);
            self.smooth.drain(..DAY_MINUTES / 2);
        }
        self.minutes.push(mean);
        self.smooth.push(mean);
        let count = self.minutes.len();
        // Its right neighbour was not known before.
        if let Some(before) = count.checked_sub(2) {
            self.smooth[before] = narrow(mean_of(&self.minutes[count.saturating_sub(3)..]));
        }
    }

    /// How the last days went on from this time of day.
    fn look_back(&mut self, ahead: f64) {
        self.growth.clear();
        self.heights.clear();
        let count = self.minutes.len();
        let reach = whole(ahead.ceil());
        for day in 1..=DAYS {
            let Some(then) = count.checked_sub(day * DAY_MINUTES).filter(|it| *it >= 3) else {
                break;
            };
            let base = mean_of(&self.smooth[then - 3..then]);
            let end = (then + reach + 1).min(count);
            let height = self.smooth[then..end]
                .iter()
                .copied()
                .fold(f32::NAN, f32::max);
            let height = f64::from(height);
            if base.is_finite() && height.is_finite() {
                self.growth
                    .push((height + RATIO_FLOOR) / (base + RATIO_FLOOR));
                self.heights.push(height);
            }
        }
        self.growth.sort_unstable_by(f64::total_cmp);
        self.heights.sort_unstable_by(f64::total_cmp);
    }

    fn look_ahead(&mut self, slot: i64, ahead: f64, foreseen: Option<[f64; 2]>) {
        let slow = self.mean_of_slots(LEVEL_SLOTS, 0);
        let fast = self.mean_of_slots(2, 0);
        let noise = BURST_NOISE * (fast.max(0.0) / 20.0).sqrt();
        let level = slow.max(fast - noise);
        let damped = (1.0 - TREND_DAMPING.powf(ahead + 1.0)) / (1.0 - TREND_DAMPING);
        let trend = level + self.slope().max(0.0) * damped;
        let ramp = level + self.ramp() * (ahead + 0.5);
        let grown = |quantile: f64| {
            quantile_of(&self.growth, quantile)
                .map_or(level, |growth| level * growth.clamp(1.0, MOST_GROWTH))
        };
        let height = quantile_of(&self.heights, 0.5).unwrap_or(level);
        let (season, high) = (grown(0.5), grown(0.85));
        let [likely, extreme] = foreseen.unwrap_or([level; 2]);
        let spans = [360, 6 * 360, 24 * 360];
        let mut peaks = spans.into_iter().zip(&mut self.peaks);
        let mut peak = || {
            peaks
                .next()
                .map_or(level, |(span, peak)| peak.of(slot, span, level))
        };
        self.rates = Some([
            level,
            trend,
            ramp.max(season),
            trend.max(season),
            trend.max(high),
            trend.max(height),
            level.max(likely),
            level.max(extreme),
            peak(),
            peak(),
            peak(),
        ]);
    }

    /// Arrivals a second that are added each minute: of two looks at the last ten minutes the smaller, and none where
    /// they differ in sign.
    fn slope(&self) -> f64 {
        let count = self.minutes.len();
        if count < 10 {
            return 0.0;
        }
        let mean = |from: usize, to: usize| mean_of(&self.minutes[count - from..count - to]);
        let new = mean(2, 0);
        let (long, short) = ((new - mean(10, 7)) / 7.5, (new - mean(6, 3)) / 3.5);
        if long * short > 0.0 {
            if long.abs() < short.abs() {
                long
            } else {
                short
            }
        } else {
            0.0
        }
    }

    /// The same of the last two minutes, as far as it is no noise.
    fn ramp(&self) -> f64 {
        if self.slots.len() < RAMP_SLOTS {
            return 0.0;
        }
        let (new, old) = (
            self.mean_of_slots(LEVEL_SLOTS, 0),
            self.mean_of_slots(LEVEL_SLOTS, 2 * LEVEL_SLOTS),
        );
        let noise = ((new + old) / 60.0).sqrt();
        ((new - old - noise) / 2.0).max(0.0)
    }

    /// The mean of `count` slots that end `ago` slots before now; NaN of none.
    fn mean_of_slots(&self, count: usize, ago: usize) -> f64 {
        let seen = self.slots.iter().rev().skip(ago).take(count);
        let seen = seen.filter(|rate| rate.is_finite());
        let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        sum / count
    }
}

// === impl Peak ===

impl Peak {
    /// The highest of the last `span` slots, this one with `level` included.
    fn of(&mut self, slot: i64, span: i64, level: f64) -> f64 {
        while self.0.back().is_some_and(|(_, least)| *least <= level) {
            self.0.pop_back();
        }
        self.0.push_back((slot, level));
        while self.0.front().is_some_and(|(at, _)| *at < slot - span) {
            self.0.pop_front();
        }
        self.0.front().map_or(level, |(_, most)| *most)
    }
}

fn mean_of(values: &[f32]) -> f64 {
    let seen = values.iter().filter(|value| value.is_finite());
    let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), value| {
        (sum + f64::from(*value), count + 1.0)
    });
    sum / count
}

/// Between two ranks in proportion; `None` of nothing.
fn quantile_of(ascending: &[f64], quantile: f64) -> Option<f64> {
    let rank = quantile * ascending.len().checked_sub(1)? as f64;
    let low = whole(rank.floor());
    let share = rank - rank.floor();
    let (below, above) = (ascending.get(low)?, ascending.get(low + 1));
    Some(below + share * (above.unwrap_or(below) - below))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small count; NaN becomes 0"
)]
fn whole(value: f64) -> usize {
    value.clamp(0.0, 1e6) as usize
}
