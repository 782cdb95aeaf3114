//! Client connections: accepted, served by hyper, and closed so that no request on its way is lost.
//!
//! A server that closes an idle keep-alive connection can meet a request that is already on the wire (hyper #3792), and
//! an HTTP/1.1 client may not repeat it. So in a drain every response says `Connection: close`, and what is still idle
//! after that is closed only when a turn of the reactor has shown that the kernel holds nothing unread; a connection
//! whose client could not be told is given a moment for one more request: it has not carried any yet, or its last response
//! had begun before the drain.
//!
//! HTTP/2 has a word for it: GOAWAY, which hyper says in two steps, so that a stream which was sent before the client
//! heard of it is served; of one that comes still later the second step says that it was not taken. It is said when the
//! endpoints have propagated, and not before: a client would only come back to where its
//! Service still sends it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use super::aside::Aside;
use super::exchange::Client;
use super::forward::forward;
use super::frames::Frames;
use super::headers::Peer;
use super::limits::{MAX_HEAD, MAX_HEADER_LIST};
use super::refused;
use super::relief::{relieved, with_room};
use super::wire::{Carrier, STREAM_WINDOW, Wire, WireState};

/// How long to wait after an accept that failed for want of descriptors or memory: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked at: a request head that is incomplete at two looks in a row is given up. hyper's
/// own `header_read_timeout` also ends idle keep-alive connections, which costs clients a race for every one.
const PATROL_PERIOD: Duration = Duration::from_secs(15);
/// How long a connection may be idle, in patrols: ten minutes and a half, longer than the load balancers in use keep
/// theirs (600 s at most), so that the side that knows whether a request is under way is the one that closes.
const IDLE_PATROLS: u32 = 42;
/// How long a connection keeps for a request when the proxy stops accepting, if its client could not be told: it has not
/// carried one yet, or the head of its last response was sent before the drain.
const NEXT_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How often it is looked at whether such a response has ended: a drain may take as much longer.
const RESPONSE_LOOK: Duration = Duration::from_millis(500);
/// Streams of one client's connection. What exceeds it waits unseen at the client and is no load here, so half of it
/// could hide a queue from the forecast; a client behind an ingress shares its connection with hundreds.
const MAX_STREAMS: u32 = 1_000;
/// How long a client that was sent GOAWAY and has no stream may be silent. An acknowledgement takes a round trip; a
/// client that died without a word would hold the drain up to its end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Accepts until the drain closes the door, and then what had knocked by then.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // A drain is not over while there may be connections that nobody has accepted yet.
    let _door = shared.doors.token();
    loop {
        let accepted = tokio::select! {
            accepted = with_room(&shared, &listener) => accepted,
            () = shared.deaf.cancelled() => break,
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
    // The door stays open for the sake of those that were here before, not of those that still come.
    let is_late = shared.closing.is_cancelled();
    let open = if is_late { &shared.late } else { &shared.open };
    let (shared, open) = (Arc::clone(shared), open.token());
    // A future that is made outside and awaited inside takes its room twice.
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let _open = open;
        if let Err(error) = serve(&shared, stream, peer).await {
            tracing::debug!(%error, %peer, "a client's connection ended");
        }
    });
}

async fn serve(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> hyper::Result<()> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "a client left at once");
        return Ok(());
    }
    let state = Arc::new(WireState::default());
    let mut wire = Wire::new(stream, Arc::clone(&state));
    let Some(carrier) = first_bytes(shared, &state, &mut wire).await else {
        return Ok(());
    };
    let peer = Peer::new(peer.ip());
    if carrier == Carrier::Http2 {
        wire.watch(Frames::new(shared, &peer));
    }
    let client = Arc::new(Client::new(shared, peer, carrier, &state));
    match carrier {
        Carrier::Http1 => serve_http1(shared, &state, wire, client).await,
        Carrier::Http2 => {
            let ended = Box::pin(serve_http2(shared, &state, wire, Arc::clone(&client))).await;
            if let Err(error) = &ended {
                refused::end_http2(shared, &client.peer, error);
            }
            ended
        }
    }
}

/// Which HTTP the client speaks; `None`: it said nothing for as long as a connection may, or has gone.
async fn first_bytes(shared: &Shared, state: &WireState, wire: &mut Wire) -> Option<Carrier> {
    let mut sniff = pin!(wire.sniff());
    tokio::select! {
        biased;
        sniffed = sniff.as_mut() => return sniffed.ok(),
        () = shared.closing.cancelled() => {}
        () = patrol(shared, state) => return None,
    }
    tokio::select! {
        biased;
        sniffed = sniff.as_mut() => return sniffed.ok(),
        () = last_look(shared, state) => {}
    }
    // As with a head that is under way: half a preface, or a method that begins like one.
    if !state.is_reading_head() {
        return None;
    }
    tokio::select! {
        sniffed = sniff => sniffed.ok(),
        () = patrol(shared, state) => None,
    }
}

