//! Idle connections to the present endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::Instant;
use crate::lifecycle::TasksHandle;

/// How long an idle connection is trusted. Servers close theirs too (uvicorn after 5 s), and a request that is written
/// while that happens is lost; with half of this there are more handshakes, with twice this such losses.
const LONGEST_IDLE: Duration = Duration::from_secs(4);

/// The most idle connections to one endpoint: more than a pod has slots, and few enough descriptors for a large fleet.
const MOST_IDLE: usize = 64;

/// A connection that can take a request.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Idle connections by endpoint, the one used last at the end.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<BTreeMap<SocketAddr, Vec<Idle>>>,
    tasks: TasksHandle,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

// === impl Pool ===

impl Pool {
    /// Connections run in `tasks`.
    pub(super) fn new(tasks: TasksHandle) -> Self {
        Self {
            idle: Mutex::default(),
            tasks,
        }
    }

    /// Forgets endpoints that are gone: a pod that drains gets no more requests, and may close.
    pub(super) fn keep_only(&self, endpoints: &[SocketAddr]) {
        let mut idle = self.lock();
        idle.retain(|endpoint, _| endpoints.contains(endpoint));
        for endpoint in endpoints {
            idle.entry(*endpoint).or_default();
        }
    }

    /// The idle connection that was used last.
    pub(super) fn take(&self, endpoint: SocketAddr, now: Instant) -> Option<Sender> {
        let mut idle = self.lock();
        let connections = idle.get_mut(&endpoint)?;
        connections.retain(|idle| !idle.sender.is_closed() && now.since(idle.since) < LONGEST_IDLE);
        connections.pop().map(|idle| idle.sender)
    }

    /// Takes back a connection whose answer was read to its end.
    pub(super) fn put(&self, endpoint: SocketAddr, sender: Sender, now: Instant) {
        let mut idle = self.lock();
        if let Some(connections) = idle.get_mut(&endpoint)
            && !sender.is_closed()
            && connections.len() < MOST_IDLE
        {
            connections.push(Idle { sender, since: now });
        }
    }

    pub(super) async fn connect(&self, endpoint: SocketAddr) -> std::io::Result<Sender> {
        let stream = TcpStream::connect(endpoint).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        self.tasks.spawn(async move {
            // Its requests see the same error.
            if let Err(error) = connection.await {
                tracing::debug!(%endpoint, %error, "a connection of the load broke");
            }
        });
        Ok(sender)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
