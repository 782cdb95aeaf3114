//! The candidates: every sight with every headroom, and a few ways to hold and to drain.

use std::time::Duration;

use super::{Candidate, Sight};
use crate::ablation::Parts;

/// Steps of 3 % where most services end up, of 15 % where a wrong one costs little. Below 1.02 the noise of arrivals alone
/// makes requests wait.
const HEADROOMS: [f64; 19] = [
    1.02, 1.05, 1.08, 1.12, 1.16, 1.2, 1.25, 1.3, 1.37, 1.45, 1.55, 1.65, 1.8, 2.0, 2.3, 2.6, 3.0,
    3.5, 4.5,
];
/// A peak of the past is asked for in parts and in whole: from half of it to twice as much.
const PEAK_SHARE: f64 = 0.45;
/// A quantile of the forecast has some headroom in itself: from four fifths of it on.
const FORECAST_SHARE: f64 = 0.8;
/// How far a forecast quantile and a peak lie above the present load, roughly.
const FORECAST_ABOVE: f64 = 1.2;
const PEAK_ABOVE: f64 = 1.5;
/// Long enough that a pod is no flutter of arrivals; short enough to follow a falling load.
const SHORT_HOLD: Duration = Duration::from_secs(60);
/// As long as the bursts of many services are apart; no candidate holds longer.
pub const LONGEST_HOLD: Duration = Duration::from_secs(600);
/// A backlog is to be gone in this time. Faster, and a burst that is over buys many times the pods ...
const CALM_DRAIN: Duration = Duration::from_secs(60);
/// ... which is right where each cold start makes hundreds wait: Knative's panic asks for a slot per waiting request.
const URGENT_DRAIN: Duration = Duration::from_secs(6);
/// The tighter candidate whose misfortune counts has at most this share of the headroom: the step between two headrooms
/// may be too small to show a tail.
const TIGHTER: f64 = 0.92;

/// All candidates, in an order that decides between equals: those that see least first.
pub(super) fn candidates(parts: Parts) -> Vec<Candidate> {
    let mut all = Vec::new();
    for sight in Sight::ALL {
        let is_out = (!parts.forecast && sight.looks_ahead())
            || (!parts.seasons && sight.is_seasonal())
            || (!parts.quantiles && sight.is_forecast());
        if is_out {
            continue;
        }
        for headroom in HEADROOMS {
            for (hold, drain) in manners(sight) {
                let headroom = headroom * share(sight);
                all.push(Candidate {
                    sight,
                    headroom,
                    hold: *hold,
                    drain: *drain,
                });
            }
        }
    }
    all
}

/// What a headroom is of, for each sight.
fn share(sight: Sight) -> f64 {
    if sight.is_peak() {
        PEAK_SHARE
    } else if sight.is_forecast() {
        FORECAST_SHARE
    } else {
        1.0
    }
}

fn manners(sight: Sight) -> &'static [(Duration, Duration)] {
    const SHORT: (Duration, Duration) = (SHORT_HOLD, CALM_DRAIN);
    const LONG: (Duration, Duration) = (LONGEST_HOLD, CALM_DRAIN);
    const URGENT: (Duration, Duration) = (SHORT_HOLD, URGENT_DRAIN);
    match sight {
        Sight::Level | Sight::Season => &[SHORT, LONG, URGENT],
        Sight::Trend
        | Sight::Ramp
        | Sight::HighSeason
        | Sight::SeasonLevel
        | Sight::Forecast80
        | Sight::Forecast99 => &[SHORT, LONG],
        // A peak is a hold of its own.
        Sight::PeakOfHour | Sight::PeakOfSixHours | Sight::PeakOfDay => &[SHORT],
    }
}

/// The one to follow where nothing may be learnt: the forecast's 99 % quantile, kept for long.
pub(super) fn untuned(all: &[Candidate]) -> usize {
    all.iter()
        .position(|one| {
            one.sight == Sight::Forecast99 && one.headroom >= 1.0 && one.hold == LONGEST_HOLD
        })
        .unwrap_or(0)
}

/// The next tighter candidate that is otherwise the same; itself where there is none.
pub(super) fn tighter(all: &[Candidate], index: usize) -> usize {
    let own = all[index];
    (0..all.len())
        .filter(|other| {
            let other = all[*other];
            (other.sight, other.hold, other.drain) == (own.sight, own.hold, own.drain)
                && other.headroom <= own.headroom * TIGHTER
        })
        .max_by(|a, b| all[*a].headroom.total_cmp(&all[*b].headroom))
        .unwrap_or(index)
}

// === impl Candidate ===

impl Candidate {
    /// Its headroom as one over the present load.
    pub(super) fn present_headroom(&self) -> f64 {
        let above = if self.sight.is_peak() {
            PEAK_ABOVE
        } else if self.sight.is_forecast() {
            FORECAST_ABOVE
        } else {
            1.0
        };
        self.headroom * above
    }
}
