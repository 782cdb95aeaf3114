//! What stands behind a sidecar here: a server that takes its time for every request, any number at once.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{StreamExt as _, iter};
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
    while let Ok((stream, _from)) = listener.accept().await {
        let streams = tasks.clone();
        tasks.spawn(async move {
            let serve = service_fn(|request| answer(request, service_time));
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
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == STREAM {
        let tokens = iter(0..TOKENS).then(move |_token| async move {
            Clock::real().sleep(service_time).await;
            Ok(Frame::data(Bytes::from_static(TOKEN.as_bytes())))
        });
        return Ok(Response::new(StreamBody::new(tokens).boxed_unsync()));
    }
    Clock::real().sleep(service_time).await;
    let answer = Full::new(Bytes::from_static(ANSWER.as_bytes()));
    Ok(Response::new(answer.boxed_unsync()))
}
