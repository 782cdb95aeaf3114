//! Responses that were delivered whole, and what was delivered of those that were not.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use sidescale::lifecycle::Tasks;
use sidescale::proxy::Reading;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::http2;
use crate::pod::{Pod, empty, exchange, read, read_until, within};
use crate::scripted::{End, Scripted, serve_http2, with_length};

const TRAILERS: [(&str, &str); 4] = [
    (
        "declared",
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
    ),
    (
        "undeclared",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
    ),
    (
        "alone",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 42\r\n\r\n",
    ),
    (
        "several",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n",
    ),
];

fn is_whole(reading: &Reading) -> bool {
    (reading.completions, reading.failures()) == (1, 0)
}

#[tokio::test]
async fn a_response_with_trailers_is_completed_whether_the_client_takes_them_or_not() {
    for (kind, answer) in TRAILERS {
        for te in ["", "te: trailers\r\nconnection: te\r\n"] {
            let server = Scripted::start(answer, End::Never).await;
            let pod = server.pod().await;
            let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
            let request = format!("GET / HTTP/1.1\r\nhost: m\r\n{te}\r\n");
            client.write_all(request.as_bytes()).await.expect("written");
            read_until(&mut client, "0\r\n").await;
            let reading = pod.accounted(|now| now.in_flight == 0).await;
            assert!(is_whole(&reading), "{kind}, {te:?}: {reading:?}");
        }
        let server = Scripted::start(answer, End::Never).await;
        let pod = server.pod().await;
        let client = http2::Client::connect(pod.address()).await;
        let got = client.get("/").await.expect("answered");
        assert!(got.trailers.is_some(), "{kind}");
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert!(is_whole(&reading), "{kind}: {reading:?}");
    }
}

/// The connection to the server is used again after trailers: a pool of one would otherwise dial for each answer.
#[tokio::test]
async fn a_response_with_trailers_leaves_its_connection_to_the_next_request() {
    let server = crate::model_server::ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    for _time in 0..3 {
        let request = "POST /echo HTTP/1.1\r\nhost: m\r\nte: trailers\r\ntrailer: x-sum\r\nconnection: te, close\r\n\
                       transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n";
        let answer = exchange(pod.address(), request).await;
        assert!(answer.contains("x-sum: 42"), "{answer}");
        pod.accounted(|now| now.in_flight == 0).await;
    }
    assert_eq!(server.connections(), 1);
}

/// Ends its streams only when it is told to, and notes those that were reset before.
async fn slow_to_end(
    tasks: &Tasks,
    length: u64,
    trailers: bool,
) -> (std::net::SocketAddr, Arc<Notify>, watch::Receiver<u64>) {
    let (go_on, ended) = (Arc::new(Notify::new()), watch::Sender::new(0_u64));
    let (told, seen) = (Arc::clone(&go_on), ended.subscribe());
    let address = serve_http2(tasks, move |request, mut respond| {
        let (told, ended) = (Arc::clone(&told), ended.clone());
        async move {
            let mut stream = respond
                .send_response(with_length(length), false)
                .expect("sent");
            if request.method() != http::Method::HEAD {
                stream
                    .send_data(Bytes::from_static(b"hello"), false)
                    .expect("sent");
            }
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx));
            tokio::select! {
                reset = reset => panic!("a response that was whole was reset: {reset:?}"),
                () = told.notified() => {}
            }
            if trailers {
                let sum = HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    "42".parse().expect("valid"),
                )]);
                stream.send_trailers(sum).expect("not reset");
            } else {
                stream.send_data(Bytes::new(), true).expect("not reset");
            }
            ended.send_modify(|count| *count += 1);
        }
    })
    .await;
    (address, go_on, seen)
}

#[tokio::test]
async fn the_last_byte_of_a_length_completes_a_response_whose_stream_ends_later() {
    for trailers in [false, true] {
        let tasks = Tasks::here();
        let (address, go_on, mut ended) = slow_to_end(&tasks, 5, trailers).await;
        let pod = Pod::ready(address).await;
        let mut client = pod.client().await;
        assert_eq!(client.get("/").await.expect("answered").body, "hello");
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert!(is_whole(&reading), "{reading:?}");
        go_on.notify_one();
        let seen = within(ended.wait_for(|count| *count == 1)).await;
        drop(seen.expect("the server lives"));
        // To a client of HTTP/2 the end goes on as it comes.
        let client = http2::Client::connect(pod.address()).await;
        go_on.notify_one();
        let answer = client.get("/").await.expect("answered");
        assert_eq!(
            (&answer.body[..], answer.trailers.is_some()),
            (&b"hello"[..], trailers)
        );
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!((reading.completions, reading.failures()), (2, 0));
    }
}

