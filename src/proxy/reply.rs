//! Answers made here, for requests that the upstream does not answer.
//!
//! A client of gRPC takes any answer but its own for a broken server, and does not read its body. It gets a response of
//! trailers alone: status 200 of HTTP, and what happened as `grpc-status` and `grpc-message`. The accounts count what
//! happened and not what carries it: the class of the status that any other client would have got.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Response, StatusCode, header, response};

use super::Shared;
use super::accounts::Outcome;
use super::admission::TurnedAway;
use super::body::Body;
use super::exchange::Exchange;
use super::failed::Failed;
use super::headers::{Refusal, end_connection, prepare_response};
use super::pool::ConnectError;
use super::promise::Promise;
use super::refused::Reason;
use super::upstream::Health;
use crate::causes::chain;

/// What a client of a server that is still loading, or too late, should wait, in seconds. Loading takes minutes, but other
/// pods of the fleet may answer in a moment.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// And that of a full queue: it moves on with every request that ends.
const RETRY_AFTER_FULL: HeaderValue = HeaderValue::from_static("1");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A response's head, as the client gets it.
pub(super) struct Head {
    parts: response::Parts,
    /// What the client is to get after it.
    pub(super) promise: Promise,
    /// Its connection of HTTP/1 ends with it.
    pub(super) last: bool,
    old: bool,
}

/// An answer made here.
pub(super) struct Reply {
    status: StatusCode,
    text: String,
    outcome: Outcome,
}

// === impl Head ===

impl Head {
    /// Of a response that begins now. `of_head`: it answers a HEAD.
    pub(super) fn of(mut parts: response::Parts, of_head: bool, exchange: &mut Exchange) -> Self {
        prepare_response(&mut parts);
        exchange.answered(parts.status);
        let promise = Promise::of(of_head, parts.status, &parts.headers);
        Self::after(parts, promise, exchange)
    }

    /// Of one with which its connection leaves HTTP, which could end with a response.
    pub(super) fn of_switch(mut parts: response::Parts, exchange: &mut Exchange) -> Self {
        prepare_response(&mut parts);
        exchange.answered(parts.status);
        Self {
            parts,
            promise: Promise::ToTheEnd,
            last: false,
            old: false,
        }
    }

    fn after(parts: response::Parts, promise: Promise, exchange: &Exchange) -> Self {
        Self {
            parts,
            promise,
            last: exchange.is_last(promise),
            old: exchange.is_old(),
        }
    }

    /// The response.
    pub(super) fn with(mut self, body: Body) -> Response<Body> {
        if self.last {
            end_connection(&mut self.parts, self.old);
        }
        Response::from_parts(self.parts, body)
    }
}

// === impl Reply ===

impl Reply {
    pub(super) fn new(status: StatusCode, text: String, outcome: Outcome) -> Self {
        Self {
            status,
            text,
            outcome,
        }
    }

    /// The answer to what is not passed on.
    pub(super) fn refusal(refusal: Refusal) -> Self {
        Self::new(refusal.status(), refusal.to_string(), Outcome::Refused)
    }

    /// The answer to a head of HTTP/2 that there is too much of, as hyper gives it to one of HTTP/1.
    pub(super) fn refused(reason: Reason) -> Self {
        Self::new(reason.status(), reason.text(), Outcome::Refused)
    }

