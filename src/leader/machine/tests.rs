use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::clock::Timestamp;
use crate::leader::Leader;

const ME: &str = "me_1";
const OTHER: &str = "other_1";

/// A machine with its time in milliseconds, from the default 15 s, 10 s and 2 s.
struct Bench {
    machine: Machine,
    rng: StdRng,
    at: u64,
}

impl Bench {
    /// A machine that has just asked for the Lease for the first time.
    fn new() -> Self {
        Self::part(Part::Sidecar)
    }

    fn part(part: Part) -> Self {
        let machine = Machine::new(ME.to_owned(), part, Timings::default(), Instant::default());
        let mut bench = Self {
            machine,
            rng: StdRng::seed_from_u64(3),
            at: 0,
        };
        assert_eq!(
            bench.give(Event::Tick),
            part.may_lead().then_some(Action::Get)
        );
        bench
    }

    /// One that leads since 0 s, with version 2 of the Lease.
    fn leading() -> Self {
        let mut bench = Self::new();
        bench.machine.bequeathed_by = Some(OTHER.to_owned());
        assert!(matches!(bench.find(free(4), "1"), Some(Action::Put { .. })));
        assert_eq!(bench.written("2"), None);
        assert!(bench.claim().is_some());
        bench
    }

    /// One that follows `OTHER` since 0 s, with version 1 of the Lease.
    fn following(standby: bool) -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.find(held(OTHER, 4), "1"), None);
        assert_eq!(bench.beacon("1", standby), None);
        bench
    }

    fn give(&mut self, event: Event) -> Option<Action> {
        let now = Now::at(
            Timestamp::from_secs(1_000_000),
            Duration::from_millis(self.at),
        );
        self.machine.handle(event, now, &mut self.rng);
        self.machine.poll_action()
    }

    fn find(&mut self, record: Record, version: &str) -> Option<Action> {
        let version = version.to_owned();
        self.give(Event::Answer(Answer::Found { record, version }))
    }

    fn written(&mut self, version: &str) -> Option<Action> {
        let version = version.to_owned();
        self.give(Event::Answer(Answer::Written { version }))
    }

    fn beacon(&mut self, renewed: &str, standby: bool) -> Option<Action> {
        self.beacon_of(7, renewed, standby)
    }

    fn beacon_of(&mut self, term: u64, renewed: &str, standby: bool) -> Option<Action> {
        self.give(Event::Beacon(beacon_of(term, renewed, standby)))
    }

    /// Lets time pass up to the machine's next wish; says what it then wants, and when in seconds.
    fn wait(&mut self) -> (f64, Option<Action>) {
        let timeout = self
            .machine
            .poll_timeout()
            .expect("a machine always comes back");
        let millis = timeout.offset().as_micros().div_ceil(1_000);
        self.at = u64::try_from(millis).expect("a short test").max(self.at);
        let action = self.give(Event::Tick);
        (Duration::from_millis(self.at).as_secs_f64(), action)
    }

    /// As [`Bench::wait`], past ticks that ask for nothing.
    fn wait_for_action(&mut self) -> (f64, Action) {
        loop {
            if let (at, Some(action)) = self.wait() {
                return (at, action);
            }
        }
    }

    fn claim(&self) -> Option<Claim> {
        self.machine.leadership().claim().cloned()
    }
}

fn beacon_of(term: u64, renewed: &str, standby: bool) -> Beacon {
    Beacon {
        holder: OTHER.to_owned(),
        term,
        renewed: renewed.to_owned(),
        members: 10,
        standby,
        defers: false,
    }
}

fn held(holder: &str, transitions: u64) -> Record {
    Record {
        holder: holder.to_owned(),
        lease_duration: Duration::from_secs(15),
        transitions,
        token_sha256: "00".to_owned(),
        ..Record::default()
    }
}

fn free(transitions: u64) -> Record {
    held("", transitions)
}

