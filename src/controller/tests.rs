//! Turns over a fleet that is made up second by second.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::fleet::{Member, Pod, PodPhase, Reading};
use crate::plan::{Reason, Step};
use crate::report::Load;
use crate::units::pods;

/// A Monday at noon.
const NOON: Timestamp = Timestamp::from_secs(1_767_614_400);

fn policy() -> Policy {
    let mut policy = Policy::with_bounds(1, 20);
    policy.mode = Mode::Auto;
    policy.metrics = vec![Metric::Concurrency { average_value: 4.0 }];
    policy
}

/// `pods` ready pods that share `rate` requests a second of two seconds each.
fn second(pods: u32, rate: f64) -> Snapshot {
    let in_flight = 2.0 * rate;
    let load = Load {
        pod_seconds: f64::from(pods),
        arrivals: rate,
        completions: rate,
        busy_seconds: in_flight,
        service_seconds: in_flight,
        ..Load::default()
    };
    moment(pods, in_flight, load)
}

/// `pods` ready pods that share what is in flight now, and what they did since the moment before.
fn moment(pods: u32, in_flight: f64, load: Load) -> Snapshot {
    let pod = |index| Pod {
        name: format!("llm-{index}"),
        uid: format!("uid-{index}"),
        ip: None,
        phase: PodPhase::Ready,
        created: Instant::default(),
        marked: false,
        member: Member::Reporting(Reading {
            in_flight: in_flight / f64::from(pods),
            ready: true,
            ..Reading::default()
        }),
    };
    Snapshot {
        spec_replicas: pods,
        pods: (0..pods).map(pod).collect(),
        load,
        in_flight,
        ..Snapshot::default()
    }
}

/// Lives through `seconds` of the same fleet; gives the last turn.
fn live(controller: &mut Controller, from: u64, seconds: u64, snapshot: &Snapshot) -> Turn {
    let turns = (from..from + seconds).map(|second| {
        let now = Now::at(NOON, Duration::from_secs(second));
        controller.turn(now, snapshot, &policy())
    });
    turns.last().expect("at least one second")
}

#[test]
fn a_fleet_that_is_too_small_grows_from_the_first_minute() {
    let mut controller =
        Controller::new(Some(History::new(Duration::from_secs(86_400))), &policy());
    let turn = live(&mut controller, 0, 60, &second(2, 10.0));
    // Ten requests a second of two seconds each are twenty in flight: five pods of four.
    assert!(turn.plan.desired >= 5, "{:?}", turn.plan);
    assert_eq!(turn.plan.needed_now, 5, "{:?}", turn.plan);
}

#[test]
fn without_its_history_a_fleet_is_not_lowered_until_it_was_seen_whole_for_long_enough() {
    let mut controller = Controller::new(None, &policy());
    let idle = second(10, 0.5);
    let half_an_hour = WITHOUT_HISTORY.as_secs();
    let turn = live(&mut controller, 0, half_an_hour, &idle);
    assert_eq!(turn.plan.desired, 10, "{:?}", turn.plan.reasons);
    // The scale-down window begins to count then, too.
    let turn = live(&mut controller, half_an_hour, 900, &idle);
    assert!(turn.plan.desired < 10, "{:?}", turn.plan.reasons);
}

#[test]
fn the_half_hour_begins_anew_when_a_member_is_not_heard() {
    let mut controller = Controller::new(None, &policy());
    drop(live(&mut controller, 0, 1_700, &second(10, 0.5)));
    let mut silent = second(10, 0.5);
    silent.pods[3].member = Member::Unknown;
    drop(live(&mut controller, 1_700, 1, &silent));
    let turn = live(&mut controller, 1_701, 1_700, &second(10, 0.5));
    assert_eq!(turn.plan.desired, 10, "{:?}", turn.plan.reasons);
}

#[test]
fn a_past_that_was_lost_is_still_awaited_by_the_next_leader_who_counts_on() {
    let idle = second(10, 0.5);
    let mut first = Controller::new(None, &policy());
    drop(live(&mut first, 0, 1_001, &idle));
    let later = Now::at(NOON, Duration::from_secs(1_001)).instant;
    let seen = first.awaits(later).expect("half an hour is not over");
    assert_eq!(seen, Duration::from_secs(1_001));
    // What it saved is read as a history, and yet it is not the fleet's.
    let mut next = Controller::new(Some(first.history().clone()), &policy());
    next.go_on_awaiting(seen);
    // Not yet all members are heard: what was seen before counts all the same.
    let mut silent = second(10, 0.5);
    silent.pods[3].member = Member::Unknown;
    drop(live(&mut next, 1_001, 5, &silent));
    let turn = live(&mut next, 1_006, 700, &idle);
    assert_eq!(turn.plan.desired, 10, "{:?}", turn.plan.reasons);
    let turn = live(&mut next, 1_706, 900, &idle);
    let now = Now::at(NOON, Duration::from_secs(2_606)).instant;
    assert_eq!(next.awaits(now), None);
    assert!(turn.plan.desired < 10, "{:?}", turn.plan.reasons);
}

