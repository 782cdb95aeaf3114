use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;

use super::*;
use crate::clock::Timestamp;

type Client = SendRequest<Full<bytes::Bytes>>;

fn clock(speed: f64) -> Clock {
    Clock::scaled(Timestamp::from_secs(0), speed)
}

/// One second a request when alone: 200 ms for the first token, then 80 more.
fn settings(slots: usize) -> Settings {
    Settings {
        slots,
        prefill: Duration::from_millis(200),
        time_per_token: Duration::from_millis(10),
        batch_slowdown: 0.0,
        tokens: 81,
        pieces: 4,
        cold_start: Duration::ZERO,
    }
}

/// Starts a server in `tasks` and waits until it listens.
async fn start(settings: Settings, clock: &Clock, tasks: &Tasks) -> (SocketAddr, Gauge) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let server = ModelServer::bind(any, settings, clock.clone()).expect("loopback has a free port");
    let (address, mut gauge) = (server.address(), server.gauge());
    tasks.spawn(async move {
        let Err(error) = server.run().await;
        panic!("{error}");
    });
    assert!(gauge.listens().await);
    (address, gauge)
}

async fn connect(address: SocketAddr, tasks: &Tasks) -> Client {
    let stream = TcpStream::connect(address).await.expect("it listens");
    shake_hands(stream, tasks).await
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    tasks: &Tasks,
) -> Client {
    let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a handshake has nothing to fail");
    tasks.spawn(async move { drop(connection.await) });
    client
}

fn ask(json: &'static str) -> Request<Full<bytes::Bytes>> {
    Request::post("/v1/completions")
        .header("host", "model")
        .body(Full::from(json))
        .expect("a good request")
}

/// Sends a request and reads its whole answer.
async fn complete(client: &mut Client, json: &'static str) -> (http::response::Parts, String) {
    let response = client.send_request(ask(json)).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    (parts, String::from_utf8_lossy(&body).into_owned())
}

fn queued_millis(parts: &http::response::Parts) -> u64 {
    let header = parts.headers["x-queue-millis"].to_str().expect("digits");
    header.parse().expect("digits")
}

#[test]
fn the_nominal_rate_counts_a_full_batch() {
    let settings = Settings {
        batch_slowdown: 0.5,
        ..settings(4)
    };
    assert_eq!(settings.token_time(0), Duration::from_millis(10));
    assert_eq!(settings.token_time(3), Duration::from_millis(15));
    assert_eq!(settings.service_time(), Duration::from_millis(1_400));
    assert!((settings.requests_per_second() - 4.0 / 1.4).abs() < 1e-9);
    let default = Settings::default();
    let rate = default.requests_per_second();
    assert!((3.9..4.1).contains(&rate), "the documented rate: {rate}");
}

