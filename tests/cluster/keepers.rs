//! Clients that keep their connection for as long as its pod lets them, and never try a request again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::model_server::{ANSWER, STREAM, TOKEN, TOKENS};

/// How a client asks, and what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// One answer after the other, by HTTP/1.1.
    Answers,
    /// One stream of tokens after the other, by HTTP/1.1.
    Streams,
    /// One call after the other as a stream of one connection of HTTP/2, as gRPC does.
    Calls,
}

/// Clients at work; dropped, they end with what is in flight.
#[derive(Debug)]
pub(crate) struct Keepers {
    seen: Arc<Mutex<Seen>>,
    _tasks: Tasks,
}

/// What the clients have met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Whole answers, by pod.
    pub(crate) served: BTreeMap<SocketAddr, u64>,
    /// And by way.
    pub(crate) by_way: BTreeMap<Way, u64>,
    /// What went wrong.
    pub(crate) failed: Vec<String>,
}

/// What went wrong with one request.
type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// One client at work.
struct Keeper {
    way: Way,
    seen: Arc<Mutex<Seen>>,
    tasks: TasksHandle,
}

// === impl Keepers ===

impl Keepers {
    /// So many clients of each way, each with one request at a time. A Service draws the pod of a new connection by chance;
    /// here they get them in turn.
    pub(crate) fn start(
        endpoints: &watch::Receiver<Vec<SocketAddr>>,
        clients: &[(Way, usize)],
    ) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let turn = Arc::<Mutex<usize>>::default();
        let tasks = Tasks::here();
        let ways = clients
            .iter()
            .flat_map(|(way, count)| std::iter::repeat_n(*way, *count));
        for way in ways {
            let keeper = Keeper {
                way,
                seen: seen.clone(),
                tasks: tasks.handle(),
            };
            tasks.spawn(keeper.work(endpoints.clone(), turn.clone()));
        }
        Self {
            seen,
            _tasks: tasks,
        }
    }

    /// What they have met so far.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

// === impl Keeper ===

impl Keeper {
    async fn work(self, mut endpoints: watch::Receiver<Vec<SocketAddr>>, turn: Arc<Mutex<usize>>) {
        // Without its sender the node is gone, and the test over.
        while endpoints.wait_for(|pods| !pods.is_empty()).await.is_ok() {
            let pod = {
                let endpoints = endpoints.borrow();
                let mut turn = lock(&turn);
                *turn += 1;
                endpoints[*turn % endpoints.len()]
            };
            let kept = match self.way {
                Way::Answers => self.keep(pod, "/infer", ANSWER).await,
                Way::Streams => self.keep(pod, STREAM, &TOKEN.repeat(TOKENS)).await,
                Way::Calls => self.keep_calling(pod).await,
            };
            if let Err(trouble) = kept {
                let failed = format!("{:?} at {pod}: {trouble:?}", self.way);
                lock(&self.seen).failed.push(failed);
            }
        }
    }

    /// Sends on one connection until its pod says that a response is the last.
    async fn keep(&self, pod: SocketAddr, path: &str, expected: &str) -> Result<(), Trouble> {
        let stream = TcpStream::connect(pod).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn(async move {
            // Its errors come up at the requests.
            drop(connection.await);
        });
        loop {
            sender.ready().await?;
            let request = Request::get(path)
                .header(HOST, pod.to_string())
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let is_last = response.headers().contains_key(CONNECTION);
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            self.check(pod, status, &body, expected)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Calls on one connection until its pod says that it takes no more. A call that crosses that word was not taken, by the
    /// pod's own word: it is made elsewhere, as every client of gRPC does by itself.
    async fn keep_calling(&self, pod: SocketAddr) -> Result<(), Trouble> {
        let stream = TcpStream::connect(pod).await?;
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
            let request = Request::get(format!("http://{pod}/infer")).body(())?;
            let Ok((response, _stream)) = sender.send_request(request, true) else {
                return Ok(());
            };
            let response = match response.await {
                Ok(response) => response,
                Err(error) if error.is_go_away() && error.is_remote() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let (head, mut body) = response.into_parts();
            let mut whole = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                whole.extend_from_slice(&data);
            }
            self.check(pod, head.status, &whole, ANSWER)?;
        }
    }

    fn check(
        &self,
        pod: SocketAddr,
        status: StatusCode,
        body: &[u8],
        expected: &str,
    ) -> Result<(), Trouble> {
        if !status.is_success() || body != expected.as_bytes() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(body)).into());
        }
        let mut seen = lock(&self.seen);
        *seen.served.entry(pod).or_default() += 1;
        *seen.by_way.entry(self.way).or_default() += 1;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
