//! One TCP connection of a leader, or of somebody who says so: HTTP/2 with prior knowledge, one stream, then the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::channel::Channel as ChannelBody;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::fleet::lines::LONGEST_LINE;
use crate::fleet::member::stream::Stream;
use crate::fleet::member::{Counts, MOST_STREAMS, Shared, Source, Verify};
use crate::lifecycle::TasksHandle;

/// A connection that has brought no hello by then is no leader's.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// How long the last frames may take to be written once the stream is over.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

type Body = ChannelBody<Bytes, Infallible>;

/// How far a connection has come, as far as its owner must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// Nothing but bytes.
    Connected,
    /// A hello has come.
    Greeted,
    /// The stream is over.
    Over,
}

/// Serves one connection.
pub(super) async fn serve<S: Source, V: Verify>(
    shared: Arc<Shared<S, V>>,
    tcp: TcpStream,
    from: SocketAddr,
    tasks: TasksHandle,
) {
    let Some(_place) = Place::take(&shared.counts) else {
        tracing::warn!(%from, "refused a leader's connection: {MOST_STREAMS} are open already");
        return;
    };
    // A report is a few hundred bytes: waiting for more to send with it would only delay it.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn Nagle's algorithm off");
    }
    let (progress, mut watched) = watch::channel(Progress::Connected);
    let progress = Arc::new(progress);
    let clock = shared.clock.clone();
    let counts = Arc::clone(&shared.counts);
    let children = tasks.clone();
    let service = service_fn(move |request| {
        let response = answer(&shared, request, from, &progress, &children);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = std::pin::pin!(
        http2::Builder::new(tasks)
            // The bounds on what a stranger can make us hold.
            .max_concurrent_streams(1)
            .max_header_list_size(8 * 1024)
            .initial_stream_window_size(u32::try_from(LONGEST_LINE).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(tcp), service)
    );
    tokio::select! {
        _ended = &mut connection => return,
        _in_time = watched.wait_for(|progress| *progress >= Progress::Greeted) => {}
        () = clock.sleep(HELLO_WITHIN) => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
    tokio::select! {
        _ended = &mut connection => return,
        _over = watched.wait_for(|progress| *progress == Progress::Over) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Who does not read the last frames need not have them.
    clock.timeout(FLUSH_WITHIN, connection).await.ok();
}

fn answer<S: Source, V: Verify>(
    shared: &Arc<Shared<S, V>>,
    request: Request<Incoming>,
    from: SocketAddr,
    progress: &Arc<watch::Sender<Progress>>,
    tasks: &TasksHandle,
) -> Response<Body> {
    // A body of which nothing will ever be sent ends at once.
    let (sender, body) = Body::new(1);
    let mut response = Response::new(body);
    if request.uri().path() != "/v1/report" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::POST {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    } else {
        let stream = Stream::new(Arc::clone(shared), from, Arc::clone(progress));
        tasks.spawn(stream.run(request.into_body(), sender));
    }
    response
}

/// One of the [`MOST_STREAMS`] places, given back when dropped.
struct Place(Arc<Counts>);

// === impl Place ===

impl Place {
    fn take(counts: &Arc<Counts>) -> Option<Self> {
        let before = counts.streams.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(counts));
        if before >= MOST_STREAMS {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
