//! What each policy came to, for a program and for a person.

use serde::Serialize;

use super::VIOLATION_PRICE;
use super::columns::aligned;
use super::ledger::Ledger;

/// One policy on one trace, past the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The trace's name.
    pub trace: String,
    /// The policy, as it was written.
    pub policy: String,
    /// Requests that came.
    pub requests: f64,
    /// Those that waited longer than the SLO to be started.
    pub violations: f64,
    /// Paid for, from the asking to the removal.
    pub pod_seconds: f64,
    /// What the clairvoyant paid.
    pub clairvoyant_pod_seconds: f64,
    /// Pod-seconds over the clairvoyant's, less 1, and what the violations cost.
    pub regret: f64,
    /// How often another number of replicas was asked for.
    pub changes: u64,
    /// Seconds that 99 % of the requests waited at most, in whole steps.
    pub wait_p99: u64,
    /// Likewise of 99.9 %.
    pub wait_p999: u64,
    /// Violations that came due while pods that were asked for did not serve yet.
    pub cold_waits: f64,
}

// === impl Score ===

impl Score {
    pub(super) fn new(trace: &str, policy: &str, ledger: &Ledger, clairvoyant: &Ledger) -> Self {
        let paid = ledger.pod_seconds / clairvoyant.pod_seconds.max(f64::MIN_POSITIVE);
        let late = ledger.violations / ledger.requests.max(f64::MIN_POSITIVE);
        Self {
            trace: trace.to_owned(),
            policy: policy.to_owned(),
            requests: tidy(ledger.requests),
            violations: tidy(ledger.violations),
            pod_seconds: ledger.pod_seconds,
            clairvoyant_pod_seconds: clairvoyant.pod_seconds,
            regret: paid - 1.0 + VIOLATION_PRICE * late,
            changes: ledger.changes,
            wait_p99: ledger.wait(0.99),
            wait_p999: ledger.wait(0.999),
            cold_waits: tidy(ledger.cold_waits),
        }
    }

    /// The share of requests that violate, in per cent.
    pub(super) fn late_percent(&self) -> f64 {
        100.0 * self.violations / self.requests.max(f64::MIN_POSITIVE)
    }

    /// Pod-seconds over the clairvoyant's.
    pub(super) fn times_best(&self) -> f64 {
        self.pod_seconds / self.clairvoyant_pod_seconds.max(f64::MIN_POSITIVE)
    }
}

/// Counts of scaled requests are fractions whose last digits say nothing.
fn tidy(count: f64) -> f64 {
    (count * 1e3).round() / 1e3
}

/// The scores as text, the best of each trace first.
pub fn table(scores: &[Score]) -> String {
    let head = [
        "trace",
        "policy",
        "regret",
        "late %",
        "pod-hours",
        "x best",
        "changes",
        "wait p99",
        "p99.9",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for of_trace in scores.chunk_by(|one, other| one.trace == other.trace) {
        let mut sorted: Vec<&Score> = of_trace.iter().collect();
        sorted.sort_by(|one, other| one.regret.total_cmp(&other.regret));
        rows.extend(sorted.into_iter().map(row));
    }
    aligned(&rows, 2)
}

fn row(score: &Score) -> Vec<String> {
    vec![
        score.trace.clone(),
        score.policy.clone(),
        format!("{:.3}", score.regret),
        format!("{:.3}", score.late_percent()),
        format!("{:.1}", score.pod_seconds / 3_600.0),
        format!("{:.3}", score.times_best()),
        score.changes.to_string(),
        format!("{} s", score.wait_p99),
        format!("{} s", score.wait_p999),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regret_is_what_was_paid_too_much_and_fifty_times_the_share_that_violates() {
        let mut ledger = Ledger::new(0, 10);
        ledger.requests = 1_000.0;
        ledger.violations = 4.0;
        ledger.pod_seconds = 360.0;
        let mut clairvoyant = Ledger::new(0, 10);
        clairvoyant.pod_seconds = 240.0;
        let score = Score::new("t", "hpa:70", &ledger, &clairvoyant);
        assert!((score.regret - (0.5 + 0.2)).abs() < 1e-12, "{score:?}");
        // A trace without requests has nothing that could violate.
        let score = Score::new("t", "hpa:70", &Ledger::new(0, 10), &clairvoyant);
        assert!((score.regret + 1.0).abs() < 1e-12, "{score:?}");
    }

    #[test]
    fn the_table_has_the_best_of_each_trace_first() {
        let mut ledger = Ledger::new(0, 10);
        ledger.pod_seconds = 2.0;
        let costly = Score::new("a", "costly", &ledger, &ledger);
        let cheap = Score {
            policy: "cheap".to_owned(),
            regret: -0.5,
            ..costly.clone()
        };
        let text = table(&[costly, cheap]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("trace  policy  regret"), "{text}");
        assert!(lines[1].starts_with("a      cheap"), "{text}");
        assert!(lines[2].starts_with("a      costly   0.000"), "{text}");
    }
}
