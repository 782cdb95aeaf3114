//! Each request once, however it ends.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::clock::Clock;
use crate::proxy::Reading;

fn counted() -> (Arc<Accounts>, CountLayer) {
    let accounts = Arc::new(Accounts::new(Clock::real()));
    let layer = CountLayer::new(Arc::clone(&accounts), Uncounted::default());
    (accounts, layer)
}

fn read(accounts: &Accounts) -> Reading {
    let reading = accounts.read(Clock::real().instant());
    Reading {
        busy: Duration::ZERO,
        service: Duration::ZERO,
        ..reading
    }
}

fn request(path: &str) -> Request<()> {
    Request::get(path).body(()).expect("a good request")
}

#[tokio::test]
async fn a_response_is_complete_with_its_last_byte() {
    let (accounts, layer) = counted();
    let service = layer.layer(service_fn(|_request: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
    }));
    let response = service.oneshot(request("/v1/completions")).await;
    let response = response.expect("it never fails");
    assert_eq!(
        (read(&accounts).in_flight, read(&accounts).completions),
        (1, 0)
    );
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), "hello");
    let expected = Reading {
        arrivals: 1,
        completions: 1,
        statuses: [0, 1, 0, 0, 0],
        bytes_out: 5,
        frames_out: 1,
        ..Reading::default()
    };
    assert_eq!(read(&accounts), expected);
    assert_eq!(accounts.latencies().first_byte.count(), 1);
}

#[tokio::test]
async fn a_body_that_nobody_polls_has_ended_with_its_head() {
    let (accounts, layer) = counted();
    let service = layer.layer(service_fn(|_request: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let response = service.oneshot(request("/")).await;
    drop(response.expect("it never fails"));
    assert_eq!(
        (read(&accounts).completions, read(&accounts).in_flight),
        (1, 0)
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_before_and_in_the_middle_of_its_response() {
    let (accounts, layer) = counted();
    let never = layer.layer(service_fn(|_request: Request<()>| {
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>()
    }));
    let mut waiting = Box::pin(never.oneshot(request("/")));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(read(&accounts).in_flight, 1);
    drop(waiting);
    let tokens = layer.layer(service_fn(|_request: Request<()>| async {
        let token = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"token ")));
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter([
            token(),
            token(),
        ]))))
    }));
    let response = tokens.oneshot(request("/")).await;
    let mut body = response.expect("it never fails").into_body();
    body.frame().await.expect("a token").expect("a good one");
    drop(body);
    let expected = Reading {
        arrivals: 2,
        client_gone: 2,
        statuses: [0, 1, 0, 0, 0],
        bytes_out: 6,
        frames_out: 1,
        ..Reading::default()
    };
    assert_eq!(read(&accounts), expected);
}

#[tokio::test]
async fn a_service_or_a_body_that_fails_is_a_failed_upstream() {
    let (accounts, layer) = counted();
    let failing = layer.layer(service_fn(|_request: Request<()>| async {
        Err::<Response<Empty<Bytes>>, _>("out of memory")
    }));
    failing.oneshot(request("/")).await.expect_err("it fails");
    let broken = layer.layer(service_fn(|_request: Request<()>| async {
        let frames = stream::iter([Err::<Frame<Bytes>, _>("out of memory")]);
        Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
    }));
    let response = broken.oneshot(request("/")).await.expect("a head");
    response.into_body().collect().await.expect_err("it breaks");
    let read = read(&accounts);
    assert_eq!(
        (read.arrivals, read.upstream_failed, read.in_flight),
        (2, 2, 0)
    );
}

#[tokio::test]
async fn what_is_no_load_is_served_and_not_counted() {
    let (accounts, layer) = counted();
    let service = layer.layer(service_fn(|_request: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
    }));
    let response = service.oneshot(request("/health")).await;
    let body = response
        .expect("it never fails")
        .into_body()
        .collect()
        .await;
    assert_eq!(body.expect("a body").to_bytes(), "ok");
    assert_eq!(read(&accounts), Reading::default());
}

/// A server stops at the trailers, at the last byte of a promised length, and before the first where there is no body.
#[tokio::test]
async fn a_body_whose_end_nobody_polls_for_is_complete_all_the_same() {
    fn frames() -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>>> {
        StreamBody::new(stream::iter([
            Ok(Frame::data(Bytes::from_static(b"hello"))),
            Ok(Frame::trailers(http::HeaderMap::new())),
        ]))
    }
    for (method, length, polls) in [("GET", None, 2), ("GET", Some(5), 1), ("HEAD", Some(5), 0)] {
        let (accounts, layer) = counted();
        let service = layer.layer(service_fn(move |_request: Request<()>| async move {
            let mut response = Response::new(frames());
            if let Some(length) = length {
                response
                    .headers_mut()
                    .insert("content-length", http::HeaderValue::from(length));
            }
            Ok::<_, Infallible>(response)
        }));
        let request = Request::builder().method(method).uri("/").body(());
        let response = service.oneshot(request.expect("a good request")).await;
        let mut body = response.expect("it never fails").into_body();
        for _poll in 0..polls {
            body.frame().await.expect("more").expect("a good one");
        }
        drop(body);
        let read = read(&accounts);
        assert_eq!(
            (read.completions, read.client_gone),
            (1, 0),
            "{method}, {length:?}"
        );
    }
}
