//! Answers: bodies, and the objects and lists in them.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::kind::Kind;
use super::refusal::Refusal;

/// The body of an answer: whole, or the lines of a watch.
pub(super) type Body = UnsyncBoxBody<Bytes, Unavailable>;

/// The server was taken away by [`Faults::set_available`](super::Faults::set_available).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the embedded API server is switched off")]
pub struct Unavailable;

/// An answer with this status and body.
pub(super) fn answer(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// An object.
pub(super) fn object(code: u16, object: &Value) -> Response<Body> {
    answer(code, whole(object.to_string()))
}

/// A refusal's `Status`.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    object(refusal.code(), &refusal.status())
}

/// The `Status` of a deletion or binding that is done.
pub(super) fn success(code: u16, details: Option<Value>) -> Response<Body> {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = details;
    } else {
        status["code"] = code.into();
    }
    object(code, &status)
}

/// A list; its items carry no type of their own, as on the real server.
pub(super) fn list<'a>(
    kind: Kind,
    version: u64,
    items: impl Iterator<Item = &'a Value>,
) -> Response<Body> {
    let items: Vec<Value> = items
        .map(|item| {
            let mut item = item.clone();
            if let Some(fields) = item.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            item
        })
        .collect();
    object(
        200,
        &json!({
            "kind": format!("{}List", kind.facts().kind),
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": version.to_string()},
            "items": items,
        }),
    )
}

pub(super) fn whole(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}
