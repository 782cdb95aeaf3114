use proptest::prelude::*;

use super::*;
use crate::clock::Instant;
use crate::fleet::{Member, Pod, PodPhase, Reading};
use crate::policy::{Metric, Mode, ScalingPolicy, ScalingPolicyKind};
use crate::tuning::{Candidate, Sight};

/// A moment of a fleet, with what a row of a test wants to be different.
#[derive(Clone, Debug)]
struct Case {
    policy: Policy,
    spec: u32,
    ready: usize,
    starting: usize,
    unready: usize,
    /// How many of the ready ones are silent, and for how long.
    silent: (usize, u64),
    rollout: bool,
    /// In flight on the ready pods at this very moment.
    right_now: f64,
    paused: bool,
    recent: Recent,
    work: Option<Work>,
    advice: Result<Advice, Unlearnt>,
    lead_secs: u64,
    history_back: bool,
}

impl Case {
    /// Four ready pods at a target of 8 in flight, each request takes a second, and nobody comes.
    fn new() -> Self {
        Self {
            policy: Policy {
                mode: Mode::Auto,
                ..Policy::with_bounds(1, 50)
            },
            spec: 4,
            ready: 4,
            starting: 0,
            unready: 0,
            silent: (0, 0),
            rollout: false,
            right_now: 0.0,
            paused: false,
            recent: Recent::default(),
            work: Some(Work {
                service_seconds: 1.0,
                gpu_seconds: None,
            }),
            advice: Err(Unlearnt::Load),
            lead_secs: 120,
            history_back: true,
        }
        .load(0.0, 0.0)
    }

    /// A steady load.
    fn load(mut self, arrivals: f64, in_flight: f64) -> Self {
        let window = Window {
            pods: self.ready.max(1) as f64,
            arrivals,
            in_flight,
            gpu_utilization: None,
        };
        self.recent = Recent {
            slow: window,
            fast: window,
        };
        self
    }

    fn replicas(mut self, count: u32) -> Self {
        self.spec = count;
        self.ready = count as usize;
        self
    }

    fn metric(mut self, metric: Metric) -> Self {
        self.policy.metrics = vec![metric];
        self
    }

    /// What was learnt says: with half as much again in hand, at eight requests a second a pod.
    fn advised(mut self, rate: f64) -> Self {
        self.advice = Ok(advice(rate));
        self
    }

    fn mode(mut self, mode: Mode) -> Self {
        self.policy.mode = mode;
        self
    }

    fn plan_with(&self, planner: &mut Planner, secs: u64) -> Plan {
        self.plan_at(planner, Duration::from_secs(secs))
    }

    fn plan_at(&self, planner: &mut Planner, at: Duration) -> Plan {
        let now = Now::at(Timestamp::from_secs(1_000_000), at);
        self.plan_of(planner, now, &self.snapshot(now.instant))
    }

    fn plan_of(&self, planner: &mut Planner, now: Now, snapshot: &Snapshot) -> Plan {
        planner.plan(&Inputs {
            now,
            policy: &self.policy,
            snapshot,
            recent: self.recent,
            work: self.work,
            advice: self.advice,
            lead_time: Duration::from_secs(self.lead_secs),
            history_back: self.history_back,
        })
    }

    /// The plan of a fleet that has been like this for long: no window still holds what was before.
    fn plan(&self) -> Plan {
        let mut planner = Planner::new();
        let _first = self.plan_with(&mut planner, 0);
        self.plan_with(&mut planner, 10_000)
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let (silent, silent_secs) = self.silent;
        let since = now - Duration::from_secs(silent_secs);
        let phases = [
            (self.ready, PodPhase::Ready),
            (self.starting, PodPhase::Starting),
            (self.unready, PodPhase::Unready),
        ];
        let phases = phases
            .iter()
            .flat_map(|(count, phase)| std::iter::repeat_n(*phase, *count));
        let pods = phases.enumerate().map(|(index, phase)| Pod {
            name: format!("pod-{index}"),
            uid: format!("uid-{index}-{phase:?}"),
            ip: None,
            phase,
            created: Instant::default(),
            marked: false,
            member: if index < silent {
                Member::Silent { since }
            } else {
                Member::Reporting(Reading {
                    in_flight: if phase == PodPhase::Ready {
                        self.right_now / self.ready as f64
                    } else {
                        0.0
                    },
                    ..Reading::default()
                })
            },
        });
        Snapshot {
            spec_replicas: self.spec,
            pods: pods.collect(),
            rollout: self.rollout,
            paused: self.paused,
            ..Snapshot::default()
        }
    }
}

