//! The member's end of the member channel: a small HTTP/2 server that leaders dial.
//!
//! Whoever dials must first send the token of its term, and is told nothing and obeyed in nothing until the Lease says
//! that the token is genuine: an impostor learns neither the load nor whether its guess was close. What it sent before
//! that is thrown away and not kept, because a beacon that is read a minute late would be taken for a fresh sign of life.
//!
//! An old and a new leader may both hold a stream for a while; both get reports, and only the higher term is obeyed.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};

use crate::clock::{Clock, Instant, Timestamp};
use crate::lifecycle::TasksHandle;
use crate::report::{Beacon, Hello, Past, Report};

mod connection;
mod stream;

/// Room for orders that the app has not taken yet. Beacons come once a second and are handled at once; a full channel
/// makes the leader's line wait.
pub const HEARD_BOUND: usize = 32;

/// Streams at a time: an old and a new leader, each possibly with a broken stream that nobody has noticed yet, and as much
/// again. More are refused, so that strangers cannot fill the pod's memory.
pub const MOST_STREAMS: usize = 8;

/// After a failure to accept (too many open files, most likely), wait this long: it fails again at once otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a member has to tell.
pub trait Source: Send + Sync + 'static {
    /// The present; each call is a newer one.
    fn report(&self) -> Report;
    /// What is kept of the past, from `since` on.
    fn past(&self, since: Timestamp) -> Past;
}

/// Whether a leader is one. The app asks the Lease, once for each term and after a jittered delay.
pub trait Verify: Send + Sync + 'static {
    /// Judges a hello by the SHA-256 of its token.
    fn verify(&self, hello: &Hello) -> impl Future<Output = Verdict> + Send;
}

/// What the Lease says of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds the Lease, in this term.
    Genuine,
    /// The Lease names another, another term or another token.
    Impostor,
    /// The Lease could not be read; ask again later.
    Unavailable,
}

/// What a verified leader said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its term.
    pub term: u64,
    /// Its holder identity.
    pub holder: String,
    /// What it said.
    pub order: Order,
}

/// The things a leader says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// It lives.
    Beacon(Beacon),
    /// Be unready for so long, from now.
    Drain {
        /// Zero takes it back.
        holds: Duration,
    },
    /// Let so many of a thousand clients connect anew, spread over a time.
    Retire {
        /// How many of a thousand.
        per_mille: u16,
        /// Over how long.
        over: Duration,
    },
    /// It goes.
    Goodbye {
        /// Who may take the Lease at once.
        successor: Option<String>,
    },
    /// Its stream has ended without a goodbye, or after one.
    Ended,
}

/// What happened on the member port, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    streams: AtomicUsize,
    impostors: AtomicU64,
    refused: AtomicU64,
    stale: AtomicU64,
    not_understood: AtomicU64,
}

/// [`Counts`], read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountsReading {
    /// Streams that stand now.
    pub streams: usize,
    /// Leaders whose token did not match the Lease.
    pub impostors: u64,
    /// Streams closed for what they sent: no hello in time, a line too long, one stream too many, another version.
    pub refused: u64,
    /// Orders of an older term than the highest verified one, not obeyed.
    pub stale: u64,
    /// Lines that were not understood, or that spoke for another term than their stream's.
    pub not_understood: u64,
}

/// The member's server and what it serves from.
pub struct Member<S, V> {
    shared: Arc<Shared<S, V>>,
    overrun: Arc<Notify>,
    overruns: watch::Sender<()>,
}

/// What all streams of a member share.
struct Shared<S, V> {
    clock: Clock,
    source: S,
    verify: V,
    /// Held while one leader is judged, so that a flood of impostors asks the Lease one at a time; the time before which
    /// nobody is.
    judging: tokio::sync::Mutex<Instant>,
    trusted: Mutex<Trusted>,
    heard: mpsc::Sender<Heard>,
    overruns: watch::Receiver<()>,
    counts: Arc<Counts>,
}

/// The highest term that the Lease has confirmed.
#[derive(Debug, Default)]
struct Trusted {
    term: u64,
    holder: String,
    token: String,
}

// === impl Member ===

impl<S: Source, V: Verify> Member<S, V> {
    /// A member that reports from `source`, believes whom `verify` confirms, hands what it hears to `heard` (of
    /// [`HEARD_BOUND`]) and reports at once when `overrun` is notified.
    pub fn new(
        clock: Clock,
        source: S,
        verify: V,
        heard: mpsc::Sender<Heard>,
        overrun: Arc<Notify>,
    ) -> Self {
        let (overruns, overruns_seen) = watch::channel(());
        let shared = Shared {
            clock,
            source,
            verify,
            judging: tokio::sync::Mutex::default(),
            trusted: Mutex::default(),
            heard,
            overruns: overruns_seen,
            counts: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
            overrun,
            overruns,
        }
    }

    /// For the metrics.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.counts)
    }

    /// Serves leaders until the future is dropped; every connection and stream lives in `tasks`.
    pub async fn serve(self, listener: TcpListener, tasks: TasksHandle) {
        let Self {
            shared,
            overrun,
            overruns,
        } = self;
        tokio::select! {
            () = accept(&shared, listener, tasks) => {}
            () = pass_on(&overrun, &overruns) => {}
        }
    }
}

impl<S, V> fmt::Debug for Member<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("counts", &self.shared.counts)
            .finish_non_exhaustive()
    }
}

/// A `Notify` keeps one permit for one waiter; every stream must hear of an overrun, and none that comes while it writes
/// may be lost.
#[expect(clippy::infinite_loop, reason = "serves until its task is dropped")]
async fn pass_on(overrun: &Notify, overruns: &watch::Sender<()>) {
    loop {
        overrun.notified().await;
        overruns.send_replace(());
    }
}

#[expect(clippy::infinite_loop, reason = "serves until its task is dropped")]
async fn accept<S: Source, V: Verify>(
    shared: &Arc<Shared<S, V>>,
    listener: TcpListener,
    tasks: TasksHandle,
) {
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                let shared = Arc::clone(shared);
                let children = tasks.clone();
                tasks.spawn(connection::serve(shared, tcp, from, children));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a leader's connection");
                shared.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

// === impl Shared ===

impl<S, V> Shared<S, V> {
    fn trusted(&self) -> std::sync::MutexGuard<'_, Trusted> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Trusted ===

impl Trusted {
    /// Whether this very hello was confirmed already: a leader that reconnects costs no second look at the Lease.
    fn covers(&self, hello: &Hello) -> bool {
        !self.token.is_empty()
            && self.term == hello.term
            && self.token == hello.token
            && self.holder == hello.holder
    }

    fn confirm(&mut self, hello: &Hello) {
        if hello.term >= self.term {
            *self = Self {
                term: hello.term,
                holder: hello.holder.clone(),
                token: hello.token.clone(),
            };
        }
    }
}

// === impl Counts ===

impl Counts {
    /// All of them, now.
    pub fn read(&self) -> CountsReading {
        CountsReading {
            streams: self.streams.load(Ordering::Relaxed),
            impostors: self.impostors.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            not_understood: self.not_understood.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
