//! What is on the wire: header hygiene, framing, old and impolite clients. Written and read as raw bytes.

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;

use crate::model_server::ModelServer;
use crate::pod::{Pod, exchange, read};

async fn answer_to(request: &str) -> String {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    exchange(pod.address(), request).await
}

#[tokio::test]
async fn the_upstream_sees_the_clients_message_and_not_its_connection() {
    let answer = answer_to(
        "GET /head?a=b HTTP/1.1\r\nHost: model\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTraceparent: 00-1-2-01\r\n\
         X-Forwarded-For: 192.0.2.1\r\n\r\n",
    )
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
    assert_eq!(
        body,
        "GET /head?a=b HTTP/1.1\n\
         host: model\n\
         traceparent: 00-1-2-01\n\
         via: 1.1 sidescale\n\
         x-forwarded-for: 192.0.2.1, 127.0.0.1\n\
         x-forwarded-host: model\n\
         x-forwarded-proto: http\n"
    );
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
}

/// A client of hyper drops the body of a GET unless a header says that there is one.
#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let answer = exchange(
        pod.address(),
        "GET /echo HTTP/1.1\r\nhost: m\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    assert!(answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn a_length_beside_chunks_goes_no_further() {
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: m\r\n\r\n";
    for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let answer = answer_to(&format!(
            "POST /head HTTP/1.1\r\nhost: m\r\n{framing}\r\nconnection: close\r\n\r\n{smuggled}"
        ))
        .await;
        assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
        assert!(!answer.contains("content-length: 4"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_two_could_read_differently_is_refused() {
    for (fields, body) in [
        ("content-length: 3\r\ncontent-length: 4", "abcd"),
        ("content-length: +3", "abc"),
        ("transfer-encoding: gzip, chunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ("x-folded: a\r\n b", ""),
        ("x-space : a", ""),
    ] {
        let server = ModelServer::start().await;
        let pod = Pod::ready(server.address).await;
        let request = format!(
            "POST /echo HTTP/1.1\r\nhost: m\r\nconnection: close\r\n{fields}\r\n\r\n{body}"
        );
        let answer = exchange(pod.address(), &request).await;
        let refused = answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 501");
        assert!(refused, "{fields}: {answer}");
        assert_eq!(server.requests(), 0, "{fields}");
    }
}

#[tokio::test]
async fn a_bad_chunk_never_completes_a_request() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let answer = exchange(
        pod.address(),
        "POST /echo HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nhello\r\n",
    )
    .await;
    assert!(!answer.contains("0\r\n\r\n"), "{answer}");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (0, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let answer = answer_to(
        "POST /echo HTTP/1.1\r\nhost: m\r\ncontent-length: 3\r\n\r\none\
         POST /echo HTTP/1.1\r\nhost: m\r\ncontent-length: 3\r\n\r\ntwo\
         POST /echo HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthree",
    )
    .await;
    let place = |word: &str| {
        answer
            .find(word)
            .unwrap_or_else(|| panic!("{word}: {answer}"))
    };
    assert!(place("one") < place("two") && place("two") < place("three"));
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
}

#[tokio::test]
async fn an_old_client_is_served() {
    let answer = answer_to("GET /head HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"));
    assert!(
        answer.contains("GET /head HTTP/1.1\nhost: 127.0.0.1:"),
        "{answer}"
    );
    assert!(!answer.contains("transfer-encoding"), "{answer}");
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_usable() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    for status in [204, 304, 500] {
        let answer = client.get(&format!("/status/{status}")).await;
        assert_eq!(answer.expect("answered").status, status);
    }
    let head = client.send(Request::head("/"), crate::pod::empty()).await;
    let head = read(head.expect("answered")).await.expect("whole");
    assert_eq!(head.headers["content-length"], "5");
    assert!(head.body.is_empty());
    assert_eq!(client.get("/").await.expect("answered").body, "hello");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (5, 0));
    assert_eq!(reading.statuses, [0, 3, 1, 0, 1]);
}

/// The upstream answers before it has the whole request, as a server does that refuses a large upload.
#[tokio::test]
async fn an_early_response_reaches_the_client_before_its_body_ends() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let first = Ok::<_, hyper::Error>(Frame::data(Bytes::from("begun")));
    let endless = futures_util::stream::once(async { first });
    let endless = futures_util::StreamExt::chain(endless, futures_util::stream::pending());
    let body = StreamBody::new(endless);
    let body =
        http_body_util::combinators::BoxBody::new(SyncBody(std::sync::Mutex::new(Box::pin(body))));
    let response = client.send(Request::post("/status/413"), body).await;
    assert_eq!(response.expect("answered").status(), 413);
}

/// `BoxBody` wants `Sync`, which a boxed stream need not be.
struct SyncBody<B>(std::sync::Mutex<std::pin::Pin<Box<B>>>);

impl<B: http_body::Body> http_body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut body = self.0.lock().expect("whole");
        body.as_mut().poll_frame(cx)
    }
}

#[tokio::test]
async fn a_frame_of_an_upgrade_that_nobody_asked_for_is_an_error() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    // `Upgrade` without `Connection: upgrade` is not passed on, so the server's 101 is out of place.
    let answer = exchange(
        pod.address(),
        "GET /status/101 HTTP/1.1\r\nhost: m\r\nupgrade: echo\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}
