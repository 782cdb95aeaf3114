//! Probes and hooks: HTTP and TCP against the pod's address, in the clock's time.
//!
//! `exec` and `grpc` are not offered: a runtime here need not have a shell. Such a probe fails, and says why once.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::clock::{Clock, Elapsed, Instant};

/// What the probes of one container have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The startup probe has succeeded, or there is none.
    Started,
    Ready(bool),
}

/// One probe of one container.
struct Prober<'a> {
    clock: &'a Clock,
    container: &'a Container,
    ip: Ipv4Addr,
    probe: &'a Probe,
    next: Instant,
    /// In a row.
    successes: i32,
    /// In a row.
    failures: i32,
}

/// Why an HTTP action against a pod did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    #[error("the container has no port `{0}`")]
    NoPort(String),
    #[error("`{0}` is no path that can be asked for")]
    BadPath(String),
    #[error("could not connect to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} did not answer")]
    Answer {
        address: SocketAddr,
        #[source]
        source: hyper::Error,
    },
    #[error("{address} answered {status}")]
    Status {
        address: SocketAddr,
        status: StatusCode,
    },
    #[error(transparent)]
    Late(Elapsed),
    #[error("this kubelet has no probes and hooks but httpGet and tcpSocket")]
    Unsupported,
}

/// Probes the container and reports each finding that may be new. Returns when it must be restarted: the startup or
/// the liveness probe has failed too often. `exempt` says when it need not live any more: it is being ended.
pub(super) async fn watch(
    clock: &Clock,
    container: &Container,
    ip: Ipv4Addr,
    exempt: impl Fn() -> bool,
    found: impl Fn(Finding),
) {
    let prober = |probe| Prober::new(clock, container, ip, probe);
    if let Some(probe) = &container.startup_probe {
        let mut prober = prober(probe);
        while !prober.verdict().await {
            if !exempt() {
                return;
            }
        }
    }
    found(Finding::Started);
    let readiness = async {
        let Some(probe) = &container.readiness_probe else {
            found(Finding::Ready(true));
            return std::future::pending().await;
        };
        let mut prober = prober(probe);
        loop {
            found(Finding::Ready(prober.verdict().await));
        }
    };
    let liveness = async {
        let Some(probe) = &container.liveness_probe else {
            return std::future::pending().await;
        };
        let mut prober = prober(probe);
        while prober.verdict().await || exempt() {}
    };
    tokio::select! {
        () = readiness => {}
        () = liveness => {}
    }
}

// === impl Prober ===

impl<'a> Prober<'a> {
    fn new(clock: &'a Clock, container: &'a Container, ip: Ipv4Addr, probe: &'a Probe) -> Self {
        if probe.http_get.is_none() && probe.tcp_socket.is_none() {
            tracing::warn!(container = container.name, "{}", ActionError::Unsupported);
        }
        Self {
            clock,
            container,
            ip,
            probe,
            next: clock.instant() + secs(probe.initial_delay_seconds, 0),
            successes: 0,
            failures: 0,
        }
    }

    /// Probes until `successThreshold` successes or `failureThreshold` failures in a row have come together, and says
    /// which. Asked again it goes on counting, so that each further probe of the same outcome is a verdict.
    async fn verdict(&mut self) -> bool {
        let wanted = self.probe.success_threshold.unwrap_or(1).max(1);
        let allowed = self.probe.failure_threshold.unwrap_or(3).max(1);
        loop {
            self.clock.sleep_until(self.next).await;
            match self.once().await {
                Ok(()) => (self.successes, self.failures) = (self.successes.saturating_add(1), 0),
                Err(error) => {
                    tracing::trace!(container = self.container.name, %error, "a probe failed");
                    (self.successes, self.failures) = (0, self.failures.saturating_add(1));
                }
            }
            // A probe that took longer than its period is followed by the next at once, not by those it missed.
            let period = secs(self.probe.period_seconds, 10);
            self.next = (self.next + period).max(self.clock.instant());
            if self.successes >= wanted {
                return true;
            }
            if self.failures >= allowed {
                return false;
            }
        }
    }

    async fn once(&self) -> Result<(), ActionError> {
        let attempt = async {
            if let Some(get) = &self.probe.http_get {
                return http_get(self.container, self.ip, get).await;
            }
            let Some(tcp) = &self.probe.tcp_socket else {
                return Err(ActionError::Unsupported);
            };
            let port = port(self.container, &tcp.port)?;
            connect(SocketAddr::from((self.ip, port))).await.map(drop)
        };
        let limit = secs(self.probe.timeout_seconds, 1);
        self.clock
            .timeout(limit, attempt)
            .await
            .unwrap_or_else(|elapsed| Err(ActionError::Late(elapsed)))
    }
}

/// Asks for the action's path and takes every answer from 200 to 399 as success, as the kubelet does.
pub(super) async fn http_get(
    container: &Container,
    ip: Ipv4Addr,
    get: &HTTPGetAction,
) -> Result<(), ActionError> {
    let address = SocketAddr::from((ip, port(container, &get.port)?));
    let path = get.path.as_deref().unwrap_or("/");
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "kube-probe/1.36")
        .header(header::CONNECTION, "close");
    for given in get.http_headers.iter().flatten() {
        request = request.header(&given.name, &given.value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|_invalid| ActionError::BadPath(path.to_owned()))?;
    let broke = |source| ActionError::Answer { address, source };
    let stream = TokioIo::new(connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(broke)?;
    // The sender goes with the exchange: a server that would keep the connection sees its end.
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broke)?;
        let status = response.status();
        // Read to its end: a body that is cut off could count as a client that gave up.
        drop(response.into_body().collect().await.map_err(broke)?);
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(ActionError::Status { address, status })
        }
    };
    let (result, _connection) = tokio::join!(exchange, connection);
    result
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ActionError> {
    TcpStream::connect(address)
        .await
        .map_err(|source| ActionError::Connect { address, source })
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, ActionError> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| match port {
            IntOrString::Int(number) => ActionError::NoPort(number.to_string()),
            IntOrString::String(name) => ActionError::NoPort(name.clone()),
        })
}

fn secs(given: Option<i32>, otherwise: u64) -> Duration {
    let given = given.and_then(|secs| u64::try_from(secs).ok());
    Duration::from_secs(given.unwrap_or(otherwise))
}
