//! Days of small fleets as rows: what Kubernetes and the members said, and what the snapshot must show.

use super::*;
use crate::clock::Timestamp;
use crate::report::GpuReading;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

fn at(secs: f64) -> Now {
    Now::at(START, Duration::from_secs_f64(secs))
}

/// A pod object as the API server would send it; `stamps` are seconds after [`START`].
fn pod(name: &str, phase: &str, ready: Option<bool>, stamps: &Stamps) -> core::Pod {
    let conditions = ready.map(|ready| {
        serde_json::json!([{
            "type": "Ready",
            "status": if ready { "True" } else { "False" },
            "lastTransitionTime": stamps.moved.map(rfc3339),
        }])
    });
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": name,
            "uid": format!("uid-{name}"),
            "labels": {"pod-template-hash": stamps.template},
            "creationTimestamp": rfc3339(stamps.created),
            "deletionTimestamp": stamps.deleted.map(rfc3339),
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.1",
            "startTime": rfc3339(stamps.created),
            "conditions": conditions,
        },
    }))
    .expect("a pod")
}

struct Stamps {
    created: i64,
    moved: Option<i64>,
    deleted: Option<i64>,
    template: &'static str,
}

const BORN_AT_ZERO: Stamps = Stamps {
    created: 0,
    moved: None,
    deleted: None,
    template: "a",
};

fn rfc3339(secs: i64) -> String {
    let secs = START.as_secs() + secs;
    jiff::Timestamp::from_second(secs)
        .expect("in range")
        .to_string()
}

fn report(epoch: u64, seq: u64, at_secs: u64, arrivals: f64) -> Report {
    Report {
        v: WIRE_VERSION,
        epoch,
        seq,
        at_millis: at_secs * 1_000,
        total: Load {
            arrivals,
            ..Load::default()
        },
        in_flight: 3,
        ready: true,
        ..Report::default()
    }
}

#[test]
fn kubernetes_words_become_ours() {
    let moved = |moved| Stamps {
        moved: Some(moved),
        ..BORN_AT_ZERO
    };
    let check = |phase: &str, ready: Option<bool>, stamps: Stamps, expected: PodPhase| {
        let mut view = View::default();
        view.listed(&[pod("a", phase, ready, &stamps)], at(100.0));
        let found = view.snapshot(at(100.0), 1).pods[0].phase;
        assert_eq!(found, expected, "{phase} {ready:?} {:?}", stamps.moved);
    };
    check("Pending", None, BORN_AT_ZERO, PodPhase::Pending);
    check("Pending", Some(false), moved(1), PodPhase::Pending);
    check("Running", Some(false), moved(1), PodPhase::Starting);
    check("Running", Some(true), moved(60), PodPhase::Ready);
    // The condition moved long after the start: a leader that comes now still knows that it was Ready once.
    check("Running", Some(false), moved(60), PodPhase::Unready);
    let deleted = Stamps {
        deleted: Some(90),
        ..moved(60)
    };
    check("Running", Some(true), deleted, PodPhase::Terminating);
}

#[test]
fn a_finished_pod_is_no_pod() {
    let mut view = View::default();
    view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(0.0));
    view.applied(&pod("a", "Failed", Some(false), &BORN_AT_ZERO), at(1.0));
    view.applied(&pod("b", "Succeeded", None, &BORN_AT_ZERO), at(1.0));
    assert_eq!(view.snapshot(at(1.0), 1).pods, []);
}

#[test]
fn a_pod_that_was_ready_is_unready_and_not_starting() {
    let mut view = View::default();
    view.listed(&[], at(0.0));
    view.applied(&pod("a", "Running", Some(true), &BORN_AT_ZERO), at(1.0));
    view.applied(&pod("a", "Running", Some(false), &BORN_AT_ZERO), at(2.0));
    let snapshot = view.snapshot(at(2.0), 1);
    assert_eq!(snapshot.pods[0].phase, PodPhase::Unready);
    assert_eq!((snapshot.ready(), snapshot.starting()), (0, 0));
}

#[test]
fn a_cold_start_is_measured_from_the_asking_to_the_first_ready() {
    let mut view = View::default();
    view.listed(&[], at(0.0));
    let stamps = Stamps {
        created: 10,
        ..BORN_AT_ZERO
    };
    view.applied(&pod("a", "Pending", None, &stamps), at(10.25));
    view.applied(&pod("a", "Running", Some(false), &stamps), at(20.0));
    assert!(view.snapshot(at(20.0), 1).starts.is_empty());
    view.applied(&pod("a", "Running", Some(true), &stamps), at(70.5));
    let took = Duration::from_millis(60_250);
    assert_eq!(view.snapshot(at(71.0), 1).starts, [took]);
    // Once only, whatever its readiness does later.
    view.applied(&pod("a", "Running", Some(false), &stamps), at(80.0));
    view.applied(&pod("a", "Running", Some(true), &stamps), at(90.0));
    assert!(view.snapshot(at(90.0), 1).starts.is_empty());
}

