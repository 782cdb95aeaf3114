//! Connections that leave HTTP: WebSocket and other upgrades, copied both ways until both sides have ended or one breaks.
//!
//! Who broke it off is the outcome. Bytes are counted as they pass, so that a tunnel of hours is seen while it lasts and
//! its bytes are not lost with its end.

use std::io::{self, Cursor};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_util::future::{Either, select};
use hyper::client::conn::http1::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};

use super::Shared;
use super::accounts::{InFlight, Outcome};
use super::dial::Stream;
use super::exchange::Exchange;

/// How one direction came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// The reader ended, and the writer was told.
    Whole,
    /// The reader broke off; what it had given before was written.
    ReaderBroke,
    WriterBroke,
}

/// Ends where it breaks off, and remembers that. An error would leave what was read before it unwritten, where the writer
/// is slow: of a server that dies, its last words.
struct Reader<R> {
    inner: R,
    broke: bool,
}

/// Counts what goes through it.
struct Writer<'a, W> {
    inner: W,
    count: &'a (dyn Fn(usize) + Send + Sync),
}

// === impl Reader ===

impl<R: AsyncRead + Unpin> AsyncRead for Reader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) {
            tracing::debug!(%error, "one side of a tunnel broke off");
            self.broke = true;
        }
        Poll::Ready(Ok(()))
    }
}

// === impl Writer ===

impl<W: AsyncWrite + Unpin> AsyncWrite for Writer<'_, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        (self.count)(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Joins both sides, of which the upstream has switched, once the client has. The request is in flight until the tunnel
/// ends.
pub(super) fn start(
    shared: &Shared,
    from_client: OnUpgrade,
    upstream: Parts<TokioIo<Stream>>,
    mut exchange: Exchange,
) {
    // hyper's connection has ended by then and no longer holds a drain up: the tunnel does so itself.
    let open = shared.open.token();
    shared.tasks.spawn(async move {
        let _open = open;
        let client = match from_client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                tracing::debug!(%error, "an upgrade was not followed through");
                return;
            }
        };
        match join(client, upstream, &exchange.in_flight).await {
            Outcome::UpstreamFailed => exchange.upstream_failed(),
            outcome @ (Outcome::Completed | Outcome::ClientGone | Outcome::Refused) => {
                exchange.in_flight.will_end(outcome);
            }
        }
    });
}

async fn join(
    client: TokioIo<Upgraded>,
    upstream: Parts<TokioIo<Stream>>,
    in_flight: &InFlight,
) -> Outcome {
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(upstream.io.into_inner());
    // What came right behind the head comes first.
    let from_server = Cursor::new(upstream.read_buf).chain(from_server);
    let (sent, received) = (|n| in_flight.sent(n), |n| in_flight.received(n));
    let down = pin!(pass(from_server, to_client, &sent));
    let up = pin!(pass(from_client, to_server, &received));
    match select(down, up).await {
        Either::Left((Passed::Whole, up)) => match up.await {
            // A server that has ended need not take what the client still says.
            Passed::Whole | Passed::WriterBroke => Outcome::Completed,
            Passed::ReaderBroke => Outcome::ClientGone,
        },
        Either::Left((Passed::ReaderBroke, _)) => Outcome::UpstreamFailed,
        Either::Left((Passed::WriterBroke, _)) | Either::Right((Passed::ReaderBroke, _)) => {
            Outcome::ClientGone
        }
        // A server that takes no more may have said why.
        Either::Right((Passed::Whole | Passed::WriterBroke, down)) => match down.await {
            Passed::Whole => Outcome::Completed,
            Passed::ReaderBroke => Outcome::UpstreamFailed,
            Passed::WriterBroke => Outcome::ClientGone,
        },
    }
}

async fn pass(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    count: &(dyn Fn(usize) + Send + Sync),
) -> Passed {
    let mut from = Reader {
        inner: from,
        broke: false,
    };
    let mut to = Writer { inner: to, count };
    if tokio::io::copy(&mut from, &mut to).await.is_err() {
        return Passed::WriterBroke;
    }
    if from.broke {
        return Passed::ReaderBroke;
    }
    match to.shutdown().await {
        Ok(()) => Passed::Whole,
        Err(_gone) => Passed::WriterBroke,
    }
}
