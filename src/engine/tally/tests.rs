//! Samples as rows, and the sums after them.

use proptest::prelude::*;

use super::*;
use crate::engine::Engine;

/// `(second, running, waiting, completed)` as a server that tells no times.
type Row = (f64, f64, f64, f64);

fn at(seconds: f64) -> Instant {
    Instant::from_offset(Duration::from_secs_f64(seconds))
}

fn sample(running: f64, waiting: f64, completed: f64) -> Sample {
    Sample {
        engine: Engine::Vllm,
        running: Some(running),
        waiting,
        kv_cache: None,
        completed,
        failed: 0.0,
        request_seconds: None,
    }
}

fn after(rows: &[Row]) -> Tally {
    let mut tally = Tally::default();
    for &(seconds, running, waiting, completed) in rows {
        tally.take(at(seconds), sample(running, waiting, completed));
    }
    tally
}

fn arrivals(rows: &[Row]) -> f64 {
    after(rows).sums.arrivals
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-6
}

#[test]
fn what_arrived_is_what_ended_and_what_there_is_more() {
    let tally = after(&[(0.0, 2.0, 0.0, 100.0), (1.0, 4.0, 2.0, 103.0)]);
    let expected = Sums {
        observed_seconds: 1.0,
        arrivals: 7.0,
        completions: 3.0,
        failures: 0.0,
        busy_seconds: 4.0,
        service_seconds: 4.0,
    };
    assert_eq!(tally.sums, expected);
    let counts = tally.counts(at(1.5));
    assert!(
        counts.is_fresh && close(counts.in_flight, 6.0),
        "{counts:?}"
    );
}

#[test]
fn the_first_sample_is_where_counting_begins() {
    let tally = after(&[(9.0, 2.0, 1.0, 1e6)]);
    assert_eq!(tally.sums, Sums::default());
    assert!(close(tally.counts(at(9.0)).in_flight, 3.0));
}

#[test]
fn a_request_that_ends_before_it_leaves_the_gauge_arrives_once() {
    // Three come, all end, the gauge shows it two seconds later, and then one comes.
    let rows = [
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 3.0, 0.0, 0.0),
        (2.0, 3.0, 0.0, 3.0),
        (3.0, 0.0, 0.0, 3.0),
        (4.0, 1.0, 0.0, 3.0),
        (5.0, 4.0, 0.0, 3.0),
    ];
    let counted: Vec<f64> = (2..=rows.len()).map(|end| arrivals(&rows[..end])).collect();
    assert_eq!(counted, [3.0, 6.0, 6.0, 6.0, 7.0]);
}

#[test]
fn a_debt_that_nobody_pays_is_forgotten() {
    let abandoned = [(0.0, 5.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)];
    let later = |second: f64| {
        let between = (1..=61)
            .map(f64::from)
            .filter(|at| *at > 1.0 && *at < second);
        let quiet = between.map(|at| (at, 0.0, 0.0, 0.0));
        let rows: Vec<Row> = abandoned
            .into_iter()
            .chain(quiet)
            .chain([(second, 2.0, 0.0, 0.0)])
            .collect();
        arrivals(&rows)
    };
    assert!(close(later(61.0), 0.0), "a minute later it is still owed");
    assert!(close(later(61.5), 2.0));
}

#[test]
fn a_server_that_starts_again_starts_again() {
    let restarted = [
        (0.0, 8.0, 4.0, 5_000.0),
        (1.0, 8.0, 4.0, 5_010.0),
        (2.0, 1.0, 0.0, 2.0),
        (3.0, 1.0, 0.0, 6.0),
    ];
    let tally = after(&restarted);
    assert!(close(tally.sums.arrivals, 14.0), "{tally:?}");
    // The second in which it did is missing.
    assert!(close(tally.sums.observed_seconds, 2.0), "{tally:?}");
    let mut told = after(&restarted[..2]);
    let mut young = sample(0.0, 0.0, 5_020.0);
    young.request_seconds = Some(1.0);
    let mut old = young;
    old.request_seconds = Some(900.0);
    told.take(at(2.0), old);
    let before = told.sums;
    told.take(at(3.0), young);
    assert_eq!(told.sums, before, "the times fell back");
}

#[test]
fn what_nobody_observed_is_missing() {
    let tally = after(&[
        (0.0, 1.0, 0.0, 0.0),
        (5.0, 1.0, 0.0, 5.0),
        (10.1, 9.0, 0.0, 700.0),
        (11.1, 9.0, 0.0, 701.0),
    ]);
    assert!(close(tally.sums.observed_seconds, 6.0), "{tally:?}");
    assert!(close(tally.sums.completions, 6.0), "{tally:?}");
    assert!(close(tally.sums.arrivals, 6.0), "{tally:?}");
}

#[test]
fn an_old_or_a_missed_sample_is_not_of_now() {
    let mut tally = after(&[(0.0, 0.0, 0.0, 0.0)]);
    assert!(tally.counts(at(3.0)).is_idle());
    assert!(!tally.counts(at(3.1)).is_fresh);
    assert!(!tally.counts(at(3.1)).is_idle(), "nobody knows");
    tally.miss();
    assert!(!tally.counts(at(1.0)).is_fresh);
    tally.take(at(2.0), sample(1.0, 0.0, 0.0));
    let counts = tally.counts(at(2.0));
    assert!(counts.is_fresh && !counts.is_idle());
    assert!(!Tally::default().counts(at(0.0)).is_fresh);
}

#[test]
fn a_server_that_tells_no_running_requests_is_busy_for_as_long_as_its_requests_took() {
    let triton = |waiting: f64, completed: f64, seconds: f64| Sample {
        engine: Engine::Triton,
        running: None,
        request_seconds: Some(seconds),
        ..sample(0.0, waiting, completed)
    };
    let mut tally = Tally::default();
    tally.take(at(0.0), triton(0.0, 10.0, 3.0));
    tally.take(at(2.0), triton(2.0, 18.0, 11.0));
    assert!(close(tally.sums.busy_seconds, 8.0), "{tally:?}");
    assert!(close(tally.sums.service_seconds, 8.0), "{tally:?}");
    assert!(close(tally.sums.arrivals, 10.0), "{tally:?}");
    assert!(close(tally.counts(at(2.0)).in_flight, 4.0), "{tally:?}");
    tally.take(at(3.0), triton(0.0, 20.0, 11.0));
    assert!(tally.counts(at(3.0)).is_idle(), "{tally:?}");
}

proptest! {
    #[test]
    fn whatever_the_server_says_the_sums_only_grow_and_no_more_than_it_had(
        rows in prop::collection::vec((0.0..8.0_f64, 0.0..50.0_f64, 0.0..50.0_f64, 0.0..1e6_f64), 1..40),
    ) {
        let (mut tally, mut now) = (Tally::default(), 0.0);
        let mut last: Option<Sample> = None;
        for (passed, running, waiting, completed) in rows {
            now += passed;
            let before = tally.sums;
            let sample = sample(running.floor(), waiting.floor(), completed.floor());
            tally.take(at(now), sample);
            let step = tally.sums.since(&before);
            for grown in [step.observed_seconds, step.arrivals, step.completions, step.busy_seconds, step.service_seconds] {
                prop_assert!(grown >= 0.0, "{step:?}");
            }
            let ended = last.map_or(0.0, |last| (sample.completed - last.completed).max(0.0));
            prop_assert!(step.arrivals <= ended + sample.in_flight(), "{step:?}");
            last = Some(sample);
        }
    }
}
