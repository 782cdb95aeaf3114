//! Finds the periods with which a load repeats itself, and finds none where there is none.
//!
//! The periodogram proposes, the autocorrelation decides: a period counts when the series resembles itself one period
//! later more than at half a period or at one and a half (a hill, not a slope: a slow drift resembles itself at every
//! short distance). The day and the week are looked at even when the periodogram has no peak there, because two cycles
//! of them make none.

use std::time::Duration;

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

use super::Season;

/// The looks taken at a series: its end by the minute for the short periods, the whole of it in coarser bins for the
/// long ones, each beside its own slow level. Anything shorter than six minutes is over within a cold start.
const LOOKS: [Look; 3] = [
    Look {
        bin: 1,
        last: 2 * DAY,
        level: DAY / 4,
        shortest: 6,
        longest: 180,
    },
    Look {
        bin: 5,
        last: usize::MAX,
        level: DAY,
        shortest: 181,
        longest: DAY + DAY / 2,
    },
    Look {
        bin: 10,
        last: usize::MAX,
        level: WEEK,
        shortest: DAY + DAY / 2 + 1,
        longest: usize::MAX,
    },
];
/// A period in fewer bins than this has no shape.
const SHORTEST_BINS: usize = 6;
/// The level is at least this share of the mean: a night at zero has no shape of its own.
const LEVEL_FLOOR: f64 = 0.1;
/// Periods that people live by, in minutes; a found one that is within 4 % of one of them is that one.
const CALENDAR: [usize; 9] = [60, 120, 180, 240, 360, 480, 720, DAY, WEEK];
pub(super) const DAY: usize = 1_440;
pub(super) const WEEK: usize = 10_080;
/// Peaks of the periodogram that are looked at.
const PEAKS: usize = 12;
/// The least autocorrelation and the least height of a hill, and twice that of a period that is neither day nor week.
/// White noise of a fortnight reaches 0.06 at its best lag.
const LEAST: f64 = 0.15;
/// A longer period must show a hill higher by this than each shorter one: its multiples are hills as high as its own.
const ADDS: f64 = 0.1;
/// A shorter period whose correlation is below this share of its multiple's is a part of that: the two humps of a day
/// are no half-days. A day within a working week still has 5/7 of the week's.
const HIDDEN: f64 = 0.6;
/// Once found, a season stays down to this share of what it took to be found, so that it does not come and go.
const KEEPS: f64 = 0.7;

#[derive(Clone, Copy, Debug)]
struct Look {
    /// Minutes in a bin.
    bin: usize,
    /// How many of the newest minutes are looked at.
    last: usize,
    /// The minutes over whose mean the load is taken as a ratio: a load that falls to a tenth within a fortnight would
    /// else resemble itself at no distance.
    level: usize,
    /// The shortest and the longest period looked for, in minutes.
    shortest: usize,
    longest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Hill {
    minutes: usize,
    correlation: f64,
    prominence: f64,
}

/// The seasons of a series of minutes (NaN: missing), shortest first. `known`: those found the last time.
pub(super) fn detect(minutes: &[f32], known: &[Season]) -> Vec<Season> {
    let was_known = |minutes: usize| known.iter().any(|s| s.period == in_minutes(minutes));
    let season = |hill: Hill| Season {
        period: in_minutes(hill.minutes),
        strength: hill.correlation.clamp(0.0, 1.0),
    };
    LOOKS
        .iter()
        .flat_map(|look| look.seasons(minutes, &was_known))
        .map(season)
        .collect()
}

// === impl Look ===

impl Look {
    fn seasons(&self, minutes: &[f32], was_known: &impl Fn(usize) -> bool) -> Vec<Hill> {
        let end = &minutes[minutes.len().saturating_sub(self.last)..];
        let bins = bins_of(end, self.bin, self.level);
        let Some((power, correlation)) = spectrum_of(&bins) else {
            return Vec::new();
        };
        let mut candidates = self.peaks_of(&power, bins.len());
        candidates.extend(
            [DAY, WEEK]
                .into_iter()
                .filter(|calendar| *calendar < self.longest),
        );
        candidates.sort_unstable();
        candidates.dedup();
        let mut hills: Vec<Hill> = candidates
            .into_iter()
            .filter_map(|period| hill_at(&correlation, period, self.bin, was_known))
            .collect();
        hills.sort_unstable_by_key(|hill| hill.minutes);
        hills.dedup_by_key(|hill| hill.minutes);
        let mut found = chosen(&hills, was_known);
        found.retain(|hill| (self.shortest..=self.longest).contains(&hill.minutes));
        found
    }

