//! Client connections: accepted, served by hyper, and closed so that no request on its way is lost.
//!
//! A server that closes an idle keep-alive connection can meet a request that is already on the wire (hyper #3792), and
//! an HTTP/1.1 client may not repeat it. So in a drain every response says `Connection: close`, and what is still idle
//! after that is closed only when a turn of the reactor has shown that the kernel holds nothing unread; a connection
//! that has not carried a request yet is given a moment for its first.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use super::accounts::{InFlight, Outcome};
use super::forward::forward;
use super::headers::Peer;

/// How long to wait after an accept that failed for want of descriptors or memory: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked at: a request head that is incomplete at two looks in a row is given up. hyper's
/// own `header_read_timeout` also ends idle keep-alive connections, which costs clients a race for every one.
const PATROL_PERIOD: Duration = Duration::from_secs(15);
/// How long a connection may be idle, in patrols: ten minutes and a half, longer than the load balancers in use keep
/// theirs (600 s at most), so that the side that knows whether a request is under way is the one that closes.
const IDLE_PATROLS: u32 = 42;
/// How long a connection that has not carried a request yet keeps for it, when the proxy stops accepting.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// One client's connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
    wire: Arc<WireState>,
}

/// One request and its response. Its drop is their end.
#[derive(Debug)]
#[must_use = "dropping it is the end of the request"]
pub(super) struct Exchange {
    pub(super) in_flight: InFlight,
    client: Arc<Client>,
}

/// What has been seen on one connection.
#[derive(Debug, Default)]
struct WireState {
    /// A request is being served.
    serving: AtomicBool,
    /// Bytes came since the last request was served: a request head is under way.
    head_begun: AtomicBool,
    /// At least one request came.
    used: AtomicBool,
    /// A request came since the last patrol.
    seen: AtomicBool,
}

/// The client's socket. Notes when bytes come, and changes none.
struct Wire {
    stream: TcpStream,
    state: Arc<WireState>,
}

// === impl Client ===

impl Client {
    /// A request's head is read.
    pub(super) fn begin(self: &Arc<Self>, in_flight: InFlight) -> Exchange {
        self.wire.used.store(true, Relaxed);
        self.wire.seen.store(true, Relaxed);
        self.wire.serving.store(true, Relaxed);
        self.wire.head_begun.store(false, Relaxed);
        Exchange {
            in_flight,
            client: Arc::clone(self),
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// The upstream's response head is here.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.in_flight.first_byte();
        self.in_flight.answered(status);
    }

    /// The upstream broke off in the middle.
    pub(super) fn upstream_failed(&mut self) {
        self.in_flight.will_end(Outcome::UpstreamFailed);
        self.client.shared.watchman.suspect();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.wire.serving.store(false, Relaxed);
    }
}

// === impl WireState ===

impl WireState {
    fn note_read(&self) {
        if !self.serving.load(Relaxed) {
            self.head_begun.store(true, Relaxed);
        }
    }

    fn is_reading_head(&self) -> bool {
        self.head_begun.load(Relaxed)
    }
}

// === impl Wire ===

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.state.note_read();
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

/// Accepts until the drain closes the door, and then what had knocked by then.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // A drain is not over while there may be connections that nobody has accepted yet.
    let _open = shared.open.token();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => start(&shared, stream, peer),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // One that was reset while it waited costs nothing; being out of descriptors needs a pause.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    shared.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // Closing a listener resets what waits in its queue. One turn of the reactor shows all of it.
    tokio::task::yield_now().await;
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        start(&shared, stream, peer);
    }
}

fn start(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let open = shared.open.token();
    let serving = serve(Arc::clone(shared), stream, peer);
    shared.tasks.spawn(async move {
        let _open = open;
        if let Err(error) = serving.await {
            tracing::debug!(%error, %peer, "a client's connection ended");
        }
    });
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> hyper::Result<()> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "a client left at once");
        return Ok(());
    }
    let state = Arc::new(WireState::default());
    let wire = Wire {
        stream,
        state: Arc::clone(&state),
    };
    let client = Arc::new(Client {
        shared: Arc::clone(&shared),
        peer: Peer::new(peer.ip()),
        wire: Arc::clone(&state),
    });
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = forward(Arc::clone(&client), request);
        async move { answer.await as Result<_, Infallible> }
    });
    let mut builder = http1::Builder::new();
    // See `PATROL_PERIOD`.
    builder.header_read_timeout(None);
    let connection = builder
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = shared.closing.cancelled() => {}
        () = patrol(&shared, &state) => {
            tracing::debug!(%peer, "a client was too slow, or idle for too long");
            return Ok(());
        }
    }
    let last_look = async {
        if !state.used.load(Relaxed) {
            shared.clock.sleep(FIRST_REQUEST_GRACE).await;
        }
        tokio::task::yield_now().await;
    };
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = last_look => {}
    }
    // A head that is under way gets its response, which says `Connection: close`; graceful shutdown would cut it off.
    if !state.is_reading_head() {
        connection.as_mut().graceful_shutdown();
    }
    tokio::select! {
        ended = connection => ended,
        () = patrol(&shared, &state) => Ok(()),
    }
}

/// Returns when the connection is not worth keeping: a head that does not come, or no request for long.
async fn patrol(shared: &Shared, state: &WireState) {
    let (mut slow, mut idle) = (0, 0);
    while slow < 2 && idle < IDLE_PATROLS {
        shared.clock.sleep(PATROL_PERIOD).await;
        let seen = state.seen.swap(false, Relaxed);
        let reading = state.is_reading_head();
        // A busy connection may be met between two heads by chance: it has been seen, so it is not slow.
        slow = if reading && !seen { slow + 1 } else { 0 };
        let serving = state.serving.load(Relaxed);
        idle = if seen || reading || serving {
            0
        } else {
            idle + 1
        };
    }
}