#[test]
fn a_pod_first_seen_ready_tells_no_cold_start() {
    let mut view = View::default();
    view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(500.0));
    let snapshot = view.snapshot(at(500.0), 1);
    assert!(snapshot.starts.is_empty());
    assert_eq!(snapshot.pods[0].created, at(0.0).instant);
}

#[test]
fn a_start_that_ended_while_the_api_server_was_away_is_told_by_its_stamps() {
    let mut view = View::default();
    view.listed(&[pod("a", "Pending", None, &BORN_AT_ZERO)], at(1.0));
    let ready = Stamps {
        moved: Some(40),
        ..BORN_AT_ZERO
    };
    view.listed(&[pod("a", "Running", Some(true), &ready)], at(300.0));
    let starts = view.snapshot(at(300.0), 1).starts;
    assert_eq!(starts, [Duration::from_secs(40)]);
}

#[test]
fn a_relist_forgets_the_gone_and_keeps_what_is_known_of_the_rest() {
    let mut view = View::default();
    let pods = [
        pod("a", "Running", Some(true), &BORN_AT_ZERO),
        pod("b", "Running", Some(true), &BORN_AT_ZERO),
    ];
    view.listed(&pods, at(10.0));
    view.reported("a", &report(1, 5, 100, 40.0), at(11.0).instant);
    view.listed(&pods[..1], at(12.0));
    view.reported("a", &report(1, 6, 101, 47.0), at(12.0).instant);
    let snapshot = view.snapshot(at(12.0), 2);
    assert_eq!(snapshot.pods.len(), 1);
    assert_eq!(snapshot.load.arrivals.to_bits(), 7.0_f64.to_bits());
    assert_eq!(snapshot.spec_replicas, 2);
}

#[test]
fn a_report_of_a_pod_nobody_has_seen_is_dropped() {
    let mut view = View::default();
    view.reported("ghost", &report(1, 1, 1, 9.0), at(0.0).instant);
    assert_eq!(
        view.snapshot(at(0.0), 1),
        Snapshot {
            spec_replicas: 1,
            ..Snapshot::default()
        }
    );
    assert!(!view.is_complete());
}

#[test]
fn load_is_handed_out_once_and_sums_over_the_pods() {
    let mut view = View::default();
    let pods = ["a", "b"].map(|name| pod(name, "Running", Some(true), &BORN_AT_ZERO));
    view.listed(&pods, at(10.0));
    for name in ["a", "b"] {
        view.reported(name, &report(1, 1, 100, 40.0), at(11.0).instant);
        view.reported(name, &report(1, 2, 101, 45.0), at(12.0).instant);
    }
    let snapshot = view.snapshot(at(12.0), 2);
    assert_eq!(snapshot.load.arrivals.to_bits(), 10.0_f64.to_bits());
    assert_eq!(snapshot.in_flight.to_bits(), 6.0_f64.to_bits());
    assert_eq!(view.snapshot(at(12.0), 2).load, Load::default());
}

#[test]
fn silence_makes_a_member_unknown_in_its_time() {
    let check = |secs: f64, ended: bool, is_silent: bool| {
        let mut view = View::default();
        view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(0.0));
        view.reported("a", &report(1, 1, 100, 0.0), at(0.0).instant);
        if ended {
            view.ended("a");
        }
        let snapshot = view.snapshot(at(secs), 1);
        let silent = Member::Silent {
            since: at(0.0).instant,
        };
        assert_eq!(
            snapshot.pods[0].member == silent,
            is_silent,
            "{secs} {ended}"
        );
        assert_eq!(snapshot.unknown(), usize::from(is_silent), "{secs} {ended}");
    };
    check(5.0, false, false);
    check(5.1, false, true);
    check(2.0, true, false);
    check(2.1, true, true);
}

#[test]
fn a_report_after_a_reconnection_ends_the_silence() {
    let mut view = View::default();
    view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(0.0));
    view.reported("a", &report(1, 1, 100, 0.0), at(0.0).instant);
    view.ended("a");
    view.reported("a", &report(1, 2, 104, 0.0), at(4.0).instant);
    let member = view.snapshot(at(7.0), 1).pods[0].member.clone();
    assert!(matches!(member, Member::Reporting(_)), "{member:?}");
}

