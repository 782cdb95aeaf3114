//! One request and its answer.

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::pool::{Pool, Sender};
use super::{Ending, Outcome};
use crate::clock::{Clock, Instant};

/// How `OpenAI`'s event streams end. A stream that ends well by HTTP but lacks this was cut by the server.
const DONE: &[u8] = b"data: [DONE]";

/// A request that is about to be sent.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) due: Instant,
    pub(super) sent_at: Instant,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) body: String,
    pub(super) host: HeaderValue,
    pub(super) patience: Duration,
    pub(super) clock: Clock,
}

/// What was seen of the answer so far; it survives the end of the client's patience.
#[derive(Debug, Default)]
struct Seen {
    first_byte: Option<Duration>,
    queued: Option<Duration>,
}

// === impl Exchange ===

impl Exchange {
    pub(super) async fn run(mut self, pool: &Pool) -> Outcome {
        let mut seen = Seen::default();
        let result = match self.endpoint {
            None => Ending::Refused,
            Some(endpoint) => {
                let left = (self.due + self.patience).since(self.clock.instant());
                let clock = self.clock.clone();
                clock
                    .timeout(left, self.converse(pool, endpoint, &mut seen))
                    .await
                    .unwrap_or(Ending::TimedOut)
            }
        };
        Outcome {
            due: self.due,
            sent_at: self.sent_at,
            endpoint: self.endpoint,
            first_byte: seen.first_byte,
            total: self.clock.instant().since(self.due),
            queued: seen.queued,
            result,
        }
    }

    async fn converse(&mut self, pool: &Pool, endpoint: SocketAddr, seen: &mut Seen) -> Ending {
        let (sender, response) = match self.send(pool, endpoint).await {
            Ok(answered) => answered,
            Err(ending) => return ending,
        };
        let ending = self.read(response, seen).await;
        if matches!(ending, Ending::Ok | Ending::Status(_)) {
            pool.put(endpoint, sender, self.clock.instant());
        }
        ending
    }

    /// Sends the request over an idle connection, or else a new one.
    async fn send(
        &mut self,
        pool: &Pool,
        endpoint: SocketAddr,
    ) -> Result<(Sender, Response<Incoming>), Ending> {
        let mut request = self.request();
        while let Some(mut idle) = pool.take(endpoint, self.clock.instant()) {
            // The connection may still be finishing its last answer, or have been closed since.
            if idle.ready().await.is_err() {
                continue;
            }
            match idle.try_send_request(request).await {
                Ok(response) => return Ok((idle, response)),
                // hyper hands a request back of which no byte was written, because the server had closed the idle
                // connection. It has not been sent, so to send it now is no retry.
                Err(mut error) => request = error.take_message().ok_or(Ending::Reset)?,
            }
        }
        let mut fresh = pool.connect(endpoint).await.map_err(|error| {
            tracing::debug!(%endpoint, %error, "the load cannot connect");
            // A server that is killed just after it accepted resets a connection that its kernel had taken already.
            if is_reset(error.kind()) {
                Ending::Reset
            } else {
                Ending::Refused
            }
        })?;
        match fresh.send_request(request).await {
            Ok(response) => Ok((fresh, response)),
            Err(error) => {
                tracing::debug!(%endpoint, %error, "no answer");
                Err(Ending::Reset)
            }
        }
    }

    async fn read(&self, response: Response<Incoming>, seen: &mut Seen) -> Ending {
        let status = response.status();
        let headers = response.headers();
        let is_stream = headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        seen.queued = headers
            .get("x-queue-millis")
            .and_then(|millis| millis.to_str().ok()?.parse().ok())
            .map(Duration::from_millis);
        let mut body = response.into_body();
        let mut tail = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) if was_reset(&error) => return Ending::Reset,
                Err(_cut_off) => return Ending::ShortBody,
            };
            if let Some(data) = frame.data_ref() {
                seen.first_byte
                    .get_or_insert_with(|| self.clock.instant().since(self.due));
                keep_tail(&mut tail, data);
            }
        }
        if !status.is_success() {
            Ending::Status(status.as_u16())
        } else if is_stream && !tail.trim_ascii_end().ends_with(DONE) {
            Ending::ShortBody
        } else {
            Ending::Ok
        }
    }

    fn request(&mut self) -> Request<Full<Bytes>> {
        let body = Bytes::from(std::mem::take(&mut self.body));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/completions");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }
}

/// Keeps the end of a body, long enough to hold [`DONE`] and the blank line after it.
fn keep_tail(tail: &mut Vec<u8>, data: &[u8]) {
    const LENGTH: usize = DONE.len() + 4;
    tail.extend_from_slice(&data[data.len().saturating_sub(LENGTH)..]);
    tail.drain(..tail.len().saturating_sub(LENGTH));
}

/// Whether a connection was reset, rather than closed too early.
fn was_reset(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return is_reset(io.kind());
        }
        cause = error.source();
    }
    false
}

fn is_reset(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
    )
}
