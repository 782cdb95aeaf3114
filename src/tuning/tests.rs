use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::pace::Pace;
use crate::report::Load;

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// A Monday, at midnight.
const BEGIN: i64 = 1_700_438_400;

fn facts() -> Facts {
    Facts {
        pod_rps: 5.0,
        cold_start: Duration::from_secs(300),
        bounds: (1, 48),
        cost_ratio: 50.0,
        slots: None,
    }
}

/// A history of `secs` seconds with `rate(second)` arrivals a second, ten seconds at a time.
fn history(secs: i64, rate: impl Fn(i64) -> f64) -> History {
    let mut history = History::new(Duration::from_secs(14 * 86_400));
    for second in (10..=secs).step_by(10) {
        record(&mut history, second, rate(second - 5));
    }
    history
}

fn record(history: &mut History, second: i64, rate: f64) {
    let load = Load {
        pod_seconds: 10.0,
        arrivals: 10.0 * rate,
        ..Load::default()
    };
    history.record(at(second), &load);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis((BEGIN + second) * 1_000)
}

/// A tuner that has replayed all of it.
fn replayed(history: &History, end: i64, facts: Facts) -> Tuner {
    let mut tuner = Tuner::new(Parts::ALL);
    for _turn in 0..20 {
        tuner.observe(at(end), history, &Forecaster::default(), facts);
    }
    tuner
}

fn advice(tuner: &Tuner, end: i64) -> Advice {
    tuner.advice(at(end), false).expect("it was all replayed")
}

#[test]
fn a_calm_load_is_given_little_more_than_it_needs() {
    let tuner = replayed(&history(DAY, |_| 30.0), DAY, facts());
    let advice = advice(&tuner, DAY);
    // Six pods carry it; the first second of the history counts ten.
    assert!((5.0..=7.0).contains(&advice.need), "{advice:?}");
    assert!(advice.late < 1.0, "{advice:?}");
}

#[test]
fn a_load_that_jumps_every_hour_is_given_what_the_jumps_need() {
    let bursts = |second: i64| if second % HOUR < 600 { 90.0 } else { 30.0 };
    let end = DAY - 1_800;
    let tuner = replayed(&history(end, bursts), end, facts());
    let advice = advice(&tuner, end);
    assert!(advice.need >= 17.0, "half an hour after a jump: {advice:?}");
}

#[test]
fn what_a_missed_request_costs_decides_how_much_is_kept_in_hand() {
    let noisy = |second: i64| 30.0 + f64::from(i16::try_from(second * 7_919 % 23).expect("small"));
    let history = history(DAY, noisy);
    let need = |cost_ratio| {
        let facts = Facts {
            cost_ratio,
            ..facts()
        };
        advice(&replayed(&history, DAY, facts), DAY).pod_hours
    };
    assert!(need(500.0) >= need(1.0));
}

#[test]
fn a_morning_that_comes_each_day_is_seen_before_it_comes() {
    let day = |second: i64| {
        let hour = second.rem_euclid(DAY) / HOUR;
        if (8..20).contains(&hour) { 100.0 } else { 20.0 }
    };
    let end = 6 * DAY + 8 * HOUR - 120;
    let tuner = replayed(&history(end, day), end, facts());
    let season = tuner.sights.rate(Sight::Season).expect("it looked");
    let level = tuner.sights.rate(Sight::Level).expect("it looked");
    assert!((level - 20.0).abs() < 1.0, "{level}");
    assert!(season > 90.0, "two minutes before the jump: {season}");
    assert!(
        advice(&tuner, end).need >= 18.0,
        "{:?}",
        advice(&tuner, end)
    );
    let reactive = tuner.advice(at(end), true).expect("it was all replayed");
    assert_eq!(reactive.candidate.sight, Sight::Level);
}

#[test]
fn a_leader_that_replays_the_history_decides_as_one_that_lived_through_it() {
    let waves = |second: i64| 40.0 + 20.0 * (second as f64 / 700.0).sin();
    let end = 6 * HOUR;
    let mut lived = Tuner::new(Parts::ALL);
    let mut history = History::new(Duration::from_secs(86_400));
    for second in (10..=end).step_by(10) {
        record(&mut history, second, waves(second));
        lived.observe(at(second), &history, &Forecaster::default(), facts());
    }
    let replayed = replayed(&history, end, facts());
    // The first slot ends where the history begins.
    assert_eq!(
        advice(&lived, end).candidate,
        advice(&replayed, end).candidate
    );
    assert!((advice(&lived, end).need - advice(&replayed, end).need).abs() < 1e-9);
}