fn advice(rate: f64) -> Advice {
    let candidate = Candidate {
        sight: Sight::Season,
        headroom: 1.5,
        hold: Duration::from_secs(600),
        drain: Duration::from_secs(60),
    };
    Advice {
        candidate,
        rate,
        need: rate * candidate.headroom / 8.0,
        pod_rps: 8.0,
        pod_hours: 12.0,
        late: 3.0,
        compared: 323,
    }
}

/// What a plan says at one step, in all its reasons.
fn said(plan: &Plan, step: Step) -> String {
    let at_step = plan.reasons.iter().filter(|reason| reason.step == step);
    let texts: Vec<&str> = at_step.map(|reason| reason.text.as_str()).collect();
    texts.join("; ")
}

/// The plan of a settled fleet; returns what it needs now and ahead.
#[track_caller]
fn check(case: &Case, desired: u32, step: Step, words: &str) -> (u32, Option<u32>) {
    let plan = case.plan();
    assert_eq!(plan.desired, desired, "{plan:#?}");
    let text = said(&plan, step);
    assert!(text.contains(words), "{step:?} says: {text}\nnot: {words}");
    (plan.needed_now, plan.needed_ahead)
}

// === now ===

#[test]
fn each_metric_proposes_by_its_target() {
    let concurrency = Case::new().load(44.0, 44.0);
    let words =
        "concurrency: 44.0 in flight, 44.0 arrive a second, at 8 in flight a pod need 5.5 pods";
    let needed = check(&concurrency, 6, Step::Now, words);
    assert_eq!(needed, (6, None));
    let rate = concurrency.metric(Metric::RequestRate { per_second: 5.0 });
    let words = "requestRate: 44.0 arrive a second at 5 a pod need 8.8 pods";
    check(&rate, 9, Step::Now, words);
    let mut gpu = rate.clone().metric(Metric::Gpu {
        average_utilization: 60.0,
    });
    check(
        &gpu,
        4,
        Step::Now,
        "gpu: no pod reports a GPU: the 4 replicas asked for stay",
    );
    gpu.recent.slow.gpu_utilization = Some(0.9);
    check(
        &gpu,
        6,
        Step::Now,
        "gpu: 90% of 4 pods at 60% a pod need 6.0 pods",
    );
    // The minute's mean is that of the ten that were there, not of the four that are left.
    gpu.recent.slow.pods = 10.0;
    gpu.recent.slow.gpu_utilization = Some(0.36);
    check(
        &gpu,
        6,
        Step::Now,
        "gpu: 36% of 10 pods at 60% a pod need 6.0 pods",
    );
}

#[test]
fn a_metric_without_a_signal_leaves_the_decision_to_the_others() {
    let mut case = Case::new().load(16.0, 16.0);
    let gpu = Metric::Gpu {
        average_utilization: 60.0,
    };
    case.policy.metrics.insert(0, gpu);
    check(
        &case,
        2,
        Step::Now,
        "gpu: no pod reports a GPU; concurrency: 16.0",
    );
}

#[test]
fn a_load_that_is_no_number_counts_as_unobserved() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let case = Case::new().load(bad, 8.0);
        check(&case, 4, Step::Now, "no ready pod reports its load");
        let mut case = Case::new().load(8.0, 8.0);
        case.recent.fast.in_flight = bad;
        assert_eq!(case.plan().desired, 1, "the slow window speaks alone");
    }
}

#[test]
fn the_largest_proposal_wins() {
    let mut case = Case::new().load(44.0, 44.0);
    let metrics = &mut case.policy.metrics;
    metrics.insert(0, Metric::RequestRate { per_second: 5.0 });
    check(&case, 9, Step::Now, "need 8.8 pods; concurrency:");
    case.policy.metrics.reverse();
    assert_eq!(case.plan().desired, 9);
}

#[test]
fn a_full_gpu_is_told_how_much_more_is_wanted_by_its_arrivals() {
    let mut case = Case::new().load(30.0, 30.0).metric(Metric::Gpu {
        average_utilization: 60.0,
    });
    case.recent.slow.gpu_utilization = Some(0.5);
    case.work = Some(Work {
        service_seconds: 1.0,
        gpu_seconds: Some(0.2),
    });
    // Below its target the GPU's own word counts, whatever the arrivals say.
    check(&case, 4, Step::Now, "need 3.3 pods");
    case.recent.slow.gpu_utilization = Some(1.0);
    check(&case, 10, Step::Now, "need 10.0 pods");
}

