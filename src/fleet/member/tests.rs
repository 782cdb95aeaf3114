//! Both ends of the member channel over real sockets: the leader's [`Channels`] dial a real [`Member`], and where a leader
//! must misbehave a bare HTTP/2 client plays it.
//!
//! The clock runs at five times life, so a beat takes 200 ms. A test waits for what it asserts, never for time; the
//! bound on a wait only turns a hang into a failure.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http_body_util::channel::{Channel as ChannelBody, Sender};
use hyper::body::Incoming;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::fleet::channel::{Channels, LINES_BOUND, MemberLine, Said};
use crate::fleet::lines::{LONGEST_LINE, Lines, line};
use crate::fleet::{Pod, PodPhase};
use crate::lifecycle::Tasks;
use crate::report::{Down, Load, WIRE_VERSION};

/// As a leader says it, and as a member hears it.
const DRAIN: Down = Down::Drain { for_millis: 30_000 };
const DRAINED: Order = Order::Drain {
    holds: Duration::from_secs(30),
};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A member whose reports count up, on a port of its own.
struct Sidecar {
    port: u16,
    overrun: Arc<Notify>,
    heard: mpsc::Receiver<Heard>,
    counts: Arc<Counts>,
    lease: Arc<Lease>,
    tasks: Tasks,
}

/// Counts its calls; its reports may be spoilt for a test.
#[derive(Default)]
struct Counter {
    calls: AtomicU64,
    v: Option<u32>,
    pod: String,
}

/// The Lease as members see it: the token of the present term.
#[derive(Default)]
struct Lease {
    term: AtomicU64,
    is_away: AtomicBool,
    looks: AtomicU64,
    looked: Notify,
}

/// A leader's end, with the beacon it holds up.
struct Leader {
    channels: Channels,
    beacon: watch::Sender<Beacon>,
    lines: mpsc::Receiver<MemberLine>,
}

/// A leader that may say anything.
struct Dialler {
    sender: Sender<Bytes>,
    lines: Lines<Incoming>,
    _tasks: Tasks,
}

impl Source for Counter {
    fn report(&self) -> Report {
        let seq = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        Report {
            v: self.v.unwrap_or(WIRE_VERSION),
            pod: self.pod.clone(),
            epoch: 1,
            seq,
            ready: true,
            ..Report::default()
        }
    }

    fn past(&self, since: Timestamp) -> Past {
        Past {
            start_millis: since.as_millis(),
            step_seconds: 10,
            slots: vec![Load::default(); 360],
        }
    }
}

impl Verify for Arc<Lease> {
    async fn verify(&self, hello: &Hello) -> Verdict {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.looked.notify_one();
        if self.is_away.load(Ordering::SeqCst) {
            return Verdict::Unavailable;
        }
        let term = self.term.load(Ordering::SeqCst);
        if hello.token == token(term) && hello.term == term {
            Verdict::Genuine
        } else {
            Verdict::Impostor
        }
    }
}

impl Sidecar {
    async fn start(clock: &Clock, term: u64, source: Counter) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (sender, heard) = mpsc::channel(HEARD_BOUND);
        let overrun = Arc::new(Notify::new());
        let lease = Arc::new(Lease::default());
        lease.term.store(term, Ordering::SeqCst);
        let member = Member::new(
            clock.clone(),
            source,
            Arc::clone(&lease),
            sender,
            Arc::clone(&overrun),
        );
        let counts = member.counts();
        let tasks = Tasks::here();
        tasks.spawn(member.serve(listener, tasks.handle()));
        Self {
            port,
            overrun,
            heard,
            counts,
            lease,
            tasks,
        }
    }

    /// The next thing heard that is no beacon.
    async fn order(&mut self, clock: &Clock) -> Heard {
        loop {
            let heard = within(clock, self.heard.recv()).await.expect("serving");
            if !matches!(heard.order, Order::Beacon(_)) {
                return heard;
            }
        }
    }
}

impl Leader {
    fn of(clock: &Clock, term: u64, port: u16) -> Self {
        let (beacon, beacons) = watch::channel(Beacon {
            term,
            holder: holder(term),
            ..Beacon::default()
        });
        let (sender, lines) = mpsc::channel(LINES_BOUND);
        let hello = Hello {
            v: WIRE_VERSION,
            term,
            holder: holder(term),
            token: token(term),
            past_since_millis: Some(START.as_millis()),
        };
        let rng = StdRng::seed_from_u64(term);
        let mut channels = Channels::new(clock.clone(), port, hello, beacons, sender, rng);
        channels.follow(&[pod("a", "127.0.0.1")]);
        Self {
            channels,
            beacon,
            lines,
        }
    }

