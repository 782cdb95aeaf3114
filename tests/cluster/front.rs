//! A reverse proxy before an API server: it counts, holds back and cuts, the same before the embedded and the real one.
//!
//! Plain HTTP comes in, with each sidecar's own bearer token; what goes out takes the way of the given client (TLS to
//! the real server). So what a test knows of the traffic is what really crossed a socket, and a fault that it makes is
//! one that a network makes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use sidescale::clock::{Clock, Instant};
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// The proxy. Dropped, it and every connection through it are gone.
#[derive(Debug)]
pub(crate) struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: Tasks,
}

/// A request that came to the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When, by the cluster's clock.
    pub(crate) at: Instant,
    /// Whose token it carried; empty: a token that nobody was given, or none.
    pub(crate) user: String,
    /// The `User-Agent`.
    pub(crate) agent: String,
    /// The method; a watch is a GET.
    pub(crate) method: Method,
    /// The path, without the query.
    pub(crate) path: String,
    /// The query, undecoded.
    pub(crate) query: String,
    /// The body, as text.
    pub(crate) body: String,
    /// What was answered; `None`: nothing yet, or never.
    pub(crate) status: Option<StatusCode>,
}

/// A request that the front keeps back: see [`Front::hold`].
#[derive(Debug)]
pub(crate) struct Held {
    /// What is held.
    pub(crate) request: Seen,
    release: oneshot::Sender<()>,
    answered: oneshot::Receiver<(StatusCode, String)>,
}

/// Waits for the first request that fits: see [`Front::hold`].
#[derive(Debug)]
pub(crate) struct Hold(oneshot::Receiver<Held>);

/// Whose connections are cut.
#[derive(Clone, Debug, Default)]
struct Cuts {
    everyone: bool,
    users: BTreeSet<String>,
}

type Fits = Box<dyn Fn(&Seen) -> bool + Send + Sync>;

struct Trap {
    fits: Fits,
    caught: oneshot::Sender<Held>,
}

struct Shared {
    upstream: Client,
    /// User names by token.
    users: BTreeMap<String, String>,
    clock: Clock,
    log: Mutex<Vec<Seen>>,
    traps: Mutex<Vec<Trap>>,
    refused: Mutex<Option<Fits>>,
    cuts: watch::Sender<Cuts>,
    tasks: TasksHandle,
}

/// The front has cut this client off: hyper closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut off by the test")]
struct CutOff;

// === impl Front ===

impl Front {
    /// Listens on a free loopback port and passes on to `upstream`. `users` are user names by token.
    pub(crate) async fn before(
        upstream: Client,
        users: BTreeMap<String, String>,
        clock: Clock,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("the system has a loopback port left");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let tasks = Tasks::here();
        let shared = Arc::new(Shared {
            upstream,
            users,
            clock,
            log: Mutex::default(),
            traps: Mutex::default(),
            refused: Mutex::default(),
            cuts: watch::Sender::default(),
            tasks: tasks.handle(),
        });
        tasks.spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    /// Where clients find the API server.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.log).clone()
    }

    /// How many requests each user agent has made so far.
    pub(crate) fn requests_by_agent(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for seen in lock(&self.shared.log).iter() {
            *counts.entry(seen.agent.clone()).or_default() += 1;
        }
        counts
    }

    /// The API server is gone for everyone: connections are closed, new ones too, until [`Self::restore`].
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| cuts.everyone = true);
    }

    /// The API server is gone for `user` alone: a partition with one on the other side.
    pub(crate) fn cut_off(&self, user: &str) {
        self.shared.cuts.send_modify(|cuts| {
            cuts.users.insert(user.to_owned());
        });
    }

    /// Everybody reaches the API server again.
    pub(crate) fn restore(&self) {
        self.shared.cuts.send_replace(Cuts::default());
        *lock(&self.shared.refused) = None;
    }

    /// The API server is too busy for these requests, until [`Self::restore`].
    pub(crate) fn refuse(&self, fits: impl Fn(&Seen) -> bool + Send + Sync + 'static) {
        *lock(&self.shared.refused) = Some(Box::new(fits));
    }

    /// Keeps back the first request that fits, as a slow network would: until it is released, whatever becomes of its
    /// sender.
    pub(crate) fn hold(&self, fits: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Hold {
        let (caught, held) = oneshot::channel();
        lock(&self.shared.traps).push(Trap {
            fits: Box::new(fits),
            caught,
        });
        Hold(held)
    }
}

// === impl Seen ===

impl Seen {
    /// Whether this asks for another number of replicas.
    pub(crate) fn writes_scale(&self) -> bool {
        self.method == Method::PATCH && self.path.ends_with("/scale")
    }

    /// Whether this changes the Deployment in any way.
    pub(crate) fn writes_deployment(&self) -> bool {
        self.method != Method::GET && self.path.contains("/deployments/")
    }

    /// Whether this writes anything at all: Deployment, Lease, history or Event.
    pub(crate) fn writes(&self) -> bool {
        self.method != Method::GET
    }

    /// Whether this writes the Deployment's history.
    pub(crate) fn writes_history(&self) -> bool {
        self.writes() && self.path.contains("/configmaps/")
    }

    /// Whether this writes an Event.
    pub(crate) fn writes_event(&self) -> bool {
        self.writes() && self.path.ends_with("/events")
    }

