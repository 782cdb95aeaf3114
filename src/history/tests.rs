use proptest::prelude::*;

use super::*;

const START: i64 = 1_700_000_040;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

/// A second of `pods` pods with `rate` arrivals, each in service for half a second.
fn second(pods: f64, rate: f64) -> Load {
    Load {
        pod_seconds: pods,
        arrivals: rate,
        completions: rate,
        busy_seconds: rate / 2.0,
        service_seconds: rate / 2.0,
        gpu_busy_seconds: rate / 4.0,
        gpu_observed_seconds: pods,
        ..Load::default()
    }
}

fn recorded(secs: std::ops::RangeInclusive<i64>, rate: f64) -> History {
    let mut history = History::new(Duration::from_secs(86_400));
    for sec in secs {
        history.record(at(sec), &second(2.0, rate));
    }
    history
}

fn rates(history: &History, range: Range<i64>) -> Vec<Option<f64>> {
    history
        .minutes(at(range.start)..at(range.end))
        .map(|(_start, bucket)| bucket.map(|b| (b.rate() * 1e6).round() / 1e6))
        .collect()
}

#[test]
fn a_minute_is_the_sum_of_its_seconds_in_every_tier() {
    let history = recorded(1..=120, 5.0);
    assert_eq!(rates(&history, 0..120), [Some(5.0), Some(5.0)]);
    let (start, minute) = history.minutes(at(0)..at(60)).next().expect("one minute");
    let minute = minute.expect("observed");
    assert_eq!(start, at(0));
    assert!((minute.load.arrivals - 300.0).abs() < 1e-9);
    assert!((minute.pods() - 2.0).abs() < 1e-9);
    assert!((minute.in_flight() - 2.5).abs() < 1e-9);
    assert_eq!(
        history.tens(at(0)..at(120)).filter_map(|(_, b)| b).count(),
        12
    );
    let each: Vec<f64> = history
        .seconds(at(0)..at(120))
        .filter_map(|(_, b)| Some(b?.load.arrivals))
        .collect();
    assert_eq!(each.len(), 120);
    assert!(each.iter().all(|count| (count - 5.0).abs() < 1e-9));
}

#[test]
fn turns_that_are_late_or_frequent_give_the_same_rate() {
    for turns in [&[1_000_i64][..], &[250; 4], &[1_300, 700], &[3, 1_997]] {
        let mut history = History::new(Duration::from_secs(86_400));
        let mut millis = START * 1000;
        history.record(Timestamp::from_millis(millis), &second(2.0, 5.0));
        for turn in turns.iter().cycle().take_while(|_| true) {
            millis += turn;
            if millis > (START + 180) * 1000 {
                break;
            }
            let load = second(2.0, 5.0).scaled(as_f64(*turn) / 1000.0);
            history.record(Timestamp::from_millis(millis), &load);
        }
        assert_eq!(rates(&history, 0..120), [Some(5.0), Some(5.0)], "{turns:?}");
    }
}

#[test]
fn a_minute_seen_in_part_is_no_dip_and_one_not_seen_is_missing() {
    let mut history = recorded(1..=20, 5.0);
    // Nobody reports for two minutes: a load without pod-seconds is no observation of zero.
    for sec in 21..=160 {
        history.record(at(sec), &Load::default());
    }
    for sec in 161..=180 {
        history.record(at(sec), &second(2.0, 5.0));
    }
    assert_eq!(rates(&history, 0..180), [Some(5.0), None, Some(5.0)]);
}

#[test]
fn zero_load_that_was_observed_is_zero() {
    assert_eq!(rates(&recorded(1..=60, 0.0), 0..60), [Some(0.0)]);
}

#[test]
fn a_turn_that_stalled_spreads_its_load_and_a_clock_that_jumped_forward_does_not() {
    let mut stalled = recorded(1..=60, 5.0);
    stalled.record(at(90), &second(2.0, 5.0).scaled(30.0));
    assert_eq!(rates(&stalled, 0..120), [Some(5.0), Some(5.0)]);

    let mut jumped = recorded(1..=60, 5.0);
    jumped.record(at(241), &second(2.0, 5.0));
    assert_eq!(
        rates(&jumped, 0..300),
        [Some(5.0), None, None, None, Some(5.0)]
    );
}

