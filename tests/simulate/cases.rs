//! Many worlds from one file.

use serde_json::Value;

use crate::place::{Place, burst, done, refused};

const HEADER: &str = "trace\tbin_s\twarm_days\tcold_s\tpod_rps\tbest_regret\n";

/// Two tiny traces and a file of three cases beside them.
fn three(place: &Place) -> String {
    place.write("one.csv", &burst(900));
    place.write(
        "other.csv",
        "offset_seconds,requests\n0,900\n60,1200\n120,600\n180,900\n",
    );
    let cases = "one\t1\t0.002\t60\t5\t0.2\n\
                 other.csv\t60\t0\t60\t5\t\n\
                 one\t1\t0\t120\t5\t0.00001\n";
    place.write("cases.tsv", &format!("{HEADER}{cases}"))
}

#[test]
fn every_case_is_scored_in_text_table_and_json() {
    let place = Place::new("cases");
    let cases = three(&place);
    let (json, table) = (place.path("out.json"), place.path("table.md"));
    let arguments = [
        "simulate",
        "--cases",
        &cases,
        "--max",
        "20",
        "--json",
        &json,
        "--table",
        &table,
        "--policies",
        "hpa:70,sidescale",
    ];
    let text = done(&arguments);
    let lines: Vec<&str> = text.lines().collect();
    for (line, words) in lines.iter().skip(1).zip(["one 1m", "other 1m", "one 2m"]) {
        let found = line
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(found, words, "{text}");
    }
    for word in [
        "hpa:70",
        "sidescale",
        "best_regret",
        " of 2 cases are above 2 x",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let scores: Value = serde_json::from_str(&place.read("out.json")).expect("JSON");
    let scores = scores.as_array().expect("a list");
    assert_eq!(scores.len(), 6);
    assert_eq!(scores[5]["trace"], "one");
    assert_eq!(scores[5]["policy"], "sidescale");
    assert!(
        scores[5]["cold_seconds"]
            .as_f64()
            .is_some_and(|cold| (cold - 120.0).abs() < 1e-9)
    );
    assert_eq!(scores[3]["best_regret"], Value::Null);
    let table = place.read("table.md");
    assert!(
        table.starts_with("| trace (regret: sidescale / best) | 1m | 2m |\n"),
        "{table}"
    );
    assert_eq!(
        table.lines().filter(|line| line.starts_with('|')).count(),
        5,
        "{table}"
    );
}

#[test]
fn a_case_is_what_the_same_world_on_the_command_line_is() {
    let place = Place::new("same-case");
    let cases = three(&place);
    let (json, alone) = (place.path("out.json"), place.path("alone.json"));
    let policies = ["--policies", "sidescale", "--max", "20", "--json"];
    let as_cases = [&["simulate", "--cases", &cases], &policies[..], &[&json]].concat();
    let trace = place.path("one.csv");
    let world = [
        "simulate",
        "--trace",
        &trace,
        "--pod-rps",
        "5",
        "--cold-start",
        "120s",
    ];
    let as_world = [&world[..], &policies[..], &[&alone]].concat();
    done(&as_cases);
    done(&as_world);
    let scores: Value = serde_json::from_str(&place.read("out.json")).expect("JSON");
    let alone: Value = serde_json::from_str(&place.read("alone.json")).expect("JSON");
    assert_eq!(alone[0]["regret"], scores[2]["regret"]);
    assert_eq!(alone[0]["pod_seconds"], scores[2]["pod_seconds"]);
}

#[test]
fn a_bad_file_of_cases_is_refused_with_its_place_and_nothing_is_written() {
    let place = Place::new("bad-cases");
    place.write("one.csv", &burst(120));
    place.write("bad.csv", "offset_seconds,requests\n0,1\n60,many\n");
    for (row, words) in [
        (
            "one\t1\t0\tsoon\t5\t0\n",
            &["cases.tsv:2:9: expected a cold start in seconds, found `soon`"][..],
        ),
        (
            "none\t1\t0\t60\t5\t0\n",
            &["cases.tsv:2:1: expected a trace's file", "found `none`"],
        ),
        (
            "one\t1\t0\t60\t5\t0\nbad\t1\t0\t60\t5\t0\n",
            &["bad.csv:3:4: expected a count of requests"],
        ),
        ("one\t1\t7\t60\t5\t0\n", &["one.csv", "2m", "warm-up of 7d"]),
    ] {
        let cases = place.write("cases.tsv", &format!("{HEADER}{row}"));
        let (json, table) = (place.path("out.json"), place.path("table.md"));
        let arguments = [
            "simulate", "--cases", &cases, "--max", "20", "--json", &json, "--table", &table,
        ];
        refused(&arguments, words);
        assert_eq!(place.files(), ["bad.csv", "cases.tsv", "one.csv"]);
    }
    refused(
        &["simulate", "--cases", "/nowhere.tsv", "--max", "3"],
        &["/nowhere.tsv"],
    );
}

#[test]
fn cases_and_one_world_exclude_each_other() {
    let place = Place::new("cases-flags");
    let cases = three(&place);
    for more in [
        ["--trace", "t.csv"],
        ["--pod-rps", "1"],
        ["--cold-start", "1m"],
        ["--warmup", "1m"],
        ["--html", "p.html"],
    ] {
        let arguments = [&["simulate", "--cases", &cases, "--max", "3"], &more[..]].concat();
        refused(&arguments, &["--cases", more[0], "cannot be used with"]);
    }
    let trace = place.path("one.csv");
    let without = [
        "simulate", "--trace", &trace, "--max", "3", "--table", "t.md",
    ];
    refused(&without, &["--cases"]);
}
