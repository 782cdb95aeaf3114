//! What hyper itself costs: a reverse proxy on one thread, with a pool, that counts nothing and changes nothing.
//!
//! `bare LISTEN UPSTREAM` is one of those that benches/paired measures. It is no proxy to use: header fields of one
//! connection pass to the next, it speaks HTTP/1 alone, nothing has a limit, and what breaks is closed without a word.

use std::env;
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// As the others' that it is measured beside.
const BACKLOG: i32 = 4096;

type Broken = Box<dyn Error + Send + Sync>;

/// Connections to the upstream, the last one used first.
struct Pool {
    upstream: SocketAddr,
    idle: Mutex<Vec<SendRequest<Incoming>>>,
}

/// The upstream's body. Its end gives the connection back.
struct Passed {
    incoming: Incoming,
    lease: Option<(SendRequest<Incoming>, Arc<Pool>)>,
}

// === impl Pool ===

impl Pool {
    async fn check_out(&self) -> Result<SendRequest<Incoming>, Broken> {
        while let Some(mut idle) = self.pop() {
            if poll_fn(|cx| idle.poll_ready(cx)).await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = TcpStream::connect(self.upstream).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn pop(&self) -> Option<SendRequest<Incoming>> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn keep(&self, sender: SendRequest<Incoming>) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
    }
}

// === impl Passed ===

impl Passed {
    fn end(&mut self) {
        if let Some((sender, pool)) = self.lease.take() {
            pool.keep(sender);
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        // Nobody polls for the `None` after the last byte of a known length.
        if matches!(polled, Poll::Ready(None)) || self.incoming.is_end_stream() {
            self.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

async fn forward(pool: Arc<Pool>, request: Request<Incoming>) -> Result<Response<Passed>, Broken> {
    let mut sender = pool.check_out().await?;
    let response = sender.send_request(request).await?;
    Ok(response.map(|incoming| {
        let mut passed = Passed {
            incoming,
            lease: Some((sender, pool)),
        };
        if passed.is_end_stream() {
            passed.end();
        }
        passed
    }))
}

async fn serve(pool: Arc<Pool>, stream: TcpStream) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    let service = service_fn(move |request| forward(Arc::clone(&pool), request));
    let mut builder = server::conn::http1::Builder::new();
    builder.header_read_timeout(None);
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn run(listen: SocketAddr, upstream: SocketAddr) -> Result<(), Broken> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let pool = Arc::new(Pool {
        upstream,
        idle: Mutex::default(),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(Arc::clone(&pool), stream));
    }
}

fn main() -> ExitCode {
    let mut addresses = env::args().skip(1).map(|argument| argument.parse());
    let (Some(Ok(listen)), Some(Ok(upstream)), None) =
        (addresses.next(), addresses.next(), addresses.next())
    else {
        eprintln!("usage: bare LISTEN UPSTREAM, both as ip:port");
        return ExitCode::from(64);
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Broken::from)
        .and_then(|runtime| runtime.block_on(run(listen, upstream)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}
