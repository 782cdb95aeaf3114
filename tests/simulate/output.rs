//! What a simulation writes.

use serde_json::Value;

use crate::place::{Place, burst, done, in_world, sidescale};

const FIELDS: [&str; 11] = [
    "trace",
    "policy",
    "requests",
    "violations",
    "pod_seconds",
    "clairvoyant_pod_seconds",
    "regret",
    "changes",
    "wait_p99",
    "wait_p999",
    "cold_waits",
];

#[test]
fn every_policy_of_every_trace_is_scored_in_table_and_json() {
    let place = Place::new("scores");
    let one = place.write("one.csv", &burst(1_500));
    let other = place.write(
        "other.csv",
        "offset_seconds,requests\n0,900\n60,1200\n120,600\n240,600\n300,900\n",
    );
    let json = place.path("scores.json");
    let policies =
        "sidescale,hpa:70,kpa:70,keda:70,cron:0000-2400=6..20,fixed:20,foresight:95,clairvoyant";
    let more = [
        "--trace",
        &other,
        "--policies",
        policies,
        "--json",
        &json,
        "--mean-rps",
        "15",
    ];
    let table = done(&in_world("simulate", &one, &more));
    for policy in policies.split(',') {
        assert_eq!(
            table.matches(&format!("  {policy} ")).count(),
            2,
            "{policy}: {table}"
        );
    }
    let scores: Value = serde_json::from_str(&place.read("scores.json")).expect("JSON");
    let scores = scores.as_array().expect("a list");
    assert_eq!(scores.len(), 16);
    for score in scores {
        let score = score.as_object().expect("an object");
        assert_eq!(score.len(), FIELDS.len(), "{score:?}");
        assert!(
            FIELDS.iter().all(|field| score.contains_key(*field)),
            "{score:?}"
        );
        if score["policy"] == "clairvoyant" {
            assert_eq!(score["regret"], 0.0, "{score:?}");
            assert_eq!(score["violations"], 0.0, "{score:?}");
        }
    }
    // The hole of a minute in the other trace is neither paid for nor waited in.
    let fixed = scores
        .iter()
        .find(|it| it["trace"] == "other" && it["policy"] == "fixed:20");
    let paid = fixed.expect("it was played")["pod_seconds"]
        .as_f64()
        .expect("a number");
    assert!(paid <= 20.0 * 300.0, "{paid}");
}

#[test]
fn the_same_seed_writes_the_same_and_a_cut_trace_decides_the_same() {
    let place = Place::new("cut");
    let trace = place.write("t.csv", &burst(900));
    let cut = place.write("cut.csv", &burst(433));
    let decide = |trace: &str, name: &str| {
        let file = place.path(name);
        done(&in_world(
            "simulate",
            trace,
            &["--decisions", &file, "--policies", "sidescale"],
        ));
        place.read(name)
    };
    let whole = decide(&trace, "whole.csv");
    assert_eq!(whole, decide(&trace, "again.csv"));
    assert!(whole.starts_with("offset_seconds,desired\n0,"), "{whole}");
    assert!(whole.lines().count() > 3, "{whole}");
    let part = decide(&cut, "part.csv");
    assert!(whole.starts_with(&part), "{part}\nis no prefix of\n{whole}");
}

#[test]
fn the_page_needs_nothing_else() {
    let place = Place::new("page");
    let trace = place.write("t<1>.csv", &burst(1_500));
    let file = place.path("page.html");
    done(&in_world(
        "simulate",
        &trace,
        &["--html", &file, "--warmup", "5m"],
    ));
    let page = place.read("page.html");
    for outside in ["http:", "https:", "src=", "@import", "url(", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for inside in [
        "<svg",
        "class=\"band\"",
        "class=\"load\"",
        "hpa:70",
        "t&lt;1&gt;",
        "</html>",
    ] {
        assert!(page.contains(inside), "{inside}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let place = Place::new("unwritable");
    let trace = place.write("t.csv", &burst(120));
    let output = sidescale(&in_world(
        "simulate",
        &trace,
        &["--json", "/nowhere/scores.json"],
    ));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--json /nowhere/scores.json"), "{said}");
}
