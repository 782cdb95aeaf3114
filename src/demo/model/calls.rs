//! The same completions as a gRPC call with a stream of answers: `POST /sidescale.demo.Model/Complete`.
//!
//! Its messages are the JSON of [`super::completions`] (`application/grpc+json`), so that a client needs no schema: a
//! request, then a message for each piece, then trailers.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::completions::{Body, completion};
use super::generation::Generation;

/// Where the call is.
pub(super) const PATH: &str = "/sidescale.demo.Model/Complete";
/// Before each message: a byte that says whether it is compressed, and four of its length.
const PREFIX: usize = 5;
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");
/// gRPC's `INVALID_ARGUMENT`.
const INVALID: HeaderValue = HeaderValue::from_static("3");

/// The message of a request that has one.
pub(super) fn message(body: &Bytes) -> Result<Bytes, &'static str> {
    let (Some(prefix), Some(message)) = (body.get(..PREFIX), body.get(PREFIX..)) else {
        return Err("a message has five bytes before it");
    };
    if prefix[0] != 0 {
        return Err("messages are not compressed here");
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if usize::try_from(length) != Ok(message.len()) {
        return Err("there is one message in a request, of the length that stands before it");
    }
    Ok(body.slice(PREFIX..))
}

/// A message for each piece, as it comes, and trailers after the last.
pub(super) fn stream(generation: Generation) -> Response<Body> {
    let frames = stream::unfold(Some(generation), async |left| {
        let mut generation = left?;
        Some(if let Some(piece) = generation.next().await {
            let message = framed(&completion(piece.tokens, piece.last));
            (Ok(Frame::data(message)), Some(generation))
        } else {
            let trailers = HeaderMap::from_iter([(STATUS, OK)]);
            (Ok(Frame::trailers(trailers)), None)
        })
    });
    answer(StreamBody::new(frames).boxed_unsync())
}

/// A call that cannot be understood: gRPC says so in a head that is all of its answer.
pub(super) fn refuse(why: &str) -> Response<Body> {
    let mut response = answer(http_body_util::Empty::new().boxed_unsync());
    response.headers_mut().insert(STATUS, INVALID);
    // What breaks a line or is not ASCII would have to be escaped: the status is enough then.
    if let Ok(why) = HeaderValue::from_str(why) {
        response.headers_mut().insert("grpc-message", why);
    }
    response
}

fn answer(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn framed(message: &str) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message.as_bytes());
    framed.freeze()
}