#[tokio::test]
async fn the_head_completes_a_response_that_has_no_body_whenever_its_stream_ends() {
    let tasks = Tasks::here();
    let (address, go_on, mut ended) = slow_to_end(&tasks, 5, false).await;
    let pod = Pod::ready(address).await;
    let mut client = pod.client().await;
    let head = client.send(Request::head("/"), empty()).await;
    let head = read(head.expect("answered")).await.expect("whole");
    assert_eq!(head.headers["content-length"], "5");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert!(is_whole(&reading), "{reading:?}");
    go_on.notify_one();
    drop(
        within(ended.wait_for(|count| *count == 1))
            .await
            .expect("the server lives"),
    );
}

// === What came before a break ===

const EVENT: &str = "data: {\"error\":\"CUDA OOM\"}\n\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
     b\r\ndata: one\n\n\r\n1c\r\ndata: {\"error\":\"CUDA OOM\"}\n\n\r\n";
const BAD_CHUNK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
     1c\r\ndata: {\"error\":\"CUDA OOM\"}\n\n\r\nxyz\r\n";
const TOO_SHORT: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndata: {\"error\":\"CUDA OOM\"}\n\n";
const UP_TO_THE_END: &str =
    "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: {\"error\":\"CUDA OOM\"}\n\n";

const BREAKS: [(&str, End); 6] = [
    (CHUNKED, End::Closed),
    (CHUNKED, End::Reset),
    (BAD_CHUNK, End::Never),
    (TOO_SHORT, End::Closed),
    (TOO_SHORT, End::Reset),
    (UP_TO_THE_END, End::Reset),
];

#[tokio::test]
async fn what_came_before_a_break_is_handed_on_before_it() {
    for (answer, end) in BREAKS {
        let server = Scripted::start(answer, end).await;
        let pod = server.pod().await;
        let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
            .await
            .expect("written");
        let mut got = Vec::new();
        // It may end as it likes, but for an end that looks whole.
        drop(within(client.read_to_end(&mut got)).await);
        let got = String::from_utf8_lossy(&got);
        assert!(got.contains(EVENT), "{answer:?}, {end:?}: {got:?}");
        assert!(!got.ends_with("0\r\n\r\n"), "{answer:?}, {end:?}: {got:?}");
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!(reading.upstream_failed, 1, "{answer:?}, {end:?}");
    }
}

#[tokio::test]
async fn what_came_before_a_break_is_handed_on_to_a_stream_before_it() {
    for (answer, end) in BREAKS {
        let server = Scripted::start(answer, end).await;
        let pod = server.pod().await;
        let client = http2::Client::connect(pod.address()).await;
        assert_cut_after_the_event(&client, &format!("{answer:?}, {end:?}")).await;
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!(reading.upstream_failed, 1, "{answer:?}, {end:?}");
    }
}

#[tokio::test]
async fn what_came_before_a_reset_of_its_stream_is_handed_on_before_it() {
    let tasks = Tasks::here();
    let address = serve_http2(&tasks, |_request, mut respond| async move {
        let mut stream = respond
            .send_response(Response::new(()), false)
            .expect("sent");
        stream
            .send_data(Bytes::from_static(EVENT.as_bytes()), false)
            .expect("sent");
        // h2 throws away what it has not written when it resets: let it write.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let pod = Pod::ready(address).await;
    let client = http2::Client::connect(pod.address()).await;
    assert_cut_after_the_event(&client, "HTTP/2").await;
    let answer = exchange_cut(&pod).await;
    assert!(answer.contains(EVENT), "{answer:?}");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(reading.upstream_failed, 2);
}

async fn exchange_cut(pod: &Pod) -> String {
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
        .await
        .expect("written");
    let mut got = Vec::new();
    drop(within(client.read_to_end(&mut got)).await);
    String::from_utf8_lossy(&got).into_owned()
}

async fn assert_cut_after_the_event(client: &http2::Client, case: &str) {
    let call = client.open(http2::get("/"), true).await.expect("sent");
    let response = within(call.response).await.expect("a head");
    let mut body = response.into_body();
    let mut got = Vec::new();
    let cut = loop {
        match within(http2::read_frame(&mut body)).await {
            Some(Ok(data)) => got.extend_from_slice(&data),
            Some(Err(_)) => break true,
            None => break within(body.trailers()).await.is_err(),
        }
    };
    let got = String::from_utf8_lossy(&got);
    assert!(got.contains(EVENT), "{case}: {got:?}");
    assert!(cut, "{case}: it looks whole");
}

#[tokio::test]
async fn a_break_before_any_head_is_said_in_words() {
    for (answer, end) in [
        ("", End::Closed),
        ("", End::Reset),
        ("HTTP/1.1 200 OK\r\nx-", End::Closed),
        ("HTTP/1.1 200 OK\r\nx-", End::Reset),
        ("HTTP/1.1 2x0 OK\r\n\r\n", End::Never),
    ] {
        let server = Scripted::start(answer, end).await;
        let pod = server.pod().await;
        let got = exchange(
            pod.address(),
            "GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(
            got.starts_with("HTTP/1.1 502") && got.contains("sidescale: "),
            "{answer:?}, {end:?}: {got}"
        );
    }
}