#[test]
fn a_clock_that_jumps_back_lives_the_time_twice_and_the_rate_is_the_mean() {
    let mut history = recorded(1..=180, 4.0);
    let before = history.revision();
    for sec in 61..=120 {
        history.record(at(sec), &second(2.0, 8.0));
    }
    assert_eq!(rates(&history, 0..180), [Some(4.0), Some(6.0), Some(4.0)]);
    assert!(history.revision() > before);
    // Before all that is held, and beyond what the seconds can hold.
    history.record(at(-3_700), &second(2.0, 7.0));
    assert_eq!(rates(&history, -3_720..-3_660), [Some(7.0)]);
    assert_eq!(rates(&history, 0..60), [Some(4.0)]);
    assert_eq!(history.newest(), Some(at(-3_700)));
}

#[test]
fn one_wrong_reading_of_a_clock_costs_nothing_and_a_lasting_one_starts_anew() {
    let year = 31_536_000;
    for jump in [year, -year, -1_690_000_000] {
        let mut history = recorded(1..=60, 4.0);
        history.record(at(jump), &second(2.0, 9.0));
        history.record(at(61), &second(2.0, 4.0));
        assert_eq!(rates(&history, 0..60), [Some(4.0)], "{jump}");
        for sec in 0..120 {
            history.record(at(jump + sec), &second(2.0, 9.0));
        }
        assert_eq!(history.newest(), Some(at(jump + 119)), "{jump}");
        assert_eq!(rates(&history, 0..60), [None], "{jump}");
        assert_eq!(
            rates(&history, jump + 60..jump + 119).last(),
            Some(&Some(9.0))
        );
    }
}

#[test]
fn the_oldest_minutes_go_when_the_length_is_reached() {
    let mut history = History::new(Duration::from_secs(3_600));
    for minute in 0..100 {
        history.record(at(minute * 60 + 30), &second(1.0, 1.0));
    }
    assert_eq!(history.span(), Some(at(40 * 60)..at(100 * 60)));
    history.set_length(Duration::from_secs(7_200));
    history.record(at(100 * 60 + 30), &second(1.0, 1.0));
    assert_eq!(history.span(), Some(at(40 * 60)..at(101 * 60)));
}

#[test]
fn the_pasts_of_members_add_up_and_what_is_known_is_not_counted_twice() {
    // The checkpoint knows the first 90 s, this leader looks since second 250.
    let mut history = recorded(1..=90, 6.0);
    for sec in 251..=300 {
        history.record(at(sec), &second(2.0, 6.0));
    }
    let member = |rate: f64| Past {
        start_millis: at(0).as_millis(),
        step_seconds: 10,
        slots: vec![second(1.0, rate).scaled(10.0); 30],
    };
    history.merge_past(&member(2.0), at(90)..at(250));
    history.merge_past(&member(4.0), at(90)..at(250));
    assert_eq!(rates(&history, 0..300), [Some(6.0); 5]);
    let pods: Vec<f64> = history
        .minutes(at(0)..at(300))
        .filter_map(|(_, b)| Some(b?.pods().round()))
        .collect();
    assert_eq!(pods, [2.0; 5]);
    let tens = history.tens(at(90)..at(250)).filter_map(|(_, b)| b);
    assert_eq!(tens.filter(|b| (b.rate() - 6.0).abs() < 1e-9).count(), 16);
}

#[test]
fn a_past_before_all_that_is_held_reaches_back_and_nonsense_is_left() {
    let mut history = recorded(1..=60, 6.0);
    let past = Past {
        start_millis: at(-180).as_millis(),
        step_seconds: 60,
        slots: vec![
            second(1.0, 3.0).scaled(60.0),
            Load::default(),
            second(1.0, 1.0).scaled(60.0),
        ],
    };
    history.merge_past(&past, Timestamp::from_millis(i64::MIN)..at(0));
    assert_eq!(
        rates(&history, -180..60),
        [Some(3.0), None, Some(1.0), Some(6.0)]
    );
    for (start_millis, step_seconds) in [(i64::MAX, 60), (i64::MIN, 60), (0, 0), (0, u32::MAX)] {
        let nonsense = Past {
            start_millis,
            step_seconds,
            slots: vec![second(1.0, 1.0); 50],
        };
        history.merge_past(&nonsense, at(-600)..at(0));
    }
    assert_eq!(
        rates(&history, -180..60),
        [Some(3.0), None, Some(1.0), Some(6.0)]
    );
}

#[test]
fn a_member_hands_over_its_whole_minutes_and_a_leader_takes_them() {
    let member = recorded(1..=150, 3.0);
    let past = member.past(at(60));
    assert_eq!(
        (past.start_millis, past.slots.len()),
        (at(60).as_millis(), 1)
    );
    let mut leader = History::new(Duration::from_secs(86_400));
    leader.merge_past(
        &member.past(Timestamp::default()),
        Timestamp::default()..at(150),
    );
    assert_eq!(rates(&leader, 0..180), [Some(3.0), Some(3.0), None]);
    assert_eq!(History::new(LONGEST).past(at(0)).slots, []);
}

