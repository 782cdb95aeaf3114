//! A model server that imitates continuous batching on a GPU, cold start included, at the cost of a few timers.
//!
//! As vLLM does, it does not listen before its weights are loaded, runs a bounded number of sequences together, each a
//! little slower the fuller the batch, lets the rest wait in order, streams tokens as server-sent events, and cuts
//! everything when it is stopped. `POST /v1/completions` takes `OpenAI`'s `max_tokens` and `stream`; `GET /health` is 200. It
//! speaks HTTP/1.1 and HTTP/2 by prior knowledge, and gRPC (see `calls`).

mod batch;
mod calls;
mod completions;
mod generation;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use self::batch::Batch;
use crate::clock::Clock;
use crate::lifecycle::{Tasks, TasksHandle};

/// Connections the kernel holds until they are accepted: the size of a burst that is not refused. Linux caps it at
/// `net.core.somaxconn`, 4096 by default.
const BACKLOG: u32 = 1024;

/// Pause after a failed accept. Without one, a process out of file descriptors spins; with twice this it recovers later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a server behaves. All times are times of its clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Sequences that run together, at least 1.
    pub slots: usize,
    /// From a slot to the first token.
    pub prefill: Duration,
    /// Time for each token after the first, of a sequence that runs alone.
    pub time_per_token: Duration,
    /// How much longer a token takes in a full batch, as a share: 0.25 is a quarter longer.
    pub batch_slowdown: f64,
    /// Tokens of an answer, where the request does not say, and the mean that [`Settings::service_time`] counts with.
    pub tokens: u32,
    /// Writes that a streamed answer is sent in: the first token, then the rest in equal parts. Each costs a timer.
    pub pieces: u32,
    /// From the start of the process until it listens.
    pub cold_start: Duration,
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot bind the model server to {address} (choose a free port)")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
}

/// A server that owns its address, and listens once it runs and its cold start is over.
#[derive(Debug)]
pub struct ModelServer {
    socket: TcpSocket,
    address: SocketAddr,
    settings: Settings,
    clock: Clock,
    batch: Arc<Batch>,
    listening: watch::Sender<bool>,
}

/// Shows what a server does at the moment.
#[derive(Clone, Debug)]
pub struct Gauge {
    batch: Arc<Batch>,
    listening: watch::Receiver<bool>,
}

// === impl Settings ===

impl Default for Settings {
    /// About 4 requests a second in slots of about 2 s: a small model on one GPU, slow enough that a handful of
    /// requests shows a queue.
    fn default() -> Self {
        Self {
            slots: 8,
            prefill: Duration::from_millis(200),
            time_per_token: Duration::from_millis(23),
            batch_slowdown: 0.25,
            tokens: 64,
            pieces: 4,
            cold_start: Duration::from_secs(90),
        }
    }
}

// === impl ModelServer ===

impl ModelServer {
    /// Takes `address` (port 0: a free one) without listening: connections are refused until the cold start is over.
    ///
    /// Must be called inside a runtime.
    pub fn bind(address: SocketAddr, settings: Settings, clock: Clock) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
        .map_err(failed)?;
        // A server that is started again finds connections of its predecessor in TIME_WAIT.
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        Ok(Self {
            address: socket.local_addr().map_err(failed)?,
            socket,
            batch: Batch::new(settings.slots.max(1)),
            settings,
            clock,
            listening: watch::Sender::new(false),
        })
    }

    /// Where it listens, or will.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// To look at it while it runs.
    pub fn gauge(&self) -> Gauge {
        Gauge {
            batch: Arc::clone(&self.batch),
            listening: self.listening.subscribe(),
        }
    }

    /// Loads its weights, then serves for ever.
    ///
    /// Everything lives in the returned future: to drop it is to stop as vLLM stops, cutting all requests.
    #[expect(clippy::infinite_loop, reason = "it serves until it is dropped")]
    pub async fn run(self) -> Result<Infallible, Error> {
        let address = self.address;
        self.clock.sleep(self.settings.cold_start).await;
        let listener = self
            .socket
            .listen(BACKLOG)
            .map_err(|source| Error::Bind { address, source })?;
        self.listening.send_replace(true);
        let connections = Tasks::here();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => connections.spawn(serve(
                    stream,
                    Arc::clone(&self.batch),
                    self.settings.clone(),
                    self.clock.clone(),
                    connections.handle(),
                )),
                Err(error) => {
                    tracing::warn!(%address, %error, "the model server cannot accept a connection");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// As [`ModelServer::run`], until `stop` is done: the whole of `sidescale model`.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::select! {
            ended = self.run() => ended.map(|never| match never {}),
            () = stop => Ok(()),
        }
    }
}

// === impl Gauge ===

impl Gauge {
    /// Sequences that run.
    pub fn running(&self) -> usize {
        self.batch.running()
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.batch.waiting()
    }

    /// The share of slots in use, 0 to 1: what a GPU's utilisation would be.
    pub fn utilization(&self) -> f64 {
        self.running() as f64 / self.batch.size() as f64
    }

    /// Waits until the server listens; `false` if it ended before.
    pub async fn listens(&mut self) -> bool {
        self.listening.wait_for(|listens| *listens).await.is_ok()
    }
}

async fn serve(
    stream: TcpStream,
    batch: Arc<Batch>,
    settings: Settings,
    clock: Clock,
    tasks: TasksHandle,
) {
    // Tokens are small writes; held back by Nagle's algorithm they would arrive in clumps.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection of the model server was gone at once");
        return;
    }
    converse(stream, batch, settings, clock, tasks).await;
}

/// One connection, on whatever carries it.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    batch: Arc<Batch>,
    settings: Settings,
    clock: Clock,
    tasks: TasksHandle,
) {
    let service = hyper::service::service_fn(move |request| {
        completions::answer(request, Arc::clone(&batch), settings.clone(), clock.clone())
    });
    let served = auto::Builder::new(tasks)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the model server broke");
    }
}

#[cfg(test)]
mod tests;