    /// The periods, in minutes, of the highest peaks of the periodogram.
    fn peaks_of(&self, power: &[f64], bins: usize) -> Vec<usize> {
        let size = 2 * (power.len() - 1);
        let mut peaks: Vec<(f64, usize)> = power
            .windows(3)
            .enumerate()
            .filter(|(_, w)| w[1] > w[0] && w[1] >= w[2])
            .map(|(index, w)| (w[1], size * self.bin / (index + 1)))
            // Three cycles at least: two humps of a random walk are no season.
            .filter(|(_, period)| (SHORTEST_BINS * self.bin..=bins * self.bin / 3).contains(period))
            .collect();
        peaks.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        peaks
            .into_iter()
            .take(PEAKS)
            .map(|(_, period)| period)
            .collect()
    }
}

/// The hills that stand for themselves.
fn chosen(hills: &[Hill], was_known: &impl Fn(usize) -> bool) -> Vec<Hill> {
    let calendar = || {
        hills
            .iter()
            .map(|h| h.minutes)
            .filter(|m| [DAY, WEEK].contains(m))
    };
    let mut found: Vec<Hill> = Vec::new();
    for hill in hills {
        let keeps = if was_known(hill.minutes) {
            ADDS / 2.0
        } else {
            0.0
        };
        // Between the day and its neighbours the periodogram leaks; nobody lives by 26 hours.
        let leaks = calendar().any(|by| hill.minutes != by && hill.minutes.abs_diff(by) * 3 < by);
        let hidden = hills.iter().any(|longer| {
            is_multiple(longer.minutes, hill.minutes)
                && hill.correlation < (HIDDEN - keeps) * longer.correlation
        });
        let explained = found
            .iter()
            .any(|shorter| hill.prominence < shorter.prominence + ADDS - keeps);
        if !(leaks || hidden || explained) {
            found.push(*hill);
        }
    }
    found
}

fn in_minutes(minutes: usize) -> Duration {
    Duration::from_secs(60 * minutes as u64)
}

fn is_multiple(longer: usize, shorter: usize) -> bool {
    let ratio = longer as f64 / shorter as f64;
    ratio > 1.5 && (ratio - ratio.round()).abs() < 0.05 * ratio.min(4.0)
}

/// Means of bins over their slow level, centred, with outliers pulled in; `None` where nothing was observed.
fn bins_of(minutes: &[f32], bin: usize, level: usize) -> Vec<Option<f64>> {
    let mut bins: Vec<Option<f64>> = minutes.chunks_exact(bin).map(mean_of).collect();
    let window = (level / bin).min(bins.len());
    over_level(&mut bins, window);
    let mut sorted: Vec<f64> = bins.iter().flatten().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let (Some(low), Some(high)) = (
        sorted.get(sorted.len() / 100).copied(),
        sorted
            .get(sorted.len().saturating_sub(1 + sorted.len() / 100))
            .copied(),
    ) else {
        return Vec::new();
    };
    let mean = sorted.iter().map(|v| v.clamp(low, high)).sum::<f64>() / sorted.len() as f64;
    for bin in bins.iter_mut().flatten() {
        *bin = bin.clamp(low, high) - mean;
    }
    bins
}

fn mean_of(minutes: &[f32]) -> Option<f64> {
    let (sum, seen) = minutes
        .iter()
        .filter(|value| value.is_finite())
        .fold((0.0, 0.0), |(sum, seen), value| {
            (sum + f64::from(*value), seen + 1.0)
        });
    (seen > 0.0).then(|| sum / seen)
}

/// Divides each bin by the mean of the `window` bins about it.
fn over_level(bins: &mut [Option<f64>], window: usize) {
    let mut sums = vec![(0.0, 0.0)];
    let mut last = (0.0, 0.0);
    for bin in bins.iter() {
        last = (
            last.0 + bin.unwrap_or(0.0),
            last.1 + f64::from(u8::from(bin.is_some())),
        );
        sums.push(last);
    }
    let floor = LEVEL_FLOOR * last.0 / last.1;
    let count = bins.len();
    for (index, bin) in bins.iter_mut().enumerate() {
        // At the ends the window is as long, and not about the bin but beside it: half a day there would take the
        // morning for the level.
        let from = index.saturating_sub(window / 2).min(count - window);
        let (before, until) = (sums[from], sums[from + window]);
        let level = ((until.0 - before.0) / (until.1 - before.1)).max(floor);
        *bin = bin
            .map(|value| value / level)
            .filter(|ratio| ratio.is_finite());
    }
}

/// The power at each frequency, and the autocorrelation at each lag over the pairs that were both observed.
fn spectrum_of(bins: &[Option<f64>]) -> Option<(Vec<f64>, Vec<f64>)> {
    // Padded to twice the length, so that the end does not meet the beginning.
    let size = (2 * bins.len()).next_power_of_two();
    let mut planner = RealFftPlanner::<f64>::new();
    let forward = planner.plan_fft_forward(size);
    let backward = planner.plan_fft_inverse(size);
    let power_of = |input: &mut dyn Iterator<Item = f64>| {
        let mut time: Vec<f64> = input.collect();
        time.resize(size, 0.0);
        let mut frequency = forward.make_output_vec();
        forward.process(&mut time, &mut frequency).ok()?;
        Some(
            frequency
                .iter()
                .map(Complex::norm_sqr)
                .collect::<Vec<f64>>(),
        )
    };
    let lags_of = |power: &[f64]| {
        let mut frequency: Vec<Complex<f64>> =
            power.iter().map(|p| Complex::new(*p, 0.0)).collect();
        let mut time = backward.make_output_vec();
        backward.process(&mut frequency, &mut time).ok()?;
        Some(time)
    };
    let power = power_of(&mut bins.iter().map(|bin| bin.unwrap_or(0.0)))?;
    let seen = power_of(&mut bins.iter().map(|bin| f64::from(u8::from(bin.is_some()))))?;
    let (products, pairs) = (lags_of(&power)?, lags_of(&seen)?);
    let scale = size as f64;
    let variance = products.first()? / pairs.first()?;
    let spread = bins.iter().flatten().map(|v| v.abs()).sum::<f64>();
    if !(variance.is_finite() && variance > 0.0 && spread > 1e-9) {
        return None;
    }
    let correlation = products
        .iter()
        .zip(&pairs)
        .take(bins.len())
        // A lag with few pairs says nothing.
        .map(|(product, pairs)| {
            if pairs / scale < 24.0 {
                f64::NAN
            } else {
                product / pairs / variance
            }
        })
        .collect();
    Some((power, correlation))
}

/// The hill of the autocorrelation about a period, when there is one that chance does not explain.
fn hill_at(
    correlation: &[f64],
    period: usize,
    bin: usize,
    was_known: &impl Fn(usize) -> bool,
) -> Option<Hill> {
    let near = |lag: f64| whole(lag / bin as f64);
    let is_calendar = period == DAY || period == WEEK;
    let slack = if is_calendar { 0.04 } else { 0.08 };
    let around = near(period as f64 * (1.0 - slack))
        ..=near(period as f64 * (1.0 + slack)).max(near(period as f64) + 1);
    let at = |lag: usize| correlation.get(lag).copied().filter(|c| c.is_finite());
    let (lag, height) = around
        .filter_map(|lag| Some((lag, at(lag)?)))
        // A top, not the slope of a hill nearby.
        .filter(|(lag, height)| {
            [lag - 1, lag + 1]
                .into_iter()
                .filter_map(at)
                .all(|near| near <= *height)
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let lowest = |from: f64, to: f64| {
        let span = whole(lag as f64 * from)..=whole(lag as f64 * to);
        span.filter_map(at).min_by(f64::total_cmp)
    };
    let left = lowest(0.15, 0.85)?;
    // With two cycles only, nothing can be seen beyond.
    let valley = lowest(1.15, 1.85).map_or(left, |right| left.max(right));
    let minutes = snapped(refined(correlation, lag, bin));
    let (white, slow) = chance_of(correlation, lag);
    let mut least = if is_calendar {
        LEAST.max(4.0 * white).max(slow)
    } else {
        (2.0 * LEAST).max(4.0 * white).max(2.0 * slow)
    };
    if was_known(minutes) {
        least *= KEEPS;
    }
    let hill = Hill {
        minutes,
        correlation: height,
        prominence: height - valley,
    };
    (hill.correlation >= least && hill.prominence >= least).then_some(hill)
}

/// The standard error of the autocorrelation at `lag`, of white noise and by Bartlett's formula: a slow series has
/// fewer independent values than bins. Four of the first, because the best of some lags is taken.
fn chance_of(correlation: &[f64], lag: usize) -> (f64, f64) {
    let until = correlation[..=lag / 2]
        .iter()
        .skip(1)
        .take_while(|c| **c > 0.0);
    let slow = until.map(|c| c * c).sum::<f64>();
    let pairs = correlation.len().saturating_sub(lag).max(1) as f64;
    ((1.0 / pairs).sqrt(), ((1.0 + 2.0 * slow) / pairs).sqrt())
}

/// The period in minutes, from the hills at its multiples: five cycles later an error of a bin is a minute.
fn refined(correlation: &[f64], lag: usize, bin: usize) -> usize {
    let mut period = lag as f64;
    for multiple in 2..=5_usize {
        let expected = period * multiple as f64;
        let reach = lag.div_ceil(4).min(3) as f64;
        let span = whole(expected - reach)..=whole(expected + reach);
        let peak = span
            .filter_map(|lag| Some((lag, *correlation.get(lag).filter(|c| c.is_finite())?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((peak, _)) = peak else { break };
        period = peak as f64 / multiple as f64;
    }
    whole(period * bin as f64)
}

fn snapped(minutes: usize) -> usize {
    CALENDAR
        .into_iter()
        .find(|calendar| minutes.abs_diff(*calendar) * 25 <= *calendar)
        .unwrap_or(minutes)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lags and minutes: above 0 and below the length of a history"
)]
fn whole(value: f64) -> usize {
    value.round() as usize
}