#[test]
fn the_lead_time_is_a_quantile_of_the_last_starts() {
    let mut history = History::new(LONGEST);
    assert_eq!(history.lead_time(0.9), None);
    for secs in 1..=164 {
        history.record_start(Duration::from_secs(secs));
    }
    // The last 64 are 101 s to 164 s.
    let check = |quantile, secs| {
        assert_eq!(
            history.lead_time(quantile),
            Some(Duration::from_secs(secs)),
            "{quantile}"
        );
    };
    check(0.0, 101);
    check(0.5, 132);
    check(0.95, 161);
    check(1.0, 164);
    check(7.0, 164);
    check(f64::NAN, 164);
}

#[test]
fn work_is_that_of_uncongested_minutes() {
    let mut history = recorded(1..=600, 4.0);
    assert_eq!(history.work(at(600)).map(|w| w.service_seconds), Some(0.5));
    let gpu = history.work(at(600)).and_then(|w| w.gpu_seconds);
    assert!((gpu.expect("sampled") - 0.25).abs() < 1e-9);
    // Three times as long a queue: requests wait ten times as long.
    for sec in 601..=2_400 {
        let congested = Load {
            service_seconds: 20.0,
            ..second(2.0, 4.0)
        };
        history.record(at(sec), &congested);
    }
    assert_eq!(
        history.work(at(2_400)).map(|w| w.service_seconds),
        Some(0.5)
    );
    assert_eq!(recorded(1..=60, 0.0).work(at(60)), None);
}

#[test]
fn a_queue_is_no_work_though_no_minute_but_the_first_was_without() {
    // A minute at one a second, of half a second each; then twenty come a second, and two are served.
    let mut history = recorded(1..=60, 1.0);
    let mut waiting = 0.0;
    for sec in 61..=36_000 {
        waiting += 18.0;
        let queued = Load {
            pod_seconds: 1.0,
            arrivals: 20.0,
            completions: 2.0,
            busy_seconds: waiting,
            service_seconds: waiting / 10.0,
            ..Load::default()
        };
        history.record(at(sec), &queued);
        // Those who have waited for long leave.
        waiting = f64::min(waiting, 5_000.0);
    }
    let work = history.work(at(36_000)).expect("some were served");
    assert!((work.service_seconds - 0.5).abs() < 0.05, "{work:?}");
}

#[test]
fn a_load_that_grows_is_no_queue() {
    let mut history = recorded(1..=60, 1.0);
    for sec in 61..=7_200 {
        let rate = 1.0 + f64::from(i32::try_from(sec).expect("small")) / 100.0;
        history.record(at(sec), &second(2.0, rate));
    }
    // All of it counts: the newest minutes have an effect.
    let work = history.work(at(7_200)).expect("served");
    assert!((work.service_seconds - 0.5).abs() < 1e-9, "{work:?}");
    let kept = work::without_queues(&minutes_of(&history));
    assert_eq!(kept.len(), 120);
}

fn minutes_of(history: &History) -> Vec<Bucket> {
    let all = history.minutes(at(0)..at(7_200));
    all.filter_map(|(_, bucket)| bucket).collect()
}

#[test]
fn the_busiest_second_of_a_slot_is_kept_in_each_tier_and_in_a_checkpoint() {
    let mut history = recorded(1..=90, 3.0);
    for sec in 91..=120 {
        let rate = if sec == 101 { 28.0 } else { 3.0 };
        history.record(at(sec), &second(2.0, rate));
    }
    let busiest = |bucket: Option<Bucket>| bucket.expect("seen").busiest();
    let tens: Vec<f64> = history
        .tens(at(80)..at(120))
        .map(|(_, bucket)| busiest(bucket))
        .collect();
    assert_eq!(tens, [3.0, 3.0, 28.0, 3.0]);
    let of_minutes = |history: &History| -> Vec<f64> {
        let minutes = history.minutes(at(0)..at(120));
        minutes.map(|(_, bucket)| busiest(bucket)).collect()
    };
    assert_eq!(of_minutes(&history), [3.0, 28.0]);
    let bytes = encode(&history, &Sections::new());
    let (back, _) = decode(&bytes).expect("just written");
    for (one, other) in of_minutes(&history).into_iter().zip(of_minutes(&back)) {
        assert!((one - other).abs() <= 0.07 * one, "{one} {other}");
    }
    // A version that does not know of it has written one column less.
    let columns = 20 + 1 + "history.minutes".len() + 4 + 4 + 8 + 4;
    let mut older = bytes[20..].to_vec();
    assert_eq!(older[columns - 20], 10);
    older[columns - 20] = 9;
    let (back, _) = decode(&seal(&older)).expect("it is as good");
    for level in of_minutes(&back) {
        assert!((2.9..4.0).contains(&level), "{level}");
    }
}

