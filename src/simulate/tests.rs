//! Whole simulations: what must hold of any trace.

mod shapes;

use std::sync::atomic::AtomicU64;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::play::{Played, Player, play};
use super::*;
use crate::baseline::{Actor, Rule};

/// Turns cost some tens of microseconds each, and a case has hundreds of them.
const CASES: u32 = 12;

fn settings() -> Settings {
    Settings {
        pod_rps: 5.0,
        cold_start: Duration::from_secs(60),
        bounds: (1, 20),
        ..Settings::default()
    }
}

fn trace(text: &str) -> Trace {
    Trace::parse("t.csv", &format!("offset_seconds,requests\n{text}")).expect("a good trace")
}

fn draw(trace: &Trace, settings: &Settings) -> Timeline {
    Timeline::draw(trace, 1.0, &mut StdRng::seed_from_u64(settings.seed))
}

/// A trace of one-second bins, `None` where nobody looked.
fn seconds(counts: &[Option<f64>]) -> Timeline {
    let lines = counts.iter().enumerate();
    let lines = lines.filter_map(|(second, count)| Some(format!("{second},{}\n", (*count)?)));
    draw(&trace(&lines.collect::<String>()), &settings())
}

fn played(timeline: &Timeline, name: &str) -> Played {
    let settings = settings();
    let target = 0.7;
    let rule = match name {
        "hpa" => Rule::Hpa { target },
        "kpa" => Rule::Kpa { target },
        _ => {
            let mut player = Player::Sidescale(Box::new(Leader::new(&settings)));
            return play(timeline, &settings, &mut player, &AtomicU64::new(0));
        }
    };
    let mut player = Player::Rule(Box::new(Actor::new(rule, settings.bounds)));
    play(timeline, &settings, &mut player, &AtomicU64::new(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// Nothing of the future can be seen: what was decided does not depend on what comes.
    #[test]
    fn the_decisions_of_a_trace_that_was_cut_begin_those_of_the_whole(
        counts in prop::collection::vec(prop::option::weighted(0.97, 0.0..60.0_f64), 150..400),
        percent in 30_usize..100,
    ) {
        let mut counts = counts;
        // A trace begins and ends with what was observed, and bins of one second are told by two that follow each other.
        for at in [0, 1, counts.len() - 1] {
            counts[at] = Some(7.0);
        }
        let whole = seconds(&counts);
        let mut cut = whole.clone();
        let end = (counts.len() * percent / 100).max(60) as u64;
        cut.cut(end);
        for name in ["sidescale", "hpa", "kpa"] {
            let decided = played(&whole, name).decisions;
            let before: Vec<_> = decided.into_iter().filter(|(at, _)| *at < end).collect();
            prop_assert_eq!(played(&cut, name).decisions, before, "{} cut at {}", name, end);
        }
    }

    /// A file that was cut draws the same arrivals up to the centre of its last bin, from where on it does not know
    /// where the rate goes.
    #[test]
    fn a_file_that_was_cut_draws_the_same_seconds(
        counts in prop::collection::vec(0_u32..5_000, 4..30),
        seed: u64,
        percent in 10_usize..100,
    ) {
        let text = |bins: usize| -> String {
            let bins = counts.iter().take(bins).enumerate();
            let lines = bins.map(|(bin, count)| format!("{},{count}\n", bin * 60));
            lines.collect::<Vec<_>>().concat()
        };
        let bins = (counts.len() * percent / 100).max(2);
        let settings = Settings { seed, ..settings() };
        let whole = draw(&trace(&text(counts.len())), &settings);
        let cut = draw(&trace(&text(bins)), &settings);
        let known = bins * 60 - 30;
        prop_assert!(cut.seconds().take(known).eq(whole.seconds().take(known)));
    }

    /// Whatever the arrivals, the plan stays within its bounds and the figures are figures.
    #[test]
    fn any_arrivals_give_a_sane_plan(
        rates in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1.0_f64, 0.0..100.0_f64, Just(1e6)], 3..8),
    ) {
        let counts: Vec<Option<f64>> =
            rates.iter().flat_map(|rate| std::iter::repeat_n(Some(*rate), 40)).collect();
        let timeline = seconds(&counts);
        for name in ["sidescale", "hpa", "kpa"] {
            let Played { ledger, decisions } = played(&timeline, name);
            prop_assert!(decisions.iter().all(|(_, replicas)| (1..=20).contains(replicas)), "{name}");
            prop_assert!(ledger.requests.is_finite() && ledger.violations <= ledger.requests * (1.0 + 1e-9));
            prop_assert!(ledger.cold_waits <= ledger.violations);
            let most = 20.0 * counts.len() as f64;
            prop_assert!((0.0..=most).contains(&ledger.pod_seconds), "{name}");
        }
        let best = clairvoyant::play(&timeline, &settings());
        prop_assert!(best.pod_seconds >= counts.len() as f64);
    }

    /// Whatever stands in a file, it is a trace or an error that names the file.
    #[test]
    fn any_text_is_a_trace_or_an_error_with_its_place(
        lines in prop::collection::vec("[0-9]{1,3},[0-9]{1,3}|[-0-9.,eNa ]{0,12}|.{0,6}", 0..8),
        has_header: bool,
    ) {
        let header = if has_header { "offset_seconds,requests\n" } else { "" };
        let text = format!("{header}{}", lines.join("\n"));
        match Trace::parse("t.csv", &text) {
            Ok(trace) => prop_assert!(trace.mean_rate() >= 0.0 && trace.end() > trace.start()),
            Err(error) => prop_assert!(error.to_string().starts_with("t.csv:"), "{}", error),
        }
    }
}

