//! The request path: a reverse proxy in front of one inference server, and the instrument that counts what passes.
//!
//! Everything here is built to be out of the way. A request meets no lock that a control task can hold, no buffer
//! beyond a socket's, and no limit that nobody asked for (see [`Limit`]): the proxy fails open, and a client that leaves
//! takes its upstream request along. [`serve`] starts it on any runtime; `run` gives it a [`TrafficThread`] of its own, the demo puts many on one.
//!
//! A listener takes HTTP/1 and, by prior knowledge, HTTP/2 (`wire` looks at the first bytes); to the server goes what
//! [`Protocol`] says, over `pool` (by `lease`) or over `multiplex`. Either side may be of either kind: streams, trailers, resets and
//! backpressure pass as far as both have words for them. HTTP/1 sends trailers only under names that its head announces
//! and has none for the reason of a reset, so gRPC needs HTTP/2 on both sides. Each stream is a request of its own in the
//! accounts. What was refused here is told to a client of gRPC in its own terms, see `reply`.
//!
//! Connections can be asked to come anew, so that clients which keep theirs find new pods: `retirement`.
//!
//! Not carried: `Upgrade: h2c`, CONNECT, and WebSocket over HTTP/2 (RFC 8441), which is not offered to clients.
//!
//! What hyper decides and this module does not: a request with Content-Length and Transfer-Encoding goes on as chunked
//! alone, differing lengths and bad chunks get 400 and the end of the connection, 1xx responses of the upstream are
//! dropped, since hyper's server can send none but `100 Continue` (`expect`). A head that hyper refuses never becomes a
//! request; it is counted by its reason, see `refused`. A client that resets streams, or sends pings or pieces of heads, faster than the h2 crate
//! allows loses its connection, and only that.

mod accounts;
mod admission;
mod aside;
mod body;
mod broken;
mod connection;
mod dial;
mod drain;
mod exchange;
mod expect;
mod failed;
mod flight;
mod forward;
mod frames;
mod headers;
mod latency;
mod lease;
mod limits;
mod multiplex;
mod notice;
mod pool;
mod promise;
mod protocol;
mod refused;
mod relief;
mod reply;
mod request;
mod retirement;
mod routes;
mod setting;
mod stream;
mod target;
mod thread;
mod tls;
mod tunnel;
mod upload;
mod upstream;
mod walk;
mod window;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::accounts::{Accounts, InFlight, Latencies, Outcome, Reading};
pub use self::admission::{Admission, Limit};
pub use self::dial::Upstream;
pub use self::latency::Durations;
use self::multiplex::Multiplex;
use self::notice::Notices;
use self::pool::Pool;
pub(crate) use self::promise::Promise;
pub use self::protocol::Protocol;
pub use self::refused::Reason;
pub use self::retirement::Connections;
pub use self::routes::Uncounted;
pub use self::setting::SettingError;
pub use self::thread::TrafficThread;
use self::upstream::Watchman;
pub use self::upstream::{Health, Probe};
use crate::clock::Clock;
use crate::lifecycle::{Lifecycle, Phase, Tasks, TasksHandle};

/// What a proxy needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server behind it.
    pub upstream: Upstream,
    /// By which HTTP requests go to it.
    pub protocol: Protocol,
    /// How the server is asked whether it is ready.
    pub probe: Probe,
    /// What is carried and is no load.
    pub uncounted: Uncounted,
    /// How many requests the server has at once; proxies that share it share its places.
    pub admission: Arc<Admission>,
    /// The clients' connections; proxies that share it retire theirs together.
    pub connections: Arc<Connections>,
    /// How long a drain goes on accepting. Endpoints take a second or two to reach every node, some ingresses five;
    /// half of it loses requests there, twice of it makes every scale-down as much longer.
    pub propagation: Duration,
    /// How long a drain takes at most; longer than the longest stream, shorter than the pod's
    /// `terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// How long a connection to the server is kept without a request. It must stay below the server's own limit, or
    /// requests meet a connection that is just being closed: uvicorn closes after 5 s, gunicorn after 2 s. A new
    /// connection inside a pod costs some 50 µs, so little is lost.
    pub pool_idle: Duration,
}

