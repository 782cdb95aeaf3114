//! Request bodies: the client's, passed on frame by frame, and never a whole one where the client broke off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::broken::Broken;
use super::wire::Carrier;

/// What the upstream's connection reads a request from.
#[derive(Debug)]
pub(super) enum RequestBody {
    Http1(Incoming),
    /// A client's stream that is reset without an error looks to hyper like one that has ended, since a server may
    /// answer early in this way. Of a client it is half a request.
    Http2(Incoming),
}

// === impl RequestBody ===

impl RequestBody {
    pub(super) fn of(client: Carrier, body: Incoming) -> Self {
        match client {
            Carrier::Http1 => Self::Http1(body),
            Carrier::Http2 => Self::Http2(body),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let (Self::Http1(body) | Self::Http2(body)) = this;
        let frame = ready!(Pin::new(body).poll_frame(cx));
        let cut = frame.is_none() && matches!(this, Self::Http2(body) if !body.is_end_stream());
        Poll::Ready(if cut {
            Some(Err(Broken::Abandoned))
        } else {
            frame.map(|frame| frame.map_err(Broken::Hyper))
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) | Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) | Self::Http2(body) => body.size_hint(),
        }
    }
}