    /// The next thing said that `pick` wants.
    async fn hears<T>(&mut self, clock: &Clock, mut pick: impl FnMut(Said) -> Option<T>) -> T {
        loop {
            let line = within(clock, self.lines.recv()).await.expect("streams");
            assert_eq!(line.pod, "a");
            if let Some(picked) = pick(line.said) {
                return picked;
            }
        }
    }
}

impl Dialler {
    async fn dial(port: u16) -> Self {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("a member listens");
        let tasks = Tasks::here();
        let (mut requests, connection) = hyper::client::conn::http2::Builder::new(tasks.handle())
            .handshake(hyper_util::rt::TokioIo::new(tcp))
            .await
            .expect("HTTP/2");
        tasks.spawn(async move {
            connection.await.ok();
        });
        let (sender, body) = ChannelBody::<Bytes>::new(16);
        let request = http::Request::post("http://member/v1/report")
            .body(body)
            .expect("a request");
        let response = requests.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), http::StatusCode::OK);
        Self {
            sender,
            lines: Lines::new(response.into_body()),
            _tasks: tasks,
        }
    }

    async fn says(&mut self, text: impl Into<Bytes>) {
        self.sender.send_data(text.into()).await.expect("a stream");
    }

    /// The next line as JSON, `None` when the member has closed the stream.
    async fn reads(&mut self, clock: &Clock) -> Option<serde_json::Value> {
        match within(clock, self.lines.next(LONGEST_LINE)).await {
            Ok(Some(text)) => Some(serde_json::from_slice(&text).expect("JSON")),
            Ok(None) | Err(_) => None,
        }
    }
}

fn clock() -> Clock {
    Clock::scaled(START, 5.0)
}

async fn within<F: Future>(clock: &Clock, future: F) -> F::Output {
    let bound = Duration::from_secs(20).mul_f64(clock.speed());
    clock.timeout(bound, future).await.expect("no hang")
}

fn holder(term: u64) -> String {
    format!("pod-{term}_uuid")
}

fn token(term: u64) -> String {
    format!("token of {term}")
}

fn hello(term: u64) -> Bytes {
    line(&Down::Hello(Hello {
        v: WIRE_VERSION,
        term,
        holder: holder(term),
        token: token(term),
        past_since_millis: None,
    }))
}

fn pod(name: &str, ip: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        ip: Some(ip.to_owned()),
        phase: PodPhase::Ready,
        created: Instant::default(),
        marked: false,
        member: crate::fleet::Member::Unknown,
    }
}

fn past(said: Said) -> Option<Past> {
    match said {
        Said::Past(past) => Some(past),
        Said::Report(_) | Said::Overrun(_) | Said::Foreign { .. } | Said::Ended => None,
    }
}

fn not_past(said: Said) -> Option<Said> {
    (!matches!(said, Said::Past(_))).then_some(said)
}

fn present(said: Said) -> Option<Report> {
    match said {
        Said::Report(report) => Some(report),
        Said::Overrun(_) | Said::Past(_) | Said::Foreign { .. } | Said::Ended => None,
    }
}

#[tokio::test]
async fn reports_go_up_every_second_and_the_past_once() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    let past = leader.hears(&clock, past).await;
    assert_eq!(
        (past.start_millis, past.slots.len()),
        (START.as_millis(), 360)
    );
    let first = leader.hears(&clock, present).await;
    let second = leader.hears(&clock, present).await;
    assert_eq!((first.seq, second.seq), (1, 2));
    let heard = within(&clock, sidecar.heard.recv())
        .await
        .expect("a beacon");
    assert_eq!((heard.term, heard.holder), (7, holder(7)));
    assert!(matches!(heard.order, Order::Beacon(_)));
    assert_eq!(leader.channels.open_streams(), 1);
}

#[tokio::test]
async fn news_and_overruns_do_not_wait_for_the_next_second() {
    // A second of this clock takes 100 of life: whatever arrives here did not come with a beat.
    let clock = Clock::scaled(START, 0.01);
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    leader.hears(&clock, present).await;
    sidecar.overrun.notify_one();
    let overrun = leader
        .hears(&clock, |said| match said {
            Said::Overrun(report) => Some(report.seq),
            Said::Report(_) | Said::Past(_) | Said::Foreign { .. } | Said::Ended => None,
        })
        .await;
    assert_eq!(overrun, 2);
    leader
        .beacon
        .send_modify(|beacon| "42".clone_into(&mut beacon.renewed));
    loop {
        let heard = within(&clock, sidecar.heard.recv()).await.expect("serving");
        if let Order::Beacon(beacon) = heard.order
            && beacon.renewed == "42"
        {
            break;
        }
    }
}

