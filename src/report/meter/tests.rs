//! The meter over paused time.

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::proxy::Outcome;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

struct Pod {
    clock: Clock,
    accounts: Arc<Accounts>,
    meter: Meter,
    server: Option<engine::Counts>,
}

impl Pod {
    fn new() -> Self {
        let clock = Clock::scaled(START, 1.0);
        let accounts = Arc::new(Accounts::new(clock.clone()));
        let meter = Meter::new("pod-0".to_owned(), 7, Arc::clone(&accounts), clock.now());
        Self {
            clock,
            accounts,
            meter,
            server: None,
        }
    }

    async fn report_after(&mut self, secs: f64, gpu: Option<f64>) -> Report {
        tokio::time::advance(Duration::from_secs_f64(secs)).await;
        let status = Status {
            ready: true,
            draining: false,
            gpu: gpu.map(|utilization| GpuReading {
                devices: 1,
                utilization,
                ..GpuReading::default()
            }),
            connections: Some(3),
            server: self.server,
            follows: true,
        };
        self.meter.report(self.clock.now(), status)
    }

    fn past_of_seconds(&mut self, secs: i64) -> Past {
        let now = self.clock.now();
        self.meter
            .past(now, now.timestamp.as_millis() - secs * 1_000)
    }
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-6
}