#[test]
fn a_burst_is_seen_in_seconds_and_noise_is_not() {
    let mut case = Case::new().load(24.0, 24.0);
    case.recent.fast.arrivals = 27.0;
    case.recent.fast.in_flight = 27.0;
    check(&case, 3, Step::Now, "24.0 arrive a second");
    case.recent.fast.arrivals = 90.0;
    case.recent.fast.in_flight = 60.0;
    // 90 less twice the root of 90 / 10.
    check(&case, 11, Step::Now, "84.0 arrive a second");
}

#[test]
fn a_backlog_asks_for_the_pods_that_clear_it_and_not_for_a_slot_each() {
    let mut case = Case::new().replicas(2).load(20.0, 400.0);
    check(&case, 5, Step::Now, "need 2.5 pods and 1.6 for the backlog");
    // Long requests keep their slots: then each does need one.
    case.work = Some(Work {
        service_seconds: 40.0,
        gpu_seconds: None,
    });
    case.recent.slow.arrivals = 0.4;
    case.recent.fast.arrivals = 0.4;
    check(
        &case,
        50,
        Step::Now,
        "need 2.0 pods and 48.0 for the backlog",
    );
    case.work = None;
    check(
        &case,
        50,
        Step::Now,
        "need 2.0 pods and 48.0 for the backlog",
    );
}

#[test]
fn an_overrun_fleet_gets_another_pod_even_where_tolerance_would_not_give_it() {
    // Requests became longer than `work` says: all arrivals are served, at twice the target.
    let mut case = Case::new().replicas(20).load(80.0, 320.0);
    check(
        &case,
        21,
        Step::Now,
        "need 20.0 pods and 0.7 for the backlog",
    );
    // With help on its way it waits for it.
    case.spec = 21;
    case.starting = 1;
    assert_eq!(case.plan().desired, 21);
    case.starting = 0;
    assert_eq!(case.plan().desired, 21, "asked for, and no object yet");
}

/// The plans of a fleet of two that holds `right_now` at turns this many milliseconds apart, after a calm minute.
fn burst(right_now: f64, apart: &[u64]) -> Vec<Plan> {
    let mut planner = Planner::new();
    let mut case = Case::new().replicas(2).load(8.0, 8.0);
    case.right_now = 8.0;
    for second in 0..60 {
        let _calm = case.plan_with(&mut planner, second);
    }
    case.right_now = right_now;
    let mut at = 60_000;
    let turns = apart.iter().map(|millis| {
        at += millis;
        case.plan_at(&mut planner, Duration::from_millis(at))
    });
    turns.collect()
}

#[test]
fn a_burst_is_acted_on_in_a_fraction_of_a_second() {
    let plans = burst(40.0, &[230, 100, 100]);
    let desired: Vec<u32> = plans.iter().map(|plan| plan.desired).collect();
    assert_eq!(desired, [2, 2, 3], "as soon as it has lasted 200 ms");
    let words = "; 40 are in flight right now, more than noise above 25.0";
    let text = said(&plans[2], Step::Now);
    assert!(text.contains(words), "{text}");
    // What waits is to be gone in half a minute.
    assert_eq!(burst(400.0, &[230, 100, 100])[2].desired, 4);
}

#[test]
fn a_moment_is_no_burst() {
    // The mean of both pods at their targets is 16; 29 are within three roots of it and tolerance.
    let calm = |plans: Vec<Plan>| plans.iter().all(|plan| plan.desired == 2);
    assert!(calm(burst(29.0, &[230, 100, 100, 100, 1_000])));
    assert!(calm(burst(40.0, &[230, 100, 99])), "not for 200 ms");
}

#[test]
fn what_pods_hold_that_drain_asks_for_none() {
    let mut planner = Planner::new();
    let mut case = Case::new().replicas(2).load(8.0, 8.0);
    case.right_now = 8.0;
    let mut plan = |draining: bool, secs| {
        let mut snapshot = case.snapshot(Instant::from_offset(Duration::from_secs(secs)));
        let mut leaving = snapshot.pods[0].clone();
        leaving.uid = "leaving".to_owned();
        leaving.member = Member::Reporting(Reading {
            in_flight: 100.0,
            draining,
            ..Reading::default()
        });
        snapshot.pods.push(leaving);
        case.plan_of(
            &mut planner,
            Now::at(Timestamp::default(), Duration::from_secs(secs)),
            &snapshot,
        )
    };
    for second in 0..5 {
        assert_eq!(plan(true, second).desired, 2);
    }
    let _first = plan(false, 5);
    assert!(plan(false, 6).desired > 2, "as one that stays it would");
}

