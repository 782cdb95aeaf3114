//! A connection to the upstream with a request on it, driven by the task that waits for the response.
//!
//! hyper leaves it to others to poll a connection. A task for each would cost every request more turns of the runtime,
//! and what is read for it would lie about until the next one. So the client's own task polls it: for the response's
//! head, and for more of its body when the client has room. Only where the request's body is still on its way when the
//! head comes, a task takes over: a client may send all before it reads.
//!
//! Between two requests nobody drives a connection. Whether it still stands is seen when it is used again, or it ages.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::dial::Stream;
use super::pool::Pool;
use super::request::RequestBody;
use super::wire::MAX_HEAD;

/// How often a connection is polled before others have their turn. Twice is usual: what was read, and that there is no
/// more. Without an end it would go on for ever, once the runtime lets a task read no more.
const TURNS: u32 = 4;

/// How many requests hyper's half of a connection carries before it is made anew, on the same socket. hyper hands them
/// over in a channel of blocks of 32, which has one block until then and two for ever after: 9 KiB of a busy connection.
const REQUESTS: u32 = 31;

type Connection = http1::Connection<TokioIo<Stream>, RequestBody>;

/// A connection of HTTP/1.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    driver: Driver,
    carried: u32,
}

/// A connection in use. Dropping it closes the connection and so cancels the request.
#[derive(Debug)]
pub(super) struct Lease {
    link: Box<Link>,
    /// Whether it has carried a request before: then the upstream may have closed it meanwhile.
    pub(super) reused: bool,
    /// Upgrades for as long as hyper has use for the request's body.
    upload: Weak<()>,
    /// The request's body was refused before it came, so the connection ends with the response.
    spent: bool,
    pool: Arc<Pool>,
}

/// A lease for the length of a response's body. Dropping it is dropping the lease; [`Held::check_in`] keeps the
/// connection.
#[derive(Debug)]
pub(super) enum Held {
    /// Driven by who reads the body.
    Here(Lease),
    /// Driven by a task that ends when this is dropped without a word.
    Apart(oneshot::Sender<()>),
}

/// Polls a connection when there is something to do for it.
#[derive(Debug)]
struct Driver {
    /// `None`: it broke off.
    connection: Option<Connection>,
    /// It is not to be polled again.
    ended: bool,
    alarm: Arc<Alarm>,
    waker: Waker,
}

/// What hyper wakes. Half of it happens while the connection's driver runs, which must not be woken by itself; and few of
/// the reasons for which a client's task runs concern this connection.
#[derive(Debug)]
struct Alarm {
    rung: AtomicBool,
    driver: AtomicWaker,
}

// === impl Link ===

impl Link {
    pub(super) async fn of(stream: TokioIo<Stream>) -> hyper::Result<Box<Self>> {
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(MAX_HEAD).handshake(stream);
        let (sender, connection) = handshake.await?;
        Ok(Box::new(Self {
            sender,
            driver: Driver::new(connection),
            carried: 0,
        }))
    }

    /// Whether it can take a request now. No system call: the runtime has told where it was closed.
    pub(super) fn is_ready(&mut self) -> bool {
        self.driver.catch_up();
        !self.driver.ended && self.sender.is_ready()
    }

    /// Waits until request and response are over. `false`: the connection is, too.
    async fn idle(&mut self) -> bool {
        let Self { sender, driver, .. } = self;
        let ready = poll_fn(|cx| driver.poll_for(cx, |cx| sender.poll_ready(cx)));
        ready.await.is_ok()
    }

    /// The bare connection; `None`: it broke off.
    fn into_parts(self) -> Option<Parts<TokioIo<Stream>>> {
        self.driver.connection.map(Connection::into_parts)
    }

    /// Whether it should be made anew before it carries another request.
    pub(super) fn is_worn(&self) -> bool {
        self.carried >= REQUESTS
    }

    /// A new half of hyper's, on the same socket.
    pub(super) async fn renewed(self: Box<Self>) -> Option<Box<Self>> {
        let parts = self.into_parts()?;
        // What came unasked is no answer to the next request.
        if !parts.read_buf.is_empty() {
            return None;
        }
        Self::of(parts.io).await.ok()
    }
}

// === impl Lease ===

impl Lease {
    pub(super) fn of(link: Box<Link>, reused: bool, pool: &Arc<Pool>) -> Self {
        Self {
            link,
            reused,
            upload: Weak::new(),
            spent: false,
            pool: Arc::clone(pool),
        }
    }

