//! Support: one proxy in front of one address, and clients for it.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sidescale::clock::{Clock, Timestamp};
use sidescale::lifecycle::{Lifecycle, Tasks};
use sidescale::proxy::{self, Accounts, Health, Proxy, Reading, Settings, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How fast the pods' clock runs: a propagation of 5 s is a quarter of a second of life.
pub(crate) const SPEED: f64 = 20.0;

/// A proxy on a free port.
pub(crate) struct Pod {
    pub(crate) proxy: Proxy,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) clock: Clock,
    _tasks: Tasks,
}

/// One keep-alive connection that never retries.
pub(crate) struct Client {
    sender: SendRequest<BoxBody<Bytes, hyper::Error>>,
    address: SocketAddr,
    tasks: Tasks,
}

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

// === impl Pod ===

impl Pod {
    /// In front of a server that is there: ready when this returns.
    pub(crate) async fn ready(upstream: SocketAddr) -> Self {
        let pod = Self::start(upstream, |_settings| {});
        pod.becomes(Health::Ready).await;
        pod
    }

    /// In front of whatever is at `upstream`.
    pub(crate) fn start(upstream: SocketAddr, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_at_speed(SPEED, upstream, change)
    }

    /// With a clock that runs `speed` times as fast as life.
    pub(crate) fn start_at_speed(
        speed: f64,
        upstream: SocketAddr,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings::new(Upstream::new(upstream));
        change(&mut settings);
        let clock = Clock::scaled(Timestamp::from_secs(1_700_000_000), speed);
        let accounts = Arc::new(Accounts::new(clock.clone()));
        let (lifecycle, tasks) = (Lifecycle::default(), Tasks::here());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = proxy::serve(
            settings,
            listener,
            Arc::clone(&accounts),
            lifecycle.clone(),
            clock.clone(),
            &tasks,
        )
        .expect("the proxy starts");
        Self {
            proxy,
            accounts,
            lifecycle,
            clock,
            _tasks: tasks,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Lets `span` of the pod's clock pass at once, for everything in this test.
    pub(crate) async fn skip(&self, span: Duration) {
        tokio::time::pause();
        tokio::time::advance(self.clock.real_time(span)).await;
        tokio::time::resume();
    }

    pub(crate) fn reading(&self) -> Reading {
        self.accounts.read(self.clock.instant())
    }

    pub(crate) async fn becomes(&self, health: Health) {
        let mut upstream = self.proxy.upstream();
        within(upstream.wait_for(|now| *now == health))
            .await
            .expect("the proxy lives");
    }

    /// Waits until the accounts look like this.
    pub(crate) async fn accounted(&self, expected: impl Fn(&Reading) -> bool) -> Reading {
        let seen = async {
            loop {
                let reading = self.reading();
                if expected(&reading) {
                    return reading;
                }
                tokio::task::yield_now().await;
            }
        };
        let seen = Clock::real().timeout(LIMIT, seen).await;
        seen.unwrap_or_else(|elapsed| {
            panic!("{elapsed}: the accounts stay at {:?}", self.reading())
        })
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await.expect("it accepts")
    }
}

// === impl Client ===

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
        let tasks = Tasks::here();
        tasks.spawn(async move {
            // Its errors come up at the requests.
            drop(connection.with_upgrades().await);
        });
        Ok(Self {
            sender,
            address,
            tasks,
        })
    }

    /// Sends and returns when the response's head is here.
    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: BoxBody<Bytes, hyper::Error>,
    ) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        let request = request
            .header("host", self.address.to_string())
            .body(body)
            .expect("a valid request");
        within(self.sender.send_request(request)).await
    }

    pub(crate) async fn begin(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.send(Request::get(path), empty()).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Answer> {
        read(self.begin(path).await?).await
    }

    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Answer> {
        read(self.send(Request::post(path), full(body)).await?).await
    }

    /// Leaves without a word: the socket is closed.
    pub(crate) fn leave(self) {
        drop(self.tasks);
    }
}

/// Reads a response to its end.
pub(crate) async fn read(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (parts, body) = response.into_parts();
    let collected = within(body.collect()).await?;
    let trailers = collected.trailers().cloned();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: collected.to_bytes(),
        trailers,
    })
}

/// The next piece of a body, as it comes.
pub(crate) async fn chunk(body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
    let frame = within(body.frame()).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

pub(crate) fn empty() -> BoxBody<Bytes, hyper::Error> {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub(crate) fn full(body: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed()
}

/// Writes raw bytes on a new connection and reads until the other side closes.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("read");
    String::from_utf8(answer).expect("text")
}

/// Reads raw bytes up to and with `end`.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let byte = within(stream.read_u8()).await;
        answer.push(byte.unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&answer))
        }));
    }
    String::from_utf8(answer).expect("text")
}

const LIMIT: Duration = Duration::from_secs(20);

/// The limit that turns a wait in vain into a failure.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    Clock::real()
        .timeout(LIMIT, future)
        .await
        .expect("it happens within the limit")
}