#[tokio::test(start_paused = true)]
async fn reports_add_up_what_happened_between_them() {
    let mut pod = Pod::new();
    let mut first = pod.accounts.arrive();
    let second = pod.accounts.arrive();
    let report = pod.report_after(1.0, Some(0.5)).await;
    assert_eq!((report.seq, report.epoch, report.at_millis), (1, 7, 1_000));
    assert_eq!((report.in_flight, report.total.arrivals), (2, 2.0));
    assert_eq!(report.connections, Some(3));
    assert!(close(report.total.busy_seconds, 2.0), "{report:?}");
    first.will_end(Outcome::Completed);
    drop(first);
    drop(second);
    let report = pod.report_after(1.0, None).await;
    let expected = Load {
        pod_seconds: 2.0,
        arrivals: 2.0,
        completions: 1.0,
        failures: 1.0,
        busy_seconds: 2.0,
        service_seconds: 1.0,
        gpu_busy_seconds: 0.5,
        gpu_observed_seconds: 1.0,
    };
    assert_eq!(report.total, expected);
    assert_eq!((report.seq, report.in_flight), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_past_holds_the_same_sums_as_the_reports() {
    let mut pod = Pod::new();
    let mut total = Load::default();
    for _second in 0..35 {
        drop(pod.accounts.arrive());
        total = pod.report_after(1.0, Some(0.25)).await.total;
    }
    let past = pod.past_of_seconds(3_600);
    assert_eq!(past.start_millis, START.as_millis());
    let seconds: Vec<f64> = past.slots.iter().map(|slot| slot.pod_seconds).collect();
    assert_eq!(seconds, [10.0, 10.0, 10.0, 5.0]);
    let mut sum = Load::default();
    for slot in &past.slots {
        sum.add(slot);
    }
    assert!(close(sum.arrivals, total.arrivals), "{sum:?} {total:?}");
    assert!(close(sum.gpu_busy_seconds, total.gpu_busy_seconds));
}

#[tokio::test(start_paused = true)]
async fn only_the_past_that_is_asked_for_is_sent() {
    let mut pod = Pod::new();
    for _second in 0..35 {
        pod.report_after(1.0, None).await;
    }
    // The open slot began 5 s ago, the two before it 15 s and 25 s ago.
    for (asked, slots) in [(0, 1), (5, 1), (6, 2), (15, 2), (16, 3), (3_600, 4)] {
        let past = pod.past_of_seconds(asked);
        assert_eq!(past.slots.len(), slots, "{asked}");
        let start = START.as_millis() + 10_000 * (4 - i64::try_from(slots).expect("few"));
        assert_eq!(past.start_millis, start, "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_is_kept_and_no_more() {
    let mut pod = Pod::new();
    for _slot in 0..400 {
        pod.report_after(10.0, None).await;
    }
    let past = pod.past_of_seconds(86_400);
    assert_eq!(past.slots.len(), SLOTS + 1);
    assert_eq!(past.start_millis, START.as_millis() + 400_000);
}

#[tokio::test(start_paused = true)]
async fn a_late_report_is_spread_over_the_time_it_covers() {
    let mut pod = Pod::new();
    pod.report_after(5.0, None).await;
    let held = pod.accounts.arrive();
    pod.report_after(20.0, None).await;
    let busy: Vec<f64> = pod
        .past_of_seconds(3_600)
        .slots
        .iter()
        .map(|slot| slot.busy_seconds)
        .collect();
    assert_eq!(busy, [5.0, 10.0, 5.0]);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_for_a_day_goes_on_at_once() {
    let mut pod = Pod::new();
    pod.report_after(5.0, None).await;
    let report = pod.report_after(86_400.0, None).await;
    assert!(close(report.total.pod_seconds, 86_405.0));
    let past = pod.past_of_seconds(7_200);
    assert_eq!(past.slots.len(), SLOTS + 1);
    assert!(
        past.slots[1..SLOTS]
            .iter()
            .all(|slot| close(slot.pod_seconds, 10.0)),
        "{:?}",
        past.slots
    );
    assert_eq!(pod.past_of_seconds(0).slots.len(), 1);
}

fn said(seconds: f64, arrivals: f64, is_fresh: bool) -> engine::Counts {
    engine::Counts {
        sums: engine::Sums {
            observed_seconds: seconds,
            arrivals,
            completions: arrivals / 2.0,
            failures: 1.0,
            busy_seconds: 4.0 * arrivals,
            service_seconds: 3.0 * arrivals,
        },
        in_flight: 6.6,
        is_fresh,
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_sums_are_the_pods_from_where_the_accounts_left_off_and_back() {
    let mut pod = Pod::new();
    let held: Vec<_> = (0..3).map(|_| pod.accounts.arrive()).collect();
    let before = pod.report_after(1.0, None).await;
    assert!(!before.load_unknown);
    // The policy says passive now; the server has been read for long.
    pod.server = Some(said(500.0, 9_000.0, true));
    let report = pod.report_after(1.0, None).await;
    assert_eq!(report.total, before.total, "no jump");
    assert_eq!((report.in_flight, report.load_unknown), (7, false));
    pod.server = Some(said(501.5, 9_010.0, true));
    let report = pod.report_after(1.0, Some(0.5)).await;
    let expected = Load {
        pod_seconds: 2.5,
        arrivals: 13.0,
        completions: 5.0,
        failures: 0.0,
        busy_seconds: 43.0,
        service_seconds: 30.0,
        gpu_busy_seconds: 0.5,
        gpu_observed_seconds: 1.0,
    };
    assert_eq!(report.total, expected);
    // And proxy again: what passed through the sidecar meanwhile was the server's to count.
    drop(held);
    drop(pod.accounts.arrive());
    pod.report_after(1.0, None).await;
    pod.server = None;
    drop(pod.accounts.arrive());
    let report = pod.report_after(1.0, None).await;
    assert!(close(report.total.arrivals, 14.0), "{report:?}");
    assert!(close(report.total.pod_seconds, 3.5), "{report:?}");
    assert_eq!(report.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_not_observed() {
    let mut pod = Pod::new();
    pod.server = Some(said(10.0, 50.0, true));
    pod.report_after(1.0, None).await;
    pod.server = Some(said(11.0, 60.0, true));
    pod.report_after(1.0, None).await;
    pod.server = Some(said(11.0, 60.0, false));
    let mut last = Report::default();
    for _second in 0..20 {
        last = pod.report_after(1.0, None).await;
    }
    assert!(last.load_unknown);
    assert!(close(last.total.pod_seconds, 1.0), "{last:?}");
    let past = pod.past_of_seconds(3_600);
    let seconds: Vec<f64> = past.slots.iter().map(|slot| slot.pod_seconds).collect();
    assert_eq!(seconds, [1.0, 0.0, 0.0]);
}