#[test]
fn a_past_that_comes_late_is_joined_and_no_longer_awaited() {
    let idle = second(10, 0.5);
    let mut former = Controller::new(Some(History::new(Duration::from_secs(86_400))), &policy());
    drop(live(&mut former, 0, 120, &idle));
    let mut controller = Controller::new(None, &policy());
    drop(live(&mut controller, 180, 60, &idle));
    let begun = NOON + Duration::from_secs(180);
    let now = Now::at(NOON, Duration::from_secs(240));
    assert!(controller.awaits(now.instant).is_some());
    controller.bring_back(former.history(), begun);
    assert_eq!(controller.awaits(now.instant), None);
    let known = controller.history().minutes(NOON..now.timestamp);
    let seen = known.filter(|(_start, bucket)| bucket.is_some()).count();
    assert!(seen >= 3, "two minutes before and one since, not {seen}");
    let turn = live(&mut controller, 240, 900, &idle);
    assert!(turn.plan.desired < 10, "{:?}", turn.plan.reasons);
}

#[test]
fn the_lead_time_is_assumed_until_a_start_was_seen() {
    let mut controller =
        Controller::new(Some(History::new(Duration::from_secs(86_400))), &policy());
    let turn = live(&mut controller, 0, 1, &second(2, 1.0));
    assert_eq!(turn.lead_time.source, LeadSource::Assumed);
    let mut started = second(3, 1.0);
    started.starts = vec![Duration::from_secs(240)];
    let turn = live(&mut controller, 1, 1, &started);
    assert_eq!(turn.lead_time.source, LeadSource::Measured);
    assert_eq!(
        turn.lead_time.time,
        Duration::from_secs(240) + LEAD_TIME_MARGIN
    );
}

#[test]
fn the_shadows_are_given_the_pod_that_the_policy_describes() {
    let work = Work {
        service_seconds: 2.0,
        gpu_seconds: None,
    };
    // Four in flight at two seconds each are two requests a second.
    let pod_rps = |work| Carries::of(&policy(), work).map(|it| it.pod_rps);
    let rate = pod_rps(Some(work)).expect("known");
    assert!((rate - 2.0).abs() < 1e-9);
    assert_eq!(pod_rps(None), None);
    let mut controller =
        Controller::new(Some(History::new(Duration::from_secs(86_400))), &policy());
    let turn = live(&mut controller, 0, 180, &second(5, 7.0));
    let shadows = turn.shadows.expect("requests were completed");
    // 7 a second are five pods at 70 % of what each can do.
    assert_eq!((shadows.hpa.desired, shadows.kpa.desired), (5, 5));
}

#[test]
fn from_the_first_seconds_on_the_plan_follows_what_was_learnt() {
    let mut controller =
        Controller::new(Some(History::new(Duration::from_secs(86_400))), &policy());
    let why = |turn: &Turn| {
        let reasons = turn.plan.reasons.iter();
        let trust = reasons.filter(|reason| reason.step == Step::Trust);
        trust.map(|reason| reason.text.clone()).collect::<String>()
    };
    let turn = live(&mut controller, 0, 1, &second(5, 0.0));
    assert_eq!(turn.advice, None);
    assert!(why(&turn).ends_with("what a pod carries a second is not known"));
    let turn = live(&mut controller, 1, 1, &second(5, 7.0));
    assert_eq!(turn.advice, None);
    let turn = live(&mut controller, 2, 178, &second(5, 7.0));
    let advice = turn.advice.expect("three minutes were seen");
    assert!((advice.pod_rps - 2.0).abs() < 1e-9, "{advice:?}");
    assert!(why(&turn).contains(" ways to decide this one would have cost least"));
    assert_eq!(turn.plan.needed_ahead, Some(pods(advice.need)));
}

/// Twelve days of five pods, up to noon.
fn days_before() -> History {
    let mut history = History::new(Duration::from_secs(14 * 86_400));
    let length = Duration::from_secs(12 * 86_400);
    let minutes = length.as_secs() / 60;
    let past = Past {
        start_millis: (NOON - length).as_millis(),
        step_seconds: 60,
        slots: (0..minutes)
            .map(|_minute| second(5, 7.0).load.scaled(60.0))
            .collect(),
    };
    history.merge_past(&past, NOON - length..NOON);
    history
}

