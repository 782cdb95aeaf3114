//! What never becomes a request: counted by its reason, told to the log and to the client; what is harmless passes.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

use sidescale::lifecycle::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http2::{Client, Server, get, post, read_frame};
use crate::model_server::ModelServer;
use crate::pod::{Pod, exchange, read_until, within};

/// Bytes of a head that pass.
const MAX_HEAD: usize = 65_536;
/// The preface of HTTP/2 and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes into this thread's log.
struct Writer;

/// Keeps what is logged at `info` on this thread, which all of a test runs on. One subscriber for all of them: of several, each
/// with a thread of its own, the first that meets a line decides for the others whether it is logged.
fn start_log() {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(|| Writer)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
    });
    LOGGED.take();
}

/// How many of its lines have these words.
fn logged(words: &str) -> usize {
    LOGGED.with_borrow(|logged| {
        let text = String::from_utf8_lossy(logged);
        text.lines().filter(|line| line.contains(words)).count()
    })
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Waits until so many heads were refused for `reason`, and no other.
async fn refused(pod: &Pod, reason: &str, expected: u64) {
    pod.accounted(|_| count(pod, reason) >= expected).await;
    let all: u64 = pod
        .accounts
        .refused_heads()
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!((count(pod, reason), all), (expected, expected), "{reason}");
}

fn count(pod: &Pod, reason: &str) -> u64 {
    let counts = pod.accounts.refused_heads();
    counts
        .iter()
        .find(|(word, _)| *word == reason)
        .expect("a known reason")
        .1
}

/// Answers each head with these bytes, and says how many fields came.
async fn canned(answer: impl Fn() -> Vec<u8> + Send + 'static) -> (std::net::SocketAddr, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let tasks = Tasks::here();
    let children = tasks.handle();
    tasks.spawn(async move {
        while let Ok((mut stream, _peer)) = listener.accept().await {
            let answer = answer();
            children.spawn(async move {
                let mut head = Vec::new();
                let mut part = vec![0; 4_096];
                while let Ok(read @ 1..) = stream.read(&mut part).await {
                    head.extend_from_slice(&part[..read]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        drop(stream.write_all(&answer).await);
                    }
                }
            });
        }
    });
    (address, tasks)
}

/// One that is no model server and takes whatever it is sent.
async fn taking() -> (std::net::SocketAddr, Tasks) {
    canned(|| b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ntaken".to_vec()).await
}

fn fields(number: usize) -> String {
    let fields: Vec<String> = (0..number).map(|n| format!("x-{n}: v\r\n")).collect();
    fields.concat()
}

/// A head of so many bytes that ends with an empty line.
fn padded(first: &str, bytes: usize) -> String {
    let around = first.len() + "x: \r\n\r\n".len();
    format!("{first}x: {}\r\n\r\n", "v".repeat(bytes - around))
}

#[tokio::test]
async fn a_head_that_hyper_refuses_is_counted_logged_and_answered_in_words() {
    let rows = [
        ("G\"T / HTTP/1.1\r\nhost: m\r\n\r\n", 400, "method"),
        ("GET /\x7f HTTP/1.1\r\nhost: m\r\n\r\n", 400, "target"),
        (
            "GET http://a\"b/ HTTP/1.1\r\nhost: m\r\n\r\n",
            400,
            "target",
        ),
        ("GET / HTTP/3.0\r\nhost: m\r\n\r\n", 400, "version"),
        ("GET / HTTP/1.1\r\nhost: m\r\na b: c\r\n\r\n", 400, "field"),
        (
            "GET / HTTP/1.1\r\nhost: m\r\na: b\r\n c\r\n\r\n",
            400,
            "field",
        ),
        ("GET / HTTP/1.1\r\nhost: m\r\na: \x01\r\n\r\n", 400, "field"),
        (
            "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 1, 2\r\n\r\n",
            400,
            "framing",
        ),
        (
            "POST / HTTP/1.0\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "framing",
        ),
        (
            "POST / HTTP/1.1\r\nhost: m\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            501,
            "framing",
        ),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "host"),
        (
            "CONNECT m:1 HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n",
            405,
            "connect",
        ),
    ];
    for (request, status, reason) in rows {
        start_log();
        let server = ModelServer::start().await;
        let pod = Pod::ready(server.address).await;
        let closing = request.replacen("host: m\r\n", "host: m\r\nconnection: close\r\n", 1);
        let answer = exchange(pod.address(), &closing).await;
        let begin = |text: &str| text.starts_with("HTTP/1.1 ") || text.starts_with("HTTP/1.0 ");
        assert!(
            begin(&answer) && answer[9..].starts_with(&status.to_string()),
            "{request:?}: {answer}"
        );
        assert!(
            answer.contains("\r\n\r\nsidescale: "),
            "{request:?}: {answer}"
        );
        refused(&pod, reason, 1).await;
        assert_eq!(server.requests(), 0, "{request:?}");
        assert_eq!(logged("127.0.0.1"), 1, "{request:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_the_same_on_a_connection_that_was_used_before() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    let good = "POST /echo HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(good.as_bytes()).await.expect("written");
    assert!(
        read_until(&mut stream, "ok")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let bad = format!("GET / HTTP/1.1\r\nhost: m\r\n{}\r\n", fields(100));
    stream.write_all(bad.as_bytes()).await.expect("written");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer))
        .await
        .expect("read");
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(
        answer.contains("too many header fields (more than 100)"),
        "{answer}"
    );
    refused(&pod, "too_many_fields", 1).await;
    assert_eq!(pod.reading().arrivals, 1);
}

/// A server's own bare refusal is a response like any other.
#[tokio::test]
async fn a_bare_refusal_of_the_servers_own_passes() {
    let bare = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let (address, _tasks) = canned(|| bare.to_vec()).await;
    let pod = Pod::ready(address).await;
    let mut client = pod.client().await;
    for _time in 0..3 {
        let answer = client.get("/").await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.body.len()), (400, 0));
    }
    refused(&pod, "malformed", 0).await;
}

