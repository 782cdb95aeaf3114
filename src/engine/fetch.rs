//! One look at a server's metrics, over HTTP/1.1 and a connection of its own.
//!
//! A connection kept from second to second would save some 50 µs and has to be noticed when it is dead: servers close what
//! was idle for as long as theirs allow.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::address::{Address, Place};
use super::{Sample, UnknownServer, dialect};
use crate::clock::{Clock, Elapsed};

/// How long an answer may take. Python's servers render their metrics between two steps of their event loop: halved, a busy
/// server is often not heard; doubled, a server that hangs is called silent two seconds later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest text that is read. A server with many models and fine histograms has some hundred KiB; what is longer is not the
/// metrics of one server, or wants to fill this pod's memory.
const LONGEST: usize = 4 * 1024 * 1024;

/// What the look calls itself in the server's access log.
const AGENT: &str = "sidescale-metrics";

/// The text format that every server has; without it some would send protocol buffers or `OpenMetrics`.
const FORMAT: &str = "text/plain; version=0.0.4";

/// Why nothing is known of a server's load.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody is there.
    #[error(
        "the server's metrics at {address} cannot be reached (name their place with --server-metrics URL)"
    )]
    Connect {
        /// Where.
        address: Address,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the server's metrics at {address} do not come")]
    Late {
        /// Where.
        address: Address,
        /// How long it was waited for.
        #[source]
        source: Elapsed,
    },
    /// The answer broke off, or is no HTTP.
    #[error("the server's metrics at {address} broke off (is it HTTP without TLS?)")]
    Broken {
        /// Where.
        address: Address,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another answer than metrics.
    #[error(
        "{address} answers {status} and not with metrics (SGLang needs --enable-metrics, Triton has them on port 8002; name their \
         place with --server-metrics URL)"
    )]
    Status {
        /// Where.
        address: Address,
        /// What it said.
        status: StatusCode,
    },
    /// More than a server has to say.
    #[error(
        "the server's metrics at {address} are longer than {LONGEST} bytes (name those of the server alone with --server-metrics URL)"
    )]
    TooLong {
        /// Where.
        address: Address,
    },
    /// Metrics of something else.
    #[error("the metrics at {address} are not understood")]
    Unknown {
        /// Where.
        address: Address,
        /// What was sought.
        #[source]
        source: UnknownServer,
    },
}

/// Reads the metrics at `address` once.
pub async fn read(address: &Address, clock: &Clock) -> Result<Sample, ReadError> {
    let text = match clock.timeout(PATIENCE, fetch(address)).await {
        Ok(fetched) => fetched?,
        Err(source) => {
            return Err(ReadError::Late {
                address: address.clone(),
                source,
            });
        }
    };
    // A broken letter in a label is no reason to know nothing.
    dialect::sample(&String::from_utf8_lossy(&text)).map_err(|source| ReadError::Unknown {
        address: address.clone(),
        source,
    })
}

async fn fetch(address: &Address) -> Result<Bytes, ReadError> {
    let unreachable = |source| ReadError::Connect {
        address: address.clone(),
        source,
    };
    match &address.place {
        Place::Host(host) => {
            let stream = TcpStream::connect(host).await.map_err(unreachable)?;
            exchange(stream, address).await
        }
        Place::Socket(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            exchange(stream, address).await
        }
    }
}

async fn exchange<S>(stream: S, address: &Address) -> Result<Bytes, ReadError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let broken = |source: hyper::Error| ReadError::Broken {
        address: address.clone(),
        source: source.into(),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let asked = async {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = address.path.clone().into();
        let headers = request.headers_mut();
        let host = header::HeaderValue::try_from(address.host());
        headers.insert(
            header::HOST,
            host.unwrap_or(header::HeaderValue::from_static("localhost")),
        );
        for (name, value) in [
            (header::CONNECTION, "close"),
            (header::ACCEPT, FORMAT),
            (header::USER_AGENT, AGENT),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let address = address.clone();
            return Err(ReadError::Status { address, status });
        }
        let body = Limited::new(response.into_body(), LONGEST);
        let collected = body.collect().await.map_err(|source| {
            let address = address.clone();
            if source.is::<LengthLimitError>() {
                ReadError::TooLong { address }
            } else {
                ReadError::Broken { address, source }
            }
        })?;
        Ok(collected.to_bytes())
    };
    // The connection is driven here and ends with this call, so that no look outlives its time. When it ends first, it has
    // left the answer or the error with who asked.
    match future::select(pin!(asked), pin!(connection)).await {
        Either::Left((answer, _connection)) => answer,
        Either::Right((_closed, asked)) => asked.await,
    }
}
