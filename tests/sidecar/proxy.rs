//! Requests through the proxy: bytes, chunks, faults, readiness.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use sidescale::proxy::{Health, Latencies, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::model_server::{LARGE_CHUNK, ModelServer};
use crate::pod::{Client, Pod, chunk, empty, read, within};

#[tokio::test]
async fn a_stream_passes_chunk_by_chunk_as_it_comes() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut tokens = server.expect_stream();
    let mut client = pod.client().await;
    let response = client.begin("/stream").await.expect("a head before a body");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    for token in 0..20 {
        // The next token is not made before this one has arrived: a proxy that held one back would stop here.
        let event = format!("data: {token}\n\n");
        tokens
            .send_data(Bytes::from(event.clone()))
            .await
            .expect("the proxy reads");
        let arrived = chunk(&mut body).await.expect("more").expect("whole");
        assert_eq!(arrived, event);
        assert_eq!(pod.accounts.in_flight(), 1);
    }
    drop(tokens);
    assert!(chunk(&mut body).await.is_none());
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (1, 0));
    assert!(reading.frames_out >= 20, "{reading:?}");
    let took = pod.accounts.latencies();
    assert_eq!((took.first_byte.count(), took.service.count()), (1, 1));
    assert!(took.first_byte.sum() <= took.service.sum(), "{took:?}");
}

#[tokio::test]
async fn bodies_pass_byte_for_byte_both_ways() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let sent: Bytes = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    let known = client.post("/echo", sent.clone()).await.expect("answered");
    assert_eq!(known.body, sent);
    let pieces: Vec<_> = sent
        .chunks(10_007)
        .map(|piece| Ok::<_, hyper::Error>(Frame::data(sent.slice_ref(piece))))
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(pieces)).boxed();
    let response = client.send(Request::post("/echo"), body).await;
    let chunked = read(response.expect("answered")).await.expect("whole");
    assert_eq!(chunked.body, sent);
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(reading.bytes_out, 2 * sent.len() as u64);
    assert_eq!((reading.completions, reading.statuses[1]), (2, 2));
}

/// hyper passes trailers on only if `Trailer` announces them and `TE` takes them; the proxy must keep both.
#[tokio::test]
async fn trailers_pass_both_ways() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "42".parse().expect("valid"));
    let frames = [
        Ok::<_, hyper::Error>(Frame::data(Bytes::from("body"))),
        Ok(Frame::trailers(trailers.clone())),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let request = Request::post("/echo")
        .header("te", "trailers")
        .header("trailer", "x-checksum");
    let response = client.send(request, body).await.expect("answered");
    let answer = read(response).await.expect("whole");
    assert_eq!(answer.body, "body");
    assert_eq!(answer.trailers, Some(trailers));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_upstream() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let (mut waiting, mut abandoned) = (server.waiting(), server.abandoned());
    let mut client = pod.client().await;
    let leaves = async {
        within(waiting.wait_for(|count| *count == 1))
            .await
            .expect("the server lives");
    };
    tokio::select! {
        _ = client.begin("/hang") => panic!("nobody answers"),
        () = leaves => {}
    }
    assert_eq!(pod.accounts.in_flight(), 1);
    client.leave();
    within(abandoned.wait_for(|count| *count == 1))
        .await
        .expect("the server lives");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.arrivals, reading.client_gone), (1, 1));
    assert_eq!(pod.accounts.latencies(), Latencies::default());
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_it_upstream() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut tokens = server.expect_stream();
    let mut client = pod.client().await;
    let mut body = client.begin("/stream").await.expect("a head").into_body();
    tokens.send_data(Bytes::from("one")).await.expect("read");
    chunk(&mut body).await.expect("more").expect("whole");
    client.leave();
    drop(body);
    let ended = async { while tokens.send_data(Bytes::from("more")).await.is_ok() {} };
    within(ended).await;
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.client_gone), (0, 1));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_breaks_the_response_off() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut tokens = server.expect_stream();
    let mut client = pod.client().await;
    let mut body = client.begin("/stream").await.expect("a head").into_body();
    tokens.send_data(Bytes::from("one")).await.expect("read");
    chunk(&mut body).await.expect("more").expect("whole");
    tokens.abort("the model crashed".into());
    let cut = chunk(&mut body).await.expect("an error, not an end");
    assert!(cut.is_err(), "{cut:?}");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.upstream_failed), (0, 1));
}

