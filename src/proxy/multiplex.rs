//! Connections to the upstream by HTTP/2, each with as many requests as the server takes.
//!
//! This is the h2 crate without hyper's client around it: that one says neither which streams a server takes before it
//! sends the first, nor gives a request back that the server has refused.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::header::CONTENT_LENGTH;
use http::{Request, request};
use tokio::sync::oneshot;

use super::dial::Upstream;
use super::headers::{Refusal, for_http2};
use super::pool::{CONNECT_TIMEOUT, ConnectError};
use super::window::{Watched, Window};
use super::wire::STREAM_WINDOW;
use crate::clock::Clock;
use crate::lifecycle::TasksHandle;

/// Streams of one connection, whatever more the server takes. Their windows make up the connection's, so that none of
/// them can be stopped by a slow reader of another; twice as many double what a hundred stalled readers hold here.
const MAX_STREAMS: u16 = 200;
/// Size of all fields of a response's head, as HTTP/2 counts them: far above what is passed on, since of what is larger h2 says
/// no more than that the server broke the protocol.
const MAX_HEADER_LIST: u32 = 256 * 1_024;

/// A body of up to so many bytes is not large.
const SMALL_BODY: u64 = 64 * 1_024;

/// The connections of one proxy to its upstream.
#[derive(Debug)]
pub(super) struct Multiplex {
    upstream: Upstream,
    clock: Clock,
    tasks: TasksHandle,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// A thousand requests at once must not open a thousand connections: one is opened, the others wait and look again.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct State {
    streams: AtomicUsize,
    limit: AtomicUsize,
    /// Of the streams, those with a [large](Load::Large) request.
    large: AtomicUsize,
    /// The server takes nothing more, or has gone.
    retired: AtomicBool,
    window: Arc<Window>,
}

/// A place among the streams of a connection; its drop frees it.
#[derive(Debug)]
pub(super) struct Slot {
    connection: Arc<Connection>,
    load: Load,
}

/// What a request asks of the server's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Nothing.
    Bodiless,
    /// A few kilobytes, or more in the course of time.
    Small,
    /// More than it may leave to others. Of two in one window, the stalled one stops the other.
    Large,
}

/// A request whose head has gone to the server.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) response: ResponseFuture,
    pub(super) stream: SendStream<Bytes>,
    pub(super) slot: Arc<Slot>,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

// === impl Multiplex ===

