//! What surrounds a baseline's point: the quantiles of its own errors of late.
//!
//! Split conformal prediction over a trailing window, with the level adapted online: Gibbs and Candès, "Adaptive Conformal
//! Inference Under Distribution Shift" (2021), equation 2. Errors have a sign, because only the upper quantile matters.

use std::collections::VecDeque;

use super::{DAY, Said};

/// Errors older than this are forgotten: a week has every weekday once.
const WINDOW_MINUTES: usize = 7 * DAY;
/// The paper's step.
const STEP: f64 = 0.005;
/// What may be exceeded of 0.95 and of 0.99.
const MISSES: [f64; 2] = [0.05, 0.01];

/// The errors of one rule at one horizon.
#[derive(Clone, Debug)]
pub(super) struct Conformal {
    /// The errors by their minute, oldest first, and the same ones by size.
    errors: VecDeque<(usize, f64)>,
    sorted: Vec<f64>,
    /// The share that is allowed to be missed at present.
    allowed: [f64; 2],
}

// === impl Conformal ===

impl Conformal {
    pub(super) fn new() -> Self {
        Self {
            errors: VecDeque::new(),
            sorted: Vec::new(),
            allowed: MISSES,
        }
    }

    /// The minute has come of which `said` was said.
    pub(super) fn learn(&mut self, minute: usize, came: f64, said: Said) {
        let uppers = [said.upper95, said.upper99];
        for ((allowed, misses), upper) in self.allowed.iter_mut().zip(MISSES).zip(uppers) {
            let missed = f64::from(u8::from(came > upper));
            *allowed = (*allowed + STEP * (misses - missed)).clamp(0.0, 1.0);
        }
        while let Some((old, error)) = self.errors.front().copied()
            && old + WINDOW_MINUTES <= minute
        {
            self.errors.pop_front();
            self.sorted.remove(self.place(error));
        }
        let error = came - said.point;
        self.sorted.insert(self.place(error), error);
        self.errors.push_back((minute, error));
    }

    /// The point with its quantiles; without any error known, nothing surrounds it.
    pub(super) fn around(&self, point: f64) -> Said {
        let upper = |allowed: f64| (point + self.quantile(1.0 - allowed)).max(0.0);
        Said {
            point,
            upper95: upper(self.allowed[0]),
            upper99: upper(self.allowed[1]),
        }
    }

    /// The smallest error that `share` of one more than are known lie at or below; the largest where that is none.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = share * (self.sorted.len() + 1) as f64;
        self.sorted
            .get(rank(wanted).saturating_sub(1))
            .or(self.sorted.last())
            .copied()
            .unwrap_or(0.0)
    }

    fn place(&self, error: f64) -> usize {
        self.sorted.partition_point(|known| *known < error)
    }
}

/// Counted from 1. A product that is a whole number may come out a little above it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a length, and less than nothing is 0"
)]
fn rank(wanted: f64) -> usize {
    (wanted - 1e-9).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(point: f64) -> Said {
        Said {
            point,
            upper95: f64::INFINITY,
            upper99: f64::INFINITY,
        }
    }

    fn check(number: f64, expected: f64) {
        assert!((number - expected).abs() < 1e-9, "{number} for {expected}");
    }

    #[test]
    fn the_quantile_is_that_of_one_error_more() {
        let mut conformal = Conformal::new();
        check(conformal.around(3.0).upper95, 3.0);
        for (minute, error) in [4.0, -1.0, 2.0, 0.0].into_iter().enumerate() {
            conformal.learn(minute, 10.0 + error, said(10.0));
        }
        // Of -1, 0, 2, 4 and one to come: 0.4 x 5 is the second, 0.41 x 5 the third, 0.95 x 5 more than there are.
        for (share, expected) in [
            (0.0, -1.0),
            (0.4, 0.0),
            (0.41, 2.0),
            (0.8, 4.0),
            (0.95, 4.0),
        ] {
            check(conformal.quantile(share), expected);
        }
        check(conformal.around(10.0).upper99, 14.0);
        let below = Conformal {
            sorted: vec![-5.0],
            ..Conformal::new()
        };
        check(below.around(2.0).upper95, 0.0);
    }

    #[test]
    fn a_week_later_an_error_is_forgotten() {
        let mut conformal = Conformal::new();
        conformal.learn(0, 9.0, said(0.0));
        conformal.learn(WINDOW_MINUTES - 1, 1.0, said(0.0));
        check(conformal.around(0.0).upper99, 9.0);
        conformal.learn(WINDOW_MINUTES, 2.0, said(0.0));
        assert_eq!((conformal.sorted.len(), conformal.errors.len()), (2, 2));
        check(conformal.around(0.0).upper99, 2.0);
    }

    #[test]
    fn who_is_missed_too_often_allows_less() {
        let mut conformal = Conformal::new();
        let low = Said::default();
        conformal.learn(0, 1.0, low);
        // 0.05 + 0.005 (0.05 - 1), and 0.01 + 0.005 (0.01 - 1).
        check(conformal.allowed[0], 0.045_25);
        check(conformal.allowed[1], 0.005_05);
        conformal.learn(1, 1.0, said(1.0));
        check(conformal.allowed[0], 0.045_5);
        for minute in 2..40 {
            conformal.learn(minute, 1.0, low);
        }
        check(conformal.allowed[1], 0.0);
    }
}
