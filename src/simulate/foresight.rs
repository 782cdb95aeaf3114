//! Somebody whose forecast is always right, and who still only has a target: what is left of its regret is the price of
//! the headroom, and what sidescale's has on top of it is forecast error and how that is hedged.
//!
//! It knows the one-minute mean around every moment until a pod that is asked for now serves, asks for the highest of them
//! at its target, and clears a backlog within a minute. It knows neither a second's noise nor the clairvoyant's trade of
//! keeping against buying again.

use std::collections::VecDeque;

use super::Settings;
use super::timeline::Timeline;
use crate::baseline::{World, pods};

/// Half of the minute around a moment, in seconds.
const HALF: usize = 30;
/// A backlog is to be gone in this time, in seconds.
const DRAIN: f64 = 60.0;

/// What is known of each second, and the target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Foresight {
    start: u64,
    /// For each second, the highest one-minute mean until a pod asked for in it serves; 0: nobody saw a second of them.
    highest: Vec<f64>,
    /// Requests a second that a pod is given.
    share: f64,
    pod_rps: f64,
    bounds: (u32, u32),
}

// === impl Foresight ===

impl Foresight {
    /// Knows all of `timeline`; `target`: the share of a pod that is used, above 0.
    pub(super) fn new(timeline: &Timeline, settings: &Settings, target: f64) -> Self {
        let counts: Vec<Option<f64>> = timeline.seconds().map(|(_offset, count)| count).collect();
        let cold_start = usize::try_from(settings.cold_start.as_secs()).unwrap_or(usize::MAX);
        // A decision is made at a second's end, and its pod serves one cold start later for the first time.
        let reach = cold_start.saturating_add(1);
        Self {
            start: timeline.start(),
            highest: highest(&means(&counts), reach),
            share: target * settings.pod_rps,
            pod_rps: settings.pod_rps,
            bounds: settings.bounds,
        }
    }

    /// The replicas asked for at the end of the second `offset`.
    pub(super) fn decide(&self, offset: u64, world: &World) -> u32 {
        let second = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rate = self.highest.get(second).copied().unwrap_or(0.0);
        let need = rate / self.share + world.waiting() / (DRAIN * self.pod_rps);
        pods(need).clamp(self.bounds.0, self.bounds.1.max(self.bounds.0))
    }
}

/// The mean of what was seen of the minute around each second; 0: nothing was.
fn means(counts: &[Option<f64>]) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0)];
    for count in counts {
        let (sum, seen) = sums.last().copied().unwrap_or_default();
        let more = count.map_or((0.0, 0.0), |count| (count, 1.0));
        sums.push((sum + more.0, seen + more.1));
    }
    (0..counts.len())
        .map(|second| {
            let from = sums[second.saturating_sub(HALF)];
            let until = sums[(second + HALF).min(counts.len())];
            (until.0 - from.0).max(0.0) / f64::max(until.1 - from.1, 1.0)
        })
        .collect()
}

/// For each place, the highest of it and the `reach` after it.
fn highest(means: &[f64], reach: usize) -> Vec<f64> {
    let mut highest = vec![0.0; means.len()];
    // Falling from back to front: places that something later is not above.
    let mut peaks: VecDeque<usize> = VecDeque::new();
    for (place, mean) in means.iter().enumerate().rev() {
        while peaks.back().is_some_and(|later| means[*later] <= *mean) {
            peaks.pop_back();
        }
        peaks.push_back(place);
        while peaks
            .front()
            .is_some_and(|peak| *peak > place.saturating_add(reach))
        {
            peaks.pop_front();
        }
        highest[place] = peaks.front().map_or(*mean, |peak| means[*peak]);
    }
    highest
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::simulate::Trace;

    fn decided(counts: &[(u64, f64)], cold_start: u64) -> Vec<(u64, u32)> {
        let lines: Vec<String> = (counts.iter())
            .map(|(offset, count)| format!("{offset},{count}\n"))
            .collect();
        let text = format!("offset_seconds,requests\n{}", lines.concat());
        let trace = Trace::parse("t.csv", &text).expect("a good trace");
        let timeline = Timeline::draw(&trace, 1.0, &mut StdRng::seed_from_u64(1));
        let settings = Settings {
            pod_rps: 10.0,
            cold_start: Duration::from_secs(cold_start),
            bounds: (1, 20),
            ..Settings::default()
        };
        let foresight = Foresight::new(&timeline, &settings, 0.5);
        let world = World::new(1, 10.0, settings.cold_start, settings.slo);
        let mut decided: Vec<(u64, u32)> = Vec::new();
        for (offset, _) in timeline.seconds() {
            let asked = foresight.decide(offset, &world);
            if decided.last().is_none_or(|last| last.1 != asked) {
                decided.push((offset, asked));
            }
        }
        decided
    }

    #[test]
    fn a_jump_is_answered_one_cold_start_and_half_a_minute_before_and_held_until_it_is_over() {
        let rate = |second: u64| {
            if (600..900).contains(&second) {
                55.0
            } else {
                5.0
            }
        };
        let counts: Vec<_> = (1_000..2_500).map(|it| (it, rate(it - 1_000))).collect();
        let decided = decided(&counts, 120);
        // One pod for 5 a second at half of ten; at 55 eleven.
        assert_eq!(decided[0], (1_000, 1));
        let first = decided[1].0;
        assert_eq!(first, 1_000 + 600 - 30 - 120, "{decided:?}");
        let (full, most) = *decided.iter().max_by_key(|it| it.1).expect("some");
        assert_eq!((most, full < 1_600 + 30 - 120), (11, true));
        assert!(decided.iter().all(|(at, pods)| *at < 1_900 || *pods <= 11));
        assert_eq!(decided.last().map(|it| it.1), Some(1));
    }

    #[test]
    fn what_nobody_saw_is_no_load_and_no_zero() {
        let counts: Vec<_> = (0..300).filter(|it| !(100..130).contains(it)).collect();
        let counts: Vec<_> = counts.into_iter().map(|it| (it, 30.0)).collect();
        assert_eq!(decided(&counts, 10), [(0, 6)]);
    }

    #[test]
    fn the_highest_within_reach_is_found() {
        let means = [1.0, 5.0, 2.0, 2.0, 7.0, 0.0];
        assert_eq!(highest(&means, 0), means);
        assert_eq!(highest(&means, 2), [5.0, 5.0, 7.0, 7.0, 7.0, 0.0]);
        assert_eq!(highest(&means, usize::MAX), [7.0, 7.0, 7.0, 7.0, 7.0, 0.0]);
    }
}
