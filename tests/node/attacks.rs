//! Clients that mean harm, within bounds: so many connections, for as long as they live.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, SendStream};
use http::Request;
use sidescale::clock::Clock;
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// What they do on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Nothing.
    Silence,
    /// A head that grows by a line a second.
    SlowHead,
    /// A head of nearly half a MiB that never ends.
    HugeHead,
    /// Bodies of gigabytes, one after the other.
    Upload,
    /// Answers of half a MiB are asked for, and nobody reads them.
    Unread,
    /// A thousand streams of HTTP/2, each with a body that goes on for ever.
    Streams,
    /// A thousand streams of HTTP/2, each with a head of nearly 64 KiB in two thousand fields.
    Heads,
    /// Streams of HTTP/2 that are reset as soon as they are there.
    Resets,
}

/// Hostile clients at work; dropped, they are gone.
#[must_use = "dropped, they are gone"]
pub(crate) struct Attackers(#[expect(dead_code, reason = "held for its drop")] Tasks);

/// Pause before somebody who was thrown out comes again. Two thousand who hardly pause are an attack on this machine's
/// kernel, under which everything stands still that shares it.
const AGAIN: Duration = Duration::from_secs(1);
/// Of a client that does not read.
const SMALL_BUFFER: u32 = 4_096;
/// What the kernel keeps of a client that writes; without a bound, two thousand of them fill what it has for all sockets.
const SEND_BUFFER: u32 = 64 * 1_024;
const HUGE: usize = 400 * 1_024;
const STREAMS: usize = 1_000;
/// Each field counts 32 bytes, and one for its name.
const FIELDS: usize = 64 * 1_024 / 33 - 100;
const CHUNK: &[u8] = &[b'a'; 64 * 1_024];

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// One of them.
#[derive(Clone)]
struct Attacker {
    attack: Attack,
    address: String,
    clock: Clock,
    tasks: TasksHandle,
}

// === impl Attackers ===

impl Attackers {
    pub(crate) fn start(attack: Attack, address: &str, connections: usize) -> Self {
        let tasks = Tasks::here();
        for _connection in 0..connections {
            let attacker = Attacker {
                attack,
                address: address.to_owned(),
                clock: Clock::real(),
                tasks: tasks.handle(),
            };
            tasks.spawn(attacker.work());
        }
        Self(tasks)
    }
}

// === impl Attacker ===

impl Attacker {
    #[expect(clippy::infinite_loop, reason = "it ends with its task")]
    async fn work(self) {
        loop {
            drop(self.attack().await);
            // Whoever is thrown out comes again, but for those who leave MiBs in the kernel each time.
            if self.attack == Attack::Upload {
                pending::<()>().await;
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    async fn attack(&self) -> Result<(), Trouble> {
        let stream = self.connect().await?;
        match self.attack {
            Attack::Silence => self.until_closed(stream).await,
            Attack::SlowHead => self.slow_head(stream).await,
            Attack::HugeHead => self.huge_head(stream).await,
            Attack::Upload => upload(stream).await,
            Attack::Unread => unread(stream).await,
            Attack::Streams | Attack::Heads | Attack::Resets => self.by_http2(stream).await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Trouble> {
        let address = tokio::net::lookup_host(&self.address).await?.next();
        let socket = TcpSocket::new_v4()?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        if self.attack == Attack::Unread {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        Ok(socket.connect(address.ok_or("no address")?).await?)
    }

    async fn until_closed(&self, mut stream: TcpStream) -> Result<(), Trouble> {
        while stream.read(&mut [0; 1_024]).await? > 0 {}
        Ok(())
    }

    async fn slow_head(&self, mut stream: TcpStream) -> Result<(), Trouble> {
        stream
            .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: bert\r\n")
            .await?;
        loop {
            self.clock.sleep(Duration::from_secs(1)).await;
            stream.write_all(b"x-one: more\r\n").await?;
        }
    }

    async fn huge_head(&self, mut stream: TcpStream) -> Result<(), Trouble> {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: bert\r\nx-huge: ")
            .await?;
        for _chunk in 0..HUGE / CHUNK.len() {
            stream.write_all(CHUNK).await?;
        }
        self.until_closed(stream).await
    }

    async fn by_http2(&self, stream: TcpStream) -> Result<(), Trouble> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(64 * 1_024)
            .handshake::<_, Bytes>(stream)
            .await?;
        let attacking = async {
            match self.attack {
                Attack::Streams => self.streams(sender).await,
                Attack::Heads => self.heads(sender).await,
                Attack::Silence
                | Attack::SlowHead
                | Attack::HugeHead
                | Attack::Upload
                | Attack::Unread
                | Attack::Resets => self.resets(sender).await,
            }
        };
        tokio::select! {
            attacked = attacking => attacked,
            ended = connection => Ok(ended?),
        }
    }

    async fn streams(&self, mut sender: SendRequest<Bytes>) -> Result<(), Trouble> {
        let mut answers = Vec::new();
        for _stream in 0..STREAMS {
            sender = sender.ready().await?;
            let (answer, body) = sender.send_request(self.request()?, false)?;
            answers.push(answer);
            self.tasks.spawn(pour(body));
        }
        pending().await
    }

    async fn heads(&self, mut sender: SendRequest<Bytes>) -> Result<(), Trouble> {
        let mut streams = Vec::new();
        for _stream in 0..STREAMS {
            sender = sender.ready().await?;
            let mut request = self.request()?;
            for _field in 0..FIELDS {
                request
                    .headers_mut()
                    .append("x", http::HeaderValue::from_static(""));
            }
            streams.push(sender.send_request(request, false)?);
        }
        pending().await
    }

    async fn resets(&self, mut sender: SendRequest<Bytes>) -> Result<(), Trouble> {
        loop {
            sender = sender.ready().await?;
            let (_answer, mut body) = sender.send_request(self.request()?, false)?;
            body.send_reset(Reason::CANCEL);
            // Nothing else would let the connection write, and all of them would stay here.
            tokio::task::yield_now().await;
        }
    }

    fn request(&self) -> Result<Request<()>, Trouble> {
        let uri = format!("http://{}/v1/completions", self.address);
        Ok(Request::post(uri).body(())?)
    }
}

/// Sends for as long as there is room.
async fn pour(mut body: SendStream<Bytes>) {
    loop {
        body.reserve_capacity(CHUNK.len());
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else {
            return;
        };
        let chunk = Bytes::from_static(&CHUNK[..room.min(CHUNK.len())]);
        if body.send_data(chunk, false).is_err() {
            return;
        }
    }
}

async fn upload(mut stream: TcpStream) -> Result<(), Trouble> {
    stream
        .write_all(
            b"POST /v1/completions HTTP/1.1\r\nhost: bert\r\ncontent-length: 10000000000\r\n\r\n",
        )
        .await?;
    loop {
        stream.write_all(CHUNK).await?;
    }
}

/// Asks as often as somebody listens, and reads nothing.
async fn unread(mut stream: TcpStream) -> Result<(), Trouble> {
    let body = br#"{"max_tokens": 100000, "stream": false}"#;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: bert\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    loop {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
    }
}
