//! The one-minute means that forecasts are held against.

use super::DAY;
use crate::simulate::Timeline;

/// The minutes of a trace, aligned to the wall clock.
#[derive(Clone, Debug)]
pub(super) struct Minutes {
    /// The first one's number since the trace's zero, which is a midnight.
    first: u64,
    /// Mean arrivals a second; NaN where not every second was observed.
    pub(super) rates: Vec<f64>,
}

// === impl Minutes ===

impl Minutes {
    pub(super) fn of(timeline: &Timeline) -> Self {
        let first = timeline.start() / 60;
        let mut rates = Vec::new();
        let (mut sum, mut seconds) = (0.0, 0);
        for (offset, arrivals) in timeline.seconds() {
            if let Some(arrivals) = arrivals {
                sum += arrivals;
                seconds += 1;
            }
            if (offset + 1).is_multiple_of(60) {
                rates.push(if seconds == 60 { sum / 60.0 } else { f64::NAN });
                (sum, seconds) = (0.0, 0);
            }
        }
        Self { first, rates }
    }

    /// The place of the minute that the second `offset` lies in.
    pub(super) fn index(&self, offset: u64) -> usize {
        usize::try_from((offset / 60).saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// The first minute whose end is not before `offset`.
    pub(super) fn first_ending_at(&self, offset: u64) -> usize {
        self.index(offset.saturating_sub(1))
    }

    /// Whether the minute was seen as a whole.
    pub(super) fn is_seen(&self, index: usize) -> bool {
        self.rates.get(index).is_some_and(|rate| !rate.is_nan())
    }

    /// The offset of each minute that was seen as a whole, and its mean.
    pub(super) fn seen(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let numbered = (self.first..).zip(&self.rates);
        let seen = numbered.filter(|(_minute, rate)| !rate.is_nan());
        seen.map(|(minute, rate)| (60 * minute, *rate))
    }

    /// Which third of its day the minute lies in.
    pub(super) fn third_of_day(&self, index: usize) -> usize {
        let first = usize::try_from(self.first % DAY as u64).unwrap_or(0);
        (first + index) % DAY / (DAY / 3)
    }

    /// How much the last five minutes up to this one are above the five before, relative to all ten.
    pub(super) fn slope(&self, index: usize) -> f64 {
        let mean = |from: usize, end: usize| {
            let seen = self.rates[from..end].iter().filter(|rate| !rate.is_nan());
            let (sum, count) =
                seen.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
            (count > 0.0).then(|| sum / count)
        };
        let end = index + 1;
        let (late, early) = (
            mean(end.saturating_sub(5), end),
            mean(end.saturating_sub(10), end.saturating_sub(5)),
        );
        match (late, early) {
            (Some(late), Some(early)) if late + early > 0.0 => {
                (late - early) / f64::midpoint(late, early)
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::simulate::Trace;

    fn minutes(lines: impl Iterator<Item = (u64, u32)>) -> Minutes {
        let lines: Vec<String> = lines.map(|(at, count)| format!("{at},{count}\n")).collect();
        let text = format!("offset_seconds,requests\n{}", lines.concat());
        let trace = Trace::parse("t.csv", &text).expect("a good trace");
        Minutes::of(&Timeline::draw(&trace, 1.0, &mut StdRng::seed_from_u64(1)))
    }

    #[test]
    fn a_minute_is_whole_or_missing_and_belongs_to_the_wall_clock() {
        // From 28,790 s on: ten seconds before 08:00. The second 28,870 was not observed.
        let seconds = (28_790..29_000).filter(|at| *at != 28_870);
        let minutes = minutes(seconds.map(|at| (at, if at < 28_860 { 2 } else { 5 })));
        let seen: Vec<bool> = (0..4).map(|index| minutes.is_seen(index)).collect();
        assert_eq!(seen, [false, true, false, true]);
        assert!((minutes.rates[1] - 2.0).abs() < 1e-12 && (minutes.rates[3] - 5.0).abs() < 1e-12);
        assert_eq!((minutes.third_of_day(0), minutes.third_of_day(1)), (0, 1));
        let offsets: Vec<u64> = minutes.seen().map(|(offset, _rate)| offset).collect();
        assert_eq!(offsets, [28_800, 28_920]);
        assert_eq!((minutes.index(28_799), minutes.index(28_800)), (0, 1));
        assert_eq!(
            (
                minutes.first_ending_at(28_800),
                minutes.first_ending_at(28_801)
            ),
            (0, 1)
        );
    }

    #[test]
    fn the_slope_is_relative_to_the_level() {
        let rates = [[10.0; 5], [20.0; 5]].concat();
        let minutes = Minutes { first: 0, rates };
        // (20 - 10) / 15.
        assert!((minutes.slope(9) - 2.0 / 3.0).abs() < 1e-12);
        // Of 10, 10, 10, 10, 20 after one 10 is left: (12 - 10) / 11.
        assert!((minutes.slope(5) - 2.0 / 11.0).abs() < 1e-12);
        assert!(minutes.slope(0).abs() < 1e-12);
        let silent = Minutes {
            first: 0,
            rates: vec![0.0; 10],
        };
        assert!(silent.slope(9).abs() < 1e-12);
    }
}
