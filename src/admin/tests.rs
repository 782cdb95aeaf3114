//! The admin port over real sockets: a leader and a follower that both answer from a made-up fleet.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use serde_json::Value;
use tokio::sync::Notify;

use self::made_up::MadeUp;
use super::*;
use crate::clock::Timestamp;
use crate::lifecycle::Tasks;

mod made_up;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A pod that answers; what it is can be changed while it runs.
struct Pod {
    fleet: Option<MadeUp>,
    leader: Option<SocketAddr>,
    is_ready: AtomicBool,
    is_asked: Notify,
    may_end: Notify,
    has_drained: AtomicBool,
    drained: Notify,
}

struct Answer {
    status: StatusCode,
    content_type: String,
    body: Bytes,
}

impl Source for Pod {
    fn metrics(&self) -> Metrics {
        Metrics {
            content_type: "application/openmetrics-text",
            text: "# EOF\n".to_owned(),
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.is_ready.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err("the server does not answer yet".to_owned())
        }
    }

    fn report(&self) -> Report {
        Report {
            pod: "a".to_owned(),
            ..Report::default()
        }
    }

    fn overview(&self) -> Option<Overview> {
        self.fleet.as_ref().map(MadeUp::overview)
    }

    fn standing(&self) -> Overview {
        Overview {
            workload: "inference/bert".to_owned(),
            conditions: vec![Condition {
                kind: "cluster",
                text: "no Kubernetes account found".to_owned(),
                ..Condition::default()
            }],
            ..Overview::default()
        }
    }

    fn decisions(&self) -> Option<Vec<Decision>> {
        self.fleet.as_ref().map(MadeUp::decisions)
    }

    fn history(&self) -> Option<History> {
        self.fleet.as_ref().map(MadeUp::history)
    }

    fn forecast(&self) -> Option<Forecast> {
        self.fleet.as_ref().map(MadeUp::forecast)
    }

    fn leader_admin(&self) -> Option<SocketAddr> {
        self.leader
    }

    async fn drained(&self) {
        self.is_asked.notify_one();
        self.may_end.notified().await;
        self.has_drained.store(true, Ordering::SeqCst);
        self.drained.notify_one();
    }
}

impl Pod {
    fn of(fleet: Option<MadeUp>, leader: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            fleet,
            leader,
            is_ready: AtomicBool::new(true),
            is_asked: Notify::new(),
            may_end: Notify::new(),
            has_drained: AtomicBool::new(false),
            drained: Notify::new(),
        })
    }

    fn leading(clock: &Clock) -> Arc<Self> {
        Self::of(Some(MadeUp::new(clock)), None)
    }
}

fn clock() -> Clock {
    Clock::scaled(START, 20.0)
}

async fn serving(pod: &Arc<Pod>, tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tasks.spawn(serve(listener, Arc::clone(pod), clock(), tasks.handle()));
    address
}

