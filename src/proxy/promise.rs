//! What a response's head has promised of its body: from when on the client has all of it.
//!
//! A server library does not poll a body to its `None`. It stops at the trailers, at the last byte of a length that the head
//! has named, and before the first byte where a response has no body (HEAD, 204, 304): whoever waits for somebody to look
//! once more takes a response that was delivered whole for one whose client has left.

use bytes::Buf;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;

/// How much of a body is still owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// So many bytes.
    Bytes(u64),
    /// Up to its end, wherever that is.
    ToTheEnd,
}

// === impl Promise ===

impl Promise {
    /// Of a response with this head. `of_head`: it answers a HEAD, so its length is that of another response.
    pub(crate) fn of(of_head: bool, status: StatusCode, headers: &HeaderMap) -> Self {
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        if of_head || bodiless {
            return Self::Bytes(0);
        }
        let length = headers.get(CONTENT_LENGTH).and_then(number);
        length.map_or(Self::ToTheEnd, Self::Bytes)
    }

    /// Whether the client has been given all of it.
    pub(crate) fn is_kept(self) -> bool {
        self == Self::Bytes(0)
    }

    /// `frame` is handed on. Says whether the client has now been given all of it.
    pub(crate) fn hand_on<D: Buf>(&mut self, frame: &Frame<D>) -> bool {
        if frame.is_trailers() {
            *self = Self::Bytes(0);
        }
        if let (Self::Bytes(left), Some(data)) = (&mut *self, frame.data_ref()) {
            *left = left.saturating_sub(data.remaining() as u64);
        }
        self.is_kept()
    }
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn head(length: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static(length))])
    }

    #[test]
    fn a_length_is_kept_at_its_last_byte() {
        let mut promise = Promise::of(false, StatusCode::OK, &head("5"));
        assert!(!promise.is_kept());
        assert!(!promise.hand_on(&Frame::data(Bytes::from_static(b"hel"))));
        assert!(promise.hand_on(&Frame::data(Bytes::from_static(b"lo"))));
    }

    #[test]
    fn without_a_length_the_trailers_are_the_last_of_it() {
        let mut promise = Promise::of(false, StatusCode::OK, &HeaderMap::new());
        assert!(!promise.hand_on(&Frame::data(Bytes::from_static(b"hello"))));
        assert!(promise.hand_on(&Frame::<Bytes>::trailers(HeaderMap::new())));
    }

    #[test]
    fn a_response_without_a_body_owes_nothing_whatever_its_length() {
        let rows = [(true, 200), (false, 204), (false, 304)];
        for (of_head, status) in rows {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(
                Promise::of(of_head, status, &head("5")).is_kept(),
                "{status}"
            );
        }
        assert!(Promise::of(false, StatusCode::OK, &head("0")).is_kept());
        assert!(!Promise::of(false, StatusCode::OK, &head("many")).is_kept());
    }
}
