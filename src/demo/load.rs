//! Clients that send a trace's requests over real sockets, and say what became of each.
//!
//! The load is open: a request is sent when it is due, whether or not earlier ones were answered, and its latency counts
//! from the moment it was due. A client that waited for a slow fleet would hide exactly the seconds that matter.
//!
//! It stands for many clients behind a Kubernetes Service. Each request goes to one of the present endpoints at random,
//! over a kept-alive connection where one is idle. kube-proxy chooses once per connection, so real keep-alive clients stay
//! with old pods until their connections are retired; choosing per request is what many clients with short connections
//! amount to, without a handshake for each request. **Nothing is ever retried.**

mod exchange;
mod pool;
mod replay;
mod summary;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};

use self::exchange::Exchange;
use self::pool::Pool;
pub use self::replay::{Error, Replay};
pub use self::summary::Summary;
use crate::clock::{Clock, Instant};
use crate::lifecycle::Tasks;

/// What the clients ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Draws endpoints and lengths; the same seed makes the same requests.
    pub seed: u64,
    /// Tokens of an answer, on average.
    pub tokens: u32,
    /// How far the tokens of one answer are from the average at most, as a share of it: 0.5 draws evenly between half
    /// and one and a half times `tokens`. 0: all alike.
    pub spread: f64,
    /// Whether answers are streamed.
    pub stream: bool,
    /// How long a client waits for the whole answer, counted from when the request was due.
    pub patience: Duration,
    /// Host header of the requests.
    pub host: HeaderValue,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// 2xx, and the whole answer came.
    Ok,
    /// The connection broke before the answer began, or was reset in its middle.
    Reset,
    /// Nobody accepted the connection, or there was no endpoint at all.
    Refused,
    /// The answer ended too early: cut off, or a stream without its `[DONE]`.
    ShortBody,
    /// The client's patience ended first.
    TimedOut,
    /// A whole answer that is not 2xx.
    Status(u16),
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it arrived, by the trace.
    pub due: Instant,
    /// When the client took it up: later than `due` by the grain of the timer.
    pub sent_at: Instant,
    /// Where it went; `None`: there was no endpoint.
    pub endpoint: Option<SocketAddr>,
    /// From `due` to the first byte of the body: the time to first token of a streamed answer.
    pub first_byte: Option<Duration>,
    /// From `due` to the end, whatever it was.
    pub total: Duration,
    /// What the server says it waited for a slot (`x-queue-millis`).
    pub queued: Option<Duration>,
    /// How it ended.
    pub result: Ending,
}

/// Plays arrivals against endpoints that may change at any time.
#[derive(Debug)]
pub struct Load {
    settings: Settings,
    endpoints: watch::Receiver<Vec<SocketAddr>>,
    /// Unbounded, because a scorer that is late must not hold the clients up; it holds at most one value a request.
    outcomes: mpsc::UnboundedSender<Outcome>,
    clock: Clock,
    rng: StdRng,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            tokens: 64,
            spread: 0.5,
            stream: true,
            patience: Duration::from_secs(120),
            host: HeaderValue::from_static("model"),
        }
    }
}

// === impl Ending ===

impl Ending {
    /// Whether the client got what it asked for.
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }
}

// === impl Load ===

impl Load {
    /// Clients of the Service with these `endpoints`, and where their outcomes can be read.
    pub fn new(
        settings: Settings,
        endpoints: watch::Receiver<Vec<SocketAddr>>,
        clock: Clock,
    ) -> (Self, mpsc::UnboundedReceiver<Outcome>) {
        let (outcomes, receiver) = mpsc::unbounded_channel();
        let load = Self {
            rng: StdRng::seed_from_u64(settings.seed),
            settings,
            endpoints,
            outcomes,
            clock,
        };
        (load, receiver)
    }

    /// Sends a request at each of `arrivals` after `start`, in order; done when each has its outcome.
    ///
    /// Everything lives in the returned future. The outcomes end when it ends.
    pub async fn play(mut self, start: Instant, arrivals: impl Iterator<Item = Duration>) {
        let tasks = Tasks::here();
        let pool = Arc::new(Pool::new(tasks.handle()));
        pool.keep_only(&self.endpoints.borrow_and_update());
        // Nothing is sent through it: it closes when the last request has let go of its sender.
        let (request_lives, mut all_requests) = mpsc::channel::<()>(1);
        for offset in arrivals {
            let due = start + offset;
            if self.clock.instant() < due {
                self.clock.sleep_until(due).await;
            } else {
                // Late already: send at once, but let the others on this thread have their turn.
                tokio::task::yield_now().await;
            }
            if self.endpoints.has_changed().unwrap_or(false) {
                pool.keep_only(&self.endpoints.borrow_and_update());
            }
            let exchange = self.exchange(due);
            let (outcomes, pool, lives) = (
                self.outcomes.clone(),
                Arc::clone(&pool),
                request_lives.clone(),
            );
            tasks.spawn(async move {
                let outcome = exchange.run(&pool).await;
                if outcomes.send(outcome).is_err() {
                    tracing::debug!("nobody reads the outcomes of the load any more");
                }
                drop(lives);
            });
        }
        drop(request_lives);
        while all_requests.recv().await.is_some() {}
    }

    fn exchange(&mut self, due: Instant) -> Exchange {
        let spread = self.settings.spread.clamp(0.0, 1.0);
        let factor = 1.0 + spread * (2.0 * self.rng.random::<f64>() - 1.0);
        let tokens = (f64::from(self.settings.tokens) * factor).round().max(1.0);
        let endpoints = self.endpoints.borrow();
        let endpoint =
            (!endpoints.is_empty()).then(|| endpoints[self.rng.random_range(0..endpoints.len())]);
        Exchange {
            due,
            sent_at: self.clock.instant(),
            endpoint,
            body: body(tokens, self.settings.stream),
            host: self.settings.host.clone(),
            patience: self.settings.patience,
            clock: self.clock.clone(),
        }
    }
}

fn body(tokens: f64, stream: bool) -> String {
    format!("{{\"prompt\":\"Hello\",\"max_tokens\":{tokens:.0},\"stream\":{stream}}}")
}

#[cfg(test)]
mod tests;
