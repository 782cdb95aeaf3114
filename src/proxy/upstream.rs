//! The inference server behind the proxy: its address, and whether it answers.
//!
//! A model server is up long after its container is: weights load for minutes. It is asked once a second, and at once
//! when a request found it gone, so that the pod turns unready before the next request is sent there. A GET of a path is
//! asked in the HTTP that the server speaks; gRPC's own health service would be one more [`Probe`] beside it.

use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use http::uri::PathAndQuery;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, watch};

use super::dial::{Stream, Upstream};
use super::protocol::{Protocol, Speech};
use super::setting::SettingError;
use super::wire::Carrier;
use crate::clock::Clock;

/// How often the server is asked. Half of it doubles the noise in the server's access log; a new pod would take
/// requests at most this much later than it could.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How long an answer may take, as a kubelet's probe does by default.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The least time between two probes that failing requests have asked for: a thousand refused requests a second must
/// not become a thousand probes.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// A server that is busy with a batch may be late with its health: so many late answers in a row make it down. A
/// refused connection does at once.
const LATE_ANSWERS: u32 = 3;
/// What a probe calls itself in the server's access log.
const PROBE_AGENT: &str = "sidescale-probe";

/// How the server is asked whether it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// It accepts a connection.
    #[default]
    Tcp,
    /// It answers a GET of this path with 2xx or 3xx.
    Http(PathAndQuery),
}

/// What is known of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has never answered: it is loading.
    Starting,
    /// It answers.
    Ready,
    /// It has answered, and does no more.
    Down,
    /// It speaks TLS, and no request in plain text can be answered there.
    Tls,
}

/// Asks the server, and knows the last answer.
#[derive(Debug)]
pub(super) struct Watchman {
    upstream: Upstream,
    speech: Speech,
    asking: tokio::sync::Mutex<()>,
    health: watch::Sender<Health>,
    suspicion: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Good,
    Late,
    Bad,
    Tls,
}

// === impl Probe ===

impl FromStr for Probe {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = || SettingError::Probe(text.to_owned());
        match text.strip_prefix("http:") {
            Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                path.parse().map(Self::Http).map_err(|_not_a_path| wrong())
            }
            None if text == "tcp" => Ok(Self::Tcp),
            Some(_) | None => Err(wrong()),
        }
    }
}

// === impl Watchman ===

impl Watchman {
    pub(super) fn new(upstream: Upstream, protocol: Protocol) -> Self {
        Self {
            upstream,
            speech: Speech::new(protocol),
            asking: tokio::sync::Mutex::default(),
            health: watch::Sender::new(Health::Starting),
            suspicion: Notify::new(),
        }
    }

    /// By what a request of a `client` goes on.
    pub(super) fn carrier(&self, client: Carrier) -> Carrier {
        self.speech.carrier(client)
    }

    /// The same, for one who can wait until the server has been asked where that is not known.
    pub(super) async fn carrier_asked(&self, client: Carrier, clock: &Clock) -> Carrier {
        if self.speech.is_open() {
            self.listen(clock, Speech::is_open).await;
        }
        self.carrier(client)
    }

    /// A connection or a response was not of the HTTP that the server was heard to speak.
    pub(super) fn misheard(&self) {
        self.speech.doubt();
        self.speech.note_unanswered();
        self.suspicion.notify_one();
    }

