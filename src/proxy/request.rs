//! Request bodies: the client's, passed on frame by frame, and never a whole one where the client broke off.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderValue, Request, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::on_informational;

use super::accounts::Accounts;
use super::broken::Broken;
use super::exchange::Client;
use super::expect::{Waiting, Word};
use super::wire::{Carrier, WireState};
use crate::clock::Clock;

/// What the upstream's connection reads a request from.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    client: Carrier,
    /// Where it is told that the body is over; `None`: nobody asks.
    wire: Option<Arc<WireState>>,
    /// Counts whoever holds this body; `None`: there is none.
    held: Option<Arc<()>>,
    counted: Option<Arc<Accounts>>,
    /// Its client sends it only when it is told to, and the server has not been asked yet.
    waiting: Option<Box<Waiting>>,
}

// === impl RequestBody ===

impl RequestBody {
    /// `counted`: where its bytes are.
    pub(super) fn of(client: &Client, incoming: Incoming, counted: Option<&Arc<Accounts>>) -> Self {
        let held = (!incoming.is_end_stream()).then(Arc::default);
        Self {
            incoming,
            client: client.carrier,
            wire: (client.carrier == Carrier::Http1 && held.is_some())
                .then(|| Arc::clone(client.wire())),
            counted: held.as_ref().and(counted).map(Arc::clone),
            held,
            waiting: None,
        }
    }

    /// Leaves the body with the client until the server asks for it.
    pub(super) fn wait_for_word(&mut self, clock: &Clock) {
        self.waiting = Some(Box::new(Waiting::new(clock)));
    }

    /// What the server has said of this body; `None`: its client waits for no word.
    pub(super) fn word(&self) -> Option<Arc<Word>> {
        self.waiting
            .as_ref()
            .map(|waiting| Arc::clone(waiting.word()))
    }

    /// The request of HTTP/1 that a prepared `head` makes with this body.
    pub(super) fn into_request(self, head: request::Parts) -> Request<Self> {
        let word = self.word();
        let mut request = Request::from_parts(head, self);
        if let Some(word) = word {
            let headers = request.headers_mut();
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
            on_informational(&mut request, move |interim| word.hear(interim.status()));
        }
        request
    }

    /// The body as it is wanted at once.
    pub(super) fn at_once(self) -> Self {
        Self {
            waiting: None,
            ..self
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
        if let Some(waiting) = &mut this.waiting {
            ready!(waiting.poll(cx));
            this.waiting = None;
        }
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        if let (Some(accounts), Some(Ok(frame))) = (&this.counted, &frame)
            && let Some(data) = frame.data_ref()
        {
            accounts.received(data.len());
        }
        // A client's stream that is reset without an error looks to hyper like one that has ended, since a server may
        // answer early in this way. Of a client it is half a request.
        let cut =
            frame.is_none() && this.client == Carrier::Http2 && !this.incoming.is_end_stream();
        if let Some(wire) = &this.wire
            && (frame.is_none() || this.incoming.is_end_stream())
        {
            wire.body_over();
        }
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
