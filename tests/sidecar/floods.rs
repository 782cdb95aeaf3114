//! Clients that mean harm: they get no further than their own connection, and nobody else notices.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http2::{Client, Server, get, read_frame};
use crate::pod::{Pod, within};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// `GET http /drip` with the authority `m`, by the static table where it has the words.
const HEAD: &[u8] = b"\x82\x86\x04\x05/drip\x01\x01m";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Writes without end, until the proxy closes the connection. What it sends back is read and thrown away.
async fn floods_until_closed(address: SocketAddr, mut frames: impl FnMut(u32) -> Vec<u8>) {
    let stream = TcpStream::connect(address).await.expect("it accepts");
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        writer.write_all(&hello).await.expect("written");
        for turn in 0.. {
            if writer.write_all(&frames(turn)).await.is_err() {
                return;
            }
        }
    };
    let read = async {
        let mut room = vec![0; 65_536];
        while reader.read(&mut room).await.is_ok_and(|read| read > 0) {}
    };
    // The reader sees the end first; the writer may be in the middle of a frame then.
    within(async {
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    })
    .await;
}

/// A client that shares the upstream's connection with those that mean harm, and its streams.
async fn lives_through(pod: &Pod, server: &Server, harm: impl Future<Output = ()>) {
    let neighbour = Client::connect(pod.address()).await;
    let long = neighbour.open(get("/drip"), true).await.expect("sent");
    let mut body = within(long.response).await.expect("a head").into_body();
    let one = within(read_frame(&mut body)).await.expect("more");
    assert_eq!(one.expect("whole"), "one");
    let connections = server.connections();
    let harm_done = std::cell::Cell::new(false);
    let harm = async {
        harm.await;
        harm_done.set(true);
    };
    let goes_on = async {
        while !harm_done.get() {
            let answer = neighbour.post("/echo", "ping").await.expect("answered");
            assert_eq!(answer.body, "ping");
        }
    };
    tokio::join!(harm, goes_on);
    // Its stream is still there, and so is the connection that all share.
    assert_eq!(
        pod.accounted(|now| now.in_flight == 1)
            .await
            .upstream_failed,
        0
    );
    assert_eq!(server.connections(), connections);
    drop((long.stream, body));
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(reading.arrivals, reading.completions + reading.failures());
}

#[tokio::test]
async fn a_rapid_reset_ends_its_own_connection_alone() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let harm = floods_until_closed(pod.address(), |turn| {
        let stream = 2 * turn + 1;
        let mut pair = frame(HEADERS, END_HEADERS | END_STREAM, stream, HEAD);
        pair.extend(frame(RST_STREAM, 0, stream, &CANCEL));
        pair
    });
    lives_through(&pod, &server, harm).await;
}

/// Each of them keeps to what one connection may do; together they would be too much for the one that they share.
#[tokio::test]
async fn many_that_reset_a_little_do_not_add_up_upstream() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    // The same without a reset is a request.
    let mut honest = TcpStream::connect(pod.address()).await.expect("it accepts");
    honest.write_all(&hello).await.expect("written");
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD);
    honest.write_all(&request).await.expect("written");
    pod.accounted(|now| now.in_flight == 1).await;
    drop(honest);
    pod.accounted(|now| now.client_gone == 1).await;
    let mut pairs = Vec::new();
    for turn in 0..15 {
        pairs.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * turn + 1, HEAD));
        pairs.extend(frame(RST_STREAM, 0, 2 * turn + 1, &CANCEL));
    }
    let harm = async {
        for _round in 0..10 {
            let clients = (0..20).map(async |_client| {
                let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
                stream.write_all(&hello).await.expect("written");
                stream
            });
            let clients = join_all(clients).await;
            // All in one turn, with no await in between.
            for client in &clients {
                let written = client.try_write(&pairs).expect("written");
                assert_eq!(written, pairs.len());
            }
            for mut client in clients {
                // Its answer says that all before it was read.
                let ping = frame(PING, 0, 0, &[0; 8]);
                client.write_all(&ping).await.expect("written");
                while within(kind_of_next(&mut client)).await != PING {}
            }
        }
    };
    lives_through(&pod, &server, harm).await;
}

async fn kind_of_next(stream: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.expect("whole");
    head[3]
}

/// Slow enough that every request gets upstream before it is taken back.
#[tokio::test]
async fn requests_that_are_taken_back_upstream_cost_no_neighbour_its_stream() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let address = pod.address();
    let harm = async {
        let client = Client::connect(address).await;
        for _round in 0..50 {
            let calls = (0..40).map(|_call| client.open(get("/hang"), true));
            let calls = join_all(calls).await;
            tokio::task::yield_now().await;
            drop(calls);
        }
        client.leave();
    };
    lives_through(&pod, &server, harm).await;
}

#[tokio::test]
async fn a_head_without_end_ends_its_own_connection_alone() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    // A field that is not in any table, of a kilobyte.
    let mut field = b"\x00\x01x\x7f\x81\x07".to_vec();
    field.extend([b'a'; 1_024]);
    for end in [0, END_STREAM] {
        let harm = floods_until_closed(address_of(&pod), |turn| match turn {
            0 => frame(HEADERS, end, 1, HEAD),
            _ => frame(CONTINUATION, 0, 1, &field),
        });
        lives_through(&pod, &server, harm).await;
    }
}

fn address_of(pod: &Pod) -> SocketAddr {
    pod.address()
}

/// Pings are answered, and a client that reads no answer is not written for without bound.
#[tokio::test]
async fn pings_that_nobody_reads_the_answers_to_are_not_collected() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let mut stream = TcpStream::connect(pod.address()).await.expect("it accepts");
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&hello).await.expect("written");
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1_000);
    // Until the kernel's buffers are full both ways, which says that the proxy has stopped to read.
    let mut stopped = 0;
    while stopped < 1_000 {
        match stream.try_write(&pings) {
            Ok(_written) => stopped = 0,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                stopped += 1;
                tokio::task::yield_now().await;
            }
            Err(_closed) => break,
        }
    }
    let client = Client::connect(pod.address()).await;
    assert_eq!(client.get("/").await.expect("answered").body, "hello");
}

/// More fields than a head may have: the request is refused, the connection and its other streams are not.
#[tokio::test]
async fn a_head_that_is_too_large_is_refused_by_itself() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let mut call = client
        .open(get("/echo").method("POST"), false)
        .await
        .expect("sent");
    let mut request = get("/");
    for field in 0..20 {
        request = request.header(format!("x-{field}"), "a".repeat(4_000));
    }
    let large = client.open(request, true).await.expect("sent");
    let answer = large.answer().await;
    assert!(
        answer.as_ref().map_or(true, |answer| answer.status == 431),
        "{answer:?}"
    );
    call.stream
        .send_data(Bytes::from("ping"), true)
        .expect("sent");
    assert_eq!(call.answer().await.expect("answered").body, "ping");
    assert_eq!(pod.accounted(|now| now.in_flight == 0).await.completions, 1);
}
