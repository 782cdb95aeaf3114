//! The random half: when exactly requests arrive.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt as _;

use super::Trace;

/// Arrivals of a stretch of a [`Trace`], as times from the stretch's start, in order.
#[derive(Clone, Debug)]
pub struct Arrivals<R> {
    trace: Trace,
    /// The stretch, in seconds from the trace's zero.
    from: f64,
    to: f64,
    factor: f64,
    rng: R,
    /// The next piece of the trace to draw from.
    piece: usize,
    /// How far the present piece has been drawn.
    at: f64,
    /// Drawn and not yet given out, of a bin of one second.
    drawn: VecDeque<f64>,
}

// === impl Arrivals ===

impl<R: rand::Rng> Arrivals<R> {
    pub(super) fn new(trace: Trace, from: Duration, to: Duration, factor: f64, rng: R) -> Self {
        let from = from.as_secs_f64();
        Self {
            piece: trace.first_piece(from),
            trace,
            from,
            to: to.as_secs_f64(),
            factor,
            rng,
            at: from,
            drawn: VecDeque::new(),
        }
    }

    /// The next arrival of a Poisson process with the interpolated rate, by thinning: candidates come at the piece's
    /// highest rate, and each stays with the probability that the rate at its time has of that.
    fn next_interpolated(&mut self) -> Option<f64> {
        loop {
            let piece = self.trace.piece(self.piece)?;
            self.at = self.at.max(piece.start);
            if self.at >= self.to {
                return None;
            }
            let highest = piece.rate_at_start.max(piece.rate_at_end) * self.factor;
            // In (0, 1], so that the logarithm is finite. A rate of zero gives an infinite gap.
            let gap = -(1.0 - self.rng.random::<f64>()).ln() / highest;
            if highest > 0.0 && self.at + gap < piece.end {
                self.at += gap;
                let stays =
                    self.rng.random::<f64>() * highest < piece.rate_at(self.at) * self.factor;
                if stays {
                    return (self.at < self.to).then_some(self.at);
                }
            } else {
                // A Poisson process has no memory: to start anew at the piece's end changes nothing.
                self.at = piece.end;
                self.piece += 1;
            }
        }
    }

    /// The next arrival of a trace with bins of one second, whose counts are kept.
    fn next_counted(&mut self) -> Option<f64> {
        loop {
            if let Some(at) = self.drawn.pop_front() {
                return Some(at);
            }
            let second = self.trace.piece(self.piece)?;
            if second.start >= self.to {
                return None;
            }
            self.piece += 1;
            // A scaled count has a fraction; rounding it at random keeps the mean.
            let count = second.rate_at_start * self.factor;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count is 0 or more, and one beyond 2^64 could not be played anyway"
            )]
            let whole = count.floor() as u64 + u64::from(self.rng.random::<f64>() < count.fract());
            let mut times: Vec<f64> = (0..whole)
                .map(|_| second.start + self.rng.random::<f64>())
                .filter(|at| (self.from..self.to).contains(at))
                .collect();
            times.sort_by(f64::total_cmp);
            self.drawn = times.into();
        }
    }
}

impl<R: rand::Rng> Iterator for Arrivals<R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = if self.trace.width_secs == 1 {
            self.next_counted()
        } else {
            self.next_interpolated()
        }?;
        Some(Duration::from_secs_f64((at - self.from).max(0.0)))
    }
}
