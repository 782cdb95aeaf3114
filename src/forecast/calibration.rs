//! The forecast's own record: how often its quantiles were exceeded, and whether it beats the last value.

use super::model::count;
use super::season::DAY;

/// The quantiles that are corrected; one between two of them is corrected in between.
pub(super) const LEVELS: [f64; 5] = [0.5, 0.8, 0.9, 0.95, 0.99];

/// How far one exceeding moves each of the three corrections of the band that add up: by a factor of e^0.04. Fifty
/// forecasts, some hours of them, follow a change; twice that, and the band would breathe with every burst.
const GAIN: f64 = 0.04;
/// Circumstances that are told apart: a load that falls, stays or rises, ...
const SLOPES: usize = 3;
/// ... and the thirds of a day.
const HOURS: usize = 3;
/// How fast the bounds between falling, staying and rising follow the slopes that come, so that each has a third.
const BOUND_GAIN: f64 = 0.003;
/// A band narrower than this share of the typical load counts less, down to [`LEAST_COUNT`]: hours at nothing, of which
/// no minute can exceed anything, must not narrow the band of the day.
const NARROW: f64 = 0.03;
const LEAST_COUNT: f64 = 0.3;
/// The band is never made narrower or wider than by a factor of e^1.6, five: the records carry the rest.
const MOST: f64 = 1.6;
/// The quantile by which the forecast and the last value are compared: a plan is made from a high one, and requests
/// that wait cost more than pods that idle.
const COMPARED: usize = 2;
/// How fast the margins on the last value follow its errors, as a share of it and of its mean error.
const SHARE_GAIN: f64 = 0.02;
const AMOUNT_GAIN: f64 = 0.1;
/// A loss of so many forecasts ago counts half: a day, at one forecast in three minutes.
const HALF_LIFE: f64 = 480.0;
/// Full trust from this much better than the last value.
const FULL_TRUST_SKILL: f64 = 0.15;
/// Trust grows with the record: half of it at so many forecasts (an hour).
const RECORD_HALF: f64 = 20.0;

/// Corrections and losses, from forecasts made before the truth was known.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration {
    /// Logarithms of the factor on the distance from the median to each of [`LEVELS`]: one that always counts, one for
    /// each slope, one for each third of the day. Each is moved by what it had a part in, so that a quantile is exceeded
    /// as often as it says in each of these circumstances, and not only on the whole (online quantile regression on
    /// group indicators; the idea of R. Bastani and others, Practical Adversarial Multivalid Conformal Prediction, 2022).
    always: Stretch,
    slopes: [Stretch; SLOPES],
    hours: [Stretch; HOURS],
    /// Slopes below the first fall, those above the second rise.
    bounds: [f64; SLOPES - 1],
    /// Running pinball loss at the level compared.
    ours: f64,
    rivals: Rivals,
    count: f64,
    /// The record is kept and nothing is corrected.
    is_off: bool,
}

type Stretch = [f64; LEVELS.len()];

/// When a forecast is made, and for when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Circumstance {
    /// The load's recent change as a share of it.
    pub slope: f64,
    /// The minute that is forecast.
    pub minute: i64,
}

/// The last value with a margin that is learnt, once as a share of it and once as an amount: a steady load is best met
/// by the one, a spiky one by the other, and whoever is no better than both has earned no trust.
#[derive(Clone, Debug, Default)]
struct Rivals {
    share: f64,
    amount: f64,
    /// Running sum of the last value's absolute errors, and of how many: their mean is right from the first on.
    errors: f64,
    count: f64,
    /// Running pinball losses at the level compared: with a share, with an amount.
    losses: [f64; 2],
}

/// A forecast that waits for the truth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub circumstance: Circumstance,
    /// The forecast of each of [`LEVELS`], corrected.
    pub levels: [f64; LEVELS.len()],
    /// The median, from which the levels are stretched.
    pub median: f64,
    /// The last value when it was made, and the load of those days.
    pub last: f64,
    pub typical: f64,
}

// === impl Calibration ===

