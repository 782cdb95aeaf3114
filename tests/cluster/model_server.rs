//! What stands behind a sidecar here: a server that takes its time for every request, any number at once.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sidescale::clock::Clock;
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::net::TcpListener;

/// The port of the model server in every pod.
pub(crate) const PORT: u16 = 8000;

/// What it answers.
pub(crate) const ANSWER: &str = "{\"intent\":\"greet\"}";

/// The server; dropped, it is gone with everything in flight, as a process that was killed.
#[derive(Debug)]
pub(crate) struct ModelServer {
    _tasks: Tasks,
}

// === impl ModelServer ===

impl ModelServer {
    /// Listens on `ip` and answers each request after `service_time`.
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
        tasks.spawn(async move {
            let serve = service_fn(|_request: Request<Incoming>| answer(service_time));
            // A client that leaves is its own affair.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), serve)
                .await
                .ok();
        });
    }
}

async fn answer(service_time: Duration) -> Result<Response<Full<Bytes>>, Infallible> {
    Clock::real().sleep(service_time).await;
    Ok(Response::new(Full::new(Bytes::from_static(
        ANSWER.as_bytes(),
    ))))
}