/// On paused time and connections in memory, so that the machine has no say in how long it takes.
#[tokio::test(start_paused = true)]
async fn a_server_with_a_queue_completes_its_nominal_rate() {
    let tasks = Tasks::here();
    let clock = clock(1.0);
    let settings = Settings {
        batch_slowdown: 0.5,
        ..settings(4)
    };
    let batch = Batch::new(settings.slots);
    // 100 requests for 4 slots, all at once: 25 rounds of 1.4 s.
    let began = clock.instant();
    let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..100 {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let server = converse(
            there,
            Arc::clone(&batch),
            settings.clone(),
            clock.clone(),
            tasks.handle(),
        );
        tasks.spawn(server);
        let mut client = shake_hands(here, &tasks).await;
        let done = done.clone();
        tasks.spawn(async move {
            let (parts, body) = complete(&mut client, r#"{"stream":true}"#).await;
            assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
            done.send(queued_millis(&parts)).expect("the test waits");
        });
    }
    drop(done);
    let mut queued = Vec::new();
    while let Some(millis) = ended.recv().await {
        queued.push(millis);
    }
    let took = clock.instant().since(began).as_secs_f64();
    assert_eq!(
        (queued.len(), batch.running(), batch.waiting()),
        (100, 0, 0)
    );
    let nominal = 100.0 / settings.requests_per_second();
    // A timer has a grain of a millisecond.
    assert!(
        (took - nominal).abs() < 0.01,
        "{took} s instead of {nominal} s"
    );
    // The longest wait is 24 rounds, as the schedule has it.
    assert_eq!(queued.iter().max(), Some(&33_600));
}

#[tokio::test]
async fn a_stream_has_the_first_token_after_the_prefill_and_the_rest_in_parts() {
    let tasks = Tasks::here();
    let clock = clock(5.0);
    let (address, _) = start(settings(2), &clock, &tasks).await;
    let mut client = connect(address, &tasks).await;
    let began = clock.instant();
    let response = client
        .send_request(ask(r#"{"max_tokens":31,"stream":true}"#))
        .await
        .expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.expect("a whole body").into_data().expect("data");
        let tokens = String::from_utf8_lossy(&data).matches(" token").count();
        pieces.push((tokens, clock.instant().since(began).as_secs_f64()));
    }
    let tokens: Vec<usize> = pieces.iter().map(|(tokens, _)| *tokens).collect();
    assert_eq!(tokens, [1, 10, 10, 10]);
    for ((_, at), due) in pieces.iter().zip([0.2, 0.3, 0.4, 0.5]) {
        assert!(*at >= due, "{pieces:?}");
    }
}

#[tokio::test]
async fn a_plain_answer_is_one_json_and_bad_requests_are_refused() {
    let tasks = Tasks::here();
    let clock = clock(50.0);
    let (address, _) = start(settings(2), &clock, &tasks).await;
    let mut client = connect(address, &tasks).await;
    let (parts, body) = complete(&mut client, r#"{"max_tokens":3}"#).await;
    assert_eq!(parts.status, 200);
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(json["choices"][0]["text"], " token token token");
    let (parts, body) = complete(&mut client, r#"{"max_tokens":"many"}"#).await;
    assert_eq!(parts.status, 400);
    assert!(body.contains("many"), "{body}");
    for (path, status) in [
        ("/health", 200),
        ("/v1/models", 404),
        ("/v1/completions", 405),
    ] {
        let request = Request::get(path)
            .header("host", "model")
            .body(Full::default())
            .expect("a good request");
        let response = client.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), status, "{path}");
        response.collect().await.expect("a whole body");
    }
}

#[tokio::test]
async fn connections_are_refused_until_the_weights_are_loaded() {
    let tasks = Tasks::here();
    let clock = clock(50.0);
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let slow = Settings {
        cold_start: Duration::from_secs(20),
        ..settings(2)
    };
    let server = ModelServer::bind(any, slow, clock.clone()).expect("a free port");
    let (address, mut gauge) = (server.address(), server.gauge());
    let began = clock.instant();
    tasks.spawn(async move {
        let Err(error) = server.run().await;
        panic!("{error}");
    });
    let error = TcpStream::connect(address).await.expect_err("it loads");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(gauge.listens().await);
    assert!(clock.instant().since(began) >= Duration::from_secs(20));
    connect(address, &tasks).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot() {
    let tasks = Tasks::here();
    let clock = clock(1.0);
    // Two minutes of life for a request: none of them ends by itself.
    let slow = Settings {
        prefill: Duration::from_secs(120),
        ..settings(1)
    };
    let (address, gauge) = start(slow, &clock, &tasks).await;
    let runs = Tasks::here();
    let mut first = connect(address, &runs).await;
    let (answered, answer) = tokio::sync::oneshot::channel();
    runs.spawn(async move {
        let response = first.send_request(ask(r#"{"stream":true}"#)).await;
        answered.send(response.is_ok()).expect("the test waits");
        std::future::pending::<()>().await;
    });
    assert!(answer.await.expect("headers come with the slot"));
    let mut second = connect(address, &tasks).await;
    let (taken, took) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        let response = second.send_request(ask(r#"{"stream":true}"#)).await;
        taken.send(response.is_ok()).expect("the test waits");
        std::future::pending::<()>().await;
    });
    while gauge.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gauge.running(), 1);
    drop(runs);
    assert!(took.await.expect("the second gets the slot"));
    assert_eq!((gauge.running(), gauge.waiting()), (1, 0));
}

#[tokio::test]
async fn stopping_cuts_what_is_in_flight_and_refuses_the_next() {
    let tasks = Tasks::here();
    let clock = clock(1.0);
    let slow = Settings {
        time_per_token: Duration::from_secs(120),
        prefill: Duration::ZERO,
        ..settings(1)
    };
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let server = ModelServer::bind(any, slow, clock).expect("a free port");
    let (address, mut gauge) = (server.address(), server.gauge());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ended, end) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        let result = server.run_until(async { drop(stopped.await) }).await;
        ended.send(result.is_ok()).expect("the test waits");
    });
    assert!(gauge.listens().await);
    let mut client = connect(address, &tasks).await;
    let response = client
        .send_request(ask(r#"{"stream":true}"#))
        .await
        .expect("an answer");
    let mut body = response.into_body();
    body.frame().await.expect("a first token").expect("data");
    stop.send(()).expect("the server runs");
    body.frame()
        .await
        .expect("the stream does not end well")
        .expect_err("it is cut");
    assert!(end.await.expect("the server ends"));
    let error = TcpStream::connect(address).await.expect_err("it is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_call_of_grpc_is_a_message_for_each_piece_and_a_status() {
    let tasks = Tasks::here();
    let clock = clock(50.0);
    let (address, _gauge) = start(settings(4), &clock, &tasks).await;
    for (json, messages, status) in [
        (r#"{"max_tokens": 9}"#, 4, "0"),
        (r#"{"max_tokens": "many"}"#, 0, "3"),
    ] {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(tasks.handle(), TokioIo::new(stream))
                .await
                .expect("it speaks HTTP/2");
        tasks.spawn(async move { drop(connection.await) });
        let mut message = vec![0];
        message.extend(u32::try_from(json.len()).expect("short").to_be_bytes());
        message.extend(json.as_bytes());
        let request = Request::post(format!("http://{address}/sidescale.demo.Model/Complete"))
            .body(Full::new(bytes::Bytes::from(message)))
            .expect("a good request");
        let (parts, body) = client
            .send_request(request)
            .await
            .expect("an answer")
            .into_parts();
        assert_eq!(parts.headers["content-type"], "application/grpc+json");
        let body = body.collect().await.expect("a whole body");
        let trailers = body.trailers().cloned().unwrap_or(parts.headers);
        assert_eq!(trailers["grpc-status"], status);
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        assert_eq!(body.matches("text_completion").count(), messages, "{body}");
    }
}