#[tokio::test]
async fn before_the_server_listens_requests_get_503_and_the_pod_is_unready() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let pod = Pod::start(address, |_settings| {});
    assert!(!pod.proxy.is_ready());
    let early = pod.client().await.get("/").await.expect("answered");
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(early.headers.contains_key("retry-after"));
    assert!(!pod.proxy.is_ready());
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.refused, reading.statuses[4]), (1, 1));
    let _server = ModelServer::start_at(address).await;
    pod.becomes(Health::Ready).await;
    assert!(pod.proxy.is_ready());
    let later = pod.client().await.get("/").await.expect("answered");
    assert_eq!(later.body, "hello");
}

#[tokio::test]
async fn a_server_that_dies_costs_502_at_once_and_readiness() {
    let server = ModelServer::start().await;
    let address = server.address;
    let pod = Pod::ready(address).await;
    let mut client = pod.client().await;
    let mut waiting = server.waiting();
    let dies = async {
        within(waiting.wait_for(|count| *count == 1))
            .await
            .expect("the server lives");
        server.die();
    };
    let (in_flight, ()) = tokio::join!(client.get("/hang"), dies);
    assert_eq!(in_flight.expect("answered").status, StatusCode::BAD_GATEWAY);
    pod.becomes(Health::Down).await;
    assert!(!pod.proxy.is_ready());
    let next = client
        .get("/")
        .await
        .expect("the client's connection lives");
    assert_eq!(next.status, StatusCode::BAD_GATEWAY);
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.upstream_failed, reading.statuses[4]), (2, 2));
    let _reborn = ModelServer::start_at(address).await;
    pod.becomes(Health::Ready).await;
    let again = client.get("/").await.expect("answered");
    assert_eq!(again.status, StatusCode::OK);
}

#[tokio::test]
async fn readiness_by_path_follows_the_servers_own_health() {
    let server = ModelServer::start().await;
    server.set_healthy(false);
    let pod = Pod::start(server.address, |settings| {
        settings.probe = "http:/health".parse::<Probe>().expect("a probe");
    });
    // Unready is not closed: a server that answers its own 503 knows best.
    let answer = pod.client().await.get("/").await.expect("answered");
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!pod.proxy.is_ready());
    server.set_healthy(true);
    pod.becomes(Health::Ready).await;
    server.set_healthy(false);
    pod.becomes(Health::Down).await;
}

#[tokio::test]
async fn health_checks_are_carried_and_not_counted() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let health = client.get("/health?verbose=1").await.expect("answered");
    assert_eq!(health.body, "health");
    assert_eq!(pod.reading().arrivals, 0);
    client.get("/v1/models").await.expect("answered");
    assert_eq!(pod.reading().arrivals, 1);
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_is_in_flight() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let request = Request::get("/upgrade")
        .header("connection", "upgrade")
        .header("upgrade", "echo");
    let mut response = client.send(request, empty()).await.expect("answered");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = within(hyper::upgrade::on(&mut response))
        .await
        .expect("switched");
    let mut tunnel = hyper_util::rt::TokioIo::new(upgraded);
    for word in ["ping", "pong"] {
        tunnel.write_all(word.as_bytes()).await.expect("written");
        let mut echoed = [0; 4];
        within(tunnel.read_exact(&mut echoed)).await.expect("read");
        assert_eq!(&echoed, word.as_bytes());
    }
    assert_eq!(pod.accounts.in_flight(), 1);
    tunnel.shutdown().await.expect("closed");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.bytes_out), (1, 8));
}

