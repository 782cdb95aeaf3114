//! The way out: nothing that can be answered is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::Request;
use sidescale::lifecycle::Phase;
use sidescale::proxy::Health;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http2::{self, Server};
use crate::model_server::ModelServer;
use crate::pod::{Client, Pod, chunk, empty, read_until, within};

/// A propagation that no machine is too slow for: the test ends it by [`Pod::skip`].
const LONG: Duration = Duration::from_secs(3_600);

/// Clients that send all the time, obey `Connection: close` and never retry, as far as their endpoints still say so.
#[tokio::test]
async fn a_drain_loses_nothing_under_load() {
    let server = ModelServer::start().await;
    let pod = slow_to_propagate(server.address).await;
    let (address, answered) = (pod.address(), AtomicU64::new(0));
    // How often each client was told to close.
    let closed: [AtomicU64; 8] = Default::default();
    // The Service has forgotten this pod: no new request is sent to it.
    let forgotten = AtomicBool::new(false);
    let clients = closed.iter().map(async |closed| {
        while !forgotten.load(Ordering::SeqCst) {
            let mut client = Client::connect(address).await.expect("it accepts");
            let mut kept = true;
            while kept && !forgotten.load(Ordering::SeqCst) {
                let answer = client.post("/echo", "hello").await.expect("answered");
                assert_eq!(
                    (answer.status.as_u16(), &answer.body[..]),
                    (200, &b"hello"[..])
                );
                answered.fetch_add(1, Ordering::SeqCst);
                kept = !answer.headers.contains_key("connection");
            }
            closed.fetch_add(u64::from(!kept), Ordering::SeqCst);
        }
    });
    let script = async {
        while answered.load(Ordering::SeqCst) < 500 {
            tokio::task::yield_now().await;
        }
        pod.lifecycle.advance(Phase::Draining);
        let came_back = |closed: &AtomicU64| closed.load(Ordering::SeqCst) >= 20;
        while !closed.iter().all(came_back) {
            tokio::task::yield_now().await;
        }
        forgotten.store(true, Ordering::SeqCst);
    };
    tokio::join!(join_all(clients), script);
    pod.skip(LONG).await;
    within(pod.proxy.drain()).await;
    let reading = pod.reading();
    let answered = answered.into_inner();
    assert_eq!((reading.completions, reading.failures()), (answered, 0));
    assert_eq!((reading.in_flight, server.requests()), (0, answered));
}

#[tokio::test]
async fn a_draining_pod_is_unready_at_once_and_answers_on_until_endpoints_have_propagated() {
    let server = ModelServer::start().await;
    let pod = slow_to_propagate(server.address).await;
    let mut old = pod.client().await;
    old.get("/").await.expect("answered");
    let mut drain = Box::pin(pod.proxy.drain());
    assert!(drain.as_mut().now_or_never().is_none());
    assert!(!pod.proxy.is_ready() && pod.proxy.is_draining());
    // The task that drains has its turn.
    while old
        .get("/")
        .await
        .is_ok_and(|answer| !answer.headers.contains_key("connection"))
    {}
    pod.skip(LONG / 2).await;
    let late = pod.client().await.get("/").await.expect("answered");
    assert_eq!(late.headers["connection"], "close");
    assert_eq!(pod.lifecycle.phase(), Phase::Draining);
    pod.skip(LONG / 2).await;
    within(drain).await;
    assert_eq!(pod.lifecycle.phase(), Phase::Drained);
    assert!(Client::connect(pod.address()).await.is_err());
}

#[tokio::test]
async fn a_stream_that_began_before_the_drain_goes_to_its_end() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut tokens = server.expect_stream();
    let mut client = pod.client().await;
    let mut body = client.begin("/stream").await.expect("a head").into_body();
    let drain = pod.proxy.drain();
    let stream = async {
        closes_what_is_idle(&pod).await;
        for token in ["one", "two", "three"] {
            tokens.send_data(Bytes::from(token)).await.expect("read");
            assert_eq!(chunk(&mut body).await.expect("more").expect("whole"), token);
        }
        assert_eq!(pod.lifecycle.phase(), Phase::Draining);
        drop(tokens);
        assert!(chunk(&mut body).await.is_none());
    };
    within(async { tokio::join!(drain, stream) }).await;
    let reading = pod.reading();
    assert_eq!((reading.completions, reading.in_flight), (1, 0));
    // Nothing came in the moment after it, so the connection was closed.
    assert!(client.get("/").await.is_err());
}

