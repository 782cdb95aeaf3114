//! One decision and its reasons.

use crate::place::{Place, burst, done, in_world, refused};

#[test]
fn a_decision_is_explained_with_its_steps_and_what_others_would_do() {
    let place = Place::new("explain");
    let trace = place.write("t.csv", &burst(600));
    let said = done(&in_world("explain", &trace, &["--at", "390"]));
    for word in [
        "At offset 390 s sidescale asks for",
        "The fleet:",
        "Step by step:",
        "  now ",
        "Lead time: 1m (given by the policy).",
        "Forecast",
        "HPA at 70 % asks for",
        "KPA at 70 % asks for",
    ] {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
    // What is explained is what was decided.
    let file = place.path("decisions.csv");
    done(&in_world(
        "simulate",
        &trace,
        &["--decisions", &file, "--policies", "sidescale"],
    ));
    let decided = place.read("decisions.csv");
    let (_, desired) = decided
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .filter(|(at, _)| at.parse::<u32>().is_ok_and(|at| at <= 390))
        .last()
        .expect("it decided before");
    assert!(
        said.contains(&format!("asks for {desired} replicas")),
        "{desired}: {said}"
    );
}

#[test]
fn a_second_that_nobody_observed_cannot_be_explained() {
    let place = Place::new("explain-where");
    let trace = place.write("t.csv", "offset_seconds,requests\n0,60\n60,60\n180,60\n");
    for at in ["150", "1h"] {
        refused(
            &in_world("explain", &trace, &["--at", at]),
            &["--at", "t.csv", "no observed second"],
        );
    }
}
