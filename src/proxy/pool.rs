//! Open connections to the upstream, the last one used first.
//!
//! Last in, first out keeps few connections busy and lets the others age; hyper-util's client costs an eighth more CPU
//! per request. A connection is in the pool only while nobody uses it, so it needs no state beyond its age.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;

use super::dial::Upstream;
use super::lease::{Lease, Link};
use crate::clock::{Clock, Elapsed, Instant};
use crate::lifecycle::TasksHandle;

/// How long opening a connection may take. In a pod it takes microseconds, or seconds when the server's accept queue
/// is full and the kernel sends the SYN again after 1 s and 3 s; then waiting is right.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of one proxy to its upstream.
#[derive(Debug)]
pub(super) struct Pool {
    upstream: Upstream,
    idle_limit: Duration,
    clock: Clock,
    tasks: TasksHandle,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody listens, or not any more.
    #[error("the upstream does not accept a connection")]
    Refused(#[source] std::io::Error),
    #[error("the upstream's accept queue is full")]
    Timeout(#[source] Elapsed),
    #[error("the connection to the upstream could not be started")]
    Handshake(#[source] hyper::Error),
    #[error("the upstream does not take HTTP/2 (is it one of HTTP/1? set --upstream-protocol)")]
    Greeting(#[source] h2::Error),
    #[error("the upstream closed a connection of HTTP/2 at once (set --upstream-protocol)")]
    Silent,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        upstream: Upstream,
        idle_limit: Duration,
        clock: Clock,
        tasks: TasksHandle,
    ) -> Self {
        Self {
            upstream,
            idle_limit,
            clock,
            tasks,
            idle: Mutex::default(),
        }
    }

    /// A connection that can take a request: the last one used, else a new one.
    pub(super) async fn check_out(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let kept = match self.pop() {
            Some(link) if link.is_worn() => Box::pin(link.renewed()).await,
            kept => kept,
        };
        match kept {
            Some(link) => Ok(Lease::of(link, true, self)),
            // Seldom, and larger than all the rest of a request.
            None => Box::pin(self.open()).await,
        }
    }

    /// A new connection.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let dial = self.upstream.dial();
        let stream = match self.clock.timeout(CONNECT_TIMEOUT, dial).await {
            Ok(connected) => connected.map_err(ConnectError::Refused)?,
            Err(elapsed) => return Err(ConnectError::Timeout(elapsed)),
        };
        let link = Link::of(TokioIo::new(stream)).await;
        Ok(Lease::of(
            link.map_err(ConnectError::Handshake)?,
            false,
            self,
        ))
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, link: Box<Link>) {
        let mut idle = self.lock();
        // Under the lock, so that the pool stays sorted by age.
        let since = self.clock.instant();
        idle.push(Idle { link, since });
    }

    /// For what goes on without a request's own task.
    pub(super) fn tasks(&self) -> &TasksHandle {
        &self.tasks
    }

    /// Closes all idle connections: one was found dead, so the server behind them may be another one now.
    pub(super) fn clear(&self) {
        let dropped = std::mem::take(&mut *self.lock());
        drop(dropped);
    }

    /// Closes what has been idle for too long, for ever.
    #[expect(clippy::infinite_loop, reason = "the task ends with its tree")]
    pub(super) async fn sweep(&self) {
        loop {
            self.clock.sleep(self.idle_limit).await;
            let now = self.clock.instant();
            let dropped: Vec<Idle> = {
                let mut idle = self.lock();
                let stale = idle.partition_point(|one| self.is_stale(one, now));
                idle.drain(..stale).collect()
            };
            drop(dropped);
        }
    }

    fn pop(&self) -> Option<Box<Link>> {
        let now = self.clock.instant();
        let mut idle = self.lock();
        while let Some(mut last) = idle.pop_if(|one| !self.is_stale(one, now)) {
            if last.link.is_ready() {
                return Some(last.link);
            }
        }
        None
    }

    fn is_stale(&self, idle: &Idle, now: Instant) -> bool {
        now.since(idle.since) >= self.idle_limit
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