    /// Whether this writes a Lease.
    pub(crate) fn writes_lease(&self) -> bool {
        self.method != Method::GET && self.path.contains("/leases")
    }
}

// === impl Hold ===

impl Hold {
    /// Waits until a request has been caught.
    pub(crate) async fn caught(self) -> Held {
        self.0.await.expect("the front outlives its tests' holds")
    }
}

// === impl Held ===

impl Held {
    /// Delivers it now; the server's status and body.
    pub(crate) async fn deliver(self) -> (StatusCode, String) {
        self.release
            .send(())
            .expect("a held request waits for its release");
        self.answered.await.expect("the API server answers")
    }
}

// === impl Shared ===

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    async fn pass(
        self: Arc<Self>,
        request: Request<Incoming>,
        user_of_connection: &Mutex<String>,
    ) -> Result<Response<Body>, CutOff> {
        let (mut parts, body) = request.into_parts();
        let user = self.user(&parts);
        lock(user_of_connection).clone_from(&user);
        if self.cuts.borrow().of(&user) {
            return Err(CutOff);
        }
        let Ok(body) = body.collect().await else {
            return Err(CutOff);
        };
        let body = body.to_bytes();
        let seen = self.see(user, &parts, &body);
        let at = self.write_down(seen.clone());
        if lock(&self.refused).as_ref().is_some_and(|fits| fits(&seen)) {
            lock(&self.log)[at].status = Some(StatusCode::SERVICE_UNAVAILABLE);
            return Ok(too_busy());
        }
        // The client that passes it on sets these for its own connection.
        for header in [HOST, CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(header);
        }
        let request = Request::from_parts(parts, body);
        match self.trap_for(&seen) {
            None => self.forward(at, request).await,
            Some(trap) => self.keep_back(at, request, seen, trap).await,
        }
    }

    fn user(&self, parts: &http::request::Parts) -> String {
        parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(|token| self.users.get(token))
            .cloned()
            .unwrap_or_default()
    }

    fn see(&self, user: String, parts: &http::request::Parts, body: &Bytes) -> Seen {
        let agent = parts.headers.get(USER_AGENT);
        Seen {
            at: self.clock.instant(),
            user,
            agent: agent
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
            status: None,
        }
    }

    /// Its place in the log, for the answer.
    fn write_down(&self, seen: Seen) -> usize {
        let mut log = lock(&self.log);
        log.push(seen);
        log.len() - 1
    }

    fn trap_for(&self, seen: &Seen) -> Option<Trap> {
        let mut traps = lock(&self.traps);
        // A trap whose test has gone must not swallow what comes after.
        traps.retain(|trap| !trap.caught.is_closed());
        let at = traps.iter().position(|trap| (trap.fits)(seen))?;
        Some(traps.remove(at))
    }

    async fn forward(&self, at: usize, request: Request<Bytes>) -> Result<Response<Body>, CutOff> {
        let request = request.map(Body::from);
        let Ok(mut response) = self.upstream.send(request).await else {
            return Err(CutOff);
        };
        for header in [CONNECTION, TRANSFER_ENCODING] {
            response.headers_mut().remove(header);
        }
        lock(&self.log)[at].status = Some(response.status());
        Ok(response)
    }

    /// Hands the request to the test and waits for its release, in a task of its own: the sender's connection may close
    /// meanwhile, and what a network has swallowed comes out all the same.
    async fn keep_back(
        self: Arc<Self>,
        at: usize,
        request: Request<Bytes>,
        seen: Seen,
        trap: Trap,
    ) -> Result<Response<Body>, CutOff> {
        let (release, released) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let (reply, replied) = oneshot::channel();
        let held = Held {
            request: seen,
            release,
            answered,
        };
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            // Neither the test nor the sender has to wait for the answer.
            trap.caught.send(held).ok();
            released.await.ok();
            let Ok(response) = self.forward(at, request).await else {
                return;
            };
            let (parts, body) = response.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let text = String::from_utf8_lossy(&body).into_owned();
            answer.send((parts.status, text)).ok();
            reply
                .send(Response::from_parts(parts, Body::from(body)))
                .ok();
        });
        replied.await.map_err(|_gone| CutOff)
    }
}

// === impl Cuts ===

impl Cuts {
    fn of(&self, user: &str) -> bool {
        self.everyone || self.users.contains(user)
    }
}

/// As an API server says it.
fn too_busy() -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the server is currently unable to handle the request", "reason": "ServiceUnavailable", "code": 503,
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // An error is out of file descriptors: the test fails by what it then does not reach.
    while let Ok((stream, _from)) = listener.accept().await {
        // The listener stays open while everyone is cut off, so that the port is still ours afterwards: a client sees
        // its connection closed at once instead of refused.
        if !shared.cuts.borrow().everyone {
            shared.tasks.spawn(connection(stream, shared.clone()));
        }
    }
}

/// Serves one connection until it ends or is cut: then it closes in the middle of whatever it carries.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let user = Mutex::default();
    let mut cuts = shared.cuts.subscribe();
    let serve = service_fn(|request| shared.clone().pass(request, &user));
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
    tokio::select! {
        // A client that went away, or an upstream that died, is what some tests are about.
        _end = served => {}
        _cut = cuts.wait_for(|cuts| cuts.of(&lock(&user))) => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

mod tests;
