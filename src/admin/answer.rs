//! Responses and the headers they all have.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// Whole, in memory: the largest answer is a few hundred KiB.
pub(super) type Answer = Response<Full<Bytes>>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What a failed request says.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
}

/// `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => answer(StatusCode::OK, JSON, Bytes::from(text)),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer cannot be written as JSON",
            )
        }
    }
}

/// Why there is no answer, as JSON.
pub(super) fn failure(status: StatusCode, error: &str) -> Answer {
    let text = serde_json::to_vec(&Failure { error }).expect("a struct with one string is JSON");
    answer(status, JSON, Bytes::from(text))
}

/// A line of text.
pub(super) fn text(status: StatusCode, line: &str) -> Answer {
    answer(status, TEXT, Bytes::from(format!("{line}\n")))
}

/// The method is not one of `allowed`.
pub(super) fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("this port is read-only (must use {allowed})"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Any body, never cached: what it says is a second old at most.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        // The page loads nothing from elsewhere, and nobody frames it.
        (
            HeaderName::from_static("content-security-policy"),
            "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in headers {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}
