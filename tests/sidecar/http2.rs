//! Support: a server and clients that speak nothing but HTTP/2, frame by frame.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use sidescale::lifecycle::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::pod::within;

/// Length of `/flood` in frames of 16 KiB: more than any window in between.
pub(crate) const FLOOD_FRAMES: usize = 512;

/// The server; dropping it is its death.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    connections: AtomicU64,
    requests: AtomicU64,
    /// Requests to be refused before one is taken.
    refusals: AtomicU64,
    whole: AtomicU64,
    waiting: watch::Sender<u64>,
    /// By reason.
    resets: watch::Sender<BTreeMap<u32, u64>>,
    /// Counts up to say goodbye on all connections.
    goodbyes: watch::Sender<u64>,
}

/// A connection with any number of streams.
pub(crate) struct Client {
    pub(crate) sender: SendRequest<Bytes>,
    tasks: Tasks,
}

/// A request whose body is not over.
pub(crate) struct Call {
    pub(crate) response: ResponseFuture,
    pub(crate) stream: SendStream<Bytes>,
}

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

// === impl Server ===

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at(any(), 1_000).await
    }

    /// One that takes `streams` at once on each connection.
    pub(crate) async fn start_at(address: SocketAddr, streams: u32) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let (tasks, state) = (Tasks::here(), Arc::new(State::default()));
        let (children, shared) = (tasks.handle(), Arc::clone(&state));
        tasks.spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                let (state, spawner) = (Arc::clone(&shared), children.clone());
                children.spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.max_concurrent_streams(streams);
                    builder.initial_connection_window_size(16 << 20);
                    let Ok(mut connection) = builder.handshake(stream).await else {
                        return;
                    };
                    let (mut goodbyes, mut used) = (state.goodbyes.subscribe(), false);
                    loop {
                        let accepted = tokio::select! {
                            accepted = connection.accept() => accepted,
                            Ok(()) = goodbyes.changed() => {
                                connection.graceful_shutdown();
                                continue;
                            }
                        };
                        let Some(Ok((request, respond))) = accepted else {
                            return;
                        };
                        if !std::mem::replace(&mut used, true) {
                            state.connections.fetch_add(1, SeqCst);
                        }
                        spawner.spawn(answer(Arc::clone(&state), request, respond));
                    }
                });
            }
        });
        Self {
            address,
            state,
            tasks,
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(SeqCst)
    }

    /// Connections that carried a request.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(SeqCst)
    }

    /// Requests to `/whole` that came to their end.
    pub(crate) fn whole_requests(&self) -> u64 {
        self.state.whole.load(SeqCst)
    }

    /// The next `requests` are refused, as provably not taken.
    pub(crate) fn refuse(&self, requests: u64) {
        self.state.refusals.store(requests, SeqCst);
    }

    /// Sends GOAWAY on all connections; what is under way goes to its end.
    pub(crate) fn say_goodbye(&self) {
        self.state.goodbyes.send_modify(|count| *count += 1);
    }

    /// Waits until so many requests to `/hang` have come.
    pub(crate) async fn waits_with(&self, requests: u64) {
        let mut waiting = self.state.waiting.subscribe();
        let seen = within(waiting.wait_for(|count| *count >= requests)).await;
        drop(seen.expect("the server lives"));
    }

    /// Waits until so many streams were reset for this reason.
    pub(crate) async fn was_reset(&self, reason: Reason, times: u64) {
        let mut resets = self.state.resets.subscribe();
        let seen = within(resets.wait_for(|seen| seen.get(&reason.into()) >= Some(&times))).await;
        drop(seen.expect("the server lives"));
    }

    pub(crate) fn die(self) {
        drop(self.tasks);
    }
}

