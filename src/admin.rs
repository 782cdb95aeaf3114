//! The admin port: metrics, probes, the page, and what the leader knows as JSON. HTTP/1.1, read-only.
//!
//! | path | who answers | what |
//! |---|---|---|
//! | `/` | any pod | the page |
//! | `/metrics` | any pod | its own metrics |
//! | `/healthz` | any pod | 200 as long as this server runs |
//! | `/readyz` | any pod | 200, or 503 with the reason in text |
//! | `/api/v1/report` | any pod | its own report |
//! | `/api/v1/plan` | the leader, else any pod | [`Overview`]: the plan and what stands beside it; without a leader that answers, what this pod says is wrong |
//! | `/api/v1/decisions` | the leader | the last [`Decision`]s, oldest first |
//! | `/api/v1/history` | the leader | [`History`]: the last stretch as columns |
//! | `/api/v1/forecast` | the leader | the [`Forecast`] |
//! | `/api/v1/drained` | any pod | asks this pod to drain and answers 200 when it has: what a preStop hook calls |
//!
//! A follower asks the leader and passes the answer on, so that any pod's page shows the fleet. `drained` is the one path
//! that acts. A kubelet or a script may call it; a browser may not, because any page on the internet can make a browser
//! send a GET to an address it can reach.
//!
//! It runs on the control runtime, never on the traffic thread.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::clock::Clock;
use crate::forecast::Forecast;
use crate::lifecycle::TasksHandle;
use crate::report::Report;

mod answer;
mod ask;
mod json;
mod page;
mod routes;

pub use json::{Condition, Decision, History, Overview, Replicas, Shadow, ShadowSeries};

/// Connections at a time. A browser takes six, Prometheus one, the kubelet a few, and every follower whose page somebody
/// looks at one; what is beyond that is a mistake, and its memory is the pod's.
const MOST_CONNECTIONS: usize = 64;

/// A client that has not sent its request's head by then, or leaves its connection idle for so long, is hung up on. Time of
/// life, whatever the clock's speed: the clients are real.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// After a failure to accept (too many open files, most likely), wait this long: it fails again at once otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the answers come from. All of it is read when somebody asks.
pub trait Source: Send + Sync + 'static {
    /// This pod's metrics.
    fn metrics(&self) -> Metrics;
    /// Whether this pod takes requests; if not, why, for a person.
    fn ready(&self) -> Result<(), String>;
    /// This pod's own report.
    fn report(&self) -> Report;
    /// The plan and what stands beside it; `None` on a pod that does not lead.
    fn overview(&self) -> Option<Overview>;
    /// What this pod can say by itself, without a plan: who it is, and what is wrong.
    fn standing(&self) -> Overview;
    /// The last decisions, oldest first; `None` on a pod that does not lead.
    fn decisions(&self) -> Option<Vec<Decision>>;
    /// The last stretch; `None` on a pod that does not lead.
    fn history(&self) -> Option<History>;
    /// The forecast, empty while there is none; `None` on a pod that does not lead.
    fn forecast(&self) -> Option<Forecast>;
    /// Where the leader's admin port is, if a leader is known and it is another pod.
    fn leader_admin(&self) -> Option<SocketAddr>;
    /// Asks for the drain, if nobody has, and waits until nothing is in flight any more.
    fn drained(&self) -> impl Future<Output = ()> + Send;
}

/// The text of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Which format it is in.
    pub content_type: &'static str,
    /// The text.
    pub text: String,
}

/// Serves until the future is dropped; every connection lives in `tasks`.
#[expect(clippy::infinite_loop, reason = "serves until its task is dropped")]
pub async fn serve<S: Source>(
    listener: TcpListener,
    source: Arc<S>,
    clock: Clock,
    tasks: TasksHandle,
) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept().await {
            Ok((tcp, _from)) => {
                let Some(place) = Place::take(&open) else {
                    tracing::warn!("refused an admin connection: {MOST_CONNECTIONS} are open");
                    continue;
                };
                let routes = routes::Routes {
                    source: Arc::clone(&source),
                    clock: clock.clone(),
                    tasks: tasks.clone(),
                };
                tasks.spawn(connection(tcp, routes, place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S: Source>(tcp: TcpStream, routes: routes::Routes<S>, _place: Place) {
    let routes = Arc::new(routes);
    let service = service_fn(move |request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, std::convert::Infallible>(routes.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection broke");
    }
}

/// One of the [`MOST_CONNECTIONS`] places, given back when dropped.
struct Place(Arc<AtomicUsize>);

// === impl Place ===

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = (open.fetch_add(1, Ordering::Relaxed) < MOST_CONNECTIONS)
            .then(|| Self(Arc::clone(open)));
        if place.is_none() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
