//! Response bodies: the upstream's, passed on frame by frame and accounted for, and our own few words.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::accounts::Outcome;
use super::connection::Exchange;
use super::pool::Lease;

/// What the client's connection reads a response from.
#[derive(Debug)]
pub(super) enum Body {
    Upstream(Passed),
    Own(Own),
    /// Of an upgrade: what follows the head is no body.
    Empty,
}

/// The upstream's body. Nothing is kept: a frame is read when the client's socket has room for it.
#[derive(Debug)]
pub(super) struct Passed {
    incoming: Incoming,
    exchange: Exchange,
    /// Given back at the end of the body; dropped before it, it closes the upstream's connection and so cancels the
    /// request there.
    lease: Option<Lease>,
}

/// A text made here. The outcome is settled already; the request ends when the text is gone.
#[derive(Debug)]
pub(super) struct Own {
    text: Option<Bytes>,
    _exchange: Exchange,
}

// === impl Body ===

impl Body {
    pub(super) fn upstream(incoming: Incoming, exchange: Exchange, lease: Lease) -> Self {
        let mut passed = Passed {
            incoming,
            exchange,
            lease: Some(lease),
        };
        // hyper never polls a body that says it has ended (HEAD, 204, 304, a length of zero).
        if passed.incoming.is_end_stream() {
            passed.complete();
        }
        Self::Upstream(passed)
    }

    pub(super) fn own(text: String, exchange: Exchange) -> Self {
        Self::Own(Own {
            text: Some(Bytes::from(text)),
            _exchange: exchange,
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Upstream(passed) => passed.poll_frame(cx),
            Self::Own(own) => Poll::Ready(own.text.take().map(|text| Ok(Frame::data(text)))),
            Self::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(passed) => passed.incoming.is_end_stream(),
            Self::Own(own) => own.text.is_none(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(passed) => passed.incoming.size_hint(),
            Self::Own(own) => SizeHint::with_exact(own.text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

// === impl Passed ===

impl Passed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.in_flight.sent(data.len());
                }
                // Nobody polls for the `None` after the last byte of a known length.
                if self.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.lease = None;
                self.exchange.upstream_failed();
                // The error makes hyper break the client's connection off, so that a cut body is seen to be cut.
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn complete(&mut self) {
        self.exchange.in_flight.will_end(Outcome::Completed);
        if let Some(lease) = self.lease.take() {
            lease.check_in();
        }
    }
}