#[tokio::test]
async fn of_two_leaders_both_get_reports_and_the_higher_term_is_obeyed() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut old = Leader::of(&clock, 7, sidecar.port);
    old.hears(&clock, present).await;
    sidecar.lease.term.store(8, Ordering::SeqCst);
    let mut new = Leader::of(&clock, 8, sidecar.port);
    new.hears(&clock, present).await;
    old.channels.tell("a", DRAIN).expect("a stream");
    // The order counts as stale, and then the new leader's is the first that the app hears of.
    within(&clock, async {
        while sidecar.counts.read().stale == 0 {
            old.hears(&clock, present).await;
        }
    })
    .await;
    new.channels.tell("a", DRAIN).expect("a stream");
    let heard = sidecar.order(&clock).await;
    assert_eq!((heard.term, heard.order), (8, DRAINED));
    old.hears(&clock, present).await;
    assert_eq!(sidecar.counts.read().streams, 2);
}

#[tokio::test]
async fn an_impostor_learns_nothing_and_is_counted() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut impostor = Dialler::dial(sidecar.port).await;
    impostor.says(hello(9)).await;
    impostor.says(line(&DRAIN)).await;
    assert_eq!(impostor.reads(&clock).await, None);
    assert_eq!(sidecar.counts.read().impostors, 1);
    assert!(sidecar.heard.try_recv().is_err());
}

#[tokio::test]
async fn a_leader_is_looked_up_once_a_term_however_often_it_dials() {
    let clock = clock();
    let sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    for _dial in 0..3 {
        let mut leader = Dialler::dial(sidecar.port).await;
        leader.says(hello(7)).await;
        assert!(leader.reads(&clock).await.is_some());
    }
    assert_eq!(sidecar.lease.looks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn while_the_lease_cannot_be_read_nothing_is_told_nor_believed_later() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    sidecar.lease.is_away.store(true, Ordering::SeqCst);
    let mut leader = Dialler::dial(sidecar.port).await;
    leader.says(hello(7)).await;
    leader.says(line(&DRAIN)).await;
    // The second look comes a second after the first: by then the drain has been read and thrown away.
    within(&clock, sidecar.lease.looked.notified()).await;
    within(&clock, sidecar.lease.looked.notified()).await;
    sidecar.lease.is_away.store(false, Ordering::SeqCst);
    assert!(leader.reads(&clock).await.is_some());
    leader
        .says(line(&Down::Goodbye {
            successor: Some("b".to_owned()),
        }))
        .await;
    let heard = sidecar.order(&clock).await;
    let goodbye = Order::Goodbye {
        successor: Some("b".to_owned()),
    };
    assert_eq!(heard.order, goodbye);
}

#[tokio::test]
async fn unknown_fields_and_lines_are_ignored() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Dialler::dial(sidecar.port).await;
    leader
        .says(format!(
            "{{\"hello\":{{\"v\":1,\"term\":7,\"holder\":\"{}\",\"token\":\"{}\",\"colour\":[1]}}}}\n",
            holder(7),
            token(7)
        ))
        .await;
    assert!(leader.reads(&clock).await.is_some());
    leader.says("{\"sing\":{}}\nnot even JSON\n").await;
    leader.says(line(&DRAIN)).await;
    assert_eq!(sidecar.order(&clock).await.order, DRAINED);
    leader
        .says("{\"retire\":{\"per_mille\":250,\"over_millis\":10000,\"why\":0}}\n")
        .await;
    let retire = Order::Retire {
        per_mille: 250,
        over: Duration::from_secs(10),
    };
    assert_eq!(sidecar.order(&clock).await.order, retire);
    assert_eq!(sidecar.counts.read().not_understood, 2);
}

#[tokio::test]
async fn a_beacon_of_another_term_than_its_streams_is_not_believed() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Dialler::dial(sidecar.port).await;
    leader.says(hello(7)).await;
    assert!(leader.reads(&clock).await.is_some());
    leader
        .says(line(&Down::Beacon(Beacon {
            term: 8,
            holder: holder(7),
            ..Beacon::default()
        })))
        .await;
    leader.says(line(&DRAIN)).await;
    let first = within(&clock, sidecar.heard.recv()).await.expect("serving");
    assert_eq!(first.order, DRAINED);
    assert_eq!(sidecar.counts.read().not_understood, 1);
}

#[tokio::test]
async fn another_major_version_foreign_both_ways() {
    let clock = clock();
    let newer = Counter {
        v: Some(WIRE_VERSION + 1),
        ..Counter::default()
    };
    let sidecar = Sidecar::start(&clock, 7, newer).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    let v = leader
        .hears(&clock, |said| match said {
            Said::Foreign { v } => Some(v),
            Said::Report(_) | Said::Past(_) | Said::Overrun(_) | Said::Ended => None,
        })
        .await;
    assert_eq!(v, WIRE_VERSION + 1);

    let mut newer = Dialler::dial(sidecar.port).await;
    newer.says("{\"hello\":{\"v\":2,\"term\":7}}\n").await;
    assert_eq!(newer.reads(&clock).await, None);
    assert_eq!(sidecar.counts.read().refused, 1);
}

