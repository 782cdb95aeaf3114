//! The simplest forecasts: what is, and what was a day ago.
//!
//! The naive and the seasonal naive method of Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", third
//! edition, section 5.2; the third carries yesterday's course over to today's level.

use super::DAY;

/// Today's level is that of the last hour: shorter, and noise is multiplied; longer, and a day that is twice as busy is
/// noticed when its peak is over.
const LEVEL_MINUTES: usize = 60;

/// Days that differ by more are not one day at two levels: when yesterday's busy hours began minutes later than today's, an
/// idle hour would be compared with a full one, and the next said to be a hundred times too busy.
const LARGEST_RATIO: f64 = 4.0;

/// The newest minute that was observed.
pub(super) fn last_value(known: &[f64]) -> Option<f64> {
    known.iter().rev().copied().find(|rate| !rate.is_nan())
}

/// The same minute of yesterday; where nobody saw it, the last value.
pub(super) fn yesterday(known: &[f64], ahead: usize) -> Option<f64> {
    day_before(known, ahead).or_else(|| last_value(known))
}

/// The same minute of yesterday, times what the last hour has of the same hour of yesterday; where nothing came in that
/// hour, as it was.
pub(super) fn yesterday_at_todays_level(known: &[f64], ahead: usize) -> Option<f64> {
    let Some(rate) = day_before(known, ahead) else {
        return last_value(known);
    };
    let hours = (known.len().saturating_sub(LEVEL_MINUTES)..known.len())
        .filter_map(|minute| Some((known[minute], known.get(minute.checked_sub(DAY)?)?)))
        .filter(|(today, before)| !today.is_nan() && !before.is_nan());
    let (today, before) = hours.fold((0.0, 0.0), |(today, before), hour| {
        (today + hour.0, before + hour.1)
    });
    let ratio = if before > 0.0 { today / before } else { 1.0 };
    Some(rate * ratio.clamp(1.0 / LARGEST_RATIO, LARGEST_RATIO))
}

/// What came a day before the minute that lies `ahead` minutes after the newest.
fn day_before(known: &[f64], ahead: usize) -> Option<f64> {
    let place = (known.len() + ahead).checked_sub(1 + DAY)?;
    known.get(place).copied().filter(|rate| !rate.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day that counts its minutes, then an hour of `today`.
    fn known(today: f64) -> Vec<f64> {
        let mut known: Vec<f64> = (0..DAY).map(|minute| minute as f64).collect();
        known.extend([today; 60]);
        known
    }

    fn check(said: Option<f64>, expected: f64) {
        let said = said.expect("something was said");
        assert!((said - expected).abs() < 1e-9, "{said} for {expected}");
    }

    #[test]
    fn the_same_minute_of_yesterday_is_a_day_before_the_one_that_is_asked_for() {
        // The newest minute is 59 of today; five later is 64.
        check(yesterday(&known(7.0), 5), 64.0);
        // Minutes 0 to 59 of yesterday come to 1,770, 59 a minute today to twice that.
        check(yesterday_at_todays_level(&known(59.0), 5), 128.0);
        check(yesterday_at_todays_level(&known(5_900.0), 5), 256.0);
        check(last_value(&known(7.0)), 7.0);
    }

    #[test]
    fn what_nobody_saw_is_the_last_value() {
        let mut gap = known(7.0);
        gap[64] = f64::NAN;
        check(yesterday(&gap, 5), 7.0);
        check(yesterday_at_todays_level(&gap, 5), 7.0);
        gap.push(f64::NAN);
        check(last_value(&gap), 7.0);
        check(yesterday(&[3.0], 5), 3.0);
        assert_eq!(last_value(&[f64::NAN]), None);
        // Nothing came in the first hour of yesterday: there is no level to compare with.
        let mut silent = known(5.0);
        silent[..60].fill(0.0);
        check(yesterday_at_todays_level(&silent, 5), 64.0);
    }
}
