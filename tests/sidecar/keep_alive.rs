//! Connections that are kept: when they are used again, and what happens when the other side has closed them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sidescale::lifecycle::Tasks;
use sidescale::proxy::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::model_server::ModelServer;
use crate::pod::{Pod, read_until, within};

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let server = ModelServer::start().await;
    let pod = Pod::start(server.address, |settings| {
        settings.pool_idle = Duration::from_secs(3_600);
    });
    pod.becomes(sidescale::proxy::Health::Ready).await;
    for _client in 0..10 {
        let mut client = pod.client().await;
        for _request in 0..10 {
            client.get("/").await.expect("answered");
        }
    }
    assert_eq!((server.requests(), server.connections()), (100, 1));
}

/// A server that hands its connections to the test.
struct RawServer {
    address: std::net::SocketAddr,
    connections: mpsc::UnboundedReceiver<TcpStream>,
    _tasks: Tasks,
}

impl RawServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (sender, connections) = mpsc::unbounded_channel();
        let tasks = Tasks::here();
        tasks.spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self {
            address,
            connections,
            _tasks: tasks,
        }
    }

    /// The next connection that carries a request, and not a probe; its head is read. The proxy's protocol must be set,
    /// or it asks for that.
    async fn request(&mut self) -> TcpStream {
        let carries_one = async {
            loop {
                let mut stream = self.connections.recv().await.expect("the server lives");
                let mut first = [0];
                if stream.read(&mut first).await.is_ok_and(|bytes| bytes == 1) {
                    read_until(&mut stream, "\r\n\r\n").await;
                    return stream;
                }
            }
        };
        within(carries_one).await
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_not_used_again() {
    let mut server = RawServer::start().await;
    let pod = Pod::start(server.address, |settings| {
        settings.protocol = Protocol::Http1;
        settings.pool_idle = Duration::from_secs(3_600);
    });
    let mut client = pod.client().await;
    for _round in 0..20 {
        let serve = async {
            let mut stream = server.request().await;
            stream.write_all(OK).await.expect("written");
            // Closes as uvicorn does after its keep-alive time, and waits until the proxy has seen it.
            stream.shutdown().await.expect("closed");
            let seen = within(stream.read_u8()).await;
            assert!(seen.is_err(), "the proxy closes as well");
        };
        let (answer, ()) = tokio::join!(client.get("/"), serve);
        assert_eq!(answer.expect("answered").status, StatusCode::OK);
    }
    assert_eq!(pod.reading().failures(), 0);
}

/// The server's close and the next request reach the proxy in one turn of its reactor, in either order. In one of them
/// the connection is chosen while it still looks open, and hyper hands the request back.
#[tokio::test]
async fn a_request_that_the_server_never_took_is_sent_again() {
    for closes_first in [true, false] {
        let mut server = RawServer::start().await;
        let pod = Pod::start(server.address, |settings| {
            settings.protocol = Protocol::Http1;
            settings.pool_idle = Duration::from_secs(3_600);
        });
        let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
        let request = b"GET / HTTP/1.1\r\nhost: m\r\n\r\n";
        client.write_all(request).await.expect("written");
        let mut kept = server.request().await;
        kept.write_all(OK).await.expect("written");
        read_until(&mut client, "\r\n\r\nok").await;
        // No await between the two, so the proxy's runtime, which is this thread, sees both at once.
        if closes_first {
            drop(kept);
            client.try_write(request).expect("written");
        } else {
            client.try_write(request).expect("written");
            drop(kept);
        }
        let serve = async {
            let mut fresh = server.request().await;
            fresh.write_all(OK).await.expect("written");
            fresh
        };
        let (answer, _fresh) = tokio::join!(read_until(&mut client, "\r\n\r\n"), serve);
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "{closes_first}: {answer}"
        );
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!((reading.completions, reading.failures()), (2, 0));
    }
}

/// The server has read the request before it closes: it may have acted on it, so the proxy must not send it again.
#[tokio::test]
async fn a_request_that_the_server_may_have_taken_is_never_repeated() {
    let mut server = RawServer::start().await;
    let pod = Pod::start(server.address, |settings| {
        settings.protocol = Protocol::Http1;
        settings.pool_idle = Duration::from_secs(3_600);
    });
    let mut client = pod.client().await;
    let first = async {
        let mut stream = server.request().await;
        stream.write_all(OK).await.expect("written");
        stream
    };
    let (answer, mut kept) = tokio::join!(client.post("/", "one"), first);
    assert_eq!(answer.expect("answered").status, StatusCode::OK);
    let takes_it = async {
        read_until(&mut kept, "one").await;
        read_until(&mut kept, "two").await;
        drop(kept);
    };
    let (answer, ()) = tokio::join!(client.post("/", "two"), takes_it);
    assert_eq!(answer.expect("answered").status, StatusCode::BAD_GATEWAY);
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.upstream_failed), (1, 1));
    // Whatever else came to the server since is a probe: closed, or silent.
    while let Ok(mut stream) = server.connections.try_recv() {
        let mut byte = [0];
        assert!(!matches!(stream.try_read(&mut byte), Ok(1)));
        drop(stream.shutdown().await);
    }
}

#[tokio::test]
async fn what_is_idle_too_long_for_the_server_is_closed_by_the_proxy() {
    let mut server = RawServer::start().await;
    let pod = Pod::start(server.address, |settings| {
        settings.protocol = Protocol::Http1;
    });
    let mut client = pod.client().await;
    let serve = async {
        let mut stream = server.request().await;
        stream.write_all(OK).await.expect("written");
        // No close from this side: the end of the stream is the proxy's doing.
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.expect("closed");
        assert!(rest.is_empty());
    };
    let (answer, ()) = tokio::join!(client.get("/"), serve);
    assert_eq!(answer.expect("answered").status, StatusCode::OK);
}

/// hyper's `header_read_timeout` would end both: it also runs on a connection that waits for its next request.
#[tokio::test]
async fn a_head_that_does_not_come_is_given_up_and_an_idle_client_is_kept() {
    let server = ModelServer::start().await;
    let pod = Arc::new(Pod::ready(server.address).await);
    let mut idle = pod.client().await;
    idle.get("/").await.expect("answered");
    let mut slow = TcpStream::connect(pod.address()).await.expect("it accepts");
    slow.write_all(b"GET / HTTP/1.1\r\nhost:")
        .await
        .expect("written");
    let asked = pod.clock.instant();
    let mut rest = Vec::new();
    within(slow.read_to_end(&mut rest)).await.expect("closed");
    assert!(rest.is_empty());
    let waited = pod.clock.instant().since(asked);
    assert!(waited >= Duration::from_secs(15), "{waited:?}");
    assert_eq!(idle.get("/").await.expect("still there").body, "hello");
}

#[tokio::test]
async fn a_client_that_is_idle_beyond_any_load_balancers_patience_is_closed() {
    let server = ModelServer::start().await;
    let pod = Pod::start_at_speed(1_000.0, server.address, |_settings| {});
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let request = b"GET / HTTP/1.1\r\nhost: m\r\n\r\n";
    client.write_all(request).await.expect("written");
    read_until(&mut client, "hello").await;
    let answered = pod.clock.instant();
    let mut rest = Vec::new();
    within(client.read_to_end(&mut rest)).await.expect("closed");
    let idle = pod.clock.instant().since(answered);
    assert!(idle > Duration::from_secs(600), "{idle:?}");
}