impl Calibration {
    /// Nothing was scored yet; `corrects`: what will be is used.
    pub(super) fn new(corrects: bool) -> Self {
        Self {
            is_off: !corrects,
            ..Self::default()
        }
    }

    /// The corrected `quantile`, given its uncorrected `value` and the median.
    pub(super) fn corrected(
        &self,
        quantile: f64,
        median: f64,
        value: f64,
        circumstance: Circumstance,
    ) -> f64 {
        if self.is_off {
            return value;
        }
        let (slope, hour) = self.groups(circumstance);
        let parts = [&self.always, &self.slopes[slope], &self.hours[hour]];
        let stretch: f64 = parts.into_iter().map(|part| at(part, quantile)).sum();
        (median + (value - median) * stretch.clamp(-MOST, MOST).exp()).max(0.0)
    }

    /// How far the forecast may be trusted, 0 to 1: 0 when the last value would have done as well.
    pub(super) fn trust(&self) -> f64 {
        let [share, amount] = self.rivals.losses;
        let rival = share.min(amount);
        if rival <= 0.0 {
            return 0.0;
        }
        let skill = 1.0 - self.ours / rival;
        (skill / FULL_TRUST_SKILL).clamp(0.0, 1.0) * self.count / (self.count + RECORD_HALF)
    }

    /// The truth is known.
    pub(super) fn score(&mut self, pending: &Pending, truth: f64) {
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        let said = pending.levels[COMPARED];
        self.ours = self.ours * fade + pinball(LEVELS[COMPARED], truth, said);
        self.rivals.score(pending.last, truth, fade);
        self.count = self.count * fade + 1.0;
        let (slope, hour) = self.groups(pending.circumstance);
        self.bound(pending.circumstance.slope);
        for (index, level) in LEVELS.into_iter().enumerate() {
            let upper = pending.levels[index];
            // A band without width cannot be corrected by stretching.
            if upper <= pending.median {
                continue;
            }
            let width = (upper - pending.median) / (NARROW * pending.typical);
            let step = if truth > upper { level } else { level - 1.0 };
            let moved = GAIN * width.clamp(LEAST_COUNT, 1.0) * step;
            for part in [
                &mut self.always,
                &mut self.slopes[slope],
                &mut self.hours[hour],
            ] {
                part[index] = (part[index] + moved).clamp(-MOST, MOST);
            }
        }
    }

    /// Which of the slopes, and which third of the day.
    fn groups(&self, circumstance: Circumstance) -> (usize, usize) {
        let Circumstance { slope, minute } = circumstance;
        let slope = usize::from(slope >= self.bounds[0]) + usize::from(slope > self.bounds[1]);
        let of_day = usize::try_from(minute.rem_euclid(count(DAY))).unwrap_or(0);
        (slope, of_day * HOURS / DAY)
    }

    fn bound(&mut self, slope: f64) {
        for (index, bound) in self.bounds.iter_mut().enumerate() {
            let share = (index + 1) as f64 / SLOPES as f64;
            if slope > *bound {
                *bound += BOUND_GAIN * share;
            } else if slope < *bound {
                *bound -= BOUND_GAIN * (1.0 - share);
            }
        }
    }
}

/// Between two of [`LEVELS`] in proportion.
fn at(stretch: &Stretch, quantile: f64) -> f64 {
    let above = LEVELS.iter().position(|level| *level >= quantile);
    match above {
        Some(0) => stretch[0],
        None => stretch[LEVELS.len() - 1],
        Some(index) => {
            let (low, high) = (LEVELS[index - 1], LEVELS[index]);
            let share = (quantile - low) / (high - low);
            stretch[index - 1] * (1.0 - share) + stretch[index] * share
        }
    }
}

// === impl Rivals ===

