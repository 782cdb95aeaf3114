//! One request: to the upstream, and its response back.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header, response};
use hyper::body::Incoming;

use super::accounts::{InFlight, Outcome};
use super::body::Body;
use super::connection::{Client, Exchange};
use super::headers::{Upgrading, prepare_request, prepare_response};
use super::pool::{ConnectError, Lease};
use super::upstream::Health;
use super::{Shared, tunnel};
use crate::causes::chain;

/// What a client of a server that is still loading should wait, in seconds. Loading takes minutes, but other pods of
/// the fleet may answer in a moment.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why there is no response of the upstream.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// No connection: nothing was sent.
    #[error("no connection to the upstream")]
    Connect(#[source] ConnectError),
    /// The connection broke before a response.
    #[error("the upstream broke off before its response")]
    Upstream(#[source] hyper::Error),
    /// The request's own body broke.
    #[error("the request's body broke off")]
    Request(#[source] hyper::Error),
}

/// Answers one request of `client`. Dropping this future cancels the upstream's part of it.
pub(super) async fn forward(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let shared = &client.shared;
    let in_flight = if shared.settings.uncounted.contains(request.uri().path()) {
        InFlight::uncounted()
    } else {
        shared.accounts.arrive()
    };
    let mut exchange = client.begin(in_flight);
    let (mut parts, body) = request.into_parts();
    let upgrading = match prepare_request(&mut parts, &client.peer, &shared.host) {
        Ok(upgrading) => upgrading,
        Err(refusal) => {
            let reply = Reply::new(refusal.status(), refusal.to_string(), Outcome::Refused);
            return Ok(reply.into_response(shared, exchange));
        }
    };
    let mut request = Request::from_parts(parts, body);
    let from_client = (upgrading == Upgrading::Asked).then(|| hyper::upgrade::on(&mut request));
    let (mut response, lease) = match send(shared, request).await {
        Ok(answered) => answered,
        Err(failed) => return Ok(Reply::of(shared, &failed).into_response(shared, exchange)),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(from_client) = from_client else {
            let text = "the upstream switched protocols unasked".to_owned();
            let reply = Reply::new(StatusCode::BAD_GATEWAY, text, Outcome::UpstreamFailed);
            return Ok(reply.into_response(shared, exchange));
        };
        exchange.answered(StatusCode::SWITCHING_PROTOCOLS);
        let from_upstream = hyper::upgrade::on(&mut response);
        tunnel::start(shared, from_client, from_upstream, exchange);
        let (parts, _body) = response.into_parts();
        return Ok(finished(shared, parts, Body::Empty));
    }
    exchange.answered(response.status());
    let (parts, incoming) = response.into_parts();
    Ok(finished(
        shared,
        parts,
        Body::upstream(incoming, exchange, lease),
    ))
}

/// Sends `request`, a second time if the first connection turns out never to have taken it.
async fn send(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let mut lease = shared.pool.check_out().await.map_err(Failed::Connect)?;
    let mut error = match lease.sender.try_send_request(request).await {
        Ok(response) => return Ok((response, lease)),
        Err(error) => error,
    };
    match error.take_message() {
        // hyper hands a request back only if not a byte of it was written: the upstream had closed the idle
        // connection. Anything else may have been acted on there, and is not ours to repeat.
        Some(request) if lease.reused => {
            shared.pool.clear();
            let mut lease = shared.pool.open().await.map_err(Failed::Connect)?;
            match lease.sender.try_send_request(request).await {
                Ok(response) => Ok((response, lease)),
                Err(error) => Err(Failed::sending(error.into_error())),
            }
        }
        Some(_) | None => Err(Failed::sending(error.into_error())),
    }
}

fn finished(shared: &Shared, mut parts: response::Parts, body: Body) -> Response<Body> {
    prepare_response(&mut parts, shared.is_draining());
    Response::from_parts(parts, body)
}

// === impl Failed ===

impl Failed {
    fn sending(error: hyper::Error) -> Self {
        if error.is_user() {
            Self::Request(error)
        } else {
            Self::Upstream(error)
        }
    }
}

/// An answer made here.
struct Reply {
    status: StatusCode,
    text: String,
    outcome: Outcome,
}

// === impl Reply ===

impl Reply {
    fn new(status: StatusCode, text: String, outcome: Outcome) -> Self {
        Self {
            status,
            text,
            outcome,
        }
    }

    /// The answer to a failure, which also tells the watchman.
    fn of(shared: &Shared, failed: &Failed) -> Self {
        let text = chain(failed);
        match failed {
            Failed::Connect(ConnectError::Refused(_)) => {
                // Before `refused` moves it: who finds the server gone first answers like all who come after.
                let health = shared.watchman.health();
                shared.watchman.refused();
                if health == Health::Starting {
                    let text = format!("the server is still starting: {text}");
                    Self::new(StatusCode::SERVICE_UNAVAILABLE, text, Outcome::Refused)
                } else {
                    Self::new(StatusCode::BAD_GATEWAY, text, Outcome::UpstreamFailed)
                }
            }
            Failed::Connect(ConnectError::Timeout(_)) => {
                shared.watchman.suspect();
                Self::new(StatusCode::GATEWAY_TIMEOUT, text, Outcome::UpstreamFailed)
            }
            Failed::Connect(ConnectError::Handshake(_)) | Failed::Upstream(_) => {
                shared.watchman.suspect();
                Self::new(StatusCode::BAD_GATEWAY, text, Outcome::UpstreamFailed)
            }
            Failed::Request(_) => Self::new(StatusCode::BAD_REQUEST, text, Outcome::ClientGone),
        }
    }

    fn into_response(self, shared: &Shared, mut exchange: Exchange) -> Response<Body> {
        tracing::debug!(status = %self.status, reason = self.text, "answered without the upstream");
        exchange.in_flight.will_end(self.outcome);
        exchange.in_flight.answered(self.status);
        let text = format!("sidescale: {}\n", self.text);
        let mut response = Response::new(Body::own(text, exchange));
        *response.status_mut() = self.status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, plain);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        let (parts, body) = response.into_parts();
        finished(shared, parts, body)
    }
}
