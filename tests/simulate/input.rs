//! Bad input ends with 64, its place and its remedy, and nothing is written.

use crate::place::{Place, WORLD, burst, in_world, refused};

#[test]
fn a_bad_line_is_named_with_its_place_and_nothing_is_written() {
    let place = Place::new("bad-line");
    for (name, text, words) in [
        (
            "many.csv",
            "offset_seconds,requests\n0,1\n60,many\n",
            "many.csv:3:4: expected a count of requests",
        ),
        (
            "nan.csv",
            "offset_seconds,requests\n0,1\n60,NaN\n",
            "nan.csv:3:4",
        ),
        (
            "minus.csv",
            "offset_seconds,requests\n0,1\n60,-4\n",
            "minus.csv:3:4",
        ),
        (
            "back.csv",
            "offset_seconds,requests\n60,1\n0,1\n",
            "back.csv:3:1: expected an offset after 60, found `0`",
        ),
        (
            "header.csv",
            "0,1\n60,2\n",
            "header.csv:1:1: expected the header `offset_seconds,requests`",
        ),
        ("empty.csv", "", "empty.csv:1:1"),
        (
            "none.csv",
            "offset_seconds,requests\n",
            "expected at least two bins",
        ),
        (
            "far.csv",
            "offset_seconds,requests\n0,1\n1,1\n99999999999,1\n",
            "is an offset mistyped?",
        ),
    ] {
        let bad = place.write(name, text);
        let good = place.write("good.csv", &burst(120));
        let (json, html) = (place.path("out.json"), place.path("out.html"));
        let more = ["--trace", &good, "--json", &json, "--html", &html];
        refused(&in_world("simulate", &bad, &more), &[words]);
        std::fs::remove_file(&bad).expect("it was there");
        assert_eq!(place.files(), ["good.csv"], "{name}");
    }
    refused(
        &in_world("simulate", "/nowhere.csv", &[]),
        &["/nowhere.csv"],
    );
}

#[test]
fn flags_that_make_no_sense_are_refused_by_name() {
    let place = Place::new("flags");
    let trace = place.write("t.csv", &burst(120));
    let zero = place.write("zero.csv", "offset_seconds,requests\n0,0\n60,0\n");
    for (more, words) in [
        (
            &["--policies", "hpa:70,kpa:0"][..],
            &["--policies", "`kpa:0`", "above 0"][..],
        ),
        (&["--policies", "ahpa"], &["`ahpa`", "fixed:REPLICAS"]),
        (&["--warmup", "1h"], &["t.csv", "2m", "warm-up of 1h"]),
        (
            &["--bin", "7s"],
            &["t.csv:3:1", "multiple of the bins' 7 s"],
        ),
        (&["--bin", "0.5s"], &["--bin", "whole number of seconds"]),
        (&["--mean-rps", "0"], &["--mean-rps", "above 0"]),
        (
            &["--decisions", "-"],
            &["`--trace -` and `--decisions -` go together"],
        ),
        (&["--trace", "-"], &["go together"]),
        (
            &["--pod-rps", "1", "--pod-rps", "2"],
            &["--pod-rps is given 3 times for 1 traces"],
        ),
        (
            &["--trace", &trace, "--decisions", "d"],
            &["--decisions", "one --trace"],
        ),
        (
            &["--decisions", "d", "--policies", "hpa:70"],
            &["add sidescale to --policies"],
        ),
    ] {
        refused(&in_world("simulate", &trace, more), words);
    }
    refused(
        &in_world("simulate", &zero, &["--mean-rps", "30"]),
        &["zero.csv", "all bins are zero", "--mean-rps"],
    );
    let without_pods = [
        "simulate",
        "--trace",
        &trace,
        "--cold-start",
        "60s",
        "--max",
        "3",
    ];
    refused(&without_pods, &["--pod-rps"]);
    let mut upside_down = vec!["simulate", "--trace", &trace];
    upside_down.extend(WORLD);
    let min = upside_down
        .iter()
        .position(|it| *it == "--min")
        .expect("it is given")
        + 1;
    upside_down[min] = "21";
    refused(&upside_down, &["--min 21 is above --max 20"]);
}
