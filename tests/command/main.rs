//! The command line from outside: bad input ends with 64, its place and its remedy, and nothing half-done.

mod memory;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn sidescale(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidescale"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// Ends with 64 and says every one of `words`.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = sidescale(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
    for word in words {
        assert!(
            said.contains(word),
            "{arguments:?} says nothing of `{word}`: {said}"
        );
    }
}

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the test's folder can be written");
    path.to_str().expect("a path of text").to_owned()
}

#[test]
fn a_port_in_use_is_named_with_its_flag_and_nothing_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let others = ["--admin", "127.0.0.1:0", "--member", "127.0.0.1:0"];
    let run = [&["run", "--no-cluster", "--listen", &address], &others[..]].concat();
    refused(&run, &["--listen", &address, "in use"]);
    let admin = [
        "run",
        "--no-cluster",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &address,
    ];
    refused(&admin, &["--admin", &address, "in use"]);
    let member = [
        "run",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--member",
        &address,
    ];
    refused(&member, &["--member", &address, "in use"]);
    refused(
        &[
            "demo", "--for", "1s", "--speed", "10000", "--page", &address,
        ],
        &["--page", &address],
    );
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    refused(
        &["run", "--upstream-ready", "maybe"],
        &["--upstream-ready", "maybe", "tcp"],
    );
    refused(&["run", "--lease-duration", "soon"], &["soon", "90s"]);
    refused(
        &[
            "run",
            "--no-cluster",
            "--lease-duration",
            "5s",
            "--renew-deadline",
            "9s",
        ],
        &["renew deadline", "lease duration"],
    );
    refused(&["run", "--log", "sidescale=loud"], &["sidescale=loud"]);
    refused(&["jump"], &["jump"]);
    refused(&["lead"], &["--target", "missing"]);
    refused(
        &["lead", "--target", "bert", "--listen", "0.0.0.0:8080"],
        &["--listen", "sidescale lead"],
    );
    refused(
        &["lead", "--target", "bert", "--renew-deadline", "20s"],
        &["renew deadline", "lease duration"],
    );
    refused(
        &["run", "--follow", "--no-cluster"],
        &["--follow", "leave one"],
    );
}

#[test]
fn a_namespace_for_nobody_is_refused_before_anything_is_read() {
    refused(
        &["inject", "-n", "ml", "/nowhere/bert.yaml"],
        &["--namespace", "--live"],
    );
}

#[test]
fn a_check_names_all_that_is_wrong_with_a_policy() {
    let policy = file(
        "bad-policy.yaml",
        "mode: turbo\nminReplicas: 9\nmaxReplicas: 3\n",
    );
    refused(
        &["run", "--check", "--policy", &policy],
        &["bad-policy.yaml", "mode", "turbo", "observe", "maxReplicas"],
    );
    refused(
        &["run", "--check", "--policy", "/nowhere/policy.yaml"],
        &["/nowhere/policy.yaml"],
    );
    let policy = file("good-policy.yaml", "maxReplicas: 3\n");
    let output = sidescale(&["run", "--check", "--policy", &policy]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.contains("maxReplicas: 3") && said.contains("mode: observe"),
        "{said}"
    );
}

/// `run --no-cluster` starts without one and with a wrong one.
#[test]
fn a_check_without_a_cluster_needs_no_policy() {
    let wrong = file("no-policy.yaml", "mode: turbo\n");
    for policy in ["/nowhere/policy.yaml", &wrong] {
        let output = sidescale(&["run", "--no-cluster", "--check", "--policy", policy]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(
            said.contains("no policy is read with --no-cluster"),
            "{said}"
        );
    }
    refused(
        &[
            "run",
            "--no-cluster",
            "--check",
            "--upstream",
            "127.0.0.1:8080",
        ],
        &["--upstream", "127.0.0.1:8080"],
    );
}

#[test]
fn a_trace_with_a_bad_line_is_refused_with_its_place() {
    let trace = file("bad-trace.csv", "offset_seconds,requests\n0,1\n60,many\n");
    refused(
        &["demo", "--headless", "--trace", &trace],
        &["bad-trace.csv:3:4", "many"],
    );
    refused(
        &["load", "--to", "127.0.0.1:1", "--trace", "/nowhere.csv"],
        &["/nowhere.csv"],
    );
}

#[test]
fn the_webhooks_manifests_start_the_webhook_that_they_are_for() {
    let given = [
        "webhook",
        "--service",
        "hook",
        "--namespace",
        "ml",
        "--image",
        "mine:1",
        "--manifests",
    ];
    let printed = sidescale(&given);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).expect("YAML is text");
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let pod = &deployment.expect("there is one")["spec"]["template"]["spec"];
    let arguments = pod["containers"][0]["args"].as_array().expect("a list");
    let arguments = arguments.iter().filter_map(|argument| argument.as_str());
    let again: Vec<&str> = arguments.chain(["--manifests"]).collect();
    let again = sidescale(&again);
    assert_eq!(String::from_utf8_lossy(&again.stdout), text, "{again:?}");
    refused(
        &["webhook", "--service", "My.Hook", "--manifests"],
        &["--service", "My.Hook", "small letters"],
    );
}