#[tokio::test]
async fn a_long_line_closes_the_stream_at_either_end() {
    let clock = clock();
    let talker = Counter {
        pod: "x".repeat(LONGEST_PAST_AND_MORE),
        ..Counter::default()
    };
    let sidecar = Sidecar::start(&clock, 7, talker).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    let said = leader.hears(&clock, not_past).await;
    assert_eq!(said, Said::Ended);

    let sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Dialler::dial(sidecar.port).await;
    leader.says(hello(7)).await;
    assert!(leader.reads(&clock).await.is_some());
    leader.says(vec![b'x'; LONGEST_LINE + 1]).await;
    while leader.reads(&clock).await.is_some() {}
    assert_eq!(sidecar.counts.read().refused, 1);
}

const LONGEST_PAST_AND_MORE: usize = crate::fleet::lines::LONGEST_PAST + 1;

#[tokio::test]
async fn the_next_owner_of_an_address_is_not_taken_for_the_pod_that_was_dialled() {
    let clock = clock();
    let other = Counter {
        pod: "b".to_owned(),
        ..Counter::default()
    };
    let sidecar = Sidecar::start(&clock, 7, other).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    let said = leader.hears(&clock, not_past).await;
    assert_eq!(said, Said::Ended);
}

#[tokio::test]
async fn a_member_that_dies_ends_its_stream_and_is_dialled_again() {
    let clock = clock();
    let sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    leader.hears(&clock, present).await;
    let (port, lease) = (sidecar.port, Arc::clone(&sidecar.lease));
    drop(sidecar);
    let is_end = |said| (said == Said::Ended).then_some(());
    leader.hears(&clock, is_end).await;
    let error = leader.channels.tell("a", DRAIN);
    assert_eq!(error.expect_err("no stream").pod, "a");

    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("free again");
    let (heard, _hears) = mpsc::channel(HEARD_BOUND);
    let member = Member::new(
        clock.clone(),
        Counter::default(),
        lease,
        heard,
        Arc::default(),
    );
    let tasks = Tasks::here();
    tasks.spawn(member.serve(listener, tasks.handle()));
    let again = leader.hears(&clock, present).await;
    assert_eq!(again.seq, 1);
}

#[tokio::test]
async fn a_leader_that_is_gone_ends_the_stream_at_the_member() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    leader.hears(&clock, present).await;
    drop(leader);
    let heard = sidecar.order(&clock).await;
    assert_eq!((heard.term, heard.order), (7, Order::Ended));
}

#[tokio::test]
async fn a_leader_without_a_beacon_to_hold_up_closes_its_streams() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    leader.hears(&clock, present).await;
    drop(leader.beacon);
    assert_eq!(sidecar.order(&clock).await.order, Order::Ended);
}

#[tokio::test]
async fn a_goodbye_is_read_before_the_streams_end() {
    let clock = clock();
    let mut sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut leader = Leader::of(&clock, 7, sidecar.port);
    leader.hears(&clock, present).await;
    let Leader {
        channels,
        beacon: _held_up_until_the_end,
        lines: _still_read,
    } = leader;
    within(&clock, channels.goodbye(Some("next".to_owned()))).await;
    let goodbye = Order::Goodbye {
        successor: Some("next".to_owned()),
    };
    assert_eq!(sidecar.order(&clock).await.order, goodbye);
    assert_eq!(sidecar.order(&clock).await.order, Order::Ended);
}

#[tokio::test]
async fn who_says_nothing_is_hung_up_on_and_who_comes_too_many_is_refused() {
    let clock = clock();
    let sidecar = Sidecar::start(&clock, 7, Counter::default()).await;
    let mut silent = Vec::new();
    for _dial in 0..MOST_STREAMS {
        silent.push(Dialler::dial(sidecar.port).await);
    }
    let extra = tokio::net::TcpStream::connect(("127.0.0.1", sidecar.port))
        .await
        .expect("the port is open");
    // Closed at once: nothing can be read.
    let mut byte = [0; 1];
    within(&clock, extra.readable()).await.expect("readable");
    assert!(!matches!(extra.try_read(&mut byte), Ok(1..)));
    for mut dialler in silent {
        assert_eq!(dialler.reads(&clock).await, None);
    }
    let expected = u64::try_from(MOST_STREAMS).expect("few") + 1;
    within(&clock, async {
        while sidecar.counts.read().refused < expected || sidecar.counts.read().streams > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The tree is what keeps the server alive.
    drop(sidecar.tasks);
}
