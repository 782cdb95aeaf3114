//! Support: a server of HTTP/1 that writes the bytes it was given and ends as it was told, and one of HTTP/2 beside it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use sidescale::lifecycle::Tasks;
use sidescale::proxy::{Health, Protocol};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::pod::{Pod, within};

/// How a connection ends after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It takes more requests.
    Never,
    /// By a FIN right behind the last byte.
    Closed,
    /// By a RST in place of the FIN.
    Reset,
}

/// Answers every request with the same bytes.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    /// Requests whose head came.
    requests: watch::Sender<u64>,
    /// Connections that ended before their answer was due.
    left: watch::Sender<u64>,
    _tasks: Tasks,
}

// === impl Scripted ===

impl Scripted {
    pub(crate) async fn start(answer: &'static str, end: End) -> Self {
        Self::start_with(answer.as_bytes(), Some(end)).await
    }

    /// It sends `first` and then neither a byte nor an end.
    pub(crate) async fn stalls_after(first: &'static str) -> Self {
        Self::start_with(first.as_bytes(), None).await
    }

    async fn start_with(answer: &'static [u8], end: Option<End>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::here();
        let (requests, left) = (watch::Sender::new(0), watch::Sender::new(0));
        let (children, seen, gone) = (tasks.handle(), requests.clone(), left.clone());
        tasks.spawn(async move {
            while let Ok((mut stream, _peer)) = listener.accept().await {
                let (seen, gone) = (seen.clone(), gone.clone());
                children.spawn(async move {
                    while read_head(&mut stream).await.is_some() {
                        seen.send_modify(|count| *count += 1);
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                        match end {
                            Some(End::Never) => {}
                            Some(End::Closed) => return,
                            Some(End::Reset) => return reset(&stream),
                            None => {
                                let mut rest = [0; 1_024];
                                while matches!(stream.read(&mut rest).await, Ok(1..)) {}
                                gone.send_modify(|count| *count += 1);
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            requests,
            left,
            _tasks: tasks,
        }
    }

    /// A ready pod in front of it, which knows that it speaks HTTP/1.
    pub(crate) async fn pod(&self) -> Pod {
        let pod = Pod::start(self.address, |settings| settings.protocol = Protocol::Http1);
        pod.becomes(Health::Ready).await;
        pod
    }

    pub(crate) async fn was_asked(&self, times: u64) {
        reaches(&self.requests, times).await;
    }

    /// Waits until so many clients have left a stalled answer.
    pub(crate) async fn was_left(&self, times: u64) {
        reaches(&self.left, times).await;
    }
}

async fn reaches(counter: &watch::Sender<u64>, times: u64) {
    let mut counter = counter.subscribe();
    let seen = within(counter.wait_for(|count| *count >= times)).await;
    drop(seen.expect("the server lives"));
}

/// The drop that follows sends a RST: nothing that was written is lost with it, since it lies at the other side already.
fn reset(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("it is open");
}

/// `None`: it ended, as a probe does.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A server of HTTP/2 whose answers are written by `answer`, one call for each request.
pub(crate) async fn serve_http2<F, A>(tasks: &Tasks, answer: A) -> SocketAddr
where
    A: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (children, answer) = (tasks.handle(), Arc::new(answer));
    tasks.spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            let (spawner, answer) = (children.clone(), Arc::clone(&answer));
            children.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    spawner.spawn(answer(request, respond));
                }
            });
        }
    });
    address
}

/// Waits for the reset of a stream whose response has not begun.
pub(crate) async fn reset_of(respond: &mut SendResponse<Bytes>) -> Option<Reason> {
    poll_fn(|cx| respond.poll_reset(cx)).await.ok()
}

pub(crate) fn with_length(length: u64) -> Response<()> {
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("content-length", length.into());
    response
}
