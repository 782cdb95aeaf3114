//! A request's body on its way into a stream of HTTP/2.
//!
//! It is read when the server has room for it. A server may say that it never took the request; then what was sent is
//! sent again, as far as it was kept: the few kilobytes of a usual request, not an upload.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::broken::Broken;
use super::multiplex::Slot;
use super::request::RequestBody;
use super::window::Window;

/// How much is kept. Prompts have a few kilobytes; the pieces are shared and not copied, so they cost their memory only
/// until the response begins.
const KEPT_BYTES: usize = 64 * 1_024;

/// The body, and how far it is.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    /// To be sent before more is read: what waits for room, and what is sent again.
    waiting: VecDeque<Bytes>,
    /// What was sent; `None` when it was too much to keep, or of no use any more.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    /// On this stream.
    sent: usize,
    /// The body was read to its end.
    read: bool,
    /// The stream has its end.
    done: Arc<AtomicBool>,
}

/// The rest of an upload, as the response sees it. Its drop says that nobody waits for a response any more.
#[derive(Debug)]
pub(super) struct Rest {
    answered: oneshot::Sender<()>,
    whole: Arc<AtomicBool>,
}

// === impl Upload ===

impl Upload {
    pub(super) fn new(body: RequestBody) -> Self {
        // The end of such a body goes with the head.
        let none = body.is_end_stream();
        Self {
            body,
            waiting: VecDeque::new(),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            sent: 0,
            read: none,
            done: Arc::new(AtomicBool::new(none)),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    /// The body, of which nothing was read.
    pub(super) fn into_body(self) -> RequestBody {
        self.body
    }

    /// From the beginning, for another stream; says whether that is possible.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(kept) = self.kept.take() else {
            return false;
        };
        self.sent = 0;
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = kept.into_iter().chain(waiting).collect();
        let whole = self.read && self.waiting.is_empty();
        self.done.store(whole, Relaxed);
        true
    }

    /// The response has begun: nothing will be sent again.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// Sends what there is room for. Ready when the stream has its end, or the server wants no more of it.
    pub(super) fn poll(
        &mut self,
        stream: &mut SendStream<Bytes>,
        window: &Window,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.is_done() {
            // Its reason is the response's to tell.
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if self.waiting.is_empty() {
                ready!(self.poll_read(stream, cx))?;
            } else if !ready!(self.poll_send(stream, window, cx)) {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        stream: &mut SendStream<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let frame = if self.read {
            None
        } else {
            ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?
        };
        let Some(frame) = frame else {
            self.finish(stream.send_data(Bytes::new(), true));
            return Poll::Ready(Ok(()));
        };
        match frame.into_data() {
            Ok(data) => {
                self.read = self.body.is_end_stream();
                self.waiting.push_back(data);
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    // Too rare to be kept for.
                    self.kept = None;
                    self.finish(stream.send_trailers(trailers));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends of the first piece what there is room for. `false`: the stream takes no more.
    fn poll_send(
        &mut self,
        stream: &mut SendStream<Bytes>,
        window: &Window,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let room = ready!(window.poll_room(self.sent, cx));
        let Some(mut piece) = self.waiting.pop_front() else {
            return Poll::Ready(true);
        };
        let fits = piece.len().min(room);
        // Asked for with the piece in hand, so no room is held that another stream could use.
        stream.reserve_capacity(fits);
        while stream.capacity() == 0 && !piece.is_empty() {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_room))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
                Poll::Pending => {
                    self.waiting.push_front(piece);
                    return Poll::Pending;
                }
            }
        }
        let rest = piece.split_off(fits.min(stream.capacity()));
        if !rest.is_empty() {
            self.waiting.push_front(rest);
        }
        self.keep(&piece);
        self.sent += piece.len();
        window.take(piece.len());
        let ends = self.read && self.waiting.is_empty();
        let sent = stream.send_data(piece, ends);
        let taken = sent.is_ok();
        if ends {
            self.finish(sent);
        }
        Poll::Ready(taken)
    }

    fn keep(&mut self, piece: &Bytes) {
        self.kept_bytes += piece.len();
        if self.kept_bytes > KEPT_BYTES {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(piece.clone());
        }
    }

    fn finish(&mut self, sent: Result<(), h2::Error>) {
        self.read = true;
        self.done.store(true, Relaxed);
        if let Err(error) = sent {
            tracing::trace!(%error, "the stream had ended before the request's body");
        }
    }
}

// === impl Rest ===

impl Rest {
    /// Goes on with `upload` while the response is under way, which may be long over before it, or wait for it.
    pub(super) fn of(
        upload: Upload,
        stream: SendStream<Bytes>,
        slot: Arc<Slot>,
    ) -> (Self, impl Future<Output = ()>) {
        let (answered, receiver) = oneshot::channel();
        let whole = Arc::clone(&upload.done);
        let rest = Self { answered, whole };
        (rest, go_on(upload, stream, slot, receiver))
    }

    /// Whether the server has the whole request.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Relaxed)
    }

    /// The response is whole: what is left of the request goes on without one.
    pub(super) fn detach(self) {
        // The task may have ended a moment ago.
        self.answered.send(()).unwrap_or_default();
    }
}

async fn go_on(
    mut upload: Upload,
    mut stream: SendStream<Bytes>,
    slot: Arc<Slot>,
    mut answered: oneshot::Receiver<()>,
) {
    let mut watched = true;
    let whole = poll_fn(|cx| {
        if watched && let Poll::Ready(answered) = Pin::new(&mut answered).poll(cx) {
            watched = false;
            if answered.is_err() {
                return Poll::Ready(false);
            }
        }
        upload
            .poll(&mut stream, slot.window(), cx)
            .map(|uploaded| uploaded.is_ok())
    })
    .await;
    if !whole {
        stream.send_reset(Reason::CANCEL);
    }
}
