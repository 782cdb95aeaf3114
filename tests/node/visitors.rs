//! Clients of a Service that never try a request again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sidescale::clock::Clock;
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::net::TcpStream;

use crate::cluster::SOON;
use crate::wait::eventually;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Each request on a connection of its own.
    Fresh,
    /// One after the other on a connection, for as long as its pod keeps it.
    Kept,
    /// The same, with streams of about so many seconds.
    Stream(u32),
    /// Calls of gRPC on one connection of HTTP/2, each a stream of about so many seconds.
    Call(u32),
}

/// Clients at work; dropped, they end with what is in flight.
pub(crate) struct Visitors {
    seen: Arc<Mutex<Seen>>,
    _tasks: Tasks,
}

/// What they have met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Whole answers.
    pub(crate) served: BTreeMap<Way, u64>,
    /// What went wrong.
    pub(crate) failed: Vec<String>,
}

/// The server takes 25 ms for one: these are of a second.
const TOKENS: u32 = 40;

type Trouble = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Visitor {
    clock: Clock,
    way: Way,
    address: String,
    seen: Arc<Mutex<Seen>>,
    tasks: TasksHandle,
}

// === impl Visitors ===

impl Visitors {
    /// So many clients of each way, each with one request at a time.
    pub(crate) fn start(address: &str, clients: &[(Way, usize)]) -> Self {
        Self::among(&[address], clients)
    }

    /// The same at each of these addresses.
    pub(crate) fn among(addresses: &[&str], clients: &[(Way, usize)]) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let tasks = Tasks::here();
        for &address in addresses {
            for &(way, count) in clients {
                for _client in 0..count {
                    let visitor = Visitor {
                        clock: Clock::real(),
                        way,
                        address: address.to_owned(),
                        seen: Arc::clone(&seen),
                        tasks: tasks.handle(),
                    };
                    tasks.spawn(visitor.work());
                }
            }
        }
        Self {
            seen,
            _tasks: tasks,
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Returns when so many more were answered.
    pub(crate) async fn are_served(&self, more: u64) {
        let wanted = self.seen().total() + more;
        eventually("requests are answered", SOON, async || {
            let served = self.assert_none_failed("while they waited").total();
            (served >= wanted).then_some(()).ok_or(format!("{served}"))
        })
        .await;
    }

    /// Fails where one of them did.
    pub(crate) fn assert_none_failed(&self, when: &str) -> Seen {
        let seen = self.seen();
        assert!(
            seen.failed.is_empty(),
            "{when}: {:#?} of {:?}",
            seen.failed,
            seen.served
        );
        seen
    }
}

// === impl Seen ===

impl Seen {
    fn total(&self) -> u64 {
        self.served.values().sum()
    }
}

// === impl Visitor ===

impl Visitor {
    async fn work(self) {
        loop {
            let visited = match self.way {
                Way::Call(seconds) => self.call(seconds).await,
                Way::Fresh | Way::Kept | Way::Stream(_) => self.visit().await,
            };
            if let Err(trouble) = visited {
                let at = self.clock.now().timestamp.as_millis();
                let failed = format!("at {at} ms, {:?}: {trouble:?}", self.way);
                lock(&self.seen).failed.push(failed);
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn visit(&self) -> Result<(), Trouble> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn(async move {
            // Its errors come up at the requests.
            drop(connection.await);
        });
        loop {
            let is_last = self.ask(&mut sender).await?;
            if is_last || self.way == Way::Fresh {
                return Ok(());
            }
        }
    }

    /// One request; whether its answer is the connection's last.
    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>) -> Result<bool, Trouble> {
        let (tokens, stream) = match self.way {
            Way::Fresh | Way::Kept => (20, false),
            Way::Stream(seconds) | Way::Call(seconds) => (seconds * TOKENS, true),
        };
        let body = format!(r#"{{"max_tokens": {tokens}, "stream": {stream}}}"#);
        sender.ready().await?;
        let request = Request::post("/v1/completions")
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        let response = sender.send_request(request).await?;
        let is_last = response.headers().contains_key(CONNECTION);
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let is_whole = if stream {
            text.trim_end().ends_with("data: [DONE]")
        } else {
            serde_json::from_str::<serde_json::Value>(&text).is_ok()
        };
        if !status.is_success() || !is_whole {
            return Err(format!("{status}: {text}").into());
        }
        self.count();
        Ok(is_last)
    }

    /// Calls on one connection until its pod says that it takes no more. A call that crosses that word was not taken, by the
    /// pod's own word: it is made elsewhere, as every client of gRPC does by itself.
    async fn call(&self, seconds: u32) -> Result<(), Trouble> {
        let stream = TcpStream::connect(&self.address).await?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        self.tasks.spawn(async move {
            // As above.
            drop(connection.await);
        });
        loop {
            // An error before anything was sent: the word had come.
            let Ok(mut sender) = sender.clone().ready().await else {
                return Ok(());
            };
            let uri = format!("http://{}/sidescale.demo.Model/Complete", self.address);
            let request = Request::post(uri)
                .header(CONTENT_TYPE, "application/grpc+json")
                .header(TE, "trailers")
                .body(())?;
            let Ok((response, mut body)) = sender.send_request(request, false) else {
                return Ok(());
            };
            let json = format!(r#"{{"max_tokens": {}}}"#, seconds * TOKENS);
            let mut message = vec![0];
            message.extend(u32::try_from(json.len())?.to_be_bytes());
            message.extend(json.into_bytes());
            let sent = body.send_data(message.into(), true);
            let (head, mut body) = match response.await {
                Ok(response) => response.into_parts(),
                Err(error) if error.is_go_away() && error.is_remote() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            sent?;
            let mut bytes = 0;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                bytes += data.len();
            }
            let trailers = body.trailers().await?.unwrap_or_default();
            let status = trailers
                .get("grpc-status")
                .or(head.headers.get("grpc-status"));
            if !head.status.is_success() || status.is_none_or(|status| status != "0") {
                return Err(format!("{head:?}, {bytes} bytes, {trailers:?}").into());
            }
            self.count();
        }
    }

    fn count(&self) {
        *lock(&self.seen).served.entry(self.way).or_default() += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