#[test]
fn recent_joins_the_seconds() {
    let mut history = recorded(1..=60, 4.0);
    for sec in 61..=90 {
        history.record(at(sec), &second(2.0, 10.0));
    }
    let recent = history
        .recent(at(90), Duration::from_secs(60))
        .expect("seen");
    assert!((recent.rate() - 7.0).abs() < 1e-9);
    assert_eq!(history.recent(at(900), Duration::from_secs(60)), None);
}

// The checkpoint.

/// Two weeks at about 50 requests a second, with noise as of Poisson arrivals.
fn two_weeks() -> History {
    let mut seed = 7_u64;
    // A linear congruential generator is noise enough for a codec.
    let mut uniform = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut history = History::new(Duration::from_secs(14 * 86_400));
    let slots = (0..14 * 1_440)
        .map(|minute| {
            let day = (f64::from(minute) / 1_440.0 * std::f64::consts::TAU).sin();
            let noise = 0.018 * (uniform() + uniform() - 1.0) * 2.45;
            let rate = 50.0 * (1.2 + day) * (1.0 + noise);
            let jitter = 1.0 + 0.02 * uniform();
            let mut load = second(10.0, rate).scaled(60.0);
            load.service_seconds *= jitter;
            load.gpu_busy_seconds *= jitter;
            load
        })
        .collect();
    let past = Past {
        start_millis: at(0).as_millis(),
        step_seconds: 60,
        slots,
    };
    history.merge_past(&past, at(0)..at(14 * 86_400));
    history
}

fn assert_alike(one: &History, other: &History) {
    assert_eq!(one.span(), other.span());
    assert!(one.starts().eq(other.starts()));
    let span = one.span().unwrap_or_default();
    let columns = |b: Bucket| {
        let l = b.load;
        [
            b.seconds,
            l.pod_seconds,
            l.arrivals,
            l.completions,
            l.failures,
            l.busy_seconds,
            l.service_seconds,
            l.gpu_busy_seconds,
            l.gpu_observed_seconds,
        ]
    };
    for ((start, left), (_start, right)) in one.minutes(span.clone()).zip(other.minutes(span)) {
        assert_eq!(left.is_some(), right.is_some(), "{start:?}");
        let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
        for (left, right) in columns(left).into_iter().zip(columns(right)) {
            assert!(
                (left - right).abs() <= 0.008 * (1.0 + left),
                "{left} {right}"
            );
        }
    }
}

#[test]
fn two_weeks_take_some_tens_of_kib_and_come_back() {
    let mut history = two_weeks();
    history.record_start(Duration::from_millis(61_250));
    let sections = Sections::from([("plan".to_owned(), vec![1, 2, 3])]);
    let bytes = encode(&history, &sections);
    assert!(bytes.len() < 64 * 1024, "{} bytes", bytes.len());
    let (back, others) = decode(&bytes).expect("just written");
    assert_eq!(others, sections);
    assert_alike(&history, &back);
    assert_eq!(
        encode(&back, &others),
        bytes,
        "a second time loses nothing more"
    );
}

#[test]
fn a_checkpoint_says_to_which_second_it_was_seen() {
    let back = |history: &History| decode(&encode(history, &Sections::new())).expect("ours").0;
    for newest in [59, 60, 61, 95] {
        let mut history = back(&recorded(1..=newest, 5.0));
        assert_eq!(history.newest(), Some(at(newest)));
        // What a member saw after that is asked for, and counts.
        let past = Past {
            start_millis: at(0).as_millis(),
            step_seconds: 10,
            slots: vec![second(2.0, 5.0).scaled(10.0); 20],
        };
        history.merge_past(&past, at(newest)..at(200));
        let seen = history
            .tens(at(0)..at(200))
            .filter(|(_, bucket)| bucket.is_some());
        let whole = 20 - (newest + 9) / 10;
        assert_eq!(i64::try_from(seen.count()), Ok(whole), "{newest}");
    }
    assert_eq!(back(&History::new(LONGEST)).newest(), None);
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let good = encode(&recorded(1..=600, 5.0), &Sections::new());
    let says = |bytes: &[u8], words: &str| {
        let error = decode(bytes).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    };
    says(b"", "begins with []");
    says(b"{\"v\":1}", "begins with [7b, 22");
    says(&good[..4], "cut off");
    says(&good[..good.len() - 1], "cut off");
    let mut newer = good.clone();
    newer[8] = 9;
    says(&newer, "has version 9, this program reads up to 1");
    for index in [20, good.len() / 2, good.len() - 1] {
        let mut corrupt = good.clone();
        corrupt[index] ^= 4;
        says(&corrupt, "is corrupt");
    }
    says(&seal(b""), "no minutes");
    let mut claims = vec![u8::try_from("history.minutes".len()).expect("short")];
    claims.extend(b"history.minutes");
    claims.extend(17_u32.to_le_bytes());
    claims.extend(u32::MAX.to_le_bytes());
    claims.extend([0; 8]);
    claims.extend(u32::MAX.to_le_bytes());
    claims.push(9);
    says(&seal(&claims), "more minutes than a history keeps");
}

