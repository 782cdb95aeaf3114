//! Cumulative counters of one member, turned into what happened since the reader last looked.
//!
//! A report carries sums since its process started, so a lost line costs nothing: the next difference has it. What needs
//! care is the first report (what came before it is another leader's, already in the history), a restarted process (its
//! sums start from zero), and a long silence (its sum arrives in one moment and would look like a burst).

use std::time::Duration;

use crate::clock::Instant;
use crate::report::{Load, Report};

/// A difference that spans more is counted only for this long, at its own mean rate.
///
/// A member that was cut off for five minutes at 20 requests a second comes back with 6,000 arrivals; put into one second
/// they would ask for the whole quota of pods. The minutes between are missing, not zero, and a new leader can fetch them
/// from the member's own ring. Halved, a pause of the leader under load loses counts; doubled, the false burst doubles.
pub(super) const LONGEST_SPAN: Duration = Duration::from_secs(30);

/// The last report of one member that was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    epoch: u64,
    seq: u64,
    at_millis: u64,
    total: Load,
}

// === impl Counted ===

impl Counted {
    /// Takes the member's first report to this reader, received at `now`. `seen` is when this reader first saw the pod:
    /// a process that started after that has counted nothing that anybody else has seen.
    pub(super) fn first(report: &Report, now: Instant, seen: Instant) -> (Self, Load) {
        let uptime = Duration::from_millis(report.at_millis);
        let is_all_new = now.offset() >= seen.offset() + uptime;
        let load = if is_all_new {
            bounded(&report.total, uptime)
        } else {
            Load::default()
        };
        (Self::of(report), load)
    }

    /// Takes the next report; `None` if it is older than what was counted already.
    pub(super) fn next(&mut self, report: &Report) -> Option<Load> {
        let load = if report.epoch == self.epoch {
            if report.seq <= self.seq {
                return None;
            }
            let span = Duration::from_millis(report.at_millis.saturating_sub(self.at_millis));
            bounded(&report.total.since(&self.total), span)
        } else {
            bounded(&report.total, Duration::from_millis(report.at_millis))
        };
        *self = Self::of(report);
        Some(load)
    }

    fn of(report: &Report) -> Self {
        Self {
            epoch: report.epoch,
            seq: report.seq,
            at_millis: report.at_millis,
            total: report.total,
        }
    }
}

fn bounded(load: &Load, span: Duration) -> Load {
    if span <= LONGEST_SPAN {
        *load
    } else {
        load.scaled(LONGEST_SPAN.as_secs_f64() / span.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(epoch: u64, seq: u64, at_secs: u64, arrivals: f64) -> Report {
        Report {
            epoch,
            seq,
            at_millis: at_secs * 1_000,
            total: Load {
                arrivals,
                pod_seconds: f64::from(u32::try_from(at_secs).expect("a short test")),
                ..Load::default()
            },
            ..Report::default()
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    /// Feeds `(epoch, seq, at_secs, arrivals)` and gives the arrivals counted for each.
    fn counted(seen: u64, first_at: u64, rows: &[(u64, u64, u64, f64)]) -> Vec<Option<f64>> {
        let mut state: Option<Counted> = None;
        let mut results = Vec::new();
        for &(epoch, seq, at_secs, arrivals) in rows {
            let report = report(epoch, seq, at_secs, arrivals);
            let load = if let Some(counted) = &mut state {
                counted.next(&report)
            } else {
                let (counted, load) = Counted::first(&report, at(first_at), at(seen));
                state = Some(counted);
                Some(load)
            };
            results.push(load.map(|load| load.arrivals));
        }
        results
    }

    #[test]
    fn two_reports_of_one_epoch_count_their_difference() {
        let rows = [
            (7, 10, 100, 500.0),
            (7, 11, 101, 520.0),
            (7, 14, 104, 580.0),
        ];
        assert_eq!(counted(50, 60, &rows), [Some(0.0), Some(20.0), Some(60.0)]);
    }

    #[test]
    fn an_old_or_repeated_report_counts_nothing() {
        let rows = [(7, 10, 100, 500.0), (7, 10, 100, 500.0), (7, 9, 99, 480.0)];
        assert_eq!(counted(50, 60, &rows), [Some(0.0), None, None]);
    }

    #[test]
    fn a_restarted_process_counts_from_zero() {
        let rows = [(7, 10, 100, 500.0), (8, 1, 2, 9.0)];
        assert_eq!(counted(50, 60, &rows), [Some(0.0), Some(9.0)]);
    }

    #[test]
    fn the_first_report_counts_whole_only_if_its_process_is_younger_than_the_first_sight() {
        assert_eq!(counted(50, 60, &[(7, 1, 10, 30.0)]), [Some(30.0)]);
        assert_eq!(counted(50, 60, &[(7, 1, 11, 30.0)]), [Some(0.0)]);
    }

    #[test]
    fn a_long_silence_is_not_a_burst() {
        // 20 requests a second over 300 s: 30 s of them are counted, and the observed time shrinks alike.
        let mut counted = Counted::of(&report(7, 1, 100, 2_000.0));
        let load = counted.next(&report(7, 2, 400, 8_000.0)).expect("newer");
        assert!((load.arrivals - 600.0).abs() < 1e-9, "{load:?}");
        assert!((load.pod_seconds - 30.0).abs() < 1e-9, "{load:?}");
    }
}