#[test]
fn another_major_version_makes_a_member_unknown() {
    let mut view = View::default();
    view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(0.0));
    view.reported("a", &report(1, 1, 100, 5.0), at(0.0).instant);
    let newer = Report {
        v: WIRE_VERSION + 1,
        ..report(1, 2, 101, 9.0)
    };
    view.reported("a", &newer, at(1.0).instant);
    let snapshot = view.snapshot(at(1.0), 1);
    assert_eq!(snapshot.pods[0].member, Member::Unknown);
    assert_eq!(snapshot.load, Load::default());
    assert_eq!(snapshot.unknown(), 1);
}

#[test]
fn a_drained_member_is_not_capacity_by_its_own_word() {
    let mut view = View::default();
    view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(0.0));
    let gpu = GpuReading {
        devices: 1,
        utilization: 0.5,
        ..GpuReading::default()
    };
    let draining = Report {
        draining: true,
        gpu: Some(gpu),
        connections: Some(5),
        follows: true,
        ..report(1, 1, 100, 0.0)
    };
    view.reported("a", &draining, at(0.0).instant);
    let snapshot = view.snapshot(at(0.0), 1);
    assert_eq!(snapshot.ready(), 0);
    assert_eq!(
        snapshot.pods[0].member,
        Member::Reporting(Reading {
            in_flight: 3.0,
            ready: true,
            draining: true,
            gpu: Some(gpu),
            connections: Some(5),
            follows: true,
        })
    );
}

#[test]
fn two_revisions_with_living_pods_are_a_rollout() {
    let mut view = View::default();
    let new = Stamps {
        template: "b",
        ..BORN_AT_ZERO
    };
    let old_going = Stamps {
        deleted: Some(5),
        ..BORN_AT_ZERO
    };
    let old = pod("a", "Running", Some(true), &BORN_AT_ZERO);
    view.listed(&[old, pod("b", "Running", Some(false), &new)], at(0.0));
    assert!(view.snapshot(at(0.0), 1).rollout);
    view.applied(&pod("a", "Running", Some(true), &old_going), at(1.0));
    assert!(!view.snapshot(at(1.0), 1).rollout);
}

#[test]
fn a_late_deletion_does_not_remove_a_namesake() {
    let mut view = View::default();
    let now = pod("a", "Running", Some(true), &BORN_AT_ZERO);
    let mut before = now.clone();
    before.metadata.uid = Some("another".to_owned());
    view.listed(std::slice::from_ref(&now), at(0.0));
    view.deleted(&before);
    assert_eq!(view.snapshot(at(0.0), 1).pods.len(), 1);
    view.deleted(&now);
    assert_eq!(view.snapshot(at(0.0), 1).pods.len(), 0);
}

#[test]
fn a_member_that_does_not_know_its_load_is_unknown_and_not_idle() {
    let mut view = View::default();
    view.listed(&[pod("a", "Running", Some(true), &BORN_AT_ZERO)], at(0.0));
    let blind = |seq, at_secs| Report {
        load_unknown: true,
        in_flight: 0,
        ..report(1, seq, at_secs, 0.0)
    };
    view.reported("a", &blind(1, 100), at(0.0).instant);
    assert_eq!(view.snapshot(at(0.0), 1).pods[0].member, Member::Unknown);
    view.reported("a", &report(1, 2, 101, 0.0), at(1.0).instant);
    view.reported("a", &blind(3, 102), at(2.0).instant);
    let snapshot = view.snapshot(at(6.0), 1);
    assert!((snapshot.in_flight - 3.0).abs() < 1e-9, "what it last knew");
    assert_eq!(snapshot.unknown(), 0, "one late look is no silence");
    for second in 3..=7_u32 {
        view.reported(
            "a",
            &blind(u64::from(second) + 1, u64::from(second) + 100),
            at(f64::from(second)).instant,
        );
    }
    let since = at(1.0).instant;
    let snapshot = view.snapshot(at(7.0), 1);
    assert_eq!(snapshot.pods[0].member, Member::Silent { since });
    assert_eq!(snapshot.unknown(), 1);
    let draining = Report {
        draining: true,
        ..blind(9, 108)
    };
    view.reported("a", &draining, at(8.0).instant);
    let snapshot = view.snapshot(at(8.0), 1);
    assert_eq!((snapshot.ready(), snapshot.unknown()), (0, 0));
}
