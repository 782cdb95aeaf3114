//! Support: a toy model server that streams, stalls, breaks off and counts who left.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sidescale::lifecycle::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = BoxBody<Bytes, Failure>;

/// Length of a chunk of `/large`.
pub(crate) const LARGE_CHUNK: usize = 64 * 1024;

/// The server; dropping it is its death.
pub(crate) struct ModelServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    streams: Mutex<VecDeque<Channel<Bytes, Failure>>>,
    requests: AtomicU64,
    connections: AtomicU64,
    produced: AtomicU64,
    unhealthy: AtomicBool,
    abandoned: watch::Sender<u64>,
    waiting: watch::Sender<u64>,
}

/// Notes a request that was given up.
struct Held(Arc<State>);

/// As many chunks of zeros as asked for, made when they are asked for.
struct Large {
    left: u64,
    state: Arc<State>,
}

// === impl ModelServer ===

impl ModelServer {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address")).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let (tasks, state) = (Tasks::here(), Arc::new(State::default()));
        let (children, shared) = (tasks.handle(), Arc::clone(&state));
        tasks.spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let used = AtomicBool::new(false);
                let service = service_fn(move |request: Request<Incoming>| {
                    if !used.swap(true, Ordering::SeqCst) {
                        state.connections.fetch_add(1, Ordering::SeqCst);
                    }
                    answer(Arc::clone(&state), request)
                });
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                children.spawn(async move { drop(connection.await) });
            }
        });
        Self {
            address,
            state,
            tasks,
        }
    }

    /// The next request to `/stream` is answered with what goes into this sender.
    pub(crate) fn expect_stream(&self) -> Sender<Bytes, Failure> {
        let (sender, body) = Channel::new(1);
        self.state.streams.lock().expect("whole").push_back(body);
        sender
    }

    /// Requests that came, probes aside.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Connections that carried a request.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Bytes that `/large` has made so far.
    pub(crate) fn produced(&self) -> u64 {
        self.state.produced.load(Ordering::SeqCst)
    }

    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.state.unhealthy.store(!healthy, Ordering::SeqCst);
    }

    /// Requests to `/hang` that wait now, or did.
    pub(crate) fn waiting(&self) -> watch::Receiver<u64> {
        self.state.waiting.subscribe()
    }

    /// Requests to `/hang` that were given up.
    pub(crate) fn abandoned(&self) -> watch::Receiver<u64> {
        self.state.abandoned.subscribe()
    }

    /// Dies with all its connections.
    pub(crate) fn die(self) {
        drop(self.tasks);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abandoned.send_modify(|count| *count += 1);
    }
}

// === impl Large ===

impl http_body::Body for Large {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.state
            .produced
            .fetch_add(LARGE_CHUNK as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; LARGE_CHUNK])))))
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/health" {
        let unhealthy = state.unhealthy.load(Ordering::SeqCst);
        let status = if unhealthy { 503 } else { 200 };
        return Ok(with_status(status, text("health")));
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    let response = match path.as_str() {
        "/echo" => echo(request),
        "/head" => Response::new(text(&head(&request))),
        "/hang" => {
            let _held = Held(Arc::clone(&state));
            state.waiting.send_modify(|count| *count += 1);
            std::future::pending().await
        }
        "/stream" => {
            let body = state.streams.lock().expect("whole").pop_front();
            let body = body.expect("`expect_stream` was called").boxed();
            let mut response = Response::new(body);
            let kind = header::HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        "/large" => {
            let left = request.uri().query().and_then(|chunks| chunks.parse().ok());
            let left = left.expect("a number of chunks");
            Response::new(
                Large { left, state }
                    .map_err(|never| match never {})
                    .boxed(),
            )
        }
        "/upgrade" => upgrade(request),
        _ => match path.strip_prefix("/status/").map(str::parse) {
            Some(Ok(status)) => with_status(status, text("")),
            Some(Err(_)) | None => Response::new(text("hello")),
        },
    };
    Ok(response)
}

/// The body and its trailers, as they come.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut response = Response::new(body.map_err(Failure::from).boxed());
    if let Some(trailer) = parts.headers.get(header::TRAILER) {
        let announced = response.headers_mut();
        announced.insert(header::TRAILER, trailer.clone());
    }
    response
}

/// The request's head, a field a line, in the order of their names.
fn head(request: &Request<Incoming>) -> String {
    let mut lines: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    lines.sort();
    format!(
        "{} {} {:?}\n{}\n",
        request.method(),
        request.uri(),
        request.version(),
        lines.join("\n")
    )
}

/// Switches to a protocol that echoes every byte.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let tasks = Tasks::here();
    let kept = tasks.clone();
    tasks.spawn(async move {
        let _kept = kept;
        if let Ok(upgraded) = upgrade.await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            drop(tokio::io::copy(&mut reader, &mut writer).await);
        }
    });
    let mut response = with_status(101, text(""));
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, "upgrade".parse().expect("valid"));
    headers.insert(header::UPGRADE, "echo".parse().expect("valid"));
    response
}

fn with_status(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn text(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned()))
        .map_err(|never| match never {})
        .boxed()
}
