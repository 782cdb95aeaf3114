//! Clients that are asked to come anew, so that they find new pods: no request may notice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::http2::{self, Server};
use crate::model_server::ModelServer;
use crate::pod::{Client, Pod, chunk, empty, within};

/// The arc of those that are called is whole after so many steps, and stays for a quarter as long.
const STEPS: u32 = 20;
/// A step that no machine is too slow for: the test skips it.
const STEP: Duration = Duration::from_secs(3_600);

// === impl Pod ===

impl Pod {
    /// Lets so many of a thousand connections be called, all at once.
    async fn calls(&self, per_mille: u16, test: impl Future<Output = ()>) {
        let connections = self.proxy.connections();
        tokio::select! {
            biased;
            () = connections.retire(per_mille, STEP * STEPS, &self.clock) => panic!("too early"),
            () = async {
                for _step in 1..STEPS {
                    self.skip(STEP).await;
                    tokio::task::yield_now().await;
                }
                test.await;
            } => {}
        }
    }

    fn connections(&self) -> (u64, u64) {
        let connections = self.proxy.connections();
        (connections.open(), connections.retired())
    }

    /// Waits until so many connections are open.
    async fn has_open(&self, count: u64) {
        let seen = async {
            while self.proxy.connections().open() != count {
                tokio::task::yield_now().await;
            }
        };
        within(seen).await;
    }
}

#[tokio::test]
async fn a_called_connection_ends_with_its_next_response() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let before = client.get("/").await.expect("answered");
    assert!(!before.headers.contains_key("connection"));
    assert_eq!(pod.connections(), (1, 0));
    pod.calls(1_000, async {
        // It is idle: nothing closes it under a request that may be on its way.
        assert_eq!(pod.connections(), (1, 0));
        let last = client.post("/echo", "hello").await.expect("answered");
        assert_eq!(&last.body[..], b"hello");
        assert_eq!(last.headers["connection"], "close");
        assert_eq!(pod.connections(), (0, 1));
        assert!(client.get("/").await.is_err(), "closed");
        // Nobody is turned away.
        let other = pod.client().await.get("/").await.expect("answered");
        assert_eq!(other.status, 200);
    })
    .await;
    let kept = pod.client().await.get("/").await.expect("answered");
    assert!(!kept.headers.contains_key("connection"), "it is over");
}

#[tokio::test]
async fn a_stream_that_had_begun_goes_on_and_so_does_its_connection() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut tokens = server.expect_stream();
    let mut client = pod.client().await;
    let mut body = client.begin("/stream").await.expect("a head").into_body();
    pod.calls(1_000, async {
        for token in ["one", "two", "three"] {
            tokens.send_data(Bytes::from(token)).await.expect("read");
            assert_eq!(chunk(&mut body).await.expect("more").expect("whole"), token);
        }
        drop(tokens);
        assert!(chunk(&mut body).await.is_none());
        let last = client.get("/").await.expect("answered on the same one");
        assert_eq!(last.headers["connection"], "close");
    })
    .await;
    assert_eq!(pod.reading().completions, 2);
}

#[tokio::test]
async fn a_tunnel_is_left_alone() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    pod.calls(1_000, async {
        let request = Request::get("/upgrade").header("connection", "upgrade");
        let request = request.header("upgrade", "echo");
        let mut response = client.send(request, empty()).await.expect("a head");
        assert_eq!(response.headers()["connection"], "upgrade");
        let upgraded = within(hyper::upgrade::on(&mut response)).await;
        let mut tunnel = hyper_util::rt::TokioIo::new(upgraded.expect("switched"));
        tunnel.write_all(b"hello").await.expect("written");
        let mut echo = [0; 5];
        within(tunnel.read_exact(&mut echo)).await.expect("read");
        assert_eq!(&echo, b"hello");
        assert_eq!(pod.connections(), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn clients_of_http1_that_never_retry_lose_nothing() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let (address, answered) = (pod.address(), AtomicU64::new(0));
    let connected = AtomicU64::new(0);
    let clients = (0..8).map(async |_client| {
        while connected.load(Ordering::SeqCst) < 200 {
            let mut client = Client::connect(address).await.expect("it accepts");
            connected.fetch_add(1, Ordering::SeqCst);
            // Half of the connections are not called, and leave by themselves.
            for _request in 0..5 {
                let answer = client.post("/echo", "hello").await.expect("answered");
                assert_eq!(&answer.body[..], b"hello");
                answered.fetch_add(1, Ordering::SeqCst);
                if answer.headers.contains_key("connection") {
                    break;
                }
            }
        }
    });
    pod.calls(500, async { drop(within(join_all(clients)).await) })
        .await;
    let reading = pod.reading();
    let answered = answered.into_inner();
    assert_eq!((reading.completions, reading.failures()), (answered, 0));
    assert_eq!((reading.in_flight, server.requests()), (0, answered));
    pod.has_open(0).await;
}

/// GOAWAY: the streams that it meets go to their end, and the client opens new ones on a new connection.
#[tokio::test]
async fn a_called_connection_of_http2_is_told_to_go_and_its_streams_go_to_their_end() {
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
    pod.calls(1_000, async {
        assert_eq!(pod.connections(), (1, 0));
        // The next request is answered, and is what the connection is told with.
        let answer = client.get("/").await.expect("answered");
        assert_eq!(answer.status, 200);
        assert_eq!(pod.connections(), (0, 1));
        let gone = async {
            while client.open(http2::get("/"), true).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        within(gone).await;
        call.stream
            .send_data(Bytes::from("still here"), true)
            .expect("open");
        let frame = http2::read_frame(&mut body).await.expect("more");
        assert_eq!(frame.expect("whole"), "still here");
        let other = http2::Client::connect(pod.address()).await;
        assert_eq!(other.get("/").await.expect("answered").status, 200);
    })
    .await;
    assert_eq!(pod.reading().failures(), 0);
}
