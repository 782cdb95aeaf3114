//! Holt-Winters: a level, a trend that is damped, and a day that repeats, all additive.
//!
//! The equations are those of Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", third edition, section 8.3
//! (component form, damped trend). The first day begins without a season; at its end, each minute's difference from the
//! day's mean becomes one.

use super::DAY;

/// How fast each part follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gains {
    level: f64,
    trend: f64,
    season: f64,
    damping: f64,
}

/// The state after the newest minute.
#[derive(Clone, Debug)]
pub(super) struct HoltWinters {
    gains: Gains,
    /// `None` before the first minute that was observed.
    level: Option<f64>,
    trend: f64,
    /// By the minute of the day, counted from the first minute.
    season: Vec<f64>,
    minutes: usize,
    /// What came on the first day.
    first_day: Vec<f64>,
}

// === impl Gains ===

impl Gains {
    /// Those whose forecasts of `warmup`, `ahead` minutes before, were the least wrong. Textbooks leave the choice to the
    /// likelihood; here the error that is scored decides, among values that cover what is usual.
    pub(super) fn fitted(warmup: &[f64], ahead: usize) -> Self {
        let mut best = (Self::usual().error(warmup, ahead), Self::usual());
        for gains in Self::all() {
            let error = gains.error(warmup, ahead);
            if error < best.0 {
                best = (error, gains);
            }
        }
        best.1
    }

    fn usual() -> Self {
        Self {
            level: 0.2,
            trend: 0.02,
            season: 0.05,
            damping: 0.98,
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let levels = [0.05, 0.2, 0.5].into_iter();
        let trends = levels.flat_map(|level| [0.0, 0.02, 0.1].map(|trend| (level, trend)));
        let seasons = trends.flat_map(|pair| [0.05, 0.3].map(|season| (pair, season)));
        let all = seasons.flat_map(|rest| [0.9, 0.98].map(|damping| (rest, damping)));
        all.map(|(((level, trend), season), damping)| Self {
            level,
            trend,
            season,
            damping,
        })
    }

    /// The sum of what it was wrong by.
    fn error(self, rates: &[f64], ahead: usize) -> f64 {
        let mut model = HoltWinters::new(self);
        let mut error = 0.0;
        for (minute, rate) in rates.iter().enumerate() {
            model.observe(*rate);
            let came = rates.get(minute + ahead).filter(|came| !came.is_nan());
            if let (Some(came), Some(said)) = (came, model.ahead(ahead)) {
                error += (came - said).abs();
            }
        }
        error
    }
}

// === impl HoltWinters ===

impl HoltWinters {
    pub(super) fn new(gains: Gains) -> Self {
        Self {
            gains,
            level: None,
            trend: 0.0,
            season: vec![0.0; DAY],
            minutes: 0,
            first_day: Vec::with_capacity(DAY),
        }
    }

    /// The next minute; NaN: nobody saw it, and it went on as was expected.
    pub(super) fn observe(&mut self, rate: f64) {
        let phase = self.minutes % DAY;
        self.minutes += 1;
        if self.minutes <= DAY {
            self.first_day.push(rate);
        }
        let drift = self.gains.damping * self.trend;
        let Some(before) = self.level else {
            self.level = (!rate.is_nan()).then_some(rate);
            return self.begin_seasons(phase);
        };
        if rate.is_nan() {
            self.level = Some(before + drift);
            self.trend = drift;
        } else {
            let Gains {
                level,
                trend,
                season,
                ..
            } = self.gains;
            let expected = before + drift;
            let raised = level * (rate - self.season[phase]) + (1.0 - level) * expected;
            self.trend = trend * (raised - before) + (1.0 - trend) * drift;
            self.level = Some(raised);
            if self.minutes > DAY {
                let seen = rate - expected;
                self.season[phase] = season * seen + (1.0 - season) * self.season[phase];
            }
        }
        self.begin_seasons(phase);
    }

    /// What is expected so many minutes after the newest.
    pub(super) fn ahead(&self, minutes: usize) -> Option<f64> {
        let damping = self.gains.damping;
        let mut weight = 1.0;
        let trend: f64 = (0..minutes)
            .map(|_minute| {
                weight *= damping;
                weight * self.trend
            })
            .sum();
        let phase = (self.minutes + minutes).checked_sub(1)? % DAY;
        Some((self.level? + trend + self.season[phase]).max(0.0))
    }

    /// At the end of the first day: what was the level until now is level and season from now on.
    fn begin_seasons(&mut self, phase: usize) {
        if self.minutes != DAY {
            return;
        }
        let seen = self.first_day.iter().filter(|rate| !rate.is_nan());
        let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        for (season, rate) in self.season.iter_mut().zip(&self.first_day) {
            *season = if rate.is_nan() {
                0.0
            } else {
                rate - sum / count
            };
        }
        self.trend = 0.0;
        self.level = self.level.map(|level| level - self.season[phase]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gains() -> Gains {
        Gains {
            level: 0.5,
            trend: 0.1,
            season: 0.3,
            damping: 0.9,
        }
    }

    fn check(said: Option<f64>, expected: f64) {
        let said = said.expect("something was said");
        assert!((said - expected).abs() < 1e-9, "{said} for {expected}");
    }

    #[test]
    fn level_and_damped_trend_follow_the_textbook() {
        let mut model = HoltWinters::new(gains());
        assert_eq!(model.ahead(1), None);
        model.observe(10.0);
        check(model.ahead(3), 10.0);
        // Level 0.5 x 14 + 0.5 x 10 = 12, trend 0.1 x 2 = 0.2: 12 + 0.2 (0.9 + 0.81).
        model.observe(14.0);
        check(model.ahead(2), 12.342);
        // Expected 12.18; level 0.5 x 8 + 0.5 x 12.18 = 10.09, trend 0.1 x -1.91 + 0.9 x 0.18 = -0.029.
        model.observe(8.0);
        check(model.ahead(1), 10.09 - 0.9 * 0.029);
        // A minute that nobody saw goes on as was expected.
        model.observe(f64::NAN);
        check(model.ahead(1), 10.09 - (0.9 + 0.81) * 0.029);
    }

    #[test]
    fn a_day_that_repeats_is_said_exactly() {
        let mut model = HoltWinters::new(gains());
        let rate = |minute: usize| if minute % DAY < DAY / 2 { 4.0 } else { 12.0 };
        for minute in 0..DAY {
            model.observe(rate(minute));
        }
        // The level at the day's end was 12, 8 and 4 of season since; yesterday's first minute was 4 below.
        check(model.ahead(1), 4.0);
        for minute in DAY..2 * DAY {
            check(model.ahead(1), rate(minute));
            model.observe(rate(minute));
        }
        // One minute 2 above: the level rises by 1 and the season of that minute by 0.6.
        model.observe(6.0);
        check(model.season.first().copied(), -4.0 + 0.3 * 2.0);
        check(model.level, 9.0);
    }

    #[test]
    fn the_gains_that_were_the_least_wrong_are_taken() {
        // A level that jumps to stay wants the fastest gain; with nothing to learn from, the usual ones.
        let steps: Vec<f64> = (0..600)
            .map(|minute| f64::from(minute / 60 % 2) * 50.0)
            .collect();
        assert!((Gains::fitted(&steps, 1).level - 0.5).abs() < 1e-12);
        assert_eq!(Gains::fitted(&[], 5), Gains::usual());
        assert_eq!(Gains::all().count(), 36);
    }
}