async fn answer(state: Arc<State>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let refuse = |left: u64| left.checked_sub(1);
    if state.refusals.fetch_update(SeqCst, SeqCst, refuse).is_ok() {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    state.requests.fetch_add(1, SeqCst);
    let reason = match serve(&state, request, &mut respond).await {
        Ok(reason) => reason,
        Err(error) => error.reason(),
    };
    if let Some(reason) = reason {
        state
            .resets
            .send_modify(|seen| *seen.entry(reason.into()).or_default() += 1);
    }
}

/// Answers by path, and says why the client has reset the stream, if it has.
async fn serve(
    state: &State,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<Option<Reason>, h2::Error> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    match path {
        "/hang" => {
            state.waiting.send_modify(|count| *count += 1);
            poll_fn(|cx| respond.poll_reset(cx)).await.map(Some)
        }
        "/head" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            write(&mut stream, text_of(&head), true).await
        }
        // Answers in full, and reads on.
        "/accepted" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            write(&mut stream, Bytes::from("accepted"), true).await?;
            read_whole(state, &mut body).await?;
            Ok(None)
        }
        // Answers nothing, and notes a request that has ended.
        "/whole" => {
            read_whole(state, &mut body).await?;
            poll_fn(|cx| respond.poll_reset(cx)).await.map(Some)
        }
        // Answers at once, and takes no more of the request.
        "/early" => {
            let mut stream = respond.send_response(with_status(413), false)?;
            // The drop of the rest resets the stream without an error, after what was sent.
            write(&mut stream, Bytes::from("too large"), true).await
        }
        "/flood" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            let flood = Bytes::from(vec![0; FLOOD_FRAMES * 16_384]);
            write(&mut stream, flood, true).await
        }
        "/drip" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            write(&mut stream, Bytes::from("one"), false).await?;
            poll_fn(|cx| stream.poll_reset(cx)).await.map(Some)
        }
        _ => match path.strip_prefix("/reset/").map(str::parse) {
            Some(code) => {
                let mut stream = respond.send_response(Response::new(()), false)?;
                write(&mut stream, Bytes::from("one"), false).await?;
                // The client says that it has read the first piece.
                read_frame(&mut body).await.transpose()?;
                stream.send_reset(Reason::from(code.unwrap_or(2)));
                Ok(None)
            }
            None if path.starts_with("/echo.Echo/") => serve_grpc(path, body, respond).await,
            None => echo(body, respond).await,
        },
    }
}

/// The request's head, a field a line, in the order of their names.
fn text_of(head: &http::request::Parts) -> Bytes {
    let fields = head.headers.iter();
    let mut lines: Vec<String> = fields
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    lines.sort();
    format!("{} {}\n{}\n", head.method, head.uri, lines.join("\n")).into()
}

async fn read_whole(state: &State, body: &mut RecvStream) -> Result<(), h2::Error> {
    while let Some(data) = read_frame(body).await {
        data?;
    }
    state.whole.fetch_add(1, SeqCst);
    Ok(())
}

/// Head, data and trailers come back as they come in.
async fn echo(
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
) -> Result<Option<Reason>, h2::Error> {
    if body.is_end_stream() {
        let mut stream = respond.send_response(Response::new(()), false)?;
        return write(&mut stream, Bytes::from("hello"), true).await;
    }
    let mut stream = respond.send_response(Response::new(()), false)?;
    while let Some(data) = read_frame(&mut body).await {
        if let Some(reset) = write(&mut stream, data?, false).await? {
            return Ok(Some(reset));
        }
    }
    match body.trailers().await? {
        Some(trailers) => stream.send_trailers(trailers)?,
        None => stream.send_data(Bytes::new(), true)?,
    }
    Ok(None)
}

/// The four shapes of a call, of messages that are plain text.
async fn serve_grpc(
    path: &str,
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
) -> Result<Option<Reason>, h2::Error> {
    let mut response = Response::new(());
    let kind = "application/grpc".parse().expect("valid");
    response.headers_mut().insert("content-type", kind);
    let mut stream = respond.send_response(response, false)?;
    let (mut buffer, mut all) = (BytesMut::new(), Vec::new());
    while let Some(message) = read_message(&mut body, &mut buffer).await? {
        match path {
            "/echo.Echo/Bidi" => drop(write(&mut stream, framed(&message), false).await?),
            "/echo.Echo/ServerStream" => {
                for index in 0..3 {
                    let message = format!("{} {index}", String::from_utf8_lossy(&message));
                    write(&mut stream, framed(message.as_bytes()), false).await?;
                }
            }
            _ => all.push(message),
        }
    }
    if !all.is_empty() {
        write(&mut stream, framed(&all.join(&b'+')), false).await?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("valid"));
    trailers.insert("x-count", all.len().into());
    stream.send_trailers(trailers)?;
    Ok(None)
}

