use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Timestamp;
use crate::demo::arrivals::servegen;
use crate::demo::model::{self, ModelServer};

const PLAIN: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn clock(speed: f64) -> Clock {
    Clock::scaled(Timestamp::from_secs(0), speed)
}

/// What a scripted server does with the connection after it wrote its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
    /// Closes with a reset.
    Reset,
    /// Neither writes nor closes.
    Hang,
}

/// A server that answers every request on every connection with `answer`, counting connections and requests.
struct Script {
    address: SocketAddr,
    counts: Arc<Mutex<(usize, usize)>>,
}

impl Script {
    async fn start(tasks: &Tasks, answer: String, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let counts = Arc::new(Mutex::new((0, 0)));
        let (handle, counted) = (tasks.handle(), Arc::clone(&counts));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.lock().expect("no panic").0 += 1;
                let (counted, answer) = (Arc::clone(&counted), answer.clone());
                handle.spawn(converse(stream, answer, then, counted));
            }
        });
        Self { address, counts }
    }

    /// Connections and requests so far.
    fn counts(&self) -> (usize, usize) {
        *self.counts.lock().expect("no panic")
    }
}

async fn converse(
    mut stream: TcpStream,
    answer: String,
    then: Then,
    counts: Arc<Mutex<(usize, usize)>>,
) {
    let mut read = Vec::new();
    loop {
        let mut some = [0; 1024];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(length) => read.extend_from_slice(&some[..length]),
        }
        // Requests of the load end with their JSON.
        if !read.ends_with(b"}") {
            continue;
        }
        read.clear();
        counts.lock().expect("no panic").1 += 1;
        if then == Then::Hang {
            std::future::pending::<()>().await;
        }
        stream
            .write_all(answer.as_bytes())
            .await
            .expect("the client reads");
        match then {
            Then::Keep => {}
            Then::Close => return,
            Then::Hang | Then::Reset => {
                stream.set_zero_linger().expect("a live socket");
                return;
            }
        }
    }
}

/// Plays `count` requests, one each `gap` of the clock, and returns their outcomes by the time they were due.
async fn play(
    endpoints: &[SocketAddr],
    count: u32,
    gap: Duration,
    settings: Settings,
    clock: &Clock,
) -> Vec<Outcome> {
    let (_sender, endpoints) = watch::channel(endpoints.to_vec());
    let (load, mut received) = Load::new(settings, endpoints, clock.clone());
    load.play(clock.instant(), (0..count).map(|index| gap * index))
        .await;
    let mut outcomes = Vec::new();
    while let Some(outcome) = received.recv().await {
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.due);
    outcomes
}

async fn play_one(endpoint: SocketAddr, clock: &Clock) -> Outcome {
    let settings = Settings::default();
    play(&[endpoint], 1, Duration::ZERO, settings, clock).await[0]
}

#[tokio::test]
async fn every_way_to_fail_is_told_apart_and_nothing_is_sent_twice() {
    let tasks = Tasks::here();
    let clock = clock(1.0);
    let cut = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}";
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let done = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    for (answer, then, result) in [
        (PLAIN.to_owned(), Then::Keep, Ending::Ok),
        (format!("{STREAM}{done}"), Then::Keep, Ending::Ok),
        // Complete by HTTP, but the server never said that it was done.
        (
            format!("{STREAM}4\r\nda: \r\n0\r\n\r\n"),
            Then::Keep,
            Ending::ShortBody,
        ),
        // Done by its words, but cut before HTTP's end.
        (
            format!("{STREAM}e\r\ndata: [DONE]\n\n\r\n"),
            Then::Close,
            Ending::ShortBody,
        ),
        (cut.to_owned(), Then::Close, Ending::ShortBody),
        (busy.to_owned(), Then::Keep, Ending::Status(503)),
        (String::new(), Then::Close, Ending::Reset),
        (String::new(), Then::Reset, Ending::Reset),
    ] {
        let server = Script::start(&tasks, answer.clone(), then).await;
        let outcome = play_one(server.address, &clock).await;
        assert_eq!(outcome.result, result, "{answer:?}, then {then:?}");
        assert_eq!(server.counts(), (1, 1), "{answer:?}, then {then:?}");
        assert_eq!(outcome.endpoint, Some(server.address));
    }
}

