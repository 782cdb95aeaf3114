//! A pod whose requests pass by the sidecar: its server's own metrics are its load.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use futures_util::FutureExt as _;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::engine::Address;
use crate::lifecycle::Phase;

/// What the server says while it is not itself.
const NOT_FOUND: u64 = u64::MAX;

/// A server that says what it is told to.
struct Server {
    address: SocketAddr,
    running: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    _tasks: Tasks,
}

impl Server {
    async fn start(running: u64) -> Self {
        let free: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = tokio::net::TcpListener::bind(free)
            .await
            .expect("a free port");
        let (tasks, children) = (Tasks::here(), Tasks::here());
        let server = Self {
            address: listener.local_addr().expect("bound"),
            running: Arc::new(AtomicU64::new(running)),
            looks: Arc::default(),
            _tasks: tasks.clone(),
        };
        let (running, looks) = (Arc::clone(&server.running), Arc::clone(&server.looks));
        tasks.spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                let (running, looks) = (Arc::clone(&running), Arc::clone(&looks));
                let service = service_fn(move |request| {
                    let answer = answer(&request, running.load(SeqCst), &looks);
                    std::future::ready(Ok::<_, Infallible>(answer))
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                children.spawn(connection.map(drop));
            }
        });
        server
    }

    fn says(&self, running: u64) {
        self.running.store(running, SeqCst);
    }

    /// Whether it was looked at `more` times after it had been so `before` times.
    fn was_seen(&self, before: u64, more: u64) -> bool {
        self.looks.load(SeqCst) >= before + more
    }
}

fn answer(request: &Request<Incoming>, running: u64, looks: &AtomicU64) -> Response<Full<Bytes>> {
    assert_eq!(request.uri().path(), "/metrics");
    looks.fetch_add(1, SeqCst);
    let text = format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting 1\n");
    let text = if running == 0 {
        "vllm:num_requests_running 0\n".to_owned()
    } else {
        text
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    if running == NOT_FOUND {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

/// A passive pod in front of which nothing stands, with a grace period that no test outlasts.
async fn passive(name: &str, server: &Server) -> Setting {
    let upstream = proxy::Upstream::new(server.address);
    let policy = format!("dataPath: passive\n{POLICY}");
    Setting::changed(
        name,
        |_| Action::Pass,
        None,
        &policy,
        |config| {
            config.routes[0].upstream = upstream;
            config.grace = Duration::from_secs(6_000);
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passive_pod_reports_what_its_server_says_and_drains_when_that_has_nothing_more() {
    let server = Server::start(4).await;
    let setting = passive("passive", &server).await;
    let running = &setting.running;
    let knows = |in_flight| {
        move |shared: &Shared| {
            let report = shared.report();
            !report.load_unknown && report.in_flight == in_flight && report.ready
        }
    };
    setting.until("it knows its load", knows(5)).await;
    let metrics = running.source().metrics().text;
    assert!(
        metrics.contains("\nsidescale_server_requests_running 4"),
        "{metrics}"
    );
    // Twice the target of eight, and more.
    server.says(16);
    setting.until("it knows of more", knows(17)).await;
    let told = running.shared.overrun.notified();
    setting
        .clock
        .timeout(Duration::from_secs(600), told)
        .await
        .expect("the leader is told");
    let started = setting.clock.instant();
    let mut drain = pin!(running.drain());
    let before = server.looks.load(SeqCst);
    tokio::select! {
        () = &mut drain => panic!("it drained with 17 in flight"),
        () = setting.until("it is looked at", |_| server.was_seen(before, 6)) => {}
    }
    assert_eq!(
        (running.shared.phase(), running.is_ready()),
        (Phase::Draining, false)
    );
    server.says(0);
    drain.await;
    let took = setting.clock.instant().since(started);
    assert!(took < Duration::from_secs(600), "{took:?}");
    running.drain().now_or_never().expect("it is drained");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passive_pod_whose_server_says_nothing_knows_no_load_and_says_why() {
    let server = Server::start(NOT_FOUND).await;
    let setting = passive("silent", &server).await;
    let shared = &setting.running.shared;
    let is_blind = |shared: &Shared| shared.faults.text(Fault::Server).is_some();
    setting.until("a fault", is_blind).await;
    let text = shared.faults.text(Fault::Server).unwrap_or_default();
    assert!(
        text.contains("404") && text.contains("--server-metrics"),
        "{text}"
    );
    let report = shared.report();
    assert!(report.load_unknown && report.ready, "{report:?}");
    let before = server.looks.load(SeqCst);
    setting
        .until("it is looked at", |_| server.was_seen(before, 3))
        .await;
    let later = shared.report().total;
    assert_eq!(later, report.total, "what nobody saw is missing, not zero");
    server.says(2);
    let sees = |shared: &Shared| {
        let report = shared.report();
        report.total.pod_seconds > later.pod_seconds && !report.load_unknown
    };
    setting.until("it knows", sees).await;
    assert_eq!(shared.faults.text(Fault::Server), None);
    server.says(NOT_FOUND);
    setting.until("a fault again", is_blind).await;
    std::fs::write(&setting.policy, POLICY).expect("it can be written");
    let counts_itself = |shared: &Shared| !shared.report().load_unknown;
    setting.until("it counts for itself", counts_itself).await;
    let is_well = |shared: &Shared| shared.faults.text(Fault::Server).is_none();
    setting.until("nobody reads the server", is_well).await;
    let shown = setting.running.source().metrics().text;
    assert!(!shown.contains("sidescale_server_info"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_routes_is_read_where_the_flag_says() {
    let server = Server::start(3).await;
    let url: Address = format!("http://{}/metrics", server.address)
        .parse()
        .expect("a URL");
    for given in [None, Some(url)] {
        let is_given = given.is_some();
        let policy = format!("dataPath: passive\n{POLICY}");
        let setting = Setting::changed(
            "flag",
            |_| Action::Pass,
            None,
            &policy,
            |config| {
                config.routes.clear();
                config.server_metrics = given;
            },
        )
        .await;
        let shared = &setting.running.shared;
        if is_given {
            let knows = |shared: &Shared| shared.report().in_flight == 4;
            setting.until("it knows its load", knows).await;
        } else {
            let is_blind = |shared: &Shared| shared.faults.text(Fault::Server).is_some();
            setting.until("a fault", is_blind).await;
            let text = shared.faults.text(Fault::Server).unwrap_or_default();
            assert!(text.contains("give --server-metrics URL"), "{text}");
        }
    }
}