/// A body with a header that vouches for it.
fn seal(body: &[u8]) -> Vec<u8> {
    let mut bytes = encode(&History::new(LONGEST), &Sections::new());
    bytes.truncate(12);
    bytes.extend(checkpoint::crc32(body).to_le_bytes());
    bytes.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn the_checksum_is_the_known_one() {
    assert_eq!(checkpoint::crc32(b"123456789"), 0xCBF4_3926);
}

fn any_load() -> impl Strategy<Value = Load> {
    let value = || {
        prop_oneof![
            Just(0.0),
            0.0..10.0,
            0.0..1e9,
            Just(f64::NAN),
            Just(-3.0),
            Just(1e300)
        ]
    };
    (value(), value(), value(), value()).prop_map(|(a, b, c, d)| Load {
        pod_seconds: 1.0,
        arrivals: a,
        completions: b,
        busy_seconds: c,
        service_seconds: d,
        ..Load::default()
    })
}

#[test]
fn a_minute_seen_for_a_millisecond_comes_back_as_seen() {
    let mut history = History::new(LONGEST);
    history.record(at(120) - Duration::from_millis(1), &second(2.0, 30.0));
    history.record(at(120), &second(2.0, 30.0));
    history.record(at(120) + Duration::from_millis(1), &second(2.0, 30.0));
    let (back, _others) = decode(&encode(&history, &Sections::new())).expect("just written");
    let seen = |history: &History| history.minutes(at(120)..at(180)).next();
    let (before, after) = (seen(&history), seen(&back));
    let bucket =
        |found: Option<(Timestamp, Option<Bucket>)>| found.and_then(|(_at, bucket)| bucket);
    let (before, after) = (
        bucket(before).expect("seen"),
        bucket(after).expect("still seen"),
    );
    assert!(
        (after.rate() / before.rate() - 1.0).abs() < 0.02,
        "{before:?} {after:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_comes_back_from_its_checkpoint(
        loads in proptest::collection::vec((0_i64..7_200_000, 0.0..1e7_f64, 0.0..1e4_f64), 0..60),
        starts in proptest::collection::vec(0_u64..4_000_000, 0..80),
        section in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut history = History::new(Duration::from_secs(86_400));
        for (millis, rate, pods) in loads {
            history.record(at(0) + Duration::from_millis(millis.unsigned_abs()), &second(pods + 1.0, rate));
        }
        for millis in starts {
            history.record_start(Duration::from_millis(millis));
        }
        let sections = Sections::from([("x".to_owned(), section)]);
        let (back, others) = decode(&encode(&history, &sections)).expect("just written");
        assert_alike(&history, &back);
        prop_assert_eq!(others, sections);
    }

    #[test]
    fn any_load_at_any_time_neither_panics_nor_breaks_the_checkpoint(
        records in proptest::collection::vec((any::<i64>(), any_load()), 0..40),
    ) {
        let mut history = History::new(Duration::from_secs(3_600));
        for (millis, load) in records {
            history.record(Timestamp::from_millis(millis), &load);
            history.record(Timestamp::from_millis(millis.wrapping_add(1_000)), &load);
        }
        prop_assert!(decode(&encode(&history, &Sections::new())).is_ok());
    }

    #[test]
    fn bytes_that_were_vouched_for_wrongly_are_refused_without_a_panic(
        noise in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<proptest::sample::Index>(),
        random in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut body = encode(&recorded(1..=600, 5.0), &Sections::new()).split_off(20);
        for (index, byte) in noise {
            let index = index.index(body.len());
            body[index] = byte;
        }
        // Whatever comes, it comes without a panic and without a wild allocation.
        drop(decode(&seal(&body)));
        drop(decode(&seal(&body[..cut.index(body.len())])));
        drop(decode(&seal(&random)));
        drop(decode(&random));
    }
}