#[test]
fn silent_members_carry_the_mean_of_those_that_report() {
    let mut case = Case::new().load(24.0, 24.0);
    check(&case, 3, Step::Now, "24.0 in flight");
    case.silent = (2, 600);
    case.spec = 1;
    check(&case, 6, Step::Now, "48.0 in flight");
    // Who just fell silent still has its reports in the window.
    case.silent = (2, 0);
    check(&case, 3, Step::Now, "24.0 in flight");
    // After half a minute the fast window has nothing of them, the slow one half.
    case.silent = (2, 30);
    case.recent.fast.arrivals = 12.0;
    case.recent.fast.in_flight = 12.0;
    check(&case, 4, Step::Now, "32.0 in flight");
}

#[test]
fn without_any_report_the_replicas_stay_and_what_was_learnt_may_still_raise() {
    let mut case = Case::new().load(24.0, 24.0);
    case.silent = (4, 600);
    let needed = check(
        &case,
        4,
        Step::Now,
        "no ready pod reports its load: the 4 replicas asked for stay",
    );
    assert_eq!(needed, (4, None));
    assert_eq!(case.clone().advised(48.0).plan().desired, 9);
    assert_eq!(case.clone().advised(8.0).plan().desired, 4);
    let mut unobserved = Case::new();
    unobserved.recent = Recent::default();
    assert_eq!(unobserved.plan().desired, 4);
    let learnt = unobserved.advised(8.0);
    check(&learnt, 4, Step::Now, "the 4 replicas asked for stay");
}

// === ahead, trust, mode ===

#[test]
fn what_was_learnt_decides_and_says_how_it_looked_ahead() {
    let plan = Case::new().load(16.0, 16.0).advised(40.0).plan();
    assert_eq!(
        (plan.desired, plan.needed_now, plan.needed_ahead),
        (8, 2, Some(8))
    );
    let texts: Vec<&str> = plan
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect();
    assert!(
        texts.contains(
            &"by the usual course of the day and the trend, 40.0 arrivals a second at most while a new pod takes 2m; at 8.0 a pod and 1.50 times as much in hand they need 7.5 pods"
        ),
        "{texts:?}"
    );
    assert!(
        texts.contains(
            &"of 323 ways to decide this one would have cost least of late: 12.0 pod-hours, 3 requests late"
        ),
        "{texts:?}"
    );
}

#[test]
fn a_backlog_is_cleared_at_the_pace_that_was_learnt() {
    // Four pods hold 32 in flight and serve as many a second; 480 more wait. Of 80 a second, 48 more each second will.
    let case = Case::new().load(80.0, 512.0).advised(16.0);
    assert_eq!(
        case.plan().needed_ahead,
        Some(16),
        "3 for the load and 13 for the 6,240 that will wait in two minutes"
    );
}

#[test]
fn while_many_wait_nothing_that_was_asked_for_is_sent_back() {
    // Of 16 a second, the four pods have served the 480 before another one could come.
    let mut case = Case::new().load(16.0, 512.0).advised(16.0);
    let plan = case.plan();
    assert_eq!((plan.needed_ahead, plan.desired), (Some(3), 4));
    // Twelve are on their way and more than enough: 480 are more than what is served in two seconds.
    case = case.load(30.0, 512.0);
    case.spec = 16;
    case.starting = 12;
    let mut planner = Planner::new();
    for minute in 0..20 {
        let plan = case.plan_with(&mut planner, 60 * minute);
        assert_eq!(plan.desired, 16, "minute {minute}: {:?}", plan.reasons);
    }
    // Nobody waits any more: they go.
    let mut calm = Case::new().load(16.0, 16.0).advised(16.0);
    calm.spec = 16;
    calm.starting = 12;
    let plan = calm.plan_with(&mut planner, 60 * 60);
    assert!(plan.desired < 16, "{:?}", plan.reasons);
}

#[test]
fn an_overrun_fleet_gets_another_pod_whatever_was_learnt() {
    // Requests became longer than `work` says: by what was learnt half of the pods would do.
    let mut case = Case::new().replicas(20).load(80.0, 320.0).advised(48.0);
    assert_eq!(case.plan().desired, 21);
    case.spec = 21;
    case.starting = 1;
    assert_eq!(case.plan().desired, 21, "help is on its way");
}