/// Its head could not say that it is the last, and clients of HTTP/1.1 may not repeat what they send into a closing.
#[tokio::test]
async fn what_follows_a_stream_that_began_before_the_drain_is_answered_and_told() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let tokens = server.expect_stream();
    let mut client = pod.client().await;
    let mut body = client.begin("/stream").await.expect("a head").into_body();
    let drain = pod.proxy.drain();
    let next = async {
        closes_what_is_idle(&pod).await;
        drop(tokens);
        assert!(chunk(&mut body).await.is_none());
        let answer = client.get("/").await.expect("answered");
        assert_eq!(answer.headers["connection"], "close");
    };
    within(async { tokio::join!(drain, next) }).await;
    let reading = pod.reading();
    assert_eq!((reading.completions, reading.in_flight), (2, 0));
}

/// hyper #3792: graceful shutdown closes a kept connection although a request is already coming in on it.
#[tokio::test]
async fn a_request_that_is_coming_in_when_the_door_closes_is_answered() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    for used_before in [false, true] {
        let pod = if used_before {
            &pod
        } else {
            &Pod::ready(server.address).await
        };
        let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
        if used_before {
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
                .await
                .expect("written");
            read_until(&mut stream, "hello").await;
        }
        stream.write_all(b"GET / HT").await.expect("written");
        let drain = pod.proxy.drain();
        let finish = async {
            closes_what_is_idle(pod).await;
            stream
                .write_all(b"TP/1.1\r\nhost: m\r\n\r\n")
                .await
                .expect("written");
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .await
                .expect("answered and closed");
            answer
        };
        let ((), answer) = within(async { tokio::join!(drain, finish) }).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK"),
            "{used_before}: {answer:?}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

/// A client that has just connected sends in a moment, and its first request has not even been on the way yet.
#[tokio::test]
async fn a_new_connection_has_a_moment_for_its_first_request() {
    let server = ModelServer::start().await;
    let pod = Pod::start_at_speed(1.0, server.address, |settings| {
        settings.propagation = Duration::from_millis(50);
    });
    let request = b"GET / HTTP/1.1\r\nhost: m\r\n\r\n";
    let mut used = TcpStream::connect(pod.address()).await.expect("it accepts");
    used.write_all(request).await.expect("written");
    read_until(&mut used, "hello").await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    let first = async {
        // What is idle and was used is closed at once.
        assert_eq!(used.read(&mut [0]).await.expect("closed"), 0);
        stream.write_all(request).await.expect("written");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        read.expect("answered and closed");
        answer
    };
    let ((), answer) = within(async { tokio::join!(pod.proxy.drain(), first) }).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn idle_connections_are_closed_and_the_drain_ends() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut idle = TcpStream::connect(pod.address()).await.expect("it accepts");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
        .await
        .expect("written");
    read_until(&mut idle, "hello").await;
    let mut silent = TcpStream::connect(pod.address()).await.expect("it accepts");
    within(pod.proxy.drain()).await;
    for stream in [&mut idle, &mut silent] {
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.expect("closed");
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn many_may_ask_and_leave_and_the_drain_is_one() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    // A preStop hook that gives up waiting.
    assert!(pod.proxy.drain().now_or_never().is_none());
    within(join_all((0..5).map(|_asker| pod.proxy.drain()))).await;
    within(pod.proxy.drain()).await;
    assert_eq!(pod.lifecycle.phase(), Phase::Drained);
}

#[tokio::test]
async fn a_stream_without_end_holds_a_drain_up_to_the_grace_period() {
    let server = ModelServer::start().await;
    let pod = Pod::start(server.address, |settings| {
        settings.grace = Duration::from_secs(20);
    });
    let _tokens = server.expect_stream();
    let mut client = pod.client().await;
    let _body = client.begin("/stream").await.expect("a head").into_body();
    let asked = pod.clock.instant();
    within(pod.proxy.drain()).await;
    let took = pod.clock.instant().since(asked);
    assert!(took >= Duration::from_secs(20), "{took:?}");
    assert_eq!(pod.reading().in_flight, 1);
}

#[tokio::test]
async fn a_tunnel_holds_a_drain_up_until_it_ends() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let request = Request::get("/upgrade").header("connection", "upgrade");
    let request = request.header("upgrade", "echo");
    let mut response = client.send(request, empty()).await.expect("answered");
    let upgraded = within(hyper::upgrade::on(&mut response)).await;
    let mut tunnel = hyper_util::rt::TokioIo::new(upgraded.expect("switched"));
    let ends = async {
        closes_what_is_idle(&pod).await;
        tunnel.write_all(b"still here").await.expect("written");
        let mut echoed = [0; 10];
        tunnel.read_exact(&mut echoed).await.expect("echoed");
        assert_eq!(pod.lifecycle.phase(), Phase::Draining);
        tunnel.shutdown().await.expect("closed");
    };
    within(async { tokio::join!(pod.proxy.drain(), ends) }).await;
    assert_eq!(pod.reading().completions, 1);
}

/// Clients that send all the time until a GOAWAY tells them to go elsewhere.
#[tokio::test]
async fn a_drain_loses_no_stream_under_load() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let (address, answered) = (pod.address(), AtomicU64::new(0));
    let clients = (0..8).map(async |_client| {
        let client = http2::Client::connect(address).await;
        let streams = (0..10).map(async |_stream| {
            // A new request fails at once when the client knows that it must go: then nothing was sent.
            while let Ok(mut call) = client.open(http2::post("/echo"), false).await {
                // As may this, where the GOAWAY has come meanwhile.
                drop(call.stream.send_data(Bytes::from("hello"), true));
                let answer = match call.answer().await {
                    Ok(answer) => answer,
                    // A client of h2 acknowledges the first GOAWAY before it sends what it has opened by then. The
                    // second one says of it that it was not taken, and clients send it elsewhere.
                    Err(error) if error.is_go_away() && error.is_remote() => return,
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(
                    (answer.status.as_u16(), &answer.body[..]),
                    (200, &b"hello"[..])
                );
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
        join_all(streams).await;
    });
    let script = async {
        while answered.load(Ordering::SeqCst) < 500 {
            tokio::task::yield_now().await;
        }
        // Until endpoints have propagated, all goes on.
        pod.proxy.drain().await;
    };
    within(async { tokio::join!(join_all(clients), script) }).await;
    let reading = pod.reading();
    let answered = answered.into_inner();
    assert_eq!((reading.completions, reading.failures()), (answered, 0));
    assert_eq!((reading.in_flight, server.requests()), (0, answered));
}

#[tokio::test]
async fn streams_that_began_before_the_drain_go_to_their_end() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = http2::Client::connect(pod.address()).await;
    let mut call = client
        .open(http2::post("/echo"), false)
        .await
        .expect("sent");
    let mut body = within(&mut call.response)
        .await
        .expect("a head")
        .into_body();
    let idle = http2::Client::connect(pod.address()).await;
    let silent = TcpStream::connect(pod.address()).await.expect("it accepts");
    let stream = async {
        closes_what_is_idle(&pod).await;
        for token in ["one", "two", "three"] {
            call.send(token).await;
            let echoed = within(http2::read_frame(&mut body)).await.expect("more");
            assert_eq!(echoed.expect("whole"), token);
        }
        assert_eq!(pod.lifecycle.phase(), Phase::Draining);
        call.stream.send_data(Bytes::new(), true).expect("sent");
        while let Some(last) = within(http2::read_frame(&mut body)).await {
            assert_eq!(last.expect("whole"), "");
        }
    };
    within(async { tokio::join!(pod.proxy.drain(), stream) }).await;
    let reading = pod.reading();
    assert_eq!((reading.completions, reading.in_flight), (1, 0));
    drop((idle, silent));
}

/// A client that has died without a word acknowledges nothing; only its streams are worth waiting for.
#[tokio::test]
async fn a_client_that_answers_no_goodbye_holds_no_drain_up() {
    let server = Server::start().await;
    let pod = Pod::start(server.address, |settings| {
        settings.grace = LONG;
    });
    let mut dead = TcpStream::connect(pod.address()).await.expect("it accepts");
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    dead.write_all(hello).await.expect("written");
    let mut settings = [0; 9];
    within(dead.read_exact(&mut settings)).await.expect("read");
    let asked = pod.clock.instant();
    within(pod.proxy.drain()).await;
    let took = pod.clock.instant().since(asked);
    assert!(took < LONG, "{took:?}");
}

/// A ready pod whose endpoints take [`LONG`] to propagate.
async fn slow_to_propagate(upstream: SocketAddr) -> Pod {
    let pod = Pod::start(upstream, |settings| {
        settings.propagation = LONG;
        settings.grace = 2 * LONG;
    });
    pod.becomes(Health::Ready).await;
    pod
}

/// Waits until endpoints have propagated and what is idle is closed, new connections after their moment.
async fn closes_what_is_idle(pod: &Pod) {
    let closed = async {
        if let Ok(mut idle) = TcpStream::connect(pod.address()).await {
            // A closed connection, or one that was reset.
            drop(idle.read(&mut [0]).await);
        }
    };
    within(closed).await;
}
