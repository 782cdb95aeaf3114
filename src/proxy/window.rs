//! The server's window on a connection of HTTP/2: how much of all requests' bodies it still takes.
//!
//! The streams of a connection share one window, and what a server does not read of one stays in it: an upload that stalls
//! would stop those of all other clients. h2 does not say how much is left, so the frames that come from the server are
//! looked at as they pass, for the few bytes of each that say more room.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::walk::{PEEK, Walk, Wanted};

/// What every connection begins with (RFC 9113, 6.9.2); only `WINDOW_UPDATE` changes it.
const INITIAL: i64 = 65_535;
/// What a body may send without leaving room for others: a prompt of usual size, or a call of gRPC.
const SMALL: usize = 16 * 1_024;
/// Of its widest, what larger bodies leave free: one part in so many. A server may say that it has read only when half of
/// the window was taken, so it must be well below that half.
const RESERVE: i64 = 8;
const TYPE_WINDOW_UPDATE: u8 = 8;

/// The room that is left.
#[derive(Debug)]
pub(super) struct Window {
    left: AtomicI64,
    widest: AtomicI64,
    waiting: Mutex<Vec<Waker>>,
}

/// A connection to the server, whose frames are looked at.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    walk: Walk,
    window: Arc<Window>,
}

// === impl Window ===

impl Default for Window {
    fn default() -> Self {
        Self {
            left: AtomicI64::new(INITIAL),
            widest: AtomicI64::new(INITIAL),
            waiting: Mutex::default(),
        }
    }
}

impl Window {
    /// Whether so much is taken that another body should go by another connection. A server that has read all may have
    /// left half of it unsaid.
    pub(super) fn is_strained(&self) -> bool {
        self.left.load(SeqCst) < self.widest.load(SeqCst) / RESERVE * 3
    }

    /// `bytes` were sent.
    pub(super) fn take(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_sub(bytes, SeqCst);
    }

    /// How much a body may send now that has sent `sent` before.
    pub(super) fn poll_room(&self, sent: usize, cx: &Context<'_>) -> Poll<usize> {
        if let Some(room) = self.room(sent) {
            return Poll::Ready(room);
        }
        self.lock().push(cx.waker().clone());
        // It may have grown between the two.
        self.room(sent).map_or(Poll::Pending, Poll::Ready)
    }

    fn room(&self, sent: usize) -> Option<usize> {
        let reserve = self.widest.load(SeqCst) / RESERVE;
        let free = self.left.load(SeqCst) - reserve;
        let free = usize::try_from(free).unwrap_or(0);
        Some(free.max(SMALL.saturating_sub(sent))).filter(|room| *room > 0)
    }

    fn grow(&self, bytes: u32) {
        let left = self.left.fetch_add(bytes.into(), SeqCst) + i64::from(bytes);
        self.widest.fetch_max(left, SeqCst);
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Watched ===

impl<S> Watched<S> {
    pub(super) fn new(stream: S, window: Arc<Window>) -> Self {
        Self {
            stream,
            walk: Walk::default(),
            window,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let window = &this.window;
        read(&mut this.walk, &buf.filled()[before..], |bytes| {
            window.grow(bytes);
        });
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Tells `grown` of each `WINDOW_UPDATE` of the connection that ends in `bytes`, wherever they were cut.
fn read(walk: &mut Walk, bytes: &[u8], grown: impl Fn(u32)) {
    walk.pass(bytes, |head, first| {
        if let Some([a, b, c, d]) = first {
            // The first bit is reserved.
            grown(u32::from_be_bytes([a & 0x7f, b, c, d]));
        }
        // Of the connection: of a stream it would name that.
        let is_update = head.kind == TYPE_WINDOW_UPDATE && head.length == PEEK && head.stream == 0;
        if is_update {
            Wanted::First
        } else {
            Wanted::Nothing
        }
    });
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, 0, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn updates_of_the_connection_are_read_wherever_they_are_cut() {
        let bytes = [
            frame(4, 0, &[0; 12]),
            frame(TYPE_WINDOW_UPDATE, 0, &[0x80, 0, 1, 2]),
            // Of a stream, and data that looks like an update.
            frame(TYPE_WINDOW_UPDATE, 3, &[0, 0, 9, 9]),
            frame(0, 1, &frame(TYPE_WINDOW_UPDATE, 0, &[0, 0, 7, 7])),
            frame(0, 1, &[]),
            frame(TYPE_WINDOW_UPDATE, 0, &[0, 0, 0, 5]),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let (mut walk, grown) = (Walk::default(), RefCell::new(Vec::new()));
            for piece in bytes.chunks(size) {
                read(&mut walk, piece, |bytes| grown.borrow_mut().push(bytes));
            }
            assert_eq!(grown.into_inner(), [258, 5], "{size}");
        }
    }

    #[test]
    fn large_bodies_leave_room_and_small_ones_take_it() {
        let window = Window::default();
        let large = window.room(SMALL).expect("all but the reserve");
        assert_eq!(large, 65_535 - 65_535 / 8);
        window.take(large);
        assert_eq!((window.room(SMALL), window.room(0)), (None, Some(SMALL)));
        assert!(window.is_strained());
        window.grow(1);
        assert_eq!(window.room(SMALL), Some(1));
    }

    /// Half of a window may be read and not yet said, by servers that say so seldom.
    #[test]
    fn a_window_of_which_half_is_left_is_not_strained() {
        let window = Window::default();
        window.grow(1_048_576 - 65_535);
        assert!(!window.is_strained());
        window.take(524_288);
        assert!(!window.is_strained());
        assert!(window.room(SMALL).is_some());
    }
}