#[test]
fn what_was_asked_for_is_kept_as_long_as_was_learnt_or_as_the_user_wrote() {
    let high = Case::new().load(16.0, 16.0).replicas(8).advised(40.0);
    let low = Case::new().load(16.0, 16.0).replicas(8).advised(16.0);
    let desired = |low: &Case, secs: u64| {
        let mut planner = Planner::new();
        let _high = high.plan_with(&mut planner, 0);
        low.plan_with(&mut planner, secs).desired
    };
    assert_eq!(desired(&low, 600), 8);
    assert_eq!(
        desired(&low, 601),
        3,
        "no window of 300 s and no tolerance on top"
    );
    let mut written = low.clone();
    written.policy.behavior.scale_down.stabilization_window = Duration::from_secs(60);
    assert_eq!(desired(&written, 61), 3);
}

#[test]
fn a_pod_that_is_kept_is_kept_until_a_time_that_is_said() {
    let mut planner = Planner::new();
    let high = Case::new().load(16.0, 16.0).replicas(8).advised(40.0);
    let _high = high.plan_with(&mut planner, 10);
    let low = Case::new().load(16.0, 16.0).replicas(8).advised(16.0);
    let plan = low.plan_with(&mut planner, 100);
    assert_eq!(
        said(&plan, Step::Behavior),
        "3 would do; 8 were asked for within the last 10m and stay"
    );
    assert_eq!(plan.until, Some(Timestamp::from_secs(1_000_610)));
    let plan = low.plan_with(&mut planner, 611);
    assert_eq!((plan.desired, plan.until), (3, None));
    assert_eq!(said(&plan, Step::Down), "5 of 8 go back");
}

#[test]
fn a_new_leader_keeps_what_it_finds_as_long_as_it_would_have_kept_it() {
    let mut planner = Planner::new();
    let mut case = Case::new().load(16.0, 16.0).replicas(8);
    case.advice = Err(Unlearnt::Replay);
    for second in 0..20 {
        assert_eq!(case.plan_with(&mut planner, second).desired, 8);
    }
    let learnt = case.advised(16.0);
    assert_eq!(learnt.plan_with(&mut planner, 600).desired, 8);
    assert_eq!(learnt.plan_with(&mut planner, 601).desired, 3);
}

#[test]
fn a_plan_that_is_reactive_says_why_nothing_was_learnt() {
    let mut case = Case::new().load(28.0, 28.0);
    for (why, words) in [
        (
            Unlearnt::Work,
            "nothing was learnt yet, as what a pod carries a second is not known",
        ),
        (
            Unlearnt::Load,
            "nothing was learnt yet, as no load was seen for long enough",
        ),
        (
            Unlearnt::Replay,
            "nothing was learnt yet, as the days before are still being lived through",
        ),
    ] {
        case.advice = Err(why);
        assert_eq!(check(&case, 4, Step::Trust, words), (4, None));
    }
    let words = "auto: what is needed now counts alone";
    check(&case, 4, Step::Mode, words);
}

#[test]
fn max_ahead_limits_what_looking_ahead_may_add() {
    let mut case = Case::new().load(32.0, 32.0).advised(160.0);
    assert_eq!(case.plan().desired, 30);
    case.policy.prediction.max_ahead = Some(0.5);
    check(
        &case,
        6,
        Step::Ahead,
        "need 30.0 pods, cut to 6 by maxAhead 50%",
    );
    let mut single = case.replicas(1).load(4.0, 4.0);
    single.policy.prediction.max_ahead = Some(0.2);
    assert_eq!(single.plan().desired, 2, "a share of a pod is a pod");
}

#[test]
fn the_mode_decides_which_need_acts() {
    let rise = Case::new().load(32.0, 32.0).advised(48.0);
    let fall = Case::new().replicas(10).load(80.0, 80.0).advised(16.0);
    let calm = Case::new().replicas(10).load(16.0, 16.0).advised(16.0);
    for (mode, expected) in [
        (Mode::Observe, [9, 10, 3]),
        (Mode::Auto, [9, 10, 3]),
        (Mode::ScaleUpOnly, [9, 10, 10]),
        (Mode::Proactive, [9, 3, 3]),
        (Mode::Reactive, [9, 10, 3]),
    ] {
        let desired = [&rise, &fall, &calm].map(|case| case.clone().mode(mode).plan().desired);
        assert_eq!(desired, expected, "{mode:?}");
    }
    let reactive = rise.mode(Mode::Reactive);
    let words = "reactive: only ways that look at the present were compared";
    check(&reactive, 9, Step::Mode, words);
    let mut cut = reactive;
    cut.policy.prediction.max_ahead = Some(0.1);
    assert_eq!(cut.plan().desired, 9, "nothing looks ahead");
}