#[test]
fn while_the_past_is_replayed_there_is_no_advice() {
    let history = history(2 * DAY, |_| 30.0);
    let mut tuner = Tuner::new(Parts::ALL);
    tuner.observe(at(2 * DAY), &history, &Forecaster::default(), facts());
    assert_eq!(tuner.advice(at(2 * DAY), false), None);
    assert_eq!(Tuner::new(Parts::ALL).advice(at(0), false), None);
}

#[test]
fn time_that_nobody_saw_is_no_time_without_load() {
    let mut history = history(DAY / 2, |_| 30.0);
    let mut tuner = replayed(&history, DAY / 2, facts());
    let before = advice(&tuner, DAY / 2);
    let later = DAY / 2 + 1_800;
    record(&mut history, later, 30.0);
    for _turn in 0..3 {
        tuner.observe(at(later), &history, &Forecaster::default(), facts());
    }
    let after = advice(&tuner, later);
    assert!(
        (after.pod_hours - before.pod_hours).abs() < 0.1,
        "{after:?}"
    );
    assert!((after.need - before.need).abs() < 1.0, "{after:?}");
}

#[test]
fn a_clock_that_goes_back_for_long_makes_it_learn_anew() {
    let history = history(DAY, |_| 30.0);
    let mut tuner = replayed(&history, DAY, facts());
    tuner.observe(at(DAY - 60), &history, &Forecaster::default(), facts());
    assert!(
        tuner.advice(at(DAY - 60), false).is_some(),
        "a minute is nothing"
    );
    tuner.observe(at(DAY / 2), &history, &Forecaster::default(), facts());
    assert!(
        tuner
            .next
            .is_none_or(|next| next <= at(DAY / 2).as_millis() / SLOT_MILLIS)
    );
}

#[test]
fn the_tighter_neighbour_is_of_the_same_kind_and_a_step_below() {
    let all = candidates(Parts::ALL);
    assert!(all.len() > 300, "{}", all.len());
    for (index, own) in all.iter().enumerate() {
        let other = all[candidates::tighter(&all, index)];
        assert_eq!(
            (other.sight, other.hold, other.drain),
            (own.sight, own.hold, own.drain)
        );
        assert!(other == *own || other.headroom <= 0.92 * own.headroom + 1e-9);
        assert!(own.hold <= LONGEST_HOLD);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_comes_the_advice_is_a_number_of_pods(
        rates in proptest::collection::vec(
            prop_oneof![Just(0.0), 0.0..1.0, 0.0..1e6, Just(f64::NAN), Just(1e300)], 1..300),
        pod_rps in 0.01..1e4_f64,
    ) {
        let mut history = History::new(Duration::from_secs(86_400));
        let mut tuner = Tuner::new(Parts::ALL);
        let facts = Facts { pod_rps, ..facts() };
        let mut second = 0;
        for rate in rates {
            second += 10;
            record(&mut history, second, rate);
            tuner.observe(at(second), &history, &Forecaster::default(), facts);
            if let Some(advice) = tuner.advice(at(second), false) {
                prop_assert!(advice.need.is_finite() && advice.need >= 0.0, "{advice:?}");
                prop_assert!(advice.late >= 0.0 && advice.pod_hours >= 0.0, "{advice:?}");
            }
        }
    }
}

#[test]
fn while_it_replays_it_rests() {
    let rests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rests);
    let mut tuner = Tuner::new(Parts::ALL);
    tuner.set_pace(Pace::new(move || {
        counted.fetch_add(1, Relaxed);
    }));
    let history = history(DAY, |_| 30.0);
    tuner.observe(at(DAY), &history, &Forecaster::default(), facts());
    assert!(rests.swap(0, Relaxed) >= 100);
    tuner.forget();
    tuner.observe(at(DAY), &history, &Forecaster::default(), facts());
    assert!(rests.load(Relaxed) >= 100, "it has not forgotten to");
}
