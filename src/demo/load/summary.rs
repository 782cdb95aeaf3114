//! What a load's outcomes amount to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Ending, Outcome};

/// Counts and latencies of a load; one duration is kept per request that went well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    endings: BTreeMap<Ending, u64>,
    totals: Vec<Duration>,
    first_bytes: Vec<Duration>,
}

// === impl Summary ===

impl Summary {
    /// Counts one request.
    pub fn add(&mut self, outcome: &Outcome) {
        *self.endings.entry(outcome.result).or_default() += 1;
        if outcome.result.is_ok() {
            self.totals.push(outcome.total);
            self.first_bytes.extend(outcome.first_byte);
        }
    }

    /// Requests that have ended.
    pub fn requests(&self) -> u64 {
        self.endings.values().sum()
    }

    /// Requests that ended this way.
    pub fn ended(&self, ending: Ending) -> u64 {
        self.endings.get(&ending).copied().unwrap_or_default()
    }

    /// Requests whose clients did not get what they asked for.
    pub fn failed(&self) -> u64 {
        self.requests() - self.ended(Ending::Ok)
    }

    /// The latency that this share (0 to 1) of the good requests stayed within.
    pub fn total(&self, share: f64) -> Option<Duration> {
        quantile(&self.totals, share)
    }

    /// The time to the first byte that this share (0 to 1) of the good requests stayed within.
    pub fn first_byte(&self, share: f64) -> Option<Duration> {
        quantile(&self.first_bytes, share)
    }
}

/// The smallest of `durations` that at least `share` of them do not exceed.
fn quantile(durations: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (share * sorted.len() as f64).ceil().max(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is at least 1 and at most the length"
    )]
    sorted.get(rank as usize - 1).copied()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests, {} failed", self.requests(), self.failed())?;
        for (ending, count) in self.endings.iter().filter(|(ending, _)| !ending.is_ok()) {
            writeln!(f, "  {ending}: {count}")?;
        }
        for (name, durations) in [("first byte", &self.first_bytes), ("total", &self.totals)] {
            let [half, most, nearly_all] = [0.5, 0.95, 0.99].map(|share| {
                let within = quantile(durations, share).unwrap_or_default();
                within.as_secs_f64()
            });
            writeln!(
                f,
                "{name}: p50 {half:.3} s, p95 {most:.3} s, p99 {nearly_all:.3} s"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Reset => f.write_str("connection reset"),
            Self::Refused => f.write_str("connection refused"),
            Self::ShortBody => f.write_str("answer cut short"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;

    #[test]
    fn failures_are_counted_by_kind_and_stay_out_of_the_latencies() {
        let mut summary = Summary::default();
        let outcome = |millis, result| Outcome {
            due: Instant::default(),
            sent_at: Instant::default(),
            endpoint: None,
            first_byte: Some(Duration::from_millis(millis / 2)),
            total: Duration::from_millis(millis),
            queued: None,
            result,
        };
        for millis in 1..=100 {
            summary.add(&outcome(millis * 10, Ending::Ok));
        }
        summary.add(&outcome(99_000, Ending::Status(503)));
        summary.add(&outcome(99_000, Ending::Reset));
        assert_eq!((summary.requests(), summary.failed()), (102, 2));
        assert_eq!(summary.total(0.95), Some(Duration::from_millis(950)));
        assert_eq!(summary.total(1.0), Some(Duration::from_secs(1)));
        assert_eq!(
            summary.to_string(),
            "102 requests, 2 failed\n  connection reset: 1\n  status 503: 1\nfirst byte: p50 0.250 s, p95 0.475 s, p99 \
             0.495 s\ntotal: p50 0.500 s, p95 0.950 s, p99 0.990 s\n"
        );
        assert_eq!(Summary::default().total(0.5), None);
    }
}