#[test]
fn one_request_and_nothing_else_keeps_the_fewest_pods() {
    let mut counts = vec![Some(0.0); 900];
    counts[200] = Some(1.0);
    let timeline = seconds(&counts);
    for name in ["sidescale", "hpa", "kpa"] {
        let Played { ledger, decisions } = played(&timeline, name);
        assert!((ledger.requests - 1.0).abs() < 1e-12, "{name}");
        assert!(ledger.violations.abs() < 1e-12, "{name}");
        let last = decisions.last().map(|(_, replicas)| *replicas);
        assert_eq!(last, Some(1), "{name}: {decisions:?}");
    }
}

#[test]
fn nobody_decides_or_is_scored_while_nobody_looks() {
    let mut counts = vec![Some(20.0); 1_200];
    counts[300..900].fill(None);
    let timeline = seconds(&counts);
    for name in ["sidescale", "hpa", "kpa"] {
        let Played { ledger, decisions } = played(&timeline, name);
        let blind = decisions.iter().filter(|(at, _)| (300..900).contains(at));
        assert_eq!(blind.count(), 0, "{name}: {decisions:?}");
        // Six pods serve 20 a second at 5 each with room; had it seen zeros, it would begin again with one.
        let after = decisions.iter().rfind(|(at, _)| *at < 300);
        let resumed = decisions.iter().find(|(at, _)| *at >= 900);
        let lowest = resumed.or(after).map_or(0, |(_, replicas)| *replicas);
        assert!(lowest >= 4, "{name}: {decisions:?}");
        assert!((ledger.requests - 600.0 * 20.0).abs() < 1e-6, "{name}");
        assert!(ledger.pod_seconds <= 600.0 * 20.0, "{name}");
    }
}

#[test]
fn it_starts_with_more_than_the_first_minute_needs() {
    let counts = vec![Some(20.0); 120];
    let mut first = Vec::new();
    let timeline = seconds(&counts);
    let mut player = Player::Rule(Box::new(Actor::new(Rule::Fixed { replicas: 6 }, (1, 20))));
    let played = play(&timeline, &settings(), &mut player, &AtomicU64::new(0));
    first.extend(played.decisions);
    // 1.3 times 20 a second at 5 a pod are 5.2 pods: a fixed six has nothing to ask for.
    assert_eq!(first, []);
    assert!((played.ledger.pod_seconds - 720.0).abs() < 1e-9);
}
