//! Clients that leave with bytes of theirs unread.

use h2::Reason;
use sidescale::lifecycle::Tasks;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::pod::{Pod, read_until, within};
use crate::scripted::{Scripted, reset_of, serve_http2};

const FIRST: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";

/// What a client may have sent behind its request.
fn tails() -> [String; 4] {
    [
        "\r\n".to_owned(),
        "GET /next HTTP/1.1\r\nhost: m\r\n\r\n".to_owned(),
        "x".to_owned(),
        // More than is ever read ahead, and less than the sockets hold: a client's end comes behind what it has sent.
        "GET /next HTTP/1.1\r\nhost: m\r\n\r\n".repeat(1_000),
    ]
}

async fn sends(pod: &Pod, tail: &str) -> TcpStream {
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let request = "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\n{}";
    client.write_all(request.as_bytes()).await.expect("written");
    client.write_all(tail.as_bytes()).await.expect("written");
    client
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_whatever_it_has_sent_behind_its_request() {
    for tail in tails() {
        let server = Scripted::stalls_after("").await;
        let pod = server.pod().await;
        let client = sends(&pod, &tail).await;
        server.was_asked(1).await;
        drop(client);
        server.was_left(1).await;
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!(
            (reading.arrivals, reading.client_gone),
            (1, 1),
            "{} bytes",
            tail.len()
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_noticed_whatever_it_has_sent_behind_its_request() {
    for tail in tails() {
        let server = Scripted::stalls_after(FIRST).await;
        let pod = server.pod().await;
        let mut client = sends(&pod, &tail).await;
        read_until(&mut client, "first\r\n").await;
        drop(client);
        server.was_left(1).await;
        let reading = pod.accounted(|now| now.in_flight == 0).await;
        assert_eq!(
            (reading.arrivals, reading.client_gone),
            (1, 1),
            "{} bytes",
            tail.len()
        );
    }
}

/// The server takes no more of an upload than its window, so that nobody reads up to the client's end.
#[tokio::test]
async fn a_client_that_leaves_an_upload_is_noticed_behind_what_nobody_reads() {
    let (tasks, taken) = (Tasks::here(), watch::Sender::new(0_u64));
    let begun = taken.clone();
    let address = serve_http2(&tasks, move |request, mut respond| {
        let begun = begun.clone();
        async move {
            begun.send_modify(|count| *count += 1);
            let reset = reset_of(&mut respond).await;
            drop(request);
            assert_eq!(reset, Some(Reason::CANCEL));
            begun.send_modify(|count| *count += 1);
        }
    })
    .await;
    let pod = Pod::ready(address).await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let head = "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 100000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("written");
    client
        .write_all(&vec![b'x'; 65_535 + 40_000])
        .await
        .expect("written");
    let mut taken = taken.subscribe();
    drop(
        within(taken.wait_for(|count| *count == 1))
            .await
            .expect("the server lives"),
    );
    drop(client);
    drop(
        within(taken.wait_for(|count| *count == 2))
            .await
            .expect("the server lives"),
    );
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.arrivals, reading.client_gone), (1, 1));
}

/// What was pipelined is served once it is its turn: looking for the end must not lose a byte.
#[tokio::test]
async fn what_was_pipelined_is_read_after_the_look_for_the_end() {
    let server = Scripted::start(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        crate::scripted::End::Never,
    )
    .await;
    let pod = server.pod().await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let one = "GET / HTTP/1.1\r\nhost: m\r\nx-filling: ".to_owned() + &"x".repeat(900) + "\r\n\r\n";
    let (mut reader, mut writer) = client.split();
    let all = one.repeat(200);
    let written = writer.write_all(all.as_bytes());
    let answers = async {
        let mut seen = 0;
        let mut got = Vec::new();
        while seen < 200 {
            let read = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut got)
                .await
                .expect("read");
            assert!(read > 0, "it ended after {seen} answers");
            seen = got.windows(6).filter(|end| *end == b"\r\n\r\nok").count();
        }
    };
    let (written, ()) = within(async { tokio::join!(written, answers) }).await;
    written.expect("written");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(reading.completions, 200);
}
