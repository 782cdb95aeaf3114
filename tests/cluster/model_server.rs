//! What stands behind a sidecar here: a server that takes its time for every request, any number at once, and tells of its load
//! as vLLM does.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use sidescale::clock::Clock;
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::net::TcpListener;

/// The port of the model server in every pod.
pub(crate) const PORT: u16 = 8000;

/// What it answers.
pub(crate) const ANSWER: &str = "{\"intent\":\"greet\"}";

/// Where it answers one token after the other, and takes its time for each.
pub(crate) const STREAM: &str = "/stream";

/// How many they are, and each.
pub(crate) const TOKENS: usize = 5;
pub(crate) const TOKEN: &str = "data: greet\n\n";

/// The server; dropped, it is gone with everything in flight, as a process that was killed.
#[derive(Debug)]
pub(crate) struct ModelServer {
    _tasks: Tasks,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What it tells of its load.
#[derive(Debug, Default)]
struct Counts {
    running: AtomicU64,
    completed: AtomicU64,
}

/// A request being answered; dropped, it is none any more, whatever became of it.
struct Running(Arc<Counts>);

// === impl Counts ===

impl Counts {
    fn text(&self) -> String {
        let (running, completed) = (
            self.running.load(Ordering::SeqCst),
            self.completed.load(Ordering::SeqCst),
        );
        format!(
            "vllm:num_requests_running{{engine=\"0\"}} {running}
vllm:num_requests_waiting{{engine=\"0\"}} 0
vllm:request_success_total{{engine=\"0\",finished_reason=\"stop\"}} {completed}
"
        )
    }
}

// === impl Running ===

impl Running {
    fn one_of(counts: Arc<Counts>) -> Self {
        counts.running.fetch_add(1, Ordering::SeqCst);
        Self(counts)
    }

    fn complete(&self) {
        self.0.completed.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl ModelServer ===

impl ModelServer {
    /// Listens on `ip` and answers each request after `service_time`, by the HTTP that it came with.
    pub(crate) fn start(ip: Ipv4Addr, service_time: Duration) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((ip, PORT))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let tasks = Tasks::here();
        tasks.spawn(accept(listener, service_time, tasks.handle()));
        Ok(Self { _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, service_time: Duration, tasks: TasksHandle) {
    let counts = Arc::<Counts>::default();
    while let Ok((stream, _from)) = listener.accept().await {
        let (streams, counts) = (tasks.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            let serve = service_fn(|request| answer(request, service_time, Arc::clone(&counts)));
            // A client that leaves is its own affair.
            auto::Builder::new(streams)
                .serve_connection(TokioIo::new(stream), serve)
                .await
                .ok();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    service_time: Duration,
    counts: Arc<Counts>,
) -> Result<Response<Body>, Infallible> {
    let whole = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    if request.uri().path() == "/metrics" {
        return Ok(Response::new(whole(counts.text())));
    }
    let running = Running::one_of(counts);
    if request.uri().path() == STREAM {
        let tokens = unfold((running, 0), move |(running, said)| async move {
            if said == TOKENS {
                running.complete();
                return None;
            }
            Clock::real().sleep(service_time).await;
            let token = Ok(Frame::data(Bytes::from_static(TOKEN.as_bytes())));
            Some((token, (running, said + 1)))
        });
        return Ok(Response::new(StreamBody::new(tokens).boxed_unsync()));
    }
    Clock::real().sleep(service_time).await;
    running.complete();
    Ok(Response::new(whole(ANSWER.to_owned())))
}