// === starting ===

#[test]
fn pods_on_their_way_count_and_a_burst_does_not_pile_up() {
    let mut planner = Planner::new();
    let mut case = Case::new().replicas(2).load(64.0, 64.0);
    let mut spec = Vec::new();
    // The burst lasts, the queue grows by the second, the pods take two minutes.
    for second in 0..120 {
        let plan = case.plan_with(&mut planner, second);
        case.spec = plan.desired;
        case.starting = (plan.desired - 2) as usize;
        let waiting = 48.0 * second as f64;
        case = case.load(64.0, 64.0 + waiting);
        spec.push(plan.desired);
    }
    // 8 pods carry it; what waits after two minutes is 90 pod-minutes over 30 s at most.
    assert_eq!(spec[0], 8);
    assert!(spec[119] < 34, "{spec:?}");
    assert!(spec.is_sorted(), "{spec:?}");
    let plan = case.plan_with(&mut planner, 121);
    let words = format!(
        "{} of the {} asked for are already starting",
        case.starting, case.spec
    );
    assert!(said(&plan, Step::Starting).contains(&words), "{plan:#?}");
}

#[test]
fn a_pod_that_stays_unready_is_replaced_and_a_probe_that_fails_everywhere_is_not() {
    let mut planner = Planner::new();
    let mut case = Case::new().load(32.0, 32.0);
    case.ready = 3;
    case.unready = 1;
    let mut desired = |case: &Case, secs| case.plan_with(&mut planner, secs).desired;
    assert_eq!(desired(&case, 0), 4, "once is no loss");
    assert_eq!(desired(&case, 29), 4);
    assert_eq!(desired(&case, 30), 5);
    case.ready = 0;
    case.unready = 4;
    desired(&case, 40);
    assert_eq!(desired(&case, 100), 5);
    let plan = case.plan_with(&mut planner, 101);
    let words = "4 unready for more than 30s carry nothing, 1 asked for beside them";
    assert!(said(&plan, Step::Starting).contains(words), "{plan:#?}");
}

// === bounds, behavior ===

#[test]
fn a_clamped_plan_says_so() {
    let mut case = Case::new().load(800.0, 800.0);
    check(
        &case,
        50,
        Step::Bounds,
        "100 are needed and maxReplicas is 50",
    );
    case = case.load(0.0, 0.0);
    case.policy.min_replicas = 3;
    check(&case, 3, Step::Bounds, "0 would do and minReplicas is 3");
    case.policy.max_replicas = 3;
    case.history_back = false;
    assert_eq!(
        case.plan().desired,
        3,
        "maxReplicas is what may be spent, whatever is not known"
    );
}

#[test]
fn small_changes_are_not_worth_making() {
    let case = |pods: f64| Case::new().replicas(10).load(pods * 8.0, pods * 8.0);
    check(
        &case(10.9),
        10,
        Step::Behavior,
        "10.9 pods are within tolerance of 10",
    );
    assert_eq!(case(11.2).plan().desired, 12);
    assert_eq!(case(9.0).plan().desired, 10);
    assert_eq!(case(8.9).plan().desired, 9);
    assert_eq!(case(7.9).plan().desired, 8);
}

#[test]
fn the_scale_down_stabilisation_keeps_what_was_wanted_within_its_window() {
    let mut planner = Planner::new();
    let busy = Case::new().load(32.0, 32.0);
    assert_eq!(busy.plan_with(&mut planner, 100).desired, 4);
    let calm = Case::new().load(8.0, 8.0);
    let plan = calm.plan_with(&mut planner, 160);
    assert_eq!(plan.desired, 4);
    assert_eq!(
        said(&plan, Step::Behavior),
        "1 would do; 4 were recommended within the last 5m and stay"
    );
    assert_eq!(plan.until, Some(Timestamp::from_secs(1_000_400)));
    assert_eq!(calm.plan_with(&mut planner, 399).desired, 4);
    let plan = calm.plan_with(&mut planner, 400);
    assert_eq!((plan.desired, plan.until), (1, None));
    assert_eq!(said(&plan, Step::Down), "3 of 4 go back");
}