    /// The answer to what found no place at the server.
    pub(super) fn turned_away(away: TurnedAway) -> Self {
        let status = match away {
            TurnedAway::Full(_) => StatusCode::TOO_MANY_REQUESTS,
            TurnedAway::Late(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, away.to_string(), Outcome::Refused)
    }

    /// The answer to a failure, which also tells the watchman.
    pub(super) fn of(shared: &Shared, failed: &Failed) -> Self {
        let mut text = chain(failed);
        if shared.watchman.health() == Health::Tls {
            text.push_str(" (is this TLS? the server answers plain HTTP as one of TLS does)");
        }
        let bad_gateway = |text| Self::new(StatusCode::BAD_GATEWAY, text, Outcome::UpstreamFailed);
        match failed {
            Failed::Connect(ConnectError::Refused(_)) => {
                // Before `refused` moves it: who finds the server gone first answers like all who come after.
                let health = shared.watchman.health();
                shared.watchman.refused();
                if health == Health::Starting {
                    let text = format!("the server is still starting: {text}");
                    Self::new(StatusCode::SERVICE_UNAVAILABLE, text, Outcome::Refused)
                } else {
                    bad_gateway(text)
                }
            }
            Failed::Connect(ConnectError::Timeout(_)) => {
                shared.watchman.suspect();
                Self::new(StatusCode::GATEWAY_TIMEOUT, text, Outcome::UpstreamFailed)
            }
            Failed::Misheard { .. }
            | Failed::Connect(ConnectError::Greeting(_) | ConnectError::Silent) => {
                shared.watchman.misheard();
                bad_gateway(text)
            }
            // What cannot be read may be HTTP/2.
            Failed::Upstream(error) if error.is_parse() => {
                shared.watchman.misheard();
                bad_gateway(text)
            }
            Failed::Connect(ConnectError::Handshake(_))
            | Failed::Upstream(_)
            | Failed::Stream(_) => {
                shared.watchman.suspect();
                bad_gateway(text)
            }
            Failed::Excess(_) => bad_gateway(text),
            Failed::Request(_) => Self::new(StatusCode::BAD_REQUEST, text, Outcome::ClientGone),
            Failed::Refused(refusal) => Self::refusal(*refusal),
        }
    }

    pub(super) fn into_response(self, mut exchange: Exchange, grpc: bool) -> Response<Body> {
        exchange.notice(&self.text);
        exchange.in_flight.will_end(self.outcome);
        exchange.in_flight.answered(self.status);
        let text = format!("sidescale: {}", self.text);
        let (parts, text) = if grpc {
            (grpc_head(self.status, &text), None)
        } else {
            (http_head(self.status), Some(text + "\n"))
        };
        let promise = Promise::Bytes(text.as_ref().map_or(0, String::len) as u64);
        let head = Head::after(parts, promise, &exchange);
        head.with(Body::own(text, exchange))
    }
}

fn http_head(status: StatusCode) -> response::Parts {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    match status {
        StatusCode::SERVICE_UNAVAILABLE => headers.insert(header::RETRY_AFTER, RETRY_AFTER),
        StatusCode::TOO_MANY_REQUESTS => headers.insert(header::RETRY_AFTER, RETRY_AFTER_FULL),
        _ => None,
    };
    response.into_parts().0
}

fn grpc_head(status: StatusCode, text: &str) -> response::Parts {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
    if let Ok(message) = HeaderValue::try_from(grpc_message(text)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response.into_parts().0
}

/// As gRPC's own clients read a status of HTTP.
fn grpc_status(status: StatusCode) -> u16 {
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    match status.as_u16() {
        400 => INTERNAL,
        405 | 501 => UNIMPLEMENTED,
        431 => RESOURCE_EXHAUSTED,
        _ => UNAVAILABLE,
    }
}

/// Percent-encoded where it is not printable ASCII.
fn grpc_message(text: &str) -> String {
    let mut message = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            // Writing into a string does not fail.
            _ => write!(message, "%{byte:02X}").unwrap_or_default(),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_is_told_by_its_own_codes() {
        let rows = [
            (502, 14),
            (503, 14),
            (504, 14),
            (400, 13),
            (405, 12),
            (501, 12),
        ];
        for (status, code) in rows {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(grpc_status(status), code, "{status}");
        }
    }

    #[test]
    fn a_grpc_message_is_printable() {
        assert_eq!(grpc_message("50% of `ü`\n"), "50%25 of `%C3%BC`%0A");
    }
}
