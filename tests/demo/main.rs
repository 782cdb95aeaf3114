//! The demo, from outside, as a person would start it: the same binary, real sockets, ninety seconds.
//!
//! What it must hold is what the README promises: pods before the load, a leader killed half-way, nothing lost but what
//! was on the killed pod, and far fewer late requests than HPA or KPA would have had in the same world. The second test
//! shows that the first can fail: without the forecast the same fleet misses.

#![expect(
    clippy::print_stdout,
    reason = "a failure shows the demo's own lines and figures"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use sidescale::demo::summary::Summary;

/// One demo at a time: two would share the machine's cores and measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// Lease duration + retry period + 1, in demo seconds.
const TAKEOVER: f64 = 18.0;

fn demo(name: &str, flags: &[&str]) -> Summary {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let summary: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    // A summary of an earlier run must not be taken for this one's.
    drop(std::fs::remove_file(&summary));
    let output = Command::new(env!("CARGO_BIN_EXE_sidescale"))
        .args(["demo", "--headless", "--for", "90s", "--summary"])
        .arg(&summary)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("the demo starts");
    drop(alone);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{out}\n{err}");
    assert!(
        output.status.success(),
        "the demo ended with {}",
        output.status
    );
    let text = std::fs::read_to_string(&summary).expect("the demo wrote its summary");
    println!("{text}");
    serde_json::from_str(&text).expect("the summary is JSON of the promised shape")
}

#[test]
fn the_fleet_grows_ahead_of_its_load_and_survives_its_leader() {
    let summary = demo("auto", &[]);
    assert!((summary.speed - 20.0).abs() < 1e-9);
    assert!(summary.requests > 1_000, "hardly any load was played");
    assert_eq!(
        summary.failed, 0,
        "requests failed that were not on the killed pod"
    );
    assert!(summary.lost_with_killed_pod <= summary.exposed_to_killed_pod);
    assert!(summary.replicas_max >= 2 * summary.replicas_min);
    assert_eq!(summary.leader_changes, 1);
    let takeover = summary.takeover_seconds.expect("another leader took over");
    assert!(takeover <= TAKEOVER, "takeover took {takeover} s");
    let lead = summary
        .median_lead_seconds
        .expect("load came for the pods that were asked for");
    assert!(lead > 0.0, "pods were ready {lead} s before their load");
    let allowed = summary.better_shadow() / 5;
    assert!(
        allowed > 0,
        "the shadows had no trouble: the demo shows nothing"
    );
    assert!(
        summary.slo_violations <= allowed,
        "{} late, {allowed} allowed",
        summary.slo_violations
    );
}

#[test]
fn without_the_forecast_the_same_fleet_misses() {
    let summary = demo("reactive", &["--mode", "reactive"]);
    assert_eq!(summary.mode, "reactive");
    assert!(
        summary.slo_violations > summary.better_shadow() / 5,
        "reacting alone was good enough: {} late, better shadow {}",
        summary.slo_violations,
        summary.better_shadow()
    );
}
