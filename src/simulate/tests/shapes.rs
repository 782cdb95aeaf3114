//! Shapes of load that were once decided wrongly: none costs much more than under the better of HPA and KPA at 70 %.

use super::*;
use crate::simulate::poisson::poisson;

/// What it may cost of what the better of the two rules costs.
const MOST: f64 = 1.2;

fn drawn(length: u32, rate: impl Fn(u32) -> f64) -> Timeline {
    let mut rng = StdRng::seed_from_u64(1);
    let counts: Vec<Option<f64>> = (0..length)
        .map(|second| Some(poisson(rate(second), &mut rng)))
        .collect();
    seconds(&counts)
}

fn regret(timeline: &Timeline, settings: &Settings, player: &mut Player) -> f64 {
    let best = clairvoyant::play(timeline, settings);
    let played = play(timeline, settings, player, &AtomicU64::new(0));
    Score::new("shape", "policy", &played.ledger, &best).regret
}

fn is_no_worse(timeline: &Timeline, warmup: Duration) {
    for cold_start in [60, 300, 900] {
        let settings = Settings {
            cold_start: Duration::from_secs(cold_start),
            bounds: (1, 60),
            warmup,
            ..settings()
        };
        let rule = |rule: Rule| Player::Rule(Box::new(Actor::new(rule, settings.bounds)));
        let target = 0.7;
        let hpa = regret(timeline, &settings, &mut rule(Rule::Hpa { target }));
        let kpa = regret(timeline, &settings, &mut rule(Rule::Kpa { target }));
        let mut ours = Player::Sidescale(Box::new(Leader::new(&settings)));
        let ours = regret(timeline, &settings, &mut ours);
        assert!(
            ours <= MOST * hpa.min(kpa).max(0.0) + 0.01,
            "cold start {cold_start} s: {ours:.3}, HPA {hpa:.3}, KPA {kpa:.3}"
        );
    }
}

/// All but its first minute is a queue: its time is no work, and help on its way is not sent back.
#[test]
fn a_service_that_starts_overloaded_is_not_left_alone() {
    let timeline = drawn(5_400, |second| if second < 60 { 1.0 } else { 20.0 });
    is_no_worse(&timeline, Duration::ZERO);
}

/// At one pod all headrooms cost the same, and none of their records says anything of eight.
#[test]
fn a_jump_to_a_level_never_seen_is_met_with_some_in_hand() {
    let timeline = drawn(10_800, |second| if second < 3_600 { 4.0 } else { 40.0 });
    is_no_worse(&timeline, Duration::ZERO);
}

/// Twenty-five within one second, each one to three minutes: in ten seconds they are nothing.
#[test]
fn bursts_of_a_second_are_seen() {
    let is_burst = |second: u32| second % 613 == 60 || second % 97 == 11;
    let timeline = drawn(10_800, |second| if is_burst(second) { 28.0 } else { 3.0 });
    is_no_worse(&timeline, Duration::from_secs(5_400));
}
