//! A trace, second by second.

use std::time::Duration;

use rand::Rng;

use super::poisson::poisson;
use super::trace::Trace;

/// What a fleet is not measured over at once: a longer trace is a mistyped offset.
pub(super) const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// The start, where the trace's first minute is looked at.
const FIRST: Duration = Duration::from_secs(60);

/// Arrivals of each second from a trace's start to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The offset of the first second.
    start: u64,
    /// Requests of each second; NaN: it was not observed.
    counts: Vec<f64>,
    /// The rate of the first minute.
    first_rate: f64,
}

// === impl Timeline ===

impl Timeline {
    /// Bins of a second are taken as they are, times `factor`. Longer ones are drawn: each second's count is Poisson, with
    /// the rate that lies in its middle on the line between the centres of neighbouring bins. Nothing is drawn for
    /// seconds that were not observed, so that the same seed gives the same start to a trace that was cut.
    pub fn draw(trace: &Trace, factor: f64, rng: &mut impl Rng) -> Self {
        let (start, end) = (trace.start().as_secs(), trace.end().as_secs());
        let is_counted = trace.bin() == Duration::from_secs(1);
        let middle = Duration::from_millis(500);
        let rates = (start..end).map(|second| trace.rate(Duration::from_secs(second) + middle));
        let counts = rates.map(|rate| match rate {
            Some(rate) if is_counted => rate * factor,
            Some(rate) => poisson(rate * factor, rng),
            None => f64::NAN,
        });
        let counts = counts.collect();
        let first = trace.start()..trace.end().min(trace.start() + FIRST);
        let seconds = first.end.saturating_sub(first.start).as_secs();
        let observed = (0..seconds)
            .filter_map(|second| trace.rate(first.start + Duration::from_secs(second) + middle));
        let (sum, seen) = observed.fold((0.0, 0.0), |(sum, seen), rate| (sum + rate, seen + 1.0));
        Self {
            start,
            counts,
            first_rate: factor * sum / f64::max(seen, 1.0),
        }
    }

    /// Each second's offset with its arrivals, `None` where nobody looked.
    pub fn seconds(&self) -> impl Iterator<Item = (u64, Option<f64>)> + '_ {
        let counts = self.counts.iter();
        (self.start..).zip(counts.map(|count| (!count.is_nan()).then_some(*count)))
    }

    /// How many seconds, those that nobody saw included.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether it has no second at all.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The offset of the first second.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Requests a second that the trace's first minute has.
    pub fn first_rate(&self) -> f64 {
        self.first_rate
    }

    /// Whether `offset` lies in it.
    pub fn contains(&self, offset: u64) -> bool {
        offset >= self.start && offset - self.start < self.counts.len() as u64
    }

    /// Ends it before `offset`.
    pub fn cut(&mut self, offset: u64) {
        let keep = offset.saturating_sub(self.start);
        self.counts
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn draw(text: &str, factor: f64) -> Timeline {
        let text = format!("offset_seconds,requests\n{text}");
        let trace = Trace::parse("t.csv", &text).expect("a good trace");
        Timeline::draw(&trace, factor, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn bins_of_a_second_stay_fractional_and_a_jump_is_missing() {
        let timeline = draw("10,4\n11,0\n12,1\n15,2\n", 0.25);
        let seconds: Vec<_> = timeline.seconds().collect();
        let expected = [
            (10, Some(1.0)),
            (11, Some(0.0)),
            (12, Some(0.25)),
            (13, None),
            (14, None),
            (15, Some(0.5)),
        ];
        assert_eq!(seconds, expected);
        assert!((timeline.first_rate() - 1.75 / 4.0).abs() < 1e-12);
        assert!(timeline.contains(15) && !timeline.contains(16) && !timeline.contains(9));
    }

    #[test]
    fn longer_bins_are_drawn_from_the_line_between_their_centres() {
        let timeline = draw("0,6000\n600,60000\n1200,6000\n", 1.0);
        let mean = |range: std::ops::Range<usize>| {
            let length = range.len() as f64;
            timeline.counts[range].iter().sum::<f64>() / length
        };
        // 10 a second at 300 s, 100 at 900 s: 55 at 600 s.
        assert!((mean(0..300) - 10.0).abs() < 0.8);
        assert!((mean(570..630) - 55.0).abs() < 4.0);
        assert!((mean(870..930) - 97.75).abs() < 5.0);
        assert!((timeline.first_rate() - 10.0).abs() < 1e-9);
    }
}