    /// Sends `request` and waits for the response's head.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.upload = request.body().upload();
        let word = request.body().word();
        self.link.carried += 1;
        let mut sent = pin!(self.link.sender.try_send_request(request));
        let driver = &mut self.link.driver;
        let answered = poll_fn(|cx| driver.poll_for(cx, |cx| sent.as_mut().poll(cx))).await;
        if let (Ok(response), Some(word)) = (&answered, word) {
            self.spent = word.answered(response.status());
        }
        answered
    }

    /// Whether the rest of the request's body finds nobody at the server: it was refused, or the server `closes` before it
    /// has it. What the client still sends of it ends its connection.
    pub(super) fn is_spent(&self, closes: impl FnOnce() -> bool) -> bool {
        self.spent || self.upload.strong_count() > 0 && closes()
    }

    /// Holds the connection while the body of its response is read.
    pub(super) fn hold(self) -> Held {
        if self.spent || self.upload.strong_count() == 0 {
            return Held::Here(self);
        }
        let (done, dropped) = oneshot::channel::<()>();
        let tasks = self.pool.tasks().clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = self.give_back() => {}
                Err(_) = dropped => {}
            }
        });
        Held::Apart(done)
    }

    /// The bare connection, of a response that has left HTTP.
    pub(super) fn into_parts(self) -> Option<Parts<TokioIo<Stream>>> {
        self.link.into_parts()
    }

    /// Gives the connection back for the next request, when this one is over.
    fn check_in(mut self) {
        if self.spent {
            return;
        }
        if self.link.is_ready() {
            self.pool.keep(self.link);
        } else if !self.link.driver.ended {
            let tasks = self.pool.tasks().clone();
            tasks.spawn(self.give_back());
        }
    }

    async fn give_back(mut self) {
        if self.link.idle().await {
            self.pool.keep(self.link);
        }
    }
}

// === impl Held ===

impl Held {
    /// The next frame of `incoming`, the body of this connection's response.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self {
            Self::Here(lease) => {
                let next = |cx: &mut Context<'_>| Pin::new(&mut *incoming).poll_frame(cx);
                lease.link.driver.poll_for(cx, next)
            }
            Self::Apart(_) => Pin::new(incoming).poll_frame(cx),
        }
    }

    /// The body was read to its end.
    pub(super) fn check_in(self) {
        match self {
            Self::Here(lease) => lease.check_in(),
            // It may have ended a moment ago.
            Self::Apart(done) => done.send(()).unwrap_or_default(),
        }
    }
}

// === impl Driver ===

impl Driver {
    fn new(connection: Connection) -> Self {
        let alarm = Arc::new(Alarm {
            // For its first turn.
            rung: AtomicBool::new(true),
            driver: AtomicWaker::new(),
        });
        Self {
            connection: Some(connection),
            ended: false,
            waker: Waker::from(Arc::clone(&alarm)),
            alarm,
        }
    }

    /// Polls `wanted`, which waits for this connection and for nothing else.
    fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Whatever comes for it comes by a turn of the connection, which is taken here.
        let mut unwoken = Context::from_waker(Waker::noop());
        for _turn in 0..TURNS {
            let polled = wanted(&mut unwoken);
            if polled.is_ready() {
                return polled;
            }
            if self.ended {
                // With its drop it says so to who still waits, and gives back a request that it never took.
                self.connection = None;
                return wanted(&mut unwoken);
            }
            if !self.alarm.is_rung(cx) {
                return Poll::Pending;
            }
            self.turn();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One turn, where there is something to do.
    fn catch_up(&mut self) {
        if self.alarm.rung.swap(false, Relaxed) && !self.ended {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut cx = Context::from_waker(&self.waker);
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = Pin::new(connection).poll(&mut cx)
        {
            self.ended = true;
            if let Err(error) = ended {
                tracing::debug!(%error, "an upstream connection ended");
            }
        }
    }
}

// === impl Alarm ===

impl Alarm {
    /// Whether it has rung since this was last asked. Where not, it will wake the driver once.
    fn is_rung(&self, cx: &Context<'_>) -> bool {
        if !self.rung.swap(false, Relaxed) {
            self.driver.register(cx.waker());
            // It may have rung between the two.
            return self.rung.swap(false, Relaxed);
        }
        true
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Relaxed);
        self.driver.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_alarm_wakes_who_waits_for_it_and_nobody_else() {
        let alarm = Arc::new(Alarm {
            rung: AtomicBool::new(false),
            driver: AtomicWaker::new(),
        });
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        alarm.wake_by_ref();
        assert!(alarm.is_rung(&cx), "while its driver ran");
        assert!(!alarm.is_rung(&cx));
        assert_eq!(wakes.0.load(Relaxed), 0);
        alarm.wake_by_ref();
        alarm.wake_by_ref();
        assert!(alarm.is_rung(&cx));
        assert_eq!(wakes.0.load(Relaxed), 1);
    }
}