impl Rivals {
    fn score(&mut self, last: f64, truth: f64, fade: f64) {
        let level = LEVELS[COMPARED];
        let step = |said: f64| if truth > said { level } else { level - 1.0 };
        let said = [last * (1.0 + self.share), last + self.amount];
        for (loss, said) in self.losses.iter_mut().zip(said) {
            *loss = *loss * fade + pinball(level, truth, said);
        }
        // A share of zero is zero: a night without load says nothing of it.
        if last > 0.0 {
            self.share = (self.share + SHARE_GAIN * step(said[0])).max(0.0);
        }
        self.errors = self.errors * fade + (truth - last).abs();
        self.count = self.count * fade + 1.0;
        let typical = self.errors / self.count;
        self.amount = (self.amount + AMOUNT_GAIN * typical * step(said[1])).max(0.0);
    }
}

/// The loss whose mean is least for the true quantile of that level.
pub fn pinball(level: f64, truth: f64, said: f64) -> f64 {
    (level * (truth - said)).max((level - 1.0) * (truth - said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_minute(minute: usize) -> Circumstance {
        Circumstance {
            slope: 0.0,
            minute: i64::try_from(minute).expect("small"),
        }
    }

    /// A record of forecasts that said `said` when the last value was `last` and `truth` came.
    fn after(count: usize, said: f64, last: f64, truth: f64) -> Calibration {
        let mut calibration = Calibration::default();
        for minute in 0..count {
            calibration.score(
                &Pending {
                    circumstance: at_minute(minute),
                    levels: [said; LEVELS.len()],
                    median: said / 2.0,
                    last,
                    typical: 50.0,
                },
                truth,
            );
        }
        calibration
    }

    #[test]
    fn trust_is_nothing_when_the_last_value_does_as_well_and_grows_with_the_record_when_not() {
        assert!(Calibration::default().trust().abs() < f64::EPSILON);
        let worse = after(300, 90.0, 50.0, 50.0);
        assert!(worse.trust().abs() < f64::EPSILON, "{}", worse.trust());
        let (short, long) = (after(5, 50.0, 0.0, 50.0), after(300, 50.0, 0.0, 50.0));
        assert!(short.trust() < 0.3, "{}", short.trust());
        assert!(long.trust() > 0.9, "{}", long.trust());
    }

    #[test]
    fn a_band_that_is_exceeded_too_often_widens_and_one_never_exceeded_narrows() {
        let exceeded = after(20, 50.0, 50.0, 60.0);
        let never = after(200, 50.0, 50.0, 20.0);
        for quantile in [0.5, 0.93, 0.95, 0.97, 0.99, 0.999] {
            assert!(
                exceeded.corrected(quantile, 20.0, 30.0, at_minute(20)) > 30.0,
                "{quantile}"
            );
            let narrowed = never.corrected(quantile, 20.0, 30.0, at_minute(200));
            assert!((20.0..30.0).contains(&narrowed), "{quantile}");
        }
    }

    #[test]
    fn a_night_without_load_does_not_narrow_the_band_of_the_day() {
        let night = after(1_000, 0.0, 0.0, 0.0);
        assert!((night.corrected(0.95, 20.0, 30.0, at_minute(1_000)) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_load_that_rises_has_a_band_of_its_own() {
        let mut calibration = Calibration::default();
        let made = |minute: i64, slope: f64| Circumstance { slope, minute };
        for minute in 0..3_000 {
            // Falls, stays, rises; only when it rises is the band exceeded, each second time.
            let slope = [-0.2, 0.0, 0.2][usize::try_from(minute % 3).expect("small")];
            let truth = if slope > 0.0 && minute % 2 == 0 {
                60.0
            } else {
                20.0
            };
            let circumstance = made(minute, slope);
            let upper = calibration.corrected(0.95, 20.0, 30.0, circumstance);
            calibration.score(
                &Pending {
                    circumstance,
                    levels: [upper; LEVELS.len()],
                    median: 20.0,
                    last: 20.0,
                    typical: 50.0,
                },
                truth,
            );
        }
        let upper = |slope: f64| calibration.corrected(0.95, 20.0, 30.0, made(3_000, slope));
        assert!(
            upper(0.2) > 1.3 * upper(0.0),
            "{} {}",
            upper(0.2),
            upper(0.0)
        );
        assert!(upper(0.2) > 1.3 * upper(-0.2), "{}", upper(-0.2));
    }
}