impl Multiplex {
    pub(super) fn new(upstream: Upstream, clock: Clock, tasks: TasksHandle) -> Self {
        Self {
            upstream,
            clock,
            tasks,
            connections: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Sends the head of a request on a connection that takes it; `ends`: there is no body.
    pub(super) async fn send(&self, head: &request::Parts, ends: bool) -> Result<Sent, SendError> {
        let load = Load::of(head, ends);
        while let Some(slot) = self.find(load) {
            match slot.send(for_http2(head)?, ends) {
                Ok(sent) => return Ok(sent),
                // It said goodbye meanwhile, and has taken nothing of this.
                Err(error) => {
                    tracing::debug!(%error, "an upstream connection takes no more requests");
                }
            }
        }
        let slot = self.open(load).await?;
        let sent = slot.send(for_http2(head)?, ends);
        Ok(sent.map_err(ConnectError::Greeting)?)
    }

    /// Closes what nobody uses, but for one, every `period`.
    #[expect(clippy::infinite_loop, reason = "the task ends with its tree")]
    pub(super) async fn sweep(&self, period: Duration) {
        loop {
            self.clock.sleep(period).await;
            self.trim();
        }
    }

    /// For what goes on without a request's own task.
    pub(super) fn tasks(&self) -> &TasksHandle {
        &self.tasks
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn trim(&self) {
        let mut connections = self.lock();
        connections.retain(|one| !one.state.retired.load(Relaxed));
        let mut idle = 0;
        connections.retain(|one| {
            idle += usize::from(one.state.streams.load(Relaxed) == 0);
            idle < 2 || one.state.streams.load(Relaxed) > 0
        });
    }

    fn find(&self, load: Load) -> Option<Slot> {
        let mut connections = self.lock();
        connections.retain(|one| !one.state.retired.load(Relaxed));
        // Under the lock, so that no two take the last place.
        let free = connections.iter().find(|one| one.state.has_room(load))?;
        Some(Slot::of(free, load))
    }

    async fn open(&self, load: Load) -> Result<Slot, ConnectError> {
        let opening = self.opening.lock().await;
        // Those who waited find the connection that the first of them has opened.
        if let Some(slot) = self.find(load) {
            return Ok(slot);
        }
        let connect = connect(&self.upstream, &self.tasks);
        let connection = match self.clock.timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => Arc::new(connected?),
            Err(elapsed) => return Err(ConnectError::Timeout(elapsed)),
        };
        // Taken before others see it.
        let slot = Slot::of(&connection, load);
        self.lock().push(connection);
        drop(opening);
        Ok(slot)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn has_room(&self, load: Load) -> bool {
        let fits = match load {
            Load::Bodiless => true,
            Load::Small => !self.window.is_strained(),
            // Until the response has ended: before that, who knows what the server has read?
            Load::Large => self.large.load(Relaxed) == 0 && !self.window.is_strained(),
        };
        fits && self.streams.load(Relaxed) < self.limit.load(Relaxed)
    }
}

// === impl Load ===

impl Load {
    fn of(head: &request::Parts, ends: bool) -> Self {
        let length = head.headers.get(CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            _ if ends => Self::Bodiless,
            Some(length) if length > SMALL_BODY => Self::Large,
            // One that names none, as calls of gRPC do, has a few kilobytes.
            Some(_) | None => Self::Small,
        }
    }
}

// === impl Slot ===

impl Slot {
    fn of(connection: &Arc<Connection>, load: Load) -> Self {
        connection.state.streams.fetch_add(1, Relaxed);
        if load == Load::Large {
            connection.state.large.fetch_add(1, Relaxed);
        }
        Self {
            connection: Arc::clone(connection),
            load,
        }
    }

    /// The server's window on its connection.
    pub(super) fn window(&self) -> &Window {
        &self.connection.state.window
    }

    fn send(self, head: Request<()>, ends: bool) -> Result<Sent, h2::Error> {
        let sent = self.connection.sender.clone().send_request(head, ends);
        if sent.is_err() {
            self.connection.state.retired.store(true, Relaxed);
        }
        sent.map(|(response, stream)| Sent {
            response,
            stream,
            slot: Arc::new(self),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = &self.connection.state;
        state.streams.fetch_sub(1, Relaxed);
        if self.load == Load::Large {
            state.large.fetch_sub(1, Relaxed);
        }
    }
}

/// A connection whose server has said what it takes: before that it might be one of HTTP/1.
async fn connect(upstream: &Upstream, tasks: &TasksHandle) -> Result<Connection, ConnectError> {
    let stream = upstream.dial().await.map_err(ConnectError::Refused)?;
    let state = Arc::new(State::default());
    let stream = Watched::new(stream, Arc::clone(&state.window));
    let (sender, mut connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * u32::from(MAX_STREAMS))
        .max_header_list_size(MAX_HEADER_LIST)
        .handshake(stream)
        .await
        .map_err(ConnectError::Greeting)?;
    let (greeted, greeting) = oneshot::channel();
    let (mut greeted, driven) = (Some(greeted), Arc::clone(&state));
    tasks.spawn(async move {
        let ended = poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            // Zero until the server's first frame, and at its every later word.
            let limit = connection
                .max_concurrent_send_streams()
                .min(usize::from(MAX_STREAMS));
            driven.limit.store(limit, Relaxed);
            if limit > 0
                && let Some(greeted) = greeted.take()
            {
                // Who has given up waiting needs no word.
                greeted.send(Ok(())).unwrap_or_default();
            }
            ended
        })
        .await;
        driven.retired.store(true, Relaxed);
        match (ended, greeted) {
            (Err(error), Some(greeted)) => greeted.send(Err(error)).unwrap_or_default(),
            (Err(error), None) => tracing::debug!(%error, "an upstream connection ended"),
            (Ok(()), _) => {}
        }
    });
    match greeting.await {
        Ok(Ok(())) => Ok(Connection { sender, state }),
        Ok(Err(error)) => Err(ConnectError::Greeting(error)),
        Err(_ended) => Err(ConnectError::Silent),
    }
}
