//! Response bodies: the upstream's, passed on frame by frame and accounted for, and our own few words.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::accounts::Outcome;
use super::broken::Broken;
use super::exchange::Exchange;
use super::lease::{Held, Lease};
use super::promise::Promise;
use super::stream::Download;
use super::wire::Carrier;

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
    source: Source,
    promise: Promise,
    /// The client's [`flushes`](Exchange::flushes) when something was last handed on.
    handed_on: usize,
    /// The break that comes after it.
    broken: Option<Broken>,
    exchange: Exchange,
}

/// By what it comes.
#[derive(Debug)]
enum Source {
    Http1 {
        incoming: Incoming,
        /// Given back at the end of the body; dropped before it, it closes the upstream's connection and so cancels the
        /// request there.
        held: Option<Held>,
    },
    Http2(Download),
    /// All of it was handed on.
    Over,
}

/// A text made here. The outcome is settled already; the request ends when the text is gone.
#[derive(Debug)]
pub(super) struct Own {
    text: Option<Bytes>,
    _exchange: Exchange,
}

// === impl Body ===

impl Body {
    pub(super) fn upstream(
        incoming: Incoming,
        promise: Promise,
        exchange: Exchange,
        lease: Lease,
    ) -> Self {
        let held = Some(lease.hold());
        Self::passed(Source::Http1 { incoming, held }, promise, exchange)
    }

    pub(super) fn stream(download: Download, promise: Promise, exchange: Exchange) -> Self {
        Self::passed(Source::Http2(download), promise, exchange)
    }

    fn passed(source: Source, promise: Promise, exchange: Exchange) -> Self {
        let mut passed = Passed {
            source,
            promise,
            // The head goes out after this.
            handed_on: exchange.flushes(),
            broken: None,
            exchange,
        };
        passed.look(promise.is_kept());
        Self::Upstream(passed)
    }

    pub(super) fn own(text: Option<String>, exchange: Exchange) -> Self {
        Self::Own(Own {
            text: text.map(Bytes::from),
            _exchange: exchange,
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Upstream(passed) => passed.poll_frame(cx),
            Self::Own(own) => Poll::Ready(own.text.take().map(|text| Ok(Frame::data(text)))),
            Self::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(passed) => passed.source.is_end_stream(),
            Self::Own(own) => own.text.is_none(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(passed) => passed.source.size_hint(),
            Self::Own(own) => SizeHint::with_exact(own.text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

// === impl Passed ===

impl Passed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.broken.is_some() {
            return self.poll_break(cx);
        }
        match ready!(self.source.poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.in_flight.sent(data.len());
                }
                self.handed_on = self.exchange.flushes();
                let kept = self.promise.hand_on(&frame);
                self.look(kept);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                if !error.is_ours() && !self.promise.is_kept() {
                    self.exchange.upstream_failed();
                }
                self.broken = Some(error);
                self.poll_break(cx)
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    /// The error makes hyper break the client's connection or stream off, so that a cut body is seen to be cut. With it
    /// goes what hyper has not written yet, and of a server that runs out of memory that is the event which says so: the
    /// break waits until all before it is with the kernel.
    fn poll_break(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        ready!(self.exchange.poll_flushed(self.handed_on, cx));
        Poll::Ready(self.broken.take().map(Err))
    }

    /// Nobody need poll for the `None` after this. `kept`: the client has been given all that the head had promised.
    fn look(&mut self, kept: bool) {
        if self.source.is_end_stream() {
            self.complete();
        } else if kept {
            self.exchange.in_flight.will_end(Outcome::Completed);
            self.source.delivered(self.exchange.carrier());
        }
    }

    fn complete(&mut self) {
        self.exchange.in_flight.will_end(Outcome::Completed);
        match &mut self.source {
            Source::Http1 { held, .. } => {
                if let Some(held) = held.take() {
                    held.check_in();
                }
            }
            Source::Http2(download) => download.complete(),
            Source::Over => {}
        }
    }
}

// === impl Source ===

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Http1 { incoming, held } => {
                let frame = ready!(match held {
                    Some(held) => held.poll_frame(incoming, cx),
                    None => Pin::new(incoming).poll_frame(cx),
                });
                if let Some(Err(_)) = frame {
                    *held = None;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Broken::Hyper)))
            }
            Self::Http2(download) => download.poll_frame(cx),
            Self::Over => Poll::Ready(None),
        }
    }

    /// A client that came by `carrier` has been given all that it was promised.
    fn delivered(&mut self, carrier: Carrier) {
        match (&mut *self, carrier) {
            // Its trailers were the last of it.
            (Self::Http1 { held, .. }, _) => {
                if let Some(held) = held.take() {
                    held.check_in();
                }
            }
            // Nobody asks for more on its behalf, and to drop the stream would reset it.
            (Self::Http2(_), Carrier::Http1) => {
                if let Self::Http2(download) = std::mem::replace(self, Self::Over) {
                    download.see_out();
                }
            }
            // The end of its stream is still to come, perhaps with trailers.
            (Self::Http2(_), Carrier::Http2) | (Self::Over, _) => {}
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { incoming, .. } => incoming.is_end_stream(),
            Self::Http2(download) => download.is_end_stream(),
            Self::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { incoming, .. } => incoming.size_hint(),
            // Its length, where it has one, stands in the head.
            Self::Http2(download) if download.is_end_stream() => SizeHint::with_exact(0),
            Self::Over => SizeHint::with_exact(0),
            Self::Http2(_) => SizeHint::default(),
        }
    }
}