#[tokio::test]
async fn a_request_of_the_limits_passes_and_one_above_does_not() {
    let (address, _tasks) = taking().await;
    let first = "GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n";
    let rows = [
        (format!("{first}{}\r\n", fields(98)), None),
        (
            format!("{first}{}\r\n", fields(99)),
            Some("too_many_fields"),
        ),
        (padded(first, MAX_HEAD), None),
        (padded(first, MAX_HEAD + 1), Some("too_large")),
        (padded(first, 4 * MAX_HEAD), Some("too_large")),
        // Both would be right. What is said is what was seen first.
        (
            padded(&format!("{first}{}", fields(99)), MAX_HEAD - 1),
            Some("too_many_fields"),
        ),
    ];
    for (request, reason) in rows {
        let pod = Pod::ready(address).await;
        let answer = exchange(pod.address(), &request).await;
        let Some(reason) = reason else {
            assert!(
                answer.ends_with("taken"),
                "{} bytes: {answer}",
                request.len()
            );
            continue;
        };
        assert!(
            answer.starts_with("HTTP/1.1 431 "),
            "{} bytes: {answer}",
            request.len()
        );
        let words = reason.replace('_', " ").replace("fields", "header fields");
        assert!(answer.contains(&words), "{words}: {answer}");
        refused(&pod, reason, 1).await;
    }
}

#[tokio::test]
async fn the_limits_are_the_same_in_http2() {
    let (address, _tasks) = taking().await;
    let first = "GET / HTTP/1.1\r\nhost: model\r\nx: \r\n\r\n".len();
    let rows = [
        (0, 99, 200, None),
        (0, 100, 431, Some("too_many_fields")),
        (MAX_HEAD - first, 0, 200, None),
        (MAX_HEAD - first + 1, 0, 431, Some("too_large")),
        // Such as h2 answers without a word.
        (5 * MAX_HEAD / 4, 0, 431, Some("too_large")),
    ];
    for (length, number, status, reason) in rows {
        let pod = Pod::ready(address).await;
        let client = Client::connect(pod.address()).await;
        let mut request = get("/");
        if length > 0 || number > 0 {
            request = request.header("x", "v".repeat(length));
        }
        for n in 0..number {
            request = request.header(format!("x-{n}"), "v");
        }
        let answer = client
            .open(request, true)
            .await
            .expect("sent")
            .answer()
            .await;
        let answer = answer.expect("answered");
        assert_eq!(answer.status.as_u16(), status, "{length}, {number}");
        if let Some(reason) = reason {
            refused(&pod, reason, 1).await;
            assert_eq!(pod.reading().arrivals, 0);
        }
    }
}