#[test]
fn a_new_leader_lives_through_the_days_before_and_says_so() {
    let mut controller = Controller::new(Some(days_before()), &policy());
    let turn = live(&mut controller, 0, 1, &second(5, 7.0));
    assert_eq!(turn.advice, None);
    let told = |reason: &Reason| reason.text.ends_with("are still being lived through");
    assert!(turn.plan.reasons.iter().any(told), "{:?}", turn.plan);
    let turn = live(&mut controller, 1, 20, &second(5, 7.0));
    let advice = turn.advice.expect("eleven days take some twenty turns");
    assert!(advice.pod_hours > 100.0, "{advice:?}");
}

#[test]
fn days_that_come_back_late_are_lived_through_as_well() {
    let mut controller = Controller::new(None, &policy());
    let turn = live(&mut controller, 0, 60, &second(5, 7.0));
    let advice = turn.advice.expect("a minute was seen");
    assert!(advice.pod_hours < 1.0, "{advice:?}");
    let an_hour_before = NOON - Duration::from_secs(3_600);
    assert_eq!(controller.forecaster.foreseen(an_hour_before), None);
    controller.bring_back(&days_before(), NOON);
    drop(live(&mut controller, 60, 1, &second(5, 7.0)));
    // The tuner lives through the days with what would have been forecast in them.
    let foreseen = controller.forecaster.foreseen(an_hour_before);
    assert!(foreseen.is_some(), "the days are not yet learnt");
    let turn = live(&mut controller, 61, 20, &second(5, 7.0));
    let advice = turn.advice.expect("the days, too");
    assert!(advice.pod_hours > 100.0, "{advice:?}");
}

/// Two pods that carry four in flight each, requests of a quarter of a second, and turns as the leader makes them:
/// once a second, and a tenth of a second after the last one when a pod has more than twice of that.
struct Pair {
    controller: Controller,
    rng: StdRng,
    millis: u64,
    last_turn: u64,
    next_turn: u64,
    /// When each request in flight ends, and on which pod.
    in_flight: VecDeque<(u64, usize)>,
    load: Load,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let history = History::new(Duration::from_secs(86_400));
        Self {
            controller: Controller::new(Some(history), &policy()),
            rng: StdRng::seed_from_u64(seed),
            millis: 0,
            last_turn: 0,
            next_turn: 1_000,
            in_flight: VecDeque::new(),
            load: Load::default(),
        }
    }

    /// Lives through `seconds` of Poisson arrivals; gives the most pods that any turn asked for, and when it first did.
    fn live(&mut self, per_second: f64, seconds: u64) -> (u32, u64) {
        const STEP: u64 = 5;
        let (begun, mut most) = (self.millis, (0, 0));
        while self.millis < begun + seconds * 1_000 {
            self.millis += STEP;
            self.load.pod_seconds += 0.010;
            self.load.busy_seconds += self.in_flight.len() as f64 * 0.005;
            while (self.in_flight.front()).is_some_and(|(ends, _)| *ends <= self.millis) {
                self.in_flight.pop_front();
                self.load.completions += 1.0;
                self.load.service_seconds += 0.250;
            }
            if self.rng.random_bool(per_second * 0.005) {
                self.arrive();
            }
            if self.millis >= self.next_turn {
                let desired = self.turn();
                if desired > most.0 {
                    most = (desired, self.millis - begun);
                }
            }
        }
        most
    }

    fn arrive(&mut self) {
        let pod = usize::from(self.rng.random_bool(0.5));
        self.in_flight.push_back((self.millis + 250, pod));
        self.load.arrivals += 1.0;
        let on_it = self.in_flight.iter().filter(|(_, on)| *on == pod).count();
        if on_it > 8 {
            self.next_turn = self.next_turn.min(self.last_turn + 100);
        }
    }

    fn turn(&mut self) -> u32 {
        let now = Now::at(NOON, Duration::from_millis(self.millis));
        let load = std::mem::take(&mut self.load);
        let snapshot = moment(2, self.in_flight.len() as f64, load);
        (self.last_turn, self.next_turn) = (self.millis, self.millis + 1_000);
        self.controller.turn(now, &snapshot, &policy()).plan.desired
    }
}

#[test]
fn a_burst_on_a_fleet_that_was_calm_for_long_reaches_the_plan_well_within_a_second() {
    for seed in 0..10 {
        let mut pair = Pair::new(seed);
        let (most, _) = pair.live(16.0, 120);
        assert_eq!(most, 2, "seed {seed}");
        let (most, after) = pair.live(120.0, 1);
        assert!(most > 2 && after <= 600, "seed {seed}: {most} {after} ms");
    }
}

#[test]
fn a_steady_poisson_stream_moves_no_plan() {
    for seed in 0..4 {
        let mut pair = Pair::new(seed);
        // Windows of a few seconds are none yet.
        pair.live(16.0, 60);
        // Half of what both can carry: what is kept in hand from the start wants both.
        let (most, after) = pair.live(16.0, 900);
        assert_eq!(most, 2, "seed {seed}, after {after} ms");
    }
}