/// Sends one request on a connection of its own, with these headers, and reads the whole answer.
async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Answer {
    let tcp = TcpStream::connect(address).await.expect("listens");
    let tasks = Tasks::here();
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .expect("HTTP");
    tasks.spawn(async move {
        connection.await.ok();
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("a path");
    for (name, value) in headers {
        let value = http::HeaderValue::from_static(value);
        request.headers_mut().insert(*name, value);
    }
    let response = requests.send_request(request).await.expect("an answer");
    let status = response.status();
    let content_type = response.headers()[http::header::CONTENT_TYPE]
        .to_str()
        .expect("text")
        .to_owned();
    let body = response.into_body().collect().await.expect("whole");
    Answer {
        status,
        content_type,
        body: body.to_bytes(),
    }
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, Method::GET, path, &[]).await
}

async fn get_json(address: SocketAddr, path: &str) -> (StatusCode, Value) {
    let answer = get(address, path).await;
    assert_eq!(answer.content_type, "application/json", "{path}");
    let value = serde_json::from_slice(&answer.body).expect("JSON");
    (answer.status, value)
}

/// Sorted: JSON's readers know no order.
fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn every_path_answers_in_its_form() {
    let tasks = Tasks::here();
    let address = serving(&Pod::leading(&clock()), &tasks).await;
    let check = async |path: &str, content_type: &str, begins: &str| {
        let answer = get(address, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.content_type, content_type, "{path}");
        let text = String::from_utf8(answer.body.to_vec()).expect("text");
        assert!(text.starts_with(begins), "{path}: {text}");
    };
    check("/", "text/html; charset=utf-8", "<!doctype html>").await;
    check("/page.js", "text/javascript; charset=utf-8", "//").await;
    check("/page.css", "text/css; charset=utf-8", "/*").await;
    check("/metrics", "application/openmetrics-text", "# EOF").await;
    check("/healthz", "text/plain; charset=utf-8", "ok\n").await;
    check("/readyz", "text/plain; charset=utf-8", "ready\n").await;
    check(
        "/api/v1/report",
        "application/json",
        "{\"v\":0,\"pod\":\"a\"",
    )
    .await;
}

#[tokio::test]
async fn the_leaders_json_has_the_fields_that_the_page_reads() {
    let tasks = Tasks::here();
    let address = serving(&Pod::leading(&clock()), &tasks).await;
    let (_, plan) = get_json(address, "/api/v1/plan?pretty").await;
    assert_eq!(
        keys(&plan),
        [
            "acts",
            "advice",
            "arrivalsPerSecond",
            "conditions",
            "inFlight",
            "leadTimeSeconds",
            "leader",
            "leaderChanges",
            "mode",
            "now",
            "plan",
            "replicas",
            "requests",
            "shadows",
            "sloViolations",
            "speed",
            "term",
            "version",
            "workload",
        ]
    );
    assert_eq!(
        keys(&plan["replicas"]),
        ["max", "min", "ready", "spec", "starting", "unknown"]
    );
    assert_eq!(keys(&plan["plan"]["reasons"][0]), ["step", "text"]);
    assert_eq!(
        keys(&plan["shadows"][0]),
        ["desired", "name", "ready", "sloViolations"]
    );
    let (_, history) = get_json(address, "/api/v1/history").await;
    let rows = history["at"].as_array().expect("a column").len();
    for column in ["arrivals", "expected", "desired", "ready"] {
        let length = history[column].as_array().expect("a column").len();
        assert_eq!(length, rows, "{column}");
    }
    let shadow = &history["shadows"][0];
    assert_eq!(shadow["desired"].as_array().map(Vec::len), Some(rows));
    let (_, forecast) = get_json(address, "/api/v1/forecast").await;
    assert_eq!(
        keys(&forecast["points"][0]),
        ["at", "lower", "point", "upper"]
    );
    assert_eq!(keys(&forecast["seasons"][0]["period"]), ["nanos", "secs"]);
    let (_, decisions) = get_json(address, "/api/v1/decisions").await;
    assert_eq!(
        keys(&decisions[0]),
        ["acted", "at", "from", "reasons", "term", "to"]
    );
}

#[tokio::test]
async fn what_was_learnt_is_told_in_numbers() {
    let tasks = Tasks::here();
    let address = serving(&Pod::leading(&clock()), &tasks).await;
    let (_, plan) = get_json(address, "/api/v1/plan").await;
    let advice = &plan["advice"];
    assert_eq!(
        keys(advice),
        [
            "candidate",
            "compared",
            "late",
            "need",
            "podHours",
            "podRps",
            "rate"
        ]
    );
    let candidate = &advice["candidate"];
    assert_eq!(keys(candidate), ["drain", "headroom", "hold", "sight"]);
    assert_eq!(candidate["sight"], "season");
    assert_eq!(keys(&candidate["hold"]), ["nanos", "secs"]);
}

#[tokio::test]
async fn a_pod_that_is_not_ready_says_why() {
    let tasks = Tasks::here();
    let pod = Pod::leading(&clock());
    pod.is_ready.store(false, Ordering::SeqCst);
    let answer = get(serving(&pod, &tasks).await, "/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body, "the server does not answer yet\n");
}

#[tokio::test]
async fn a_follower_asks_the_leader() {
    let tasks = Tasks::here();
    let leader = serving(&Pod::leading(&clock()), &tasks).await;
    let follower = serving(&Pod::of(None, Some(leader)), &tasks).await;
    for path in ["plan", "decisions", "history", "forecast"] {
        let (status, value) = get_json(follower, &format!("/api/v1/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
    }
    let (_, plan) = get_json(follower, "/api/v1/plan").await;
    assert_eq!(plan["workload"], "inference/bert-intent-detection");
    // Its own report stays its own, and so does the page.
    assert_eq!(get(follower, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_question_is_passed_on_once_at_most() {
    let tasks = Tasks::here();
    let end = serving(&Pod::of(None, None), &tasks).await;
    // Both take the next for the leader; the second must not ask on.
    let second = serving(&Pod::of(None, Some(end)), &tasks).await;
    let first = serving(&Pod::of(None, Some(second)), &tasks).await;
    let (status, body) = get_json(first, "/api/v1/forecast").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let expected = format!("the leader at {second} answered 503 Service Unavailable");
    assert_eq!(body["error"], expected);
}

#[tokio::test]
async fn without_a_leader_the_answer_says_so() {
    let tasks = Tasks::here();
    let nobody = serving(&Pod::of(None, None), &tasks).await;
    let (status, body) = get_json(nobody, "/api/v1/forecast").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let error = body["error"].as_str().expect("text");
    assert!(error.starts_with("no leader is known"), "{error}");

    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    let follower = serving(&Pod::of(None, Some(address)), &tasks).await;
    let (status, body) = get_json(follower, "/api/v1/forecast").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let error = body["error"].as_str().expect("text");
    assert!(error.starts_with("cannot connect to the leader"), "{error}");
}

#[tokio::test]
async fn without_a_leader_any_pod_says_what_is_wrong_in_place_of_a_plan() {
    let tasks = Tasks::here();
    let nobody = serving(&Pod::of(None, None), &tasks).await;
    let (status, plan) = get_json(nobody, "/api/v1/plan").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&plan["plan"], &plan["leader"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(plan["conditions"][0]["kind"], "cluster");
    assert_eq!(plan["conditions"].as_array().map(Vec::len), Some(1));

    // One that is known and does not lead, or does not answer, is a condition of its own.
    let follower = serving(&Pod::of(None, Some(nobody)), &tasks).await;
    let (status, plan) = get_json(follower, "/api/v1/plan").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(plan["conditions"][1]["kind"], "leader");
    let text = format!("the leader at {nobody} answered 503 Service Unavailable");
    assert_eq!(plan["conditions"][1]["text"], text);
}

#[tokio::test]
async fn a_silent_leader_is_given_up_on() {
    let tasks = Tasks::here();
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound");
    let follower = serving(&Pod::of(None, Some(address)), &tasks).await;
    let (status, body) = get_json(follower, "/api/v1/forecast").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let expected = format!("the leader at {address} gave no answer within 2s");
    assert_eq!(body["error"], expected);
}

#[tokio::test]
async fn drained_is_answered_when_nothing_is_in_flight_any_more() {
    let tasks = Tasks::here();
    let pod = Pod::leading(&clock());
    let address = serving(&pod, &tasks).await;
    let (answer, ()) = tokio::join!(get(address, "/api/v1/drained"), async {
        pod.is_asked.notified().await;
        assert!(!pod.has_drained.load(Ordering::SeqCst));
        pod.may_end.notify_one();
    });
    assert!(pod.has_drained.load(Ordering::SeqCst));
    assert_eq!(
        (answer.status, &*answer.body),
        (StatusCode::OK, &b"drained\n"[..])
    );
}

#[tokio::test]
async fn a_drain_goes_on_when_the_asker_gives_up() {
    let tasks = Tasks::here();
    let pod = Pod::leading(&clock());
    let address = serving(&pod, &tasks).await;
    tokio::select! {
        _answer = get(address, "/api/v1/drained") => panic!("nothing has drained"),
        () = pod.is_asked.notified() => {}
    }
    pod.may_end.notify_one();
    pod.drained.notified().await;
}

#[tokio::test]
async fn neither_a_browser_nor_a_head_drains_a_pod() {
    let tasks = Tasks::here();
    let address = serving(&Pod::leading(&clock()), &tasks).await;
    for header in [
        ("sec-fetch-mode", "no-cors"),
        ("origin", "http://elsewhere"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("referer", "http://elsewhere/"),
    ] {
        let answer = send(address, Method::GET, "/api/v1/drained", &[header]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{header:?}");
    }
    let answer = send(address, Method::HEAD, "/api/v1/drained", &[]).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn what_is_not_there_and_what_would_change_things_is_refused() {
    let tasks = Tasks::here();
    let address = serving(&Pod::leading(&clock()), &tasks).await;
    for path in ["/nothing", "/api/v1/drain", "/page/page.js", "//"] {
        let (status, body) = get_json(address, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body["error"], format!("no such path: {path}"));
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = send(address, method.clone(), "/api/v1/plan", &[]).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    let answer = send(address, Method::HEAD, "/api/v1/plan", &[]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_crowd_of_connections_is_bounded_and_leaves_room_when_it_goes() {
    let tasks = Tasks::here();
    let address = serving(&Pod::leading(&clock()), &tasks).await;
    let mut crowd = Vec::new();
    for _connection in 0..MOST_CONNECTIONS {
        crowd.push(TcpStream::connect(address).await.expect("listens"));
    }
    // Accepted in order, so the crowd is inside when this one is turned away: it reads the end, or a reset.
    let late = TcpStream::connect(address).await.expect("listens");
    late.readable().await.expect("readable");
    assert!(!matches!(late.try_read(&mut [0]), Ok(1..)));
    drop(crowd);
    // The places are given back one by one as the server notices.
    loop {
        let tcp = TcpStream::connect(address).await.expect("listens");
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
            .await
            .expect("HTTP");
        let request = Request::new(Empty::<Bytes>::new());
        let is_answered = tokio::select! {
            answer = requests.send_request(request) => answer.is_ok(),
            _turned_away = connection => false,
        };
        if is_answered {
            break;
        }
    }
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    for text in [
        include_str!("page/index.html"),
        include_str!("page/page.js"),
        include_str!("page/page.css"),
    ] {
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http:", "https:", "src=\"//", "@import", "innerHTML"] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    }
}

#[tokio::test]
#[ignore = "serves the page with a made-up fleet until it is interrupted, to look at it"]
async fn the_page_to_look_at() {
    let tasks = Tasks::here();
    let clock = clock();
    let address = serving(&Pod::leading(&clock), &tasks).await;
    println!("http://{address}/");
    std::future::pending::<()>().await;
}