fn put(action: Option<Action>) -> (Record, String) {
    match action {
        Some(Action::Put { record, version }) => (record, version),
        action => panic!("{action:?} is no Put"),
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_free_lease_is_taken_at_the_start_after_a_moment_and_with_the_version_that_was_read() {
    let mut bench = Bench::new();
    assert_eq!(bench.find(free(4), "1"), None);
    let (at, action) = bench.wait_for_action();
    assert!((0.0..=0.2).contains(&at), "{at}");
    let (record, version) = put(Some(action));
    assert_eq!(
        (record.holder.as_str(), record.transitions, version.as_str()),
        (ME, 5, "1")
    );
    assert_eq!(bench.machine.leadership(), Leadership::Unknown);
    assert_eq!(bench.written("2"), None);
    let claim = bench.claim().expect("it is written");
    assert_eq!((claim.renewed.as_str(), claim.after_term), ("2", 5));
    assert_eq!(claim.token.sha256(), record.token_sha256);
}

#[test]
fn transitions_count_changes_of_the_holder_and_nothing_else() {
    let check = |found: Option<Record>, expected: u64| {
        let mut bench = Bench::new();
        let mut action = match found.clone() {
            Some(record) => bench.find(record, "1"),
            None => bench.give(Event::Answer(Answer::Missing)),
        };
        // A Lease that another holds is taken when it is still unchanged at the second look.
        loop {
            match action {
                Some(Action::Put { record, .. } | Action::Create(record)) => {
                    assert_eq!(record.transitions, expected, "{found:?}");
                    return;
                }
                Some(Action::Get) => action = bench.find(found.clone().expect("a Lease"), "1"),
                None => action = bench.wait().1,
            }
        }
    };
    check(Some(free(4)), 5);
    check(Some(held(OTHER, 4)), 5);
    check(Some(held(ME, 4)), 4);
    check(None, 0);
}

#[test]
fn a_claim_counts_from_before_its_renewal_was_sent() {
    let mut bench = Bench::leading();
    assert_eq!(
        bench.claim().map(|claim| claim.valid_until.offset()),
        Some(secs(10))
    );
    let (at, action) = bench.wait();
    assert!((at - 2.0).abs() < 1e-9);
    assert_eq!(put(action).1, "2");
    bench.at = 5_500;
    assert_eq!(
        bench.written("3"),
        Some(Action::Put {
            record: Record {
                renewed: Timestamp::from_millis(1_000_005_500),
                ..bench_record(&bench)
            },
            version: "3".to_owned(),
        })
    );
    assert_eq!(
        bench.claim().map(|claim| claim.valid_until.offset()),
        Some(secs(12))
    );
}

fn bench_record(bench: &Bench) -> Record {
    match &bench.machine.standing {
        Standing::Leading(reign) => reign.record.clone(),
        Standing::Candidate | Standing::Retired => panic!("it does not lead"),
    }
}

#[test]
fn a_lease_is_judged_by_how_long_it_was_seen_unchanged_never_by_its_own_clock() {
    // Written an hour ago or from now, by another machine's clock.
    for renewed in [
        Timestamp::from_secs(996_400),
        Timestamp::from_secs(1_003_600),
    ] {
        let mut bench = Bench::new();
        let record = Record {
            renewed,
            ..held(OTHER, 1)
        };
        assert_eq!(bench.find(record.clone(), "1"), None);
        let (at, action) = bench.wait_for_action();
        assert!(at >= 15.0 && action == Action::Get, "{at} {action:?}");
        assert_eq!(put(bench.find(record, "1")).1, "1");
    }
}

#[test]
fn the_holders_own_lease_duration_counts() {
    let mut bench = Bench::following(true);
    let record = Record {
        lease_duration: secs(60),
        ..held(OTHER, 4)
    };
    assert_eq!(
        bench.give(Event::Watched {
            record: record.clone(),
            version: "2".to_owned()
        }),
        None
    );
    loop {
        match bench.wait_for_action() {
            (_, Action::Get) => assert_eq!(bench.find(record.clone(), "2"), None),
            (at, action) => {
                put(Some(action));
                assert!((at - 60.0).abs() < 1e-9, "{at}");
                return;
            }
        }
    }
}

#[test]
fn a_standby_watches_and_takes_the_lease_exactly_at_expiry() {
    let mut bench = Bench::following(true);
    assert_eq!(bench.machine.watch_from(), Some("1"));
    bench.at = 6_000;
    assert_eq!(
        bench.give(Event::Watched {
            record: held(OTHER, 4),
            version: "2".to_owned()
        }),
        None
    );
    let mut looks = 0;
    loop {
        match bench.wait_for_action() {
            (_, Action::Get) => {
                looks += 1;
                assert_eq!(bench.find(held(OTHER, 4), "2"), None);
            }
            (at, action) => {
                assert!((at - 21.0).abs() < 1e-9, "{at}");
                assert_eq!(put(Some(action)).1, "2");
                break;
            }
        }
    }
    // A quiet watch is not trusted: from two retry periods on, one look each 2 to 2.4 s.
    assert!((4..=6).contains(&looks), "{looks}");
}

#[test]
fn a_standby_whose_watch_is_broken_learns_by_looking_that_the_leader_lives() {
    let mut bench = Bench::following(true);
    let (at, action) = bench.wait_for_action();
    assert!((at - 4.0).abs() < 1e-9 && action == Action::Get, "{at}");
    assert_eq!(bench.find(held(OTHER, 4), "3"), None);
    let (at, action) = bench.wait_for_action();
    assert!((at - 8.0).abs() < 1e-9 && action == Action::Get, "{at}");
}

#[test]
fn others_ask_after_two_lease_durations_of_silence_and_take_what_did_not_change() {
    let mut bench = Bench::following(false);
    assert_eq!(bench.machine.watch_from(), None);
    bench.at = 5_000;
    assert_eq!(bench.beacon("2", false), None);
    let (at, action) = bench.wait_for_action();
    // Ten members: within half a second.
    assert!((35.0..=35.5).contains(&at) && action == Action::Get, "{at}");
    // It is the version that the last beacon told: unchanged for thirty seconds.
    assert_eq!(put(bench.find(held(OTHER, 4), "2")).1, "2");
}

#[test]
fn others_that_find_a_change_look_again_after_a_lease_duration_and_then_trust_the_leader() {
    let mut bench = Bench::following(false);
    // The read at the start was the first that found something new. No beacon with news came since.
    let (first, action) = bench.wait_for_action();
    assert!(
        (15.0..=15.5).contains(&first) && action == Action::Get,
        "{first}"
    );
    assert_eq!(bench.find(held(OTHER, 4), "20"), None);
    // The second in a row: the leader lives.
    let (second, action) = bench.wait_for_action();
    let gap = second - first;
    assert!(
        (30.0..=30.5).contains(&gap) && action == Action::Get,
        "{second}"
    );
    assert_eq!(bench.find(held(OTHER, 4), "40"), None);
    let (third, action) = bench.wait_for_action();
    let gap = third - second;
    assert!(
        (15.0..=15.5).contains(&gap) && action == Action::Get,
        "{third}"
    );
    assert_eq!(put(bench.find(held(OTHER, 4), "40")).1, "40");
}

#[test]
fn a_beacon_counts_as_news_only_with_a_new_version_and_a_term_that_is_not_past() {
    // Beacons each second; the last that is news decides when the Lease is looked at, with up to half a second of spread.
    let check = |beacons: &[(u64, &str)], expected: f64| {
        let mut bench = Bench::following(false);
        for (term, renewed) in beacons {
            bench.at += 1_000;
            assert_eq!(bench.beacon_of(*term, renewed, false), None);
        }
        let (at, _action) = bench.wait_for_action();
        assert!(
            (expected..=expected + 0.5).contains(&at),
            "{beacons:?}: {at}"
        );
    };
    check(&[(7, "2"), (7, "3")], 32.0);
    check(&[(7, "2"), (7, "2"), (7, "2")], 31.0);
    // The version that was read itself: the leader may have died since, so it is judged by that read.
    check(&[(7, "1"), (7, "1")], 15.0);
    // A deposed leader that still talks beside its successor.
    check(&[(8, "2"), (7, "1"), (8, "2"), (7, "1")], 31.0);
}

#[test]
fn a_successor_takes_the_released_lease_at_once() {
    let goodbye = || Event::Goodbye {
        from: OTHER.to_owned(),
        successor: Some(ME.to_owned()),
    };
    // The release came by the watch before the goodbye.
    let mut bench = Bench::following(true);
    bench.at = 3_000;
    assert_eq!(
        bench.give(Event::Watched {
            record: free(4),
            version: "2".to_owned()
        }),
        None
    );
    assert_eq!(put(bench.give(goodbye())).1, "2");
    // After it: the version is old, so one more round.
    let mut bench = Bench::following(true);
    bench.at = 3_000;
    assert_eq!(put(bench.give(goodbye())).1, "1");
    assert_eq!(
        bench.give(Event::Answer(Answer::Conflict)),
        Some(Action::Get)
    );
    assert_eq!(put(bench.find(free(4), "2")).1, "2");
    // One that does not watch reads first. The leader could not release, but it has sworn off.
    let mut bench = Bench::following(false);
    bench.at = 3_000;
    assert_eq!(bench.give(goodbye()), Some(Action::Get));
    assert_eq!(put(bench.find(held(OTHER, 4), "5")).1, "5");
}

#[test]
fn who_was_not_named_leaves_a_released_lease_to_the_successor_for_a_retry_period_at_most() {
    let mut bench = Bench::following(true);
    bench.at = 3_000;
    let goodbye = Event::Goodbye {
        from: OTHER.to_owned(),
        successor: Some("third_1".to_owned()),
    };
    assert_eq!(bench.give(goodbye), None);
    assert_eq!(
        bench.give(Event::Watched {
            record: free(4),
            version: "2".to_owned()
        }),
        None
    );
    assert_eq!(bench.machine.leadership(), Leadership::Unknown);
    let (at, action) = bench.wait_for_action();
    assert!((4.0..=5.0).contains(&at), "{at}");
    put(Some(action));
}

#[test]
fn a_renewal_that_meets_another_version_is_followed_by_a_read_that_decides() {
    let doubting = || {
        let mut bench = Bench::leading();
        put(bench.wait().1);
        assert_eq!(
            bench.give(Event::Answer(Answer::Conflict)),
            Some(Action::Get)
        );
        bench
    };
    // The renewal before had been written, and its answer lost.
    let mut bench = doubting();
    let mine = bench_record(&bench);
    assert_eq!(put(bench.find(mine, "8")).1, "8");
    assert_eq!(
        bench.claim().map(|claim| claim.valid_until.offset()),
        Some(secs(10))
    );

    let mut bench = doubting();
    assert_eq!(bench.find(held(OTHER, 6), "8"), None);
    assert_eq!(bench.machine.last_end(), Some(End::Replaced));
    let leader = Leader {
        holder: OTHER.to_owned(),
        term: None,
        token_sha256: Some("00".to_owned()),
    };
    assert_eq!(bench.machine.leadership(), Leadership::Following(leader));

    let mut bench = doubting();
    assert_eq!(bench.give(Event::Answer(Answer::Missing)), None);
    assert_eq!(
        (bench.claim(), bench.machine.last_end()),
        (None, Some(End::LeaseGone))
    );
}

#[test]
fn a_leader_that_cannot_renew_tries_again_and_steps_down_at_the_deadline() {
    let mut bench = Bench::leading();
    let token = bench.claim().map(|claim| claim.token);
    let mut attempts = Vec::new();
    while bench.claim().is_some() {
        match bench.wait() {
            (at, Some(Action::Put { .. })) => {
                attempts.push(at);
                if at < 8.0 {
                    assert_eq!(bench.give(Event::Answer(Answer::Failed)), None);
                }
            }
            (at, action) => assert!(
                action.is_none() && (at - 10.0).abs() < 1e-9,
                "{at} {action:?}"
            ),
        }
    }
    assert_eq!(attempts, [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(bench.machine.last_end(), Some(End::Lapsed));
    // The answer comes after all. It revives nothing: the same process wins again, in a new reign.
    bench.at = 10_500;
    let (record, version) = put(bench.written("9"));
    assert_eq!((record.transitions, version.as_str()), (5, "9"));
    assert_eq!(bench.claim(), None);
    assert_eq!(bench.written("10"), None);
    assert!(
        bench
            .claim()
            .is_some_and(|claim| Some(claim.token) != token)
    );
}

#[test]
fn an_acquisition_that_is_answered_after_its_deadline_is_no_claim() {
    let mut bench = Bench::new();
    assert_eq!(bench.find(free(0), "1"), None);
    let (_, action) = bench.wait_for_action();
    put(Some(action));
    bench.at += 10_000;
    assert!(bench.written("2").is_some(), "it tries again at once");
    assert_eq!(bench.claim(), None);
}

#[test]
fn at_a_release_the_claim_is_gone_before_the_lease_is_and_the_transitions_stay() {
    let mut bench = Bench::leading();
    bench
        .machine
        .handle(Event::Release, Now::default(), &mut bench.rng);
    assert_eq!(bench.machine.leadership(), Leadership::Unknown);
    let (record, version) = put(bench.machine.poll_action());
    assert!(record.is_free());
    assert_eq!(
        (
            record.transitions,
            record.token_sha256.as_str(),
            version.as_str()
        ),
        (5, "", "2")
    );
    assert!(!bench.machine.is_retired());
    assert_eq!(bench.written("3"), None);
    assert!(bench.machine.is_retired());
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn a_release_waits_for_the_request_under_way() {
    // A renewal.
    let mut bench = Bench::leading();
    put(bench.wait().1);
    assert_eq!(bench.give(Event::Release), None);
    assert_eq!(bench.claim(), None);
    let (record, version) = put(bench.written("3"));
    assert!(record.is_free());
    assert_eq!(version, "3");
    // An acquisition: it is given up unused.
    let mut bench = Bench::new();
    bench.machine.bequeathed_by = Some(OTHER.to_owned());
    put(bench.find(free(4), "1"));
    assert_eq!(bench.give(Event::Release), None);
    assert!(put(bench.written("2")).0.is_free());
    assert_eq!(bench.claim(), None);
    // A read.
    let mut bench = Bench::new();
    assert_eq!(bench.give(Event::Release), None);
    assert!(!bench.machine.is_retired());
    assert_eq!(bench.find(free(4), "1"), None);
    assert!(bench.machine.is_retired());
}

#[test]
fn a_deposed_leader_stops_at_once_and_reads_before_it_tries_again() {
    let mut bench = Bench::leading();
    let mine = bench_record(&bench);
    bench.at = 1_000;
    assert_eq!(bench.give(Event::Deposed), Some(Action::Get));
    assert_eq!(
        (bench.claim(), bench.machine.last_end()),
        (None, Some(End::Deposed))
    );
    assert_eq!(bench.find(mine, "2"), None);
    let (at, action) = bench.wait_for_action();
    assert!((at - 3.0).abs() < 1e-9, "{at}");
    put(Some(action));
}

#[test]
fn the_stamped_term_goes_into_the_next_renewal_and_into_the_claim() {
    let mut bench = Bench::leading();
    assert_eq!(bench.give(Event::Stamped(9)), None);
    assert_eq!(bench.claim().map(|claim| claim.after_term), Some(9));
    assert_eq!(put(bench.wait().1).0.term, 9);
}

#[test]
fn failing_reads_back_off_further_in_a_larger_fleet() {
    let gaps = |members: u32| {
        let mut bench = Bench::following(false);
        bench.machine.members = members;
        bench.at = 30_500;
        let mut gaps = Vec::new();
        let mut action = bench.give(Event::Tick);
        while gaps.len() < 6 {
            assert_eq!(action, Some(Action::Get));
            let before = bench.at;
            assert_eq!(bench.give(Event::Answer(Answer::Failed)), None);
            action = Some(bench.wait_for_action().1);
            gaps.push((bench.at - before) / 1_000);
        }
        gaps
    };
    assert!(gaps(3).iter().all(|gap| *gap == 2), "{:?}", gaps(3));
    let many = gaps(200);
    assert_eq!(many.last(), Some(&15), "{many:?}");
}

#[test]
fn a_leader_that_falls_silent_is_not_shown_as_leader_after_a_lease_duration() {
    let mut bench = Bench::following(false);
    let leader = Leader {
        holder: OTHER.to_owned(),
        term: Some(7),
        token_sha256: Some("00".to_owned()),
    };
    assert_eq!(bench.machine.leadership(), Leadership::Following(leader));
    assert_eq!(bench.wait(), (15.0, None));
    assert_eq!(bench.machine.leadership(), Leadership::Unknown);
}

/// When a standby that is `part` takes a Lease that is renewed no more, where another standby is a lead or none is.
fn takes_at(part: Part, defers: bool) -> f64 {
    let mut bench = Bench::part(part);
    assert_eq!(bench.find(held(OTHER, 4), "1"), None);
    let beacon = Beacon {
        defers,
        ..beacon_of(7, "1", true)
    };
    assert_eq!(bench.give(Event::Beacon(beacon)), None);
    loop {
        match bench.wait_for_action() {
            (_, Action::Get) => assert_eq!(bench.find(held(OTHER, 4), "1"), None),
            (at, action) => {
                put(Some(action));
                return at;
            }
        }
    }
}

#[test]
fn a_sidecar_leaves_an_expired_lease_to_a_lead_and_takes_it_within_a_retry_period() {
    let exact = |at: f64| (at - 15.0).abs() < 1e-9;
    assert!(exact(takes_at(Part::Lead, false)));
    assert!(exact(takes_at(Part::Sidecar, false)));
    let deferred = takes_at(Part::Sidecar, true);
    assert!((16.0..17.0).contains(&deferred), "{deferred}");
}

#[test]
fn of_those_who_watch_a_lead_takes_a_released_lease_before_any_sidecar() {
    let taken = |part: Part| {
        let mut bench = Bench::part(part);
        assert_eq!(bench.find(held(OTHER, 4), "1"), None);
        assert_eq!(bench.beacon("1", true), None);
        let released = Event::Watched {
            record: free(4),
            version: "2".to_owned(),
        };
        assert_eq!(bench.give(released), None);
        let (at, action) = bench.wait_for_action();
        put(Some(action));
        at
    };
    let (lead, sidecar) = (taken(Part::Lead), taken(Part::Sidecar));
    assert!((0.4..=0.8).contains(&lead), "{lead}");
    assert!((1.0..=1.8).contains(&sidecar), "{sidecar}");
}

#[test]
fn who_yields_gives_up_its_claim_first_and_leaves_the_lease_to_the_other() {
    let mut bench = Bench::leading();
    bench.at = 1_000;
    let (record, version) = put(bench.give(Event::Yield));
    assert!(record.is_free());
    assert_eq!((record.transitions, version.as_str()), (5, "2"));
    assert_eq!(
        (bench.claim(), bench.machine.last_end()),
        (None, Some(End::Yielded))
    );
    assert!(!bench.machine.has_yielded());
    assert_eq!(bench.written("3"), None);
    assert!(bench.machine.has_yielded() && !bench.machine.is_retired());
    // The other leads before this one would look: it follows, and asks for nothing.
    bench.at = 2_000;
    assert_eq!(bench.beacon("4", false), None);
    assert_eq!(bench.machine.leadership().holder(), Some(OTHER));
    let (at, action) = bench.wait_for_action();
    assert!(at > 30.0 && action == Action::Get, "{at}");
}

#[test]
fn a_lease_that_nobody_wanted_is_taken_back_after_another_look() {
    let mut bench = Bench::leading();
    bench.at = 1_000;
    put(bench.give(Event::Yield));
    assert_eq!(bench.written("3"), None);
    let (at, action) = bench.wait_for_action();
    assert!((3.0..=3.4).contains(&at) && action == Action::Get, "{at}");
    assert_eq!(put(bench.find(free(5), "3")).1, "3");
    assert_eq!(bench.written("4"), None);
    assert!(bench.claim().is_some(), "another reign");
    // One that cannot even be given up is still this process's.
    bench.at += 1_000;
    let yielded_at = bench.at;
    put(bench.give(Event::Yield));
    assert_eq!(bench.give(Event::Answer(Answer::Failed)), None);
    assert!(bench.machine.has_yielded());
    let (_at, action) = bench.wait_for_action();
    assert_eq!(action, Action::Get);
    let mine = Record {
        holder: ME.to_owned(),
        ..held(ME, 5)
    };
    assert!(bench.at - yielded_at >= 2_000);
    put(bench
        .find(mine, "4")
        .or_else(|| Some(bench.wait_for_action().1)));
}

#[test]
fn who_does_not_lead_has_nothing_to_yield() {
    let mut bench = Bench::following(true);
    assert_eq!(bench.give(Event::Yield), None);
    assert!(bench.machine.has_yielded());
    assert_eq!(bench.machine.watch_from(), Some("1"));
}

#[test]
fn a_follower_hears_who_leads_and_asks_the_api_server_for_nothing() {
    let mut bench = Bench::part(Part::Follower);
    assert_eq!(bench.machine.poll_timeout(), None);
    // A leader of another version may take it for a candidate.
    assert_eq!(bench.beacon("1", true), None);
    assert_eq!(bench.machine.leadership().holder(), Some(OTHER));
    assert_eq!(bench.machine.watch_from(), None);
    let goodbye = Event::Goodbye {
        from: OTHER.to_owned(),
        successor: Some(ME.to_owned()),
    };
    assert_eq!(bench.give(goodbye), None);
    assert_eq!(bench.wait(), (15.0, None));
    assert_eq!(bench.machine.leadership(), Leadership::Unknown);
    assert_eq!(bench.machine.poll_timeout(), None);
    assert_eq!(bench.give(Event::Release), None);
    assert!(bench.machine.is_retired());
}

#[test]
fn whose_last_request_failed_asks_once_more_though_the_leader_is_heard() {
    let mut bench = Bench::following(false);
    let (_at, action) = bench.wait_for_action();
    assert_eq!(action, Action::Get);
    assert_eq!(bench.give(Event::Answer(Answer::Failed)), None);
    assert_eq!(bench.beacon("2", false), None);
    let failed_at = bench.at;
    assert_eq!(bench.wait_for_action().1, Action::Get);
    assert!(bench.at - failed_at <= 2_400, "soon");
    assert_eq!(bench.find(held(OTHER, 4), "2"), None);
    assert_eq!(bench.beacon("3", false), None);
    let (_at, action) = bench.wait_for_action();
    assert!(bench.at - failed_at > 30_000 && action == Action::Get);
}