#[test]
fn rate_limits_hold_whoever_made_the_change() {
    let mut case = Case::new().load(160.0, 160.0);
    case.policy.behavior.scale_up.policies = vec![ScalingPolicy {
        kind: ScalingPolicyKind::Pods,
        value: 3,
        period: Duration::from_secs(60),
    }];
    let mut planner = Planner::new();
    let plan = case.plan_with(&mut planner, 0);
    assert_eq!(plan.desired, 7);
    assert_eq!(
        said(&plan, Step::Behavior),
        "from 4, the rate limits allow 7 of 20"
    );
    case.spec = 6;
    assert_eq!(case.plan_with(&mut planner, 1).desired, 7);
    assert_eq!(case.plan_with(&mut planner, 60).desired, 7);
    assert_eq!(case.plan_with(&mut planner, 61).desired, 9);
}

// === unknown, down ===

#[test]
fn a_pause_is_said_last_and_leaves_the_plan_as_it_would_be() {
    let mut case = Case::new().load(44.0, 44.0);
    case.paused = true;
    let words = "annotated sidescale.dev/paused: 6 are planned and 4 stay";
    check(&case, 6, Step::Paused, words);
    let plan = case.plan();
    let last = plan.reasons.last().map(|reason| reason.step);
    assert_eq!(last, Some(Step::Paused));
    case.paused = false;
    assert_eq!(said(&case.plan(), Step::Paused), "");
}

#[test]
fn nothing_is_lowered_during_a_rollout_or_before_the_history_is_back() {
    let mut case = Case::new();
    assert_eq!(case.plan().desired, 1);
    case.history_back = false;
    check(
        &case,
        4,
        Step::Unknown,
        "the history is not back yet: 4 stay",
    );
    case.rollout = true;
    check(&case, 4, Step::Unknown, "a rollout runs: 4 stay");
    assert_eq!(case.load(80.0, 80.0).plan().desired, 10, "up is allowed");
}

#[test]
fn with_a_silent_member_one_pod_goes_in_ten_minutes() {
    let mut planner = Planner::new();
    let mut case = Case::new().replicas(6);
    case.silent = (1, 3_600);
    let mut falls = Vec::new();
    for second in 0..2_000 {
        let plan = case.plan_with(&mut planner, second);
        if plan.desired < case.spec {
            falls.push((second, plan.desired));
            case = case.replicas(plan.desired);
        } else if falls.len() == 1 {
            assert_eq!(plan.until, Some(Timestamp::from_secs(1_001_201)));
        }
    }
    assert_eq!(falls, [(600, 5), (1_201, 4), (1_802, 3)]);
    let plan = case.plan_with(&mut planner, 2_000);
    let words = "1 ready pods do not report; one pod may go in 10m: 3 stay";
    assert_eq!(said(&plan, Step::Unknown), words);
}

#[test]
fn bounds_are_obeyed_and_with_a_silent_member_no_pod_goes_on_top() {
    let mut case = Case::new().replicas(20);
    case.policy.max_replicas = 18;
    case.silent = (1, 3_600);
    check(&case, 18, Step::Unknown, "one pod may go in 10m: 18");
}

#[test]
fn scale_up_only_never_lowers() {
    let case = Case::new().mode(Mode::ScaleUpOnly);
    check(&case, 4, Step::Down, "scaleUpOnly: 4 stay");
}

// === properties ===

prop_compose! {
    fn fleet()(
        (min, more) in (1_u32..10, 0_u32..40),
        spec in 0_u32..60,
        (ready, starting, unready) in (0_usize..12, 0_usize..5, 0_usize..5),
        (silent, silent_secs) in (0_usize..4, 0_u64..700),
        rollout in prop::bool::weighted(0.1),
        history_back in prop::bool::weighted(0.9),
        mode in prop_oneof![Just(Mode::Observe), Just(Mode::Auto), Just(Mode::ScaleUpOnly), Just(Mode::Proactive), Just(Mode::Reactive)],
    ) -> Case {
        let mut case = Case::new().mode(mode);
        case.policy.min_replicas = min;
        case.policy.max_replicas = min + more;
        Case { spec, ready, starting, unready, silent: (silent, silent_secs), rollout, history_back, ..case }
    }
}

