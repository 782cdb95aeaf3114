//! The counters over paused time, and from many threads.

use futures_util::FutureExt as _;

use super::*;

async fn pass(millis: u64) {
    tokio::time::advance(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_counted_once_with_its_times() {
    let clock = Clock::real();
    let accounts = Arc::new(Accounts::new(clock.clone()));
    let mut good = accounts.arrive();
    let mut bad = accounts.arrive();
    pass(10).await;
    good.first_byte();
    good.answered(StatusCode::OK);
    good.received(64);
    good.sent(128);
    bad.will_end(Outcome::UpstreamFailed);
    bad.answered(StatusCode::BAD_GATEWAY);
    drop(bad);
    pass(20).await;
    good.will_end(Outcome::Completed);
    drop(good);
    drop(accounts.arrive());
    let mut refused = accounts.arrive();
    refused.will_end(Outcome::Refused);
    drop(refused);
    pass(1_000).await;
    assert_eq!(
        accounts.read(clock.instant()),
        Reading {
            arrivals: 4,
            completions: 1,
            client_gone: 1,
            upstream_failed: 1,
            refused: 1,
            in_flight: 0,
            statuses: [0, 1, 0, 0, 1],
            bytes_in: 64,
            bytes_out: 128,
            frames_out: 1,
            busy: Duration::from_millis(40),
            service: Duration::from_millis(30),
        }
    );
    let took = accounts.latencies();
    let of = |durations: &Durations| (durations.count(), durations.sum());
    assert_eq!(of(&took.first_byte), (1, Duration::from_millis(10)));
    assert_eq!(of(&took.service), (1, Duration::from_millis(30)));
}

#[test]
fn what_is_uncounted_leaves_no_trace() {
    let clock = Clock::real();
    let accounts = Arc::new(Accounts::new(clock.clone()));
    let mut scrape = InFlight::uncounted();
    scrape.first_byte();
    scrape.answered(StatusCode::OK);
    scrape.sent(1);
    drop(scrape);
    assert_eq!(accounts.read(clock.instant()), Reading::default());
    assert_eq!(accounts.latencies(), Latencies::default());
}

#[tokio::test(start_paused = true)]
async fn an_overrun_is_signalled_once_in_a_hundred_milliseconds() {
    let accounts = Arc::new(Accounts::new(Clock::real()));
    accounts.set_overrun_threshold(Some(1));
    let signalled = || accounts.overrun().now_or_never().is_some();
    let mut held = vec![accounts.arrive()];
    assert!(!signalled());
    held.push(accounts.arrive());
    assert!(signalled());
    held.push(accounts.arrive());
    pass(99).await;
    held.push(accounts.arrive());
    assert!(!signalled());
    pass(1).await;
    held.push(accounts.arrive());
    assert!(signalled());
    accounts.set_overrun_threshold(None);
    pass(1_000).await;
    held.push(accounts.arrive());
    assert!(!signalled());
}

#[test]
fn threads_that_count_at_once_lose_nothing() {
    let clock = Clock::real();
    let accounts = Arc::new(Accounts::new(clock.clone()));
    std::thread::scope(|scope| {
        for _thread in 0..4 {
            scope.spawn(|| {
                for turn in 0..10_000 {
                    let mut request = accounts.arrive();
                    if turn % 2 == 0 {
                        request.will_end(Outcome::Completed);
                    }
                }
            });
        }
        for _reading in 0..1_000 {
            let reading = accounts.read(clock.instant());
            assert!(reading.in_flight <= 4, "{reading:?}");
        }
    });
    let reading = accounts.read(clock.instant());
    assert_eq!((reading.arrivals, reading.in_flight), (40_000, 0));
    assert_eq!((reading.completions, reading.failures()), (20_000, 20_000));
    assert!(reading.busy >= reading.service, "{reading:?}");
}