    pub(super) fn health(&self) -> Health {
        *self.health.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A request found nobody listening.
    pub(super) fn refused(&self) {
        self.set_down();
        self.suspicion.notify_one();
    }

    /// A request broke off: look at once.
    pub(super) fn suspect(&self) {
        self.speech.note_unanswered();
        self.suspicion.notify_one();
    }

    /// Asks for ever.
    pub(super) async fn run(&self, probe: &Probe, clock: &Clock) {
        let mut late = 0;
        loop {
            match self.ask(probe, clock).await {
                Answer::Good => {
                    late = 0;
                    self.set(Health::Ready);
                }
                Answer::Late if late + 1 < LATE_ANSWERS => late += 1,
                Answer::Late | Answer::Bad => self.set_down(),
                Answer::Tls => self.set(Health::Tls),
            }
            clock.sleep(PROBE_PAUSE).await;
            tokio::select! {
                () = clock.sleep(PROBE_PERIOD.saturating_sub(PROBE_PAUSE)) => {}
                () = self.suspicion.notified() => {}
            }
        }
    }

    async fn ask(&self, probe: &Probe, clock: &Clock) -> Answer {
        let stream = match clock.timeout(PROBE_TIMEOUT, self.upstream.dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_refused)) => {
                // What comes up next may be another server.
                self.speech.doubt();
                return Answer::Bad;
            }
            Err(_elapsed) => return Answer::Late,
        };
        if self.speech.is_unheard() {
            self.listen(clock, Speech::is_unheard).await;
        }
        if self.speech.is_tls() {
            return Answer::Tls;
        }
        let Probe::Http(path) = probe else {
            return Answer::Good;
        };
        let answer = ask_http(stream, &self.upstream, path, self.carrier(Carrier::Http1));
        match clock.timeout(PROBE_TIMEOUT, answer).await {
            Ok(Some(status)) if status.is_success() || status.is_redirection() => Answer::Good,
            Ok(Some(_)) => Answer::Bad,
            Ok(None) => {
                self.speech.note_unanswered();
                Answer::Bad
            }
            Err(_elapsed) => {
                self.speech.note_unanswered();
                Answer::Late
            }
        }
    }

    /// Of many who ask at once, one asks the server.
    async fn listen(&self, clock: &Clock, is_asked: fn(&Speech) -> bool) {
        let _asking = self.asking.lock().await;
        if is_asked(&self.speech) {
            self.speech.listen(&self.upstream, clock).await;
        }
    }

    fn set_down(&self) {
        if matches!(self.health(), Health::Ready | Health::Tls) {
            self.set(Health::Down);
        }
    }

    fn set(&self, health: Health) {
        let changed = self.health.send_if_modified(|now| {
            let changed = *now != health;
            *now = health;
            changed
        });
        match (changed, health) {
            (true, Health::Tls) => tracing::warn!(
                upstream = self.upstream.authority(),
                "the server answers plain HTTP as one of TLS does, so this pod is not ready: is this TLS? (let the server \
                 speak plain HTTP to this pod alone, and end TLS in front of it)"
            ),
            (true, Health::Starting | Health::Ready | Health::Down) => {
                tracing::info!(?health, "the upstream's state changed");
            }
            (false, _) => {}
        }
    }
}

async fn ask_http(
    stream: Stream,
    upstream: &Upstream,
    path: &PathAndQuery,
    carrier: Carrier,
) -> Option<StatusCode> {
    match carrier {
        Carrier::Http1 => ask_http1(stream, upstream, path).await,
        Carrier::Http2 => ask_http2(stream, upstream, path).await,
    }
}

async fn ask_http1(stream: Stream, upstream: &Upstream, path: &PathAndQuery) -> Option<StatusCode> {
    let request = Request::get(path.as_str())
        .header(header::HOST, upstream.host())
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, PROBE_AGENT)
        .body(Empty::<Bytes>::new())
        .ok()?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    // The connection is driven here and ends with this call, so that no probe outlives its timeout. When it ends
    // first, it has left the answer or the error with the response.
    let (response, connection) = (pin!(sender.send_request(request)), pin!(connection));
    let response = match future::select(response, connection).await {
        Either::Left((response, _connection)) => response,
        Either::Right((_closed, response)) => response.await,
    };
    Some(response.ok()?.status())
}

async fn ask_http2(stream: Stream, upstream: &Upstream, path: &PathAndQuery) -> Option<StatusCode> {
    let request = Request::get(format!("http://{}{path}", upstream.authority()))
        .header(header::USER_AGENT, PROBE_AGENT)
        .body(())
        .ok()?;
    let (mut sender, connection) = h2::client::handshake(stream).await.ok()?;
    let (response, _no_body) = sender.send_request(request, true).ok()?;
    let response = match future::select(response, pin!(connection)).await {
        Either::Left((response, _connection)) => response,
        Either::Right((_closed, response)) => response.await,
    };
    Some(response.ok()?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_tcp_or_a_path() {
        assert_eq!("tcp".parse(), Ok(Probe::Tcp));
        let http = Probe::Http(PathAndQuery::from_static("/health?full=1"));
        assert_eq!("http:/health?full=1".parse(), Ok(http));
        for text in ["", "http", "http:", "http://model/health", "grpc"] {
            let error = text.parse::<Probe>().expect_err(text);
            assert!(error.to_string().contains("http:/path"), "{error}");
        }
    }
}