/// A running proxy. The tasks it was started in keep it running, this handle does not.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    lifecycle: Lifecycle,
    address: SocketAddr,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener's socket cannot be used.
    #[error("the listener of the proxy cannot be used")]
    Listener(#[source] io::Error),
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    accounts: Arc<Accounts>,
    clock: Clock,
    tasks: TasksHandle,
    pool: Arc<Pool>,
    multiplex: Arc<Multiplex>,
    watchman: Watchman,
    /// The upstream's address, for requests of HTTP/1.0 without a Host.
    host: HeaderValue,
    /// Every response says `Connection: close`.
    draining: AtomicBool,
    /// Cancelled when endpoints have propagated: what is idle is closed.
    closing: CancellationToken,
    /// Cancelled when nothing more is accepted.
    deaf: CancellationToken,
    /// Client connections and tunnels that are open, apart from those that came [late](Shared::late).
    open: TaskTracker,
    /// Client connections that came after the closing had begun.
    late: TaskTracker,
    /// Listeners that accept.
    doors: TaskTracker,
    /// How many looks in a row have found memory short, at each of them.
    relief: watch::Sender<u32>,
    /// What the log says of requests that failed.
    notices: Notices,
}

// === impl Settings ===

impl Settings {
    /// The defaults, in front of `upstream`.
    pub fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            protocol: Protocol::default(),
            probe: Probe::default(),
            uncounted: Uncounted::default(),
            admission: Arc::default(),
            connections: Arc::default(),
            propagation: Duration::from_secs(5),
            grace: Duration::from_secs(120),
            pool_idle: Duration::from_millis(1_500),
        }
    }
}

// === impl Proxy ===

impl Proxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is known of the server behind it, and every change of that.
    pub fn upstream(&self) -> watch::Receiver<Health> {
        self.shared.watchman.watch()
    }

    /// Whether the pod takes requests: its server answers, and it is not draining.
    pub fn is_ready(&self) -> bool {
        self.shared.watchman.health() == Health::Ready && !self.is_draining()
    }

    /// Whether a drain was asked for.
    pub fn is_draining(&self) -> bool {
        self.lifecycle.phase() >= Phase::Draining
    }

    /// The clients' connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.shared.settings.connections
    }

    /// How far it is on its way out.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Asks for a drain, unless one is under way, and waits until it is done.
    ///
    /// Dropping this future leaves the drain going on.
    pub async fn drain(&self) {
        self.lifecycle.advance(Phase::Draining);
        self.lifecycle.reached(Phase::Drained).await;
    }
}

// === impl Shared ===

impl Shared {
    fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }
}

/// Starts a proxy on `listener`, in `tasks`: dropping them ends it without goodbye.
pub fn serve(
    settings: Settings,
    listener: TcpListener,
    accounts: Arc<Accounts>,
    lifecycle: Lifecycle,
    clock: Clock,
    tasks: &Tasks,
) -> Result<Proxy, StartError> {
    listener
        .set_nonblocking(true)
        .map_err(StartError::Listener)?;
    let address = listener.local_addr().map_err(StartError::Listener)?;
    let upstream = settings.upstream.clone();
    let pool = Pool::new(
        upstream.clone(),
        settings.pool_idle,
        clock.clone(),
        tasks.handle(),
    );
    let multiplex = Multiplex::new(upstream.clone(), clock.clone(), tasks.handle());
    let host = upstream.host();
    let watchman = Watchman::new(upstream, settings.protocol);
    let shared = Arc::new(Shared {
        host,
        settings,
        accounts,
        clock,
        tasks: tasks.handle(),
        pool: Arc::new(pool),
        multiplex: Arc::new(multiplex),
        watchman,
        draining: AtomicBool::new(false),
        closing: CancellationToken::new(),
        deaf: CancellationToken::new(),
        open: TaskTracker::new(),
        late: TaskTracker::new(),
        doors: TaskTracker::new(),
        relief: watch::Sender::new(0),
        notices: Notices::default(),
    });
    start_tasks(&shared, listener, &lifecycle, tasks);
    Ok(Proxy {
        shared,
        lifecycle,
        address,
    })
}

fn start_tasks(shared: &Arc<Shared>, listener: TcpListener, lifecycle: &Lifecycle, tasks: &Tasks) {
    let accepting = Arc::clone(shared);
    tasks.spawn(async move {
        // Here and not in `serve`: the socket belongs to the runtime of the tasks, the caller may be on another.
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => connection::accept(accepting, listener).await,
            Err(error) => tracing::error!(%error, "the listener of the proxy cannot be used"),
        }
    });
    let asking = Arc::clone(shared);
    tasks.spawn(async move {
        let probe = &asking.settings.probe;
        asking.watchman.run(probe, &asking.clock).await;
    });
    let pool = Arc::clone(&shared.pool);
    tasks.spawn(async move { pool.sweep().await });
    let (multiplex, period) = (Arc::clone(&shared.multiplex), shared.settings.pool_idle);
    tasks.spawn(async move { multiplex.sweep(period).await });
    tasks.spawn(relief::relieve(Arc::clone(shared)));
    tasks.spawn(drain::run(Arc::clone(shared), lifecycle.clone()));
}
