//! The forecast alone, held against what came.

use serde_json::Value;

use crate::place::{Place, burst, done, refused};

#[test]
fn every_method_is_measured_at_every_horizon_of_every_trace() {
    let place = Place::new("backtest");
    let one = place.write("one.csv", &burst(3_600));
    let lines: Vec<String> = (0..70)
        .map(|minute| format!("{},{}\n", 60 * minute, 600))
        .collect();
    let other = format!("offset_seconds,requests\n{}", lines.concat());
    let other = place.write("other.csv", &other);
    let (json, minutes) = (place.path("out.json"), place.path("minutes.csv"));
    let arguments = [
        "backtest",
        "--trace",
        &one,
        "--trace",
        &other,
        "--warmup",
        "30m",
        "--warmup",
        "20m",
        "--horizon",
        "2m,5m",
        "--mean-rps",
        "20",
        "--json",
        &json,
        "--minutes",
        &minutes,
    ];
    let text = done(&arguments);
    // Two traces and both together, at two horizons, by five methods.
    assert_eq!(text.lines().count(), 1 + 3 * 2 * 5, "{text}");
    let reports: Value = serde_json::from_str(&place.read("out.json")).expect("JSON");
    let seen: Vec<(&str, u64, u64)> = reports
        .as_array()
        .expect("a list")
        .iter()
        .map(|report| {
            let number = |name: &str| report[name].as_u64().expect("a number");
            let trace = report["trace"].as_str().expect("a name");
            (trace, number("horizon_minutes"), number("minutes"))
        })
        .collect();
    // Forecasts are made from the end of minute 29 (of minute 19) on, of minutes that the trace has.
    let expected = [
        ("one", 2, 29),
        ("one", 5, 26),
        ("other", 2, 49),
        ("other", 5, 46),
    ];
    assert_eq!(seen, expected);
    for method in reports[2]["methods"].as_array().expect("a list") {
        let wape = method["wape"].as_f64().expect("a number");
        // 20 a second, Poisson: a minute's mean is 2.9 % off at the root of the mean square.
        assert!((0.0..0.1).contains(&wape), "{method}");
    }
    let minutes = place.read("minutes.csv");
    assert!(
        minutes.starts_with("trace,offset_seconds,rate\none,0,"),
        "{minutes}"
    );
    assert_eq!(minutes.lines().count(), 1 + 60 + 70);
    assert_eq!(text, done(&arguments), "the same seed says the same");
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let place = Place::new("backtest-bad");
    let trace = place.write("t.csv", &burst(120));
    let bad = place.write("bad.csv", "offset_seconds,requests\n0,1\n60,many\n");
    let json = place.path("out.json");
    for (trace, more, words) in [
        (&trace, &["--horizon", "90s"][..], "--horizon"),
        (
            &trace,
            &["--horizon", "2h"],
            "whole number of minutes from 1m to 1h",
        ),
        (&trace, &[], "2m are over before its warm-up of 7d"),
        (
            &trace,
            &["--warmup", "1m", "--warmup", "1m"],
            "--warmup is given 2 times",
        ),
        (&bad, &["--warmup", "0s"], "bad.csv:3:4"),
    ] {
        let arguments = [&["backtest", "--trace", trace, "--json", &json], more].concat();
        refused(&arguments, &[words]);
        assert_eq!(place.files(), ["bad.csv", "t.csv"]);
    }
}
