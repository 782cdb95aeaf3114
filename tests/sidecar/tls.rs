//! A server that speaks TLS behind a proxy that does not: it is never ready, and what is merely odd still is.

use std::sync::Arc;

use sidescale::lifecycle::Tasks;
use sidescale::proxy::{Health, Probe, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::model_server::ModelServer;
use crate::pod::Pod;

/// An alert that says `protocol_version`.
const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x46";
/// What a record of a handshake begins with.
const HANDSHAKE: u8 = 0x16;

/// What a server does with plain text.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As rustls does.
    Alert,
    /// As OpenSSL does.
    End,
    /// Waits for as many bytes as the first ones seem to promise.
    Silence,
}

struct Server {
    address: std::net::SocketAddr,
    _tasks: Tasks,
}

impl Server {
    async fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::here();
        let children = tasks.handle();
        tasks.spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                children.spawn(serve(stream));
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }

    /// One that answers a handshake, and plain text in its `manner`.
    async fn of(manner: Manner) -> Self {
        Self::start(move |stream| answer(stream, manner)).await
    }

    async fn of_rustls() -> Self {
        let key = rcgen::generate_simple_self_signed(["model".to_owned()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
            )
            .expect("a key for its certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let accepted = acceptor.accept(stream);
            async move { drop(accepted.await) }
        })
        .await
    }
}

async fn answer(mut stream: TcpStream, manner: Manner) {
    let mut first = [0; 128];
    let read = stream.read(&mut first).await.unwrap_or_default();
    match (first[..read].first(), manner) {
        (Some(&HANDSHAKE), _) | (Some(_), Manner::Alert) => {
            drop(stream.write_all(ALERT).await);
            // Its sender waits for the other side to end.
            drop(stream.read(&mut first).await);
        }
        (Some(_), Manner::Silence) => drop(stream.read(&mut first).await),
        (Some(_), Manner::End) | (None, _) => {}
    }
}

#[tokio::test]
async fn a_server_of_tls_is_never_ready_whatever_it_answers_to_plain_text() {
    for manner in [Manner::Alert, Manner::End, Manner::Silence] {
        for probe in ["tcp", "http:/health"] {
            let server = Server::of(manner).await;
            let pod = Pod::start(server.address, |settings| {
                settings.probe = probe.parse::<Probe>().expect("a probe");
            });
            let mut health = pod.proxy.upstream();
            let first = health.wait_for(|health| *health != Health::Starting);
            let first = *crate::pod::within(first).await.expect("the proxy lives");
            assert_eq!(first, Health::Tls, "{manner:?}, {probe}");
            assert!(!pod.proxy.is_ready());
        }
    }
}

/// Where it was said what a server speaks, it is asked when what was said does not help.
#[tokio::test]
async fn a_server_of_tls_of_which_something_else_was_said_is_found_out() {
    for manner in [Manner::Alert, Manner::End] {
        for protocol in [Protocol::Http1, Protocol::H2c] {
            let server = Server::of(manner).await;
            let by_path = Pod::start(server.address, |settings| {
                settings.protocol = protocol;
                settings.probe = "http:/health".parse().expect("a probe");
            });
            by_path.becomes(Health::Tls).await;
            let pod = Pod::start(server.address, |settings| settings.protocol = protocol);
            pod.becomes(Health::Ready).await;
            for _time in 0..2 {
                let answer = pod.client().await.get("/").await.expect("answered");
                assert_eq!(answer.status, 502, "{manner:?}, {protocol:?}");
            }
            pod.becomes(Health::Tls).await;
        }
    }
}

#[tokio::test]
async fn a_real_server_of_tls_is_not_ready() {
    let server = Server::of_rustls().await;
    let pod = Pod::start(server.address, |_settings| {});
    pod.becomes(Health::Tls).await;
}

#[tokio::test]
async fn who_asks_a_server_of_tls_is_told_what_it_is() {
    let server = Server::of(Manner::End).await;
    let pod = Pod::start(server.address, |_settings| {});
    pod.becomes(Health::Tls).await;
    let answer = pod.client().await.get("/").await.expect("answered");
    assert_eq!(answer.status, 502);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("is this TLS?"), "{text}");
}

/// One that knows neither the preface of HTTP/2 nor `OPTIONS *` has no word for either, and may still serve.
#[tokio::test]
async fn a_server_that_ends_at_every_question_is_not_taken_for_one_of_tls() {
    let server = Server::start(|mut stream| async move {
        drop(stream.read(&mut [0; 128]).await);
    })
    .await;
    let pod = Pod::start(server.address, |_settings| {});
    pod.becomes(Health::Ready).await;
}

#[tokio::test]
async fn a_server_that_comes_back_without_tls_is_ready() {
    let server = Server::of(Manner::Alert).await;
    let pod = Pod::start(server.address, |_settings| {});
    pod.becomes(Health::Tls).await;
    let address = server.address;
    drop(server);
    pod.becomes(Health::Down).await;
    let _server = ModelServer::start_at(address).await;
    pod.becomes(Health::Ready).await;
    assert_eq!(
        pod.client().await.get("/").await.expect("answered").status,
        200
    );
}