prop_compose! {
    fn case()(
        fleet in fleet(),
        (arrivals, burst) in (0.0..400.0, 0.0..3.0),
        (in_flight, jam, right_now) in (0.0..800.0, 0.0..3.0, 0.0..1_600.0),
        gpu in prop::option::of(0.0..1.0),
        metrics in prop::collection::vec(prop_oneof![
            (1.0..100.0).prop_map(|it| Metric::Gpu { average_utilization: it }),
            (0.1..50.0).prop_map(|it| Metric::RequestRate { per_second: it }),
            (0.5..50.0).prop_map(|it| Metric::Concurrency { average_value: it }),
        ], 1..3),
        work in prop::option::of((0.01..60.0, prop::option::of(0.001..1.0))),
        advice in prop_oneof![
            prop::sample::select(vec![Unlearnt::Work, Unlearnt::Load, Unlearnt::Replay]).prop_map(Err),
            (0.0..1_000.0).prop_map(|rate| Ok(advice(rate))),
        ],
        max_ahead in prop::option::of(0.01..3.0),
    ) -> Case {
        let mut case = fleet.load(arrivals, in_flight);
        case.recent.fast.arrivals *= burst;
        case.recent.fast.in_flight *= jam;
        case.right_now = right_now;
        case.recent.slow.gpu_utilization = gpu;
        case.policy.metrics = metrics;
        case.policy.prediction.max_ahead = max_ahead;
        case.work = work.map(|(service_seconds, gpu_seconds)| Work { service_seconds, gpu_seconds });
        case.advice = advice;
        case
    }
}

/// The same moment with more load of every kind.
fn busier(case: &Case, factor: f64) -> Case {
    let mut busier = case.clone();
    busier.right_now *= factor;
    for window in [&mut busier.recent.slow, &mut busier.recent.fast] {
        window.arrivals *= factor;
        window.in_flight *= factor;
        window.gpu_utilization = window.gpu_utilization.map(|used| (used * factor).min(1.0));
    }
    if let Ok(advice) = &mut busier.advice {
        advice.rate *= factor;
        advice.need *= factor;
    }
    busier
}

proptest! {
    #[test]
    fn no_plan_leaves_the_bounds(case in case(), later in case()) {
        let mut planner = Planner::new();
        for (secs, case) in [(0, &case), (400, &later), (2_000, &case)] {
            let desired = case.plan_with(&mut planner, secs).desired;
            prop_assert!(desired >= case.policy.min_replicas && desired <= case.policy.max_replicas);
        }
    }

    #[test]
    fn more_load_never_asks_for_fewer(case in case(), factor in 1.0..4.0) {
        let mut planner = Planner::new();
        let _first = case.plan_with(&mut planner, 0);
        let mut same = planner.clone();
        let less = case.plan_with(&mut planner, 1_000);
        let more = busier(&case, factor).plan_with(&mut same, 1_000);
        prop_assert!(more.desired >= less.desired, "{less:#?}\n{more:#?}");
    }

    #[test]
    fn with_silent_members_at_most_one_pod_goes_in_ten_minutes(case in case(), secs in 1_u64..3_000) {
        let mut case = case;
        case.ready = case.ready.max(1);
        case.silent = (1, 3_600);
        let mut planner = Planner::new();
        let _first = case.plan_with(&mut planner, 0);
        let plan = case.plan_with(&mut planner, secs);
        let may_fall = u32::from(secs >= 600);
        let floor = case.spec.saturating_sub(may_fall).min(case.policy.max_replicas);
        prop_assert!(plan.desired >= floor, "{plan:#?}");
    }

    #[test]
    fn with_nothing_learnt_each_mode_plans_for_the_present(case in case()) {
        let mut case = case;
        case.advice = Err(Unlearnt::Load);
        let desired = [Mode::Observe, Mode::Auto, Mode::Proactive, Mode::Reactive]
            .map(|mode| case.clone().mode(mode).plan().desired);
        prop_assert!(desired.iter().all(|one| *one == desired[0]), "{desired:?}");
    }

    #[test]
    fn every_reason_is_a_sentence_in_the_order_of_the_steps(case in case()) {
        let plan = case.plan();
        prop_assert!(plan.reasons.is_sorted_by_key(|reason| reason.step), "{plan:#?}");
        prop_assert!(plan.reasons.iter().all(|reason| !reason.text.is_empty() && !reason.text.ends_with('.')));
        prop_assert!(plan.reasons.iter().any(|reason| reason.step == Step::Now));
    }
}