#[tokio::test]
async fn a_response_of_the_limits_passes_and_of_one_above_it_is_said_what_is_too_much() {
    let first = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n";
    let rows = [
        (format!("{first}{}\r\n", fields(99)), Ok(())),
        (
            format!("{first}{}\r\n", fields(100)),
            Err("too many header fields (more than 100)"),
        ),
        (padded(first, MAX_HEAD), Ok(())),
        (
            padded(first, MAX_HEAD + 1),
            Err("too large (more than 65536 bytes)"),
        ),
        (
            padded(first, 3 * MAX_HEAD),
            Err("too large (more than 65536 bytes)"),
        ),
    ];
    for (response, expected) in rows {
        let bytes = response.len();
        let (address, _tasks) = canned(move || response.clone().into_bytes()).await;
        let pod = Pod::ready(address).await;
        let request = "GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
        let answer = exchange(pod.address(), request).await;
        match expected {
            Ok(()) => assert!(answer.starts_with("HTTP/1.1 200"), "{bytes}: {answer}"),
            Err(words) => {
                assert!(answer.starts_with("HTTP/1.1 502"), "{bytes}: {answer}");
                assert!(answer.contains(words), "{bytes}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_harmless_in_a_target_passes() {
    let rows = [
        ("/head?q=\"a\"&r=<b>", "/head?q=%22a%22&r=%3Cb%3E"),
        ("/head?{\"a\":[1|2]}^\\`", "/head?{%22a%22:[1|2]}^\\`"),
    ];
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    for (sent, seen) in rows {
        for before in [
            "",
            "POST /echo HTTP/1.1\r\nhost: m\r\ncontent-length: 9\r\n\r\nGET /\"<ok",
            "POST /echo HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n9\r\nGET /\"<ok\r\n0\r\n\r\n",
        ] {
            if !before.is_empty() {
                stream.write_all(before.as_bytes()).await.expect("written");
                let end = if before.contains("chunked") {
                    "0\r\n\r\n"
                } else {
                    "ok"
                };
                let echo = read_until(&mut stream, end).await;
                assert!(echo.contains("GET /\"<ok"), "{echo}");
            }
            let request = format!("GET {sent} HTTP/1.1\r\nhost: m\r\nx-a: \"<>\"\r\n\r\n");
            // In two pieces, of which the first ends within the target.
            let (one, two) = request.split_at(14);
            stream.write_all(one.as_bytes()).await.expect("written");
            stream.write_all(two.as_bytes()).await.expect("written");
            let answer = read_until(&mut stream, "x-forwarded-proto: http\n").await;
            assert!(
                answer.contains(&format!("GET {seen} HTTP/1.1\n")),
                "{answer}"
            );
            assert!(answer.contains("x-a: \"<>\""), "{answer}");
        }
    }
}

#[tokio::test]
async fn bytes_of_no_utf8_pass_and_those_of_utf8_as_they_are() {
    let (address, _tasks) = taking().await;
    for target in [&b"/caf\xe9?\xff\xfe"[..], "/café?é".as_bytes(), b"/a<b>`c"] {
        let pod = Pod::ready(address).await;
        let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
        let request = [b"GET ", target, b" HTTP/1.1\r\nhost: m\r\n\r\n"].concat();
        stream.write_all(&request).await.expect("written");
        let answer = read_until(&mut stream, "taken").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{target:?}: {answer}");
    }
}

/// A request that is answered before its body is there leaves bytes that look like a head: were one of them encoded, what
/// comes behind them would be read two bytes too early.
#[tokio::test]
async fn a_body_that_nobody_waits_for_is_not_taken_for_a_head() {
    // hyper's first read, so that the body comes by another: when the answer to a request without a Host is out.
    const FIRST_READ: usize = 8_192;
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    let body = "GET /\"zz";
    let first = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
    let request = padded(&first, FIRST_READ) + body;
    stream.write_all(request.as_bytes()).await.expect("written");
    let early = read_until(&mut stream, "Host header\n").await;
    assert!(early.starts_with("HTTP/1.1 400"), "{early}");
    let next = "GET /head?next HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
    stream.write_all(next.as_bytes()).await.expect("written");
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest))
        .await
        .expect("read");
    assert!(rest.contains("\nGET /head?next HTTP/1.1"), "{rest}");
    refused(&pod, "host", 1).await;
}

/// The same of a request behind another: hyper reads of its body before anybody has looked at its head.
#[tokio::test]
async fn a_body_behind_another_request_is_not_taken_for_a_head() {
    const FIRST_READ: usize = 8_192;
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    let (before, body) = (
        "POST /echo HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\nok",
        "GET /\"<zz",
    );
    let first = format!(
        "POST /echo HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    let request = padded(&first, FIRST_READ - before.len()) + body;
    stream
        .write_all(format!("{before}{request}").as_bytes())
        .await
        .expect("written");
    let mut answers = String::new();
    within(stream.read_to_string(&mut answers))
        .await
        .expect("read");
    assert!(answers.ends_with(body), "{answers}");
}

/// A stream of HTTP/2 with this path and these fields, in HPACK without its table.
fn stream(id: u8, path: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
    let mut block = vec![0x82, 0x86, 0x01, 1, b'm', 0x04];
    block.extend(text(path));
    for (name, value) in fields {
        block.push(0);
        block.extend(text(name.as_bytes()));
        block.extend(text(value.as_bytes()));
    }
    let length = u8::try_from(block.len()).expect("short");
    [&[0, 0, length, 1, 5, 0, 0, 0, id], &block[..]].concat()
}

#[tokio::test]
async fn a_stream_that_http2_does_not_allow_is_counted_and_logged_and_its_connection_lives() {
    start_log();
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let streams = [
        stream(1, b"/a?\"", &[]),
        stream(3, b"/", &[("connection", "close")]),
        stream(5, b"no-path", &[]),
        stream(7, b"/", &[]),
    ];
    client.write_all(GREETING).await.expect("written");
    client.write_all(&streams.concat()).await.expect("written");
    refused(&pod, "http2_stream", 3).await;
    let reading = pod.accounted(|now| now.completions == 1).await;
    assert_eq!(reading.arrivals, 1);
    assert_eq!(logged("a request of HTTP/2 was malformed"), 1);
}

/// h2 ends the whole connection of a head that is several times too large.
#[tokio::test]
async fn a_head_of_http2_that_goes_on_and_on_is_counted_as_a_flood() {
    let (address, _tasks) = taking().await;
    let pod = Pod::ready(address).await;
    let client = Client::connect(pod.address()).await;
    let request = get("/").header("x", "v".repeat(4 * MAX_HEAD));
    let call = client.open(request, true).await.expect("sent");
    assert!(call.answer().await.is_err());
    refused(&pod, "http2_flood", 1).await;
}

#[tokio::test]
async fn a_connection_that_breaks_the_rules_of_http2_is_counted() {
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let on_no_stream = b"\0\0\x01\0\0\0\0\0\0x";
    client
        .write_all(&[GREETING, on_no_stream].concat())
        .await
        .expect("written");
    refused(&pod, "http2_connection", 1).await;
}

/// What the server resets goes on as a reset, and is no refusal.
#[tokio::test]
async fn a_stream_that_the_server_breaks_off_is_not_counted_as_refused() {
    start_log();
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let mut call = client.open(post("/reset/1"), false).await.expect("sent");
    let mut body = within(call.response).await.expect("a head").into_body();
    within(read_frame(&mut body))
        .await
        .expect("more")
        .expect("whole");
    // Said to the server, which breaks off then.
    call.stream.send_data("read".into(), true).expect("sent");
    let broken = within(read_frame(&mut body))
        .await
        .expect("more")
        .expect_err("it is reset");
    assert_eq!(broken.reason(), Some(h2::Reason::PROTOCOL_ERROR));
    pod.accounted(|now| now.in_flight == 0 && now.upstream_failed == 1)
        .await;
    refused(&pod, "http2_stream", 0).await;
    assert_eq!(logged("a request was not served"), 1);
}

#[tokio::test]
async fn each_kind_of_failure_is_logged_now_and_then() {
    start_log();
    let broken = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let garbled = b"HTTP/1.1 200 OK\r\nno field\r\n\r\n";
    let rows = [
        (&broken[..], "the upstream broke its response off"),
        (&garbled[..], "the upstream broke off before its response"),
    ];
    for (answer, words) in rows {
        // Its end is the break.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::here();
        tasks.spawn(async move {
            while let Ok((mut stream, _peer)) = listener.accept().await {
                drop(stream.read(&mut [0; 1_024]).await);
                drop(stream.write_all(answer).await);
            }
        });
        let pod = Pod::ready(address).await;
        for _time in 0..5 {
            let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
                .await
                .expect("written");
            let failed = pod.reading().upstream_failed + 1;
            pod.accounted(|now| now.upstream_failed == failed).await;
        }
        assert_eq!(logged(words), 1, "{words}");
        assert_eq!(
            logged("client=127.0.0.1"),
            logged("a request was not served")
        );
    }
    let server = ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let mut client = pod.client().await;
    let mut waiting = server.waiting();
    let hanging = tokio::select! {
        _ = client.begin("/hang") => None,
        _ = waiting.wait_for(|count| *count == 1) => Some(()),
    };
    assert!(hanging.is_some(), "it hangs");
    client.leave();
    pod.accounted(|now| now.client_gone == 1).await;
    assert_eq!(logged("the client left"), 1);
    server.die();
    let mut client = pod.client().await;
    assert_eq!(client.get("/").await.expect("answered").status, 502);
    assert_eq!(logged("does not accept a connection"), 1);
}