async fn serve_http1(
    shared: &Shared,
    state: &WireState,
    wire: Wire,
    client: Arc<Client>,
) -> hyper::Result<()> {
    state.keep_watch(true);
    let peer = client.peer.clone();
    // Not inside another future: it would be held, and moved for each request, twice.
    let service = service_fn(move |request: Request<Incoming>| {
        // Not when the future is first polled: hyper may read of the body before that.
        client.wire().expect_body(!request.body().is_end_stream());
        forward(Arc::clone(&client), request)
    });
    let mut builder = http1::Builder::new();
    // See `PATROL_PERIOD`.
    builder
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD);
    let mut connection = builder
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let is_to_close = Aside::new(async {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => true,
            () = patrol(shared, state) => false,
        }
    });
    let ended = 'ended: {
        tokio::select! {
            biased;
            ended = &mut connection => break 'ended ended,
            closing = is_to_close => if !closing {
                tracing::debug!("a client was too slow, or idle for too long");
                return Ok(());
            }
        }
        tokio::select! {
            biased;
            ended = &mut connection => break 'ended ended,
            () = last_look(shared, state) => {}
        }
        // A head that is under way gets its response, which says `Connection: close`; graceful shutdown would cut it off.
        if !state.is_reading_head() {
            Pin::new(&mut connection).graceful_shutdown();
        }
        tokio::select! {
            ended = &mut connection => ended,
            () = patrol(shared, state) => return Ok(()),
        }
    };
    if let Err(error) = &ended
        && let Some(parts) = connection.into_parts()
    {
        // Seldom, and not to be held by each connection.
        Box::pin(refused::end_http1(
            shared,
            &peer,
            error,
            parts.io,
            &parts.read_buf,
        ))
        .await;
    }
    ended
}

async fn serve_http2(
    shared: &Shared,
    state: &WireState,
    wire: Wire,
    client: Arc<Client>,
) -> hyper::Result<()> {
    let serving = Arc::clone(&client);
    let service = service_fn(move |request: Request<Incoming>| {
        let client = Arc::clone(&serving);
        async move {
            // The connection reads all that has come before its streams have their first turn, so a request that was
            // reset at once ends here: by a rapid reset, one client would make the upstream close a connection that it
            // shares with others.
            tokio::task::yield_now().await;
            forward(client, request).await as Result<_, Infallible>
        }
    });
    let mut builder = http2::Builder::new(shared.tasks.clone());
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * MAX_STREAMS)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let is_to_leave = Aside::new(async {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => {}
            () = relieved(shared, state) => return false,
            () = client.retired() => tracing::debug!("a client of HTTP/2 should come anew"),
            () = idle(shared, state) => tracing::debug!("a client of HTTP/2 was idle for too long"),
        }
        true
    });
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        leaving = is_to_leave => if !leaving {
            return Ok(());
        }
    }
    // GOAWAY in two steps: the client first hears of it, and requests that were on their way by then are served.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = quiet(shared, state) => Ok(()),
        () = relieved(shared, state) => Ok(()),
    }
}

/// Returns when what is idle may be closed: the kernel holds nothing unread, and a client that could not be told has had
/// its moment.
async fn last_look(shared: &Shared, state: &WireState) {
    let mut told = state.is_used();
    // A stream that began before the drain could not say that it is the last. Whoever reads to its end and sends the next
    // request at once would meet the closing; answered, that one says it.
    while state.is_serving() {
        shared.clock.sleep(RESPONSE_LOOK).await;
        told = false;
    }
    if !told {
        shared.clock.sleep(NEXT_REQUEST_GRACE).await;
    }
    tokio::task::yield_now().await;
}

/// Returns when the connection is not worth keeping: a head that does not come, no request for long, or what it holds.
async fn patrol(shared: &Shared, state: &WireState) {
    tokio::select! {
        () = walk(shared, state) => {}
        () = relieved(shared, state) => {}
    }
}

async fn walk(shared: &Shared, state: &WireState) {
    let (mut slow, mut idle) = (0, 0);
    while slow < 2 && idle < IDLE_PATROLS {
        shared.clock.sleep(PATROL_PERIOD).await;
        let seen = state.take_seen();
        let reading = state.is_reading_head();
        // A busy connection may be met between two heads by chance: it has been seen, so it is not slow.
        slow = if reading && !seen { slow + 1 } else { 0 };
        idle = if seen || reading || state.is_serving() {
            0
        } else {
            idle + 1
        };
    }
}

/// Returns when there was no stream for long. Bytes say nothing here: an idle client of gRPC sends pings.
async fn idle(shared: &Shared, state: &WireState) {
    let mut idle = 0;
    while idle < IDLE_PATROLS {
        shared.clock.sleep(PATROL_PERIOD).await;
        let busy = state.take_seen() || state.is_serving();
        idle = if busy { 0 } else { idle + 1 };
    }
}

/// Returns when a client has not even taken its leave: no stream, and not a byte for [`FAREWELL`].
async fn quiet(shared: &Shared, state: &WireState) {
    state.take_moved();
    loop {
        shared.clock.sleep(FAREWELL).await;
        if !state.take_moved() && !state.is_serving() {
            return;
        }
    }
}