/// The server, the proxy and the client share this process, so its memory bounds the proxy's from above.
#[tokio::test]
async fn two_hundred_megabytes_pass_in_constant_memory() {
    const CHUNKS: u64 = 3_200;
    const BOUND: u64 = 48 << 20;
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let before = resident_bytes();
    let mut client = pod.client().await;
    let response = client.begin(&format!("/large?{CHUNKS}")).await;
    let mut body = response.expect("a head").into_body();
    let (mut read, mut ahead, mut resident) = (0, 0, 0);
    while let Some(piece) = chunk(&mut body).await {
        read += piece.expect("whole").len() as u64;
        // What the server has made and the client has not read lies in sockets and in the proxy.
        ahead = ahead.max(server.produced() - read);
        resident = resident.max(resident_bytes());
    }
    assert_eq!(read, CHUNKS * LARGE_CHUNK as u64);
    assert!(ahead < BOUND, "{ahead} bytes were under way at once");
    let grown = resident.saturating_sub(before);
    assert!(grown < BOUND, "memory grew by {grown} bytes");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status.split(' ').nth(1).expect("resident pages");
    4_096 * pages.parse::<u64>().expect("a number")
}

/// Nothing but the proxy's own thread works while these requests pass: the control half may be stuck.
#[test]
fn requests_pass_while_every_other_thread_is_blocked() {
    use std::io::{Read as _, Write as _};

    use sidescale::clock::Clock;
    use sidescale::lifecycle::Lifecycle;
    use sidescale::proxy::{Accounts, Settings, TrafficThread, Upstream, serve};

    let served = std::sync::Arc::new(AtomicU64::new(0));
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = upstream.local_addr().expect("bound");
    let counter = std::sync::Arc::clone(&served);
    // A server of plain blocking sockets.
    std::thread::spawn(move || {
        for stream in upstream.incoming() {
            let (mut stream, counter) = (stream.expect("accepted"), counter.clone());
            std::thread::spawn(move || {
                let mut seen = [0; 1_024];
                while stream.read(&mut seen).is_ok_and(|bytes| bytes > 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).expect("written");
                }
            });
        }
    });
    let traffic = TrafficThread::start().expect("a thread");
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let clock = control.block_on(async { Clock::real() });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let settings = Settings::new(Upstream::new(address));
    let accounts = std::sync::Arc::new(Accounts::new(clock.clone()));
    let proxy = serve(
        settings,
        listener,
        accounts.clone(),
        Lifecycle::default(),
        clock.clone(),
        traffic.tasks(),
    )
    .expect("the proxy starts");
    // From here on no runtime but the traffic thread's is driven.
    let mut stream = std::net::TcpStream::connect(proxy.address()).expect("it accepts");
    for _request in 0..1_000 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
            .expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("answered");
            answer.push(byte[0]);
        }
    }
    assert!(served.load(Ordering::SeqCst) >= 1_000);
    let reading = accounts.read(clock.instant());
    assert_eq!((reading.arrivals, reading.failures()), (1_000, 0));
}

/// Dropping the tasks is a kill: what is in flight ends at once, on both sides.
#[tokio::test]
async fn a_killed_proxy_leaves_nothing_behind() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let (mut waiting, mut abandoned) = (server.waiting(), server.abandoned());
    let address = pod.address();
    let mut client = pod.client().await;
    let killed = async {
        within(waiting.wait_for(|count| *count == 1))
            .await
            .expect("the server lives");
        drop(pod);
    };
    let (cut, ()) = tokio::join!(client.get("/hang"), killed);
    assert!(cut.is_err(), "{cut:?}");
    within(abandoned.wait_for(|count| *count == 1))
        .await
        .expect("the server lives");
    assert!(Client::connect(address).await.is_err());
}
