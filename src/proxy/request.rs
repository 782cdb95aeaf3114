//! Request bodies: the client's, passed on frame by frame, and never a whole one where the client broke off.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::broken::Broken;
use super::exchange::Client;
use super::wire::{Carrier, WireState};

/// What the upstream's connection reads a request from.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    client: Carrier,
    wire: Arc<WireState>,
    /// Counts whoever holds this body; `None`: there is none.
    held: Option<Arc<()>>,
}

// === impl RequestBody ===

impl RequestBody {
    pub(super) fn of(client: &Client, incoming: Incoming) -> Self {
        let held = (!incoming.is_end_stream()).then(Arc::default);
        let body = Self {
            incoming,
            client: client.carrier,
            wire: Arc::clone(client.wire()),
            held,
        };
        body.note_end(false);
        body
    }

    /// hyper has read the body to its end, when that is seen here.
    fn note_end(&self, ended: bool) {
        if self.client == Carrier::Http1 && (ended || self.incoming.is_end_stream()) {
            self.wire.body_over();
        }
    }

    /// What can be upgraded for as long as somebody holds this body, and never where there is none.
    pub(super) fn upload(&self) -> Weak<()> {
        self.held.as_ref().map(Arc::downgrade).unwrap_or_default()
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
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        // A client's stream that is reset without an error looks to hyper like one that has ended, since a server may
        // answer early in this way. Of a client it is half a request.
        let cut =
            frame.is_none() && this.client == Carrier::Http2 && !this.incoming.is_end_stream();
        this.note_end(frame.is_none());
        Poll::Ready(if cut {
            Some(Err(Broken::Abandoned))
        } else {
            frame.map(|frame| frame.map_err(Broken::Hyper))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
