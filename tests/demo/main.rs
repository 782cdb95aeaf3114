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

/// From the kill until clients know, in demo seconds: the kubelet sees the container end at once, clients learn of a change
/// a second after it, and two seconds, a tenth of a second of life, are for the hops between.
const REMOVAL: f64 = 3.0;

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

/// Whose fault a failure may be: at twenty times life a machine that gives the demo no time for a second takes twenty from it.
fn machine(summary: &Summary) -> String {
    format!(
        "this machine stood still {} times for longer than a Lease bears, {:.1} demo seconds at most",
        summary.stalls, summary.longest_stall_seconds
    )
}

#[test]
fn the_fleet_grows_ahead_of_its_load_and_survives_its_leader() {
    let summary = demo("auto", &[]);
    let machine = machine(&summary);
    assert!((summary.speed - 20.0).abs() < 1e-9);
    assert!(summary.requests > 1_000, "hardly any load was played");
    assert_eq!(
        summary.failed, 0,
        "requests failed that were not on the killed pod; {machine}"
    );
    // What the machine itself stood still is time in which nobody could have done anything.
    let stall = summary.longest_stall_seconds;
    let gone = summary
        .killed_pod_gone_seconds
        .expect("clients learn of the kill");
    assert!(
        gone <= REMOVAL + stall,
        "the killed pod was sent to for {gone} s; {machine}"
    );
    // Twice what a pod serves at most: endpoints are drawn at random, and arrivals come in clumps.
    let sent = 2.0 * summary.pod_rps * gone;
    let exposed = summary.exposed_to_killed_pod as f64;
    assert!(
        exposed <= summary.in_flight_on_killed_pod as f64 + sent.max(4.0),
        "{exposed} exposed, {} in flight, {sent:.0} sent in {gone} s",
        summary.in_flight_on_killed_pod
    );
    assert!(summary.replicas_max >= 2 * summary.replicas_min);
    // A machine that stands still for longer than a Lease holds deposes leaders rightly, and the demo counts how often.
    let changes = 1..=1 + summary.stalls;
    assert!(
        changes.contains(&summary.leader_changes),
        "{} changes of the lead; {machine}",
        summary.leader_changes
    );
    let takeover = summary.takeover_seconds.expect("another leader took over");
    assert!(
        takeover <= TAKEOVER + stall,
        "takeover took {takeover} s; {machine}"
    );
    let lead = summary.least_lead_seconds.expect("the load needed pods");
    assert!(
        lead > 0.0,
        "a pod was ready {lead} s before its load; {machine}"
    );
    let allowed = summary.better_shadow() / 5;
    assert!(
        allowed > 0,
        "the shadows had no trouble: the demo shows nothing"
    );
    assert!(
        summary.slo_violations <= allowed,
        "{} late, {allowed} allowed; {machine}",
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
    let lead = summary.least_lead_seconds.expect("the load needed pods");
    assert!(
        lead < 0.0,
        "reacting alone was {lead} s ahead: the lead of the other test shows nothing"
    );
}
