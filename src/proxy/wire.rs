//! A client's socket: what has been seen on it, and which HTTP its first bytes are.
//!
//! HTTP/2 with prior knowledge begins with a fixed preface that no HTTP/1 request can begin with. The first look is a
//! peek, so a client of HTTP/1 costs one system call per connection and its bytes stay where they are; only a preface
//! that comes in pieces is read, and handed on with the rest.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::frames::Frames;
pub(super) use super::limits::MAX_HEAD;
use super::target::Line;
use crate::memory;

/// What a client with prior knowledge of HTTP/2 sends first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one request's body may hold here while its reader is slow; a connection of HTTP/1 holds as much. A fixed
/// window, and the connection's is the sum of its streams': with one that adapts, both are the same, and the stream of
/// one stalled reader stops all others of its connection. At half a millisecond inside a cluster it passes 256 MB/s.
pub(super) const STREAM_WINDOW: u32 = 128 * 1_024;

/// What a connection may have sent since it last had no request, and may still be kept when memory is short: a prompt of
/// usual size, or some tens of gRPC's calls.
const LIGHT: usize = 32 * 1_024;

/// The HTTP of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Http1,
    Http2,
}

/// What has been seen on one connection.
#[derive(Debug, Default)]
pub(super) struct WireState {
    /// Requests that are being served: one at most, or as many as HTTP/2 has streams.
    serving: AtomicUsize,
    /// Bytes came since the last request was served: in HTTP/1, a request head is under way.
    head_begun: AtomicBool,
    /// At least one request came.
    used: AtomicBool,
    /// A request came since the last patrol.
    seen: AtomicBool,
    /// Bytes went either way since the last look.
    moved: AtomicBool,
    /// Bytes that came since there was no request.
    burden: AtomicUsize,
    /// The client does not read what it asked for, as far as is known.
    stuck: AtomicBool,
    keeps_watch: AtomicBool,
    /// How often all that was written had gone to the socket.
    flushes: AtomicUsize,
    /// Somebody waits for the next time.
    awaited: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    /// A request came whose response has not gone to its last byte.
    owed: AtomicBool,
    /// What is read next may be of a body, or of a tunnel.
    body_due: AtomicBool,
}

/// The client's socket. Notes when bytes come, and changes none but in a target that hyper would refuse.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    state: Arc<WireState>,
    /// What was read and not handed on yet: the first bytes, where they had to be read to be known, and what had no room.
    prefix: Prefix,
    /// The last look for bytes found none, so whatever comes next is told: bytes, or that the client has left.
    watched: bool,
    /// Bytes lie unread that the runtime was told to forget, see [`Wire::has_left`].
    veiled: bool,
    line: Line,
    /// What goes out, where it is HTTP/2.
    frames: Option<Box<Frames>>,
    kept_back: KeptBack,
}

/// The answer of hyper's own to what is no request, which has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptBack {
    Not,
    /// Another one will be written, and the connection is open for it.
    Yes,
    /// It is written now.
    Replaced,
}

/// Bytes that were read here and not yet by hyper.
#[derive(Debug, Default)]
struct Prefix {
    bytes: Vec<u8>,
    taken: usize,
}

// === impl WireState ===

impl WireState {
    /// A request's head is read.
    pub(super) fn begin(&self) {
        self.used.store(true, Relaxed);
        self.seen.store(true, Relaxed);
        self.serving.fetch_add(1, Relaxed);
        self.head_begun.store(false, Relaxed);
        self.owed.store(true, Relaxed);
    }

    /// Whether a body follows the head that was just read.
    pub(super) fn expect_body(&self, expected: bool) {
        self.body_due.store(expected, Relaxed);
    }

    /// The last request's body is read to its end.
    pub(super) fn body_over(&self) {
        self.body_due.store(false, Relaxed);
    }

    /// From here on it is a tunnel, one half of which may end before the other.
    pub(super) fn leave_http(&self) {
        self.keep_watch(false);
        self.body_due.store(true, Relaxed);
    }

    /// Whether the next byte that is read belongs to a head of HTTP/1, and cannot belong to a body: hyper reads on although
    /// nothing is served when it drains the body of a request that was answered early.
    fn is_at_head(&self) -> bool {
        !self.is_serving() && !self.is_reading_head() && !self.body_due.load(Relaxed)
    }

    /// Whether all that there was to answer has its whole answer.
    fn owes_nothing(&self) -> bool {
        !self.is_serving() && !self.owed.load(Relaxed)
    }