#[tokio::test]
async fn a_reset_is_one_before_the_request_was_read_and_in_the_middle_of_an_answer() {
    for reads in [false, true] {
        let outcome = reset_by_server(reads).await;
        assert_eq!(outcome.result, Ending::Reset, "after reading: {reads}");
    }
}

async fn reset_by_server(reads: bool) -> Outcome {
    let tasks = Tasks::here();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (sender, endpoints) = watch::channel(vec![address]);
    let clock = clock(1.0);
    let (load, mut outcomes) = Load::new(Settings::default(), endpoints, clock.clone());
    tasks.spawn(async move {
        load.play(clock.instant(), std::iter::once(Duration::ZERO))
            .await;
        drop(sender);
    });
    let (mut stream, _) = listener.accept().await.expect("the load connects");
    if reads {
        let mut some = [0; 1024];
        assert!(stream.read(&mut some).await.expect("a live client") > 0);
        let answer = format!("{STREAM}1\r\nx\r\n");
        stream.write_all(answer.as_bytes()).await.expect("it reads");
    }
    stream.set_zero_linger().expect("a live socket");
    drop(stream);
    outcomes.recv().await.expect("one outcome")
}

#[tokio::test]
async fn no_endpoint_and_no_listener_are_refused() {
    let clock = clock(1.0);
    let gap = Duration::ZERO;
    let outcomes = play(&[], 1, gap, Settings::default(), &clock).await;
    assert_eq!(outcomes[0].result, Ending::Refused);
    assert_eq!(outcomes[0].endpoint, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let gone = listener.local_addr().expect("it is bound");
    drop(listener);
    assert_eq!(play_one(gone, &clock).await.result, Ending::Refused);
}

#[tokio::test]
async fn a_client_waits_no_longer_than_its_patience() {
    let tasks = Tasks::here();
    let server = Script::start(&tasks, String::new(), Then::Hang).await;
    let clock = clock(100.0);
    let settings = Settings {
        patience: Duration::from_secs(10),
        ..Settings::default()
    };
    let outcomes = play(&[server.address], 1, Duration::ZERO, settings, &clock).await;
    assert_eq!(outcomes[0].result, Ending::TimedOut);
    assert!(outcomes[0].total >= Duration::from_secs(10));
    assert_eq!(outcomes[0].first_byte, None);
}

#[tokio::test]
async fn connections_are_kept_and_one_that_the_server_closed_costs_nothing() {
    let tasks = Tasks::here();
    let clock = clock(20.0);
    let gap = Duration::from_secs(1);
    let server = Script::start(&tasks, PLAIN.to_owned(), Then::Keep).await;
    let outcomes = play(&[server.address], 20, gap, Settings::default(), &clock).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    let (connections, requests) = server.counts();
    assert_eq!(requests, 20);
    assert!(connections < 20, "{connections} connections");
    // This one closes after every answer without having said so.
    let server = Script::start(&tasks, PLAIN.to_owned(), Then::Close).await;
    let outcomes = play(&[server.address], 20, gap, Settings::default(), &clock).await;
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.result.is_ok())
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(server.counts(), (20, 20));
}