// === impl Client ===

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &h2::client::Builder::new()).await
    }

    pub(crate) async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("it accepts");
        let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
        let tasks = Tasks::here();
        // Its errors come up at the requests.
        tasks.spawn(async move { drop(connection.await) });
        Self { sender, tasks }
    }

    /// Sends a head. `ends`: and no body.
    pub(crate) async fn open(
        &self,
        request: http::request::Builder,
        ends: bool,
    ) -> Result<Call, h2::Error> {
        let mut sender = within(self.sender.clone().ready()).await?;
        let request = request.body(()).expect("a valid request");
        let (response, stream) = sender.send_request(request, ends)?;
        Ok(Call { response, stream })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, h2::Error> {
        self.open(get(path), true).await?.answer().await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, h2::Error> {
        let mut call = self.open(post(path), false).await?;
        let upload = write(&mut call.stream, body.into(), true);
        let answer = async { read(within(call.response).await?).await };
        tokio::join!(answer, upload).0
    }

    /// Leaves without a word: the socket is closed.
    pub(crate) fn leave(self) {
        drop(self.tasks);
    }
}

// === impl Call ===

impl Call {
    pub(crate) async fn answer(self) -> Result<Answer, h2::Error> {
        read(within(self.response).await?).await
    }

    pub(crate) async fn send(&mut self, data: impl Into<Bytes>) {
        let sent = within(write(&mut self.stream, data.into(), false)).await;
        assert_eq!(sent.expect("sent"), None);
    }
}

pub(crate) fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://model{path}"))
}

pub(crate) fn post(path: &str) -> http::request::Builder {
    get(path).method(Method::POST)
}

/// Reads a response to its end.
pub(crate) async fn read(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut all = BytesMut::new();
    while let Some(data) = within(read_frame(&mut body)).await {
        all.extend_from_slice(&data?);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: all.freeze(),
        trailers: within(body.trailers()).await?,
    })
}

/// The next piece of a body.
pub(crate) async fn read_frame(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = body.data().await?;
    Some(data.and_then(|data| {
        body.flow_control().release_capacity(data.len())?;
        Ok(data)
    }))
}

/// Writes as there is room, and says when the other side has reset the stream.
pub(crate) async fn write(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<Option<Reason>, h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| {
            if let Poll::Ready(reason) = stream.poll_reset(cx) {
                return Poll::Ready(reason.map(Err));
            }
            // It tells of changes, so what is there already is asked for first.
            match stream.capacity() {
                0 => stream
                    .poll_capacity(cx)
                    .map(|room| room.transpose().map(|_more| Ok(0))),
                room => Poll::Ready(Ok(Ok(room))),
            }
        });
        let room = match room.await? {
            Ok(room) => room,
            Err(reset) => return Ok(Some(reset)),
        };
        let piece = data.split_to(room.min(data.len()));
        if piece.is_empty() {
            continue;
        }
        let last = end && data.is_empty();
        stream.send_data(piece, last)?;
        if last {
            return Ok(None);
        }
    }
    if end {
        stream.send_data(data, true)?;
    }
    Ok(None)
}

/// A message as gRPC frames it: uncompressed, its length, itself.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// The next message of a stream, however it was cut into frames.
pub(crate) async fn read_message(
    body: &mut RecvStream,
    buffer: &mut BytesMut,
) -> Result<Option<Bytes>, h2::Error> {
    loop {
        if let Some(prefix) = buffer.first_chunk::<5>() {
            let [_flag, length @ ..] = *prefix;
            let length = u32::from_be_bytes(length) as usize;
            if buffer.len() >= 5 + length {
                buffer.advance(5);
                return Ok(Some(buffer.split_to(length).freeze()));
            }
        }
        match read_frame(body).await {
            Some(data) => buffer.extend_from_slice(&data?),
            None => return Ok(None),
        }
    }
}

pub(crate) fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn with_status(status: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