    /// A request and its response are over.
    pub(super) fn end(&self) {
        if self.serving.fetch_sub(1, Relaxed) == 1 {
            self.burden.store(0, Relaxed);
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.load(Relaxed) > 0
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    pub(super) fn is_reading_head(&self) -> bool {
        self.head_begun.load(Relaxed)
    }

    /// Whether a request came since this was last asked.
    pub(super) fn take_seen(&self) -> bool {
        self.seen.swap(false, Relaxed)
    }

    /// Whether bytes went either way since this was last asked.
    pub(super) fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Whether much may be held here for its sake.
    pub(super) fn is_heavy(&self) -> bool {
        self.burden.load(Relaxed) > LIGHT || self.stuck.load(Relaxed)
    }

    /// Whether requests are given up when the client leaves with bytes unread. In HTTP/2 all is read, whatever becomes of
    /// its streams.
    pub(super) fn keep_watch(&self, keep: bool) {
        self.keeps_watch.store(keep, Relaxed);
    }

    pub(super) fn flushes(&self) -> usize {
        self.flushes.load(SeqCst)
    }

    /// Waits until all that was written has gone to the socket once more than `before`.
    pub(super) fn poll_flushed(&self, before: usize, cx: &Context<'_>) -> Poll<()> {
        if self.flushes() != before {
            return Poll::Ready(());
        }
        let mut waiting = self.lock();
        waiting.push(cx.waker().clone());
        self.awaited.store(true, SeqCst);
        drop(waiting);
        // It may have happened between the two.
        if self.flushes() == before {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    fn note_flushed(&self) {
        if !self.is_serving() {
            self.owed.store(false, Relaxed);
        }
        self.flushes.fetch_add(1, SeqCst);
        if self.awaited.load(SeqCst) {
            let mut waiting = self.lock();
            self.awaited.store(false, SeqCst);
            let woken = std::mem::take(&mut *waiting);
            drop(waiting);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_read(&self, bytes: usize) {
        self.moved.store(true, Relaxed);
        self.burden.fetch_add(bytes, Relaxed);
        if !self.is_serving() {
            self.head_begun.store(true, Relaxed);
        }
    }
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(stream: TcpStream, state: Arc<WireState>) -> Self {
        Self {
            stream,
            state,
            prefix: Prefix::default(),
            watched: false,
            veiled: false,
            line: Line::default(),
            frames: None,
            kept_back: KeptBack::Not,
        }
    }

    /// It is one of HTTP/2, whose frames are watched on their way out.
    pub(super) fn watch(&mut self, frames: Frames) {
        self.frames = Some(Box::new(frames));
    }

    /// Whether an answer of hyper's own was kept back, so that a client still waits for one.
    pub(super) fn has_kept_back(&self) -> bool {
        self.kept_back == KeptBack::Yes
    }

    /// What is written from now on is the answer.
    pub(super) fn answer_at_last(&mut self) {
        self.kept_back = KeptBack::Replaced;
    }

    /// Waits until the first bytes say which HTTP this is. Whoever ends at once, or in the middle of the preface, is
    /// left to the reader of HTTP/1.
    pub(super) async fn sniff(&mut self) -> io::Result<Carrier> {
        let mut first = [0; PREFACE.len()];
        let seen = self.stream.peek(&mut first).await?;
        if let Some(carrier) = carrier_of(&first[..seen]) {
            return Ok(carrier);
        }
        // A peek would return the same part again and again.
        loop {
            let had = self.prefix.bytes.len();
            let room = &mut first[..PREFACE.len() - had];
            let read = self.stream.read(room).await?;
            self.prefix.bytes.extend_from_slice(&room[..read]);
            self.state.note_read(read);
            let carrier = match carrier_of(&self.prefix.bytes) {
                None if read > 0 => continue,
                known => known.unwrap_or(Carrier::Http1),
            };
            if carrier == Carrier::Http1
                && let Some(encoded) = self.line.pass(&self.prefix.bytes)
            {
                self.prefix.bytes = encoded;
            }
            return Ok(carrier);
        }
    }

    /// What was read behind `before` is of HTTP/1: what hyper would not take of a target is encoded.
    fn encode(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        if self.line == Line::Done {
            return;
        }
        if let Some(encoded) = self.line.pass(&buf.filled()[before..]) {
            buf.set_filled(before);
            self.prefix = Prefix {
                bytes: encoded,
                taken: 0,
            };
            self.prefix.move_to(buf);
        }
    }

    /// Whether hyper writes an answer of its own: one that nobody here has given. It is known by that nothing is owed; that it
    /// looks like one is seen to, so that nothing else can ever be lost.
    fn keeps_back(&self, bytes: &[u8]) -> bool {
        self.frames.is_none()
            && self.kept_back != KeptBack::Replaced
            && self.state.owes_nothing()
            && bytes.starts_with(b"HTTP/1.")
            && bytes.get(8..10) == Some(b" 4")
            && bytes.ends_with(b"\r\n\r\n")
    }

    fn note_frames(&mut self, bufs: &[io::IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        if let (Some(frames), Poll::Ready(Ok(written))) = (&mut self.frames, written) {
            frames.pass(bufs, *written);
        }
    }

    /// Whether the client of a request has left, where hyper does not look: it reads no further than to the first byte
    /// behind a request (a line's end too many, the next request), nor into an upload that its server does not take. Behind
    /// those bytes the end would not be seen, and a GPU would go on for nobody.
    ///
    /// The runtime knows the end from the bytes, but wakes nobody for it as long as there is something to read. So it is
    /// told that there is nothing, and the next read asks the socket itself.
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        if self.watched || !self.state.keeps_watch.load(Relaxed) || !self.state.is_serving() {
            return false;
        }
        loop {
            if let Some(Ok(ready)) = self.stream.ready(Interest::READABLE).now_or_never() {
                if ready.is_read_closed() {
                    return true;
                }
                self.veiled = true;
                // An error says only that it was already forgotten.
                drop(self.stream.try_io(Interest::READABLE, || {
                    Err::<(), _>(io::ErrorKind::WouldBlock.into())
                }));
            }
            if self.stream.poll_read_ready(cx).is_pending() {
                return false;
            }
        }
    }

    /// Reads past the runtime. `false`: there is nothing.
    fn read_veiled(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let socket = SockRef::from(&self.stream);
        // A buffer of its own: one that is not initialised could be handed over by unsafe code alone.
        let room = buf.remaining();
        let space = buf.initialize_unfilled();
        match (&*socket).read(space) {
            Ok(read) => {
                buf.advance(read);
                // What comes after this is told again.
                self.veiled = read == room;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.veiled = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn note_written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.state.stuck.store(written.is_pending(), Relaxed);
        if written.is_pending() {
            return if memory::is_short() {
                memory::cut_off();
                Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()))
            } else if self.has_left(cx) {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            } else {
                Poll::Pending
            };
        }
        self.state.moved.store(true, Relaxed);
        written
    }
}

/// `None`: these bytes may yet become either.
fn carrier_of(first: &[u8]) -> Option<Carrier> {
    if first.is_empty() || !PREFACE.starts_with(first) {
        Some(Carrier::Http1)
    } else if first.len() == PREFACE.len() {
        Some(Carrier::Http2)
    } else {
        None
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.bytes.is_empty() {
            self.prefix.move_to(buf);
            return Poll::Ready(Ok(()));
        }
        // Here and not at the next look: what one turn of the reactor brings is more than there may be.
        if memory::is_short() && self.state.is_heavy() {
            memory::cut_off();
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let before = buf.filled().len();
        if !(self.veiled && self.read_veiled(buf)?) {
            self.watched = true;
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        }
        self.watched = false;
        let read = buf.filled().len() - before;
        if read > 0 {
            if self.state.is_at_head() {
                self.line = Line::Start;
            }
            self.state.note_read(read);
            if self.frames.is_none() {
                self.encode(buf, before);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back(buf) {
            self.kept_back = KeptBack::Yes;
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_frames(&[io::IoSlice::new(buf)], &written);
        self.note_written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs
            && self.keeps_back(only)
        {
            self.kept_back = KeptBack::Yes;
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_frames(bufs, &written);
        self.note_written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.state.note_flushed();
        if self.has_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_kept_back() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Prefix ===

impl Prefix {
    fn move_to(&mut self, buf: &mut ReadBuf<'_>) {
        let left = &self.bytes[self.taken..];
        let fits = left.len().min(buf.remaining());
        buf.put_slice(&left[..fits]);
        self.taken += fits;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_http2_and_all_else_is_http1() {
        assert_eq!(carrier_of(PREFACE), Some(Carrier::Http2));
        for length in 1..PREFACE.len() {
            assert_eq!(carrier_of(&PREFACE[..length]), None, "{length}");
        }
        for first in [
            "",
            "G",
            "POST / HTTP/1.1",
            "PRI * HTTP/1.1",
            "PRI * HTTP/2.0\r\n\r\nXX",
        ] {
            assert_eq!(
                carrier_of(first.as_bytes()),
                Some(Carrier::Http1),
                "{first}"
            );
        }
    }

    #[test]
    fn a_prefix_is_handed_on_in_the_pieces_that_fit() {
        let mut prefix = Prefix {
            bytes: PREFACE[..5].to_vec(),
            taken: 0,
        };
        let mut room = [0; 3];
        let mut buf = ReadBuf::new(&mut room);
        prefix.move_to(&mut buf);
        assert_eq!(buf.filled(), b"PRI");
        buf.clear();
        prefix.move_to(&mut buf);
        assert_eq!(buf.filled(), b" *");
        assert!(prefix.bytes.is_empty());
    }
}