#[tokio::test]
async fn requests_follow_the_endpoints_and_are_spread_over_them() {
    let tasks = Tasks::here();
    let clock = clock(100.0);
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Script::start(&tasks, PLAIN.to_owned(), Then::Keep).await);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let (sender, endpoints) = watch::channel(addresses.clone());
    let (load, mut outcomes) = Load::new(Settings::default(), endpoints, clock.clone());
    let started = clock.instant();
    let arrivals = (0..600).map(move |index| {
        if index == 300 {
            sender.send_replace(vec![addresses[2]]);
        }
        Duration::from_millis(100) * index
    });
    load.play(started, arrivals).await;
    let mut sent = [[0; 3]; 2];
    while let Some(outcome) = outcomes.recv().await {
        assert_eq!(outcome.result, Ending::Ok);
        let second_half = usize::from(outcome.due >= started + Duration::from_secs(30));
        let server = servers
            .iter()
            .position(|server| Some(server.address) == outcome.endpoint)
            .expect("one of ours");
        sent[second_half][server] += 1;
    }
    assert_eq!(sent[1], [0, 0, 300]);
    assert!(
        sent[0].iter().all(|count| (70..=130).contains(count)),
        "{sent:?}"
    );
}

#[tokio::test]
async fn latency_counts_from_when_a_request_was_due() {
    let tasks = Tasks::here();
    let server = Script::start(&tasks, PLAIN.to_owned(), Then::Keep).await;
    let clock = clock(1000.0);
    let start = clock.instant();
    // The load begins a minute late, as a client whose process was held up.
    clock.sleep(Duration::from_secs(60)).await;
    let (_sender, endpoints) = watch::channel(vec![server.address]);
    let (load, mut outcomes) = Load::new(Settings::default(), endpoints, clock.clone());
    load.play(start, std::iter::once(Duration::ZERO)).await;
    let outcome = outcomes.recv().await.expect("one outcome");
    assert_eq!(outcome.due, start);
    assert!(outcome.sent_at >= start + Duration::from_secs(60));
    assert!(outcome.total >= Duration::from_secs(60));
    assert!(outcome.first_byte.expect("an answer") <= outcome.total);
}

#[tokio::test]
async fn a_trace_against_a_model_server_is_served_whole() {
    let tasks = Tasks::here();
    let clock = clock(20.0);
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = model::Settings {
        cold_start: Duration::ZERO,
        ..model::Settings::default()
    };
    let capacity = settings.requests_per_second();
    let server = ModelServer::bind(any, settings, clock.clone()).expect("a free port");
    let (address, mut gauge) = (server.address(), server.gauge());
    tasks.spawn(async move {
        let Err(error) = server.run().await;
        panic!("{error}");
    });
    assert!(gauge.listens().await);
    let trace = servegen();
    let from = Duration::from_secs(5_700);
    let factor = 0.6 * capacity / trace.rate(from).expect("observed");
    let expected = trace
        .expected(from, from + Duration::from_secs(60))
        .expect("observed");
    let replay = Replay {
        target: address.to_string(),
        trace,
        from,
        to: from + Duration::from_secs(60),
        factor,
        settings: Settings::default(),
    };
    let summary = replay
        .run(clock, std::future::pending())
        .await
        .expect("the address is one");
    assert_eq!(summary.failed(), 0, "{summary}");
    let expected = factor * expected;
    let sent = summary.requests() as f64;
    assert!(
        (sent - expected).abs() < 4.0 * expected.sqrt(),
        "{sent} sent, {expected} expected"
    );
    let first_byte = summary.first_byte(0.5).expect("there are answers");
    assert!(
        first_byte >= Duration::from_millis(200),
        "no token comes before the prefill: {summary}"
    );
}

#[tokio::test]
async fn a_name_without_an_address_is_said() {
    let replay = |target: &str| Replay {
        target: target.to_owned(),
        trace: servegen(),
        from: Duration::ZERO,
        to: Duration::ZERO,
        factor: 1.0,
        settings: Settings::default(),
    };
    let error = replay("nowhere.invalid:80")
        .run(clock(1.0), std::future::pending())
        .await
        .expect_err("no such name");
    assert_eq!(error.to_string(), "cannot look up `nowhere.invalid:80`");
}
