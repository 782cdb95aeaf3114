//! `Expect: 100-continue`: the server is asked, where it answers in time.

use sidescale::lifecycle::Tasks;
use sidescale::proxy::{Health, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pod::{Pod, read_until, within};
use crate::scripted::{End, Scripted, read_head};

const REQUEST: &str =
    "POST /echo HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

async fn asks(pod: &Pod) -> TcpStream {
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    client.write_all(REQUEST.as_bytes()).await.expect("written");
    client
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_the_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let tasks = Tasks::here();
    tasks.spawn(async move {
        while let Ok((mut stream, _peer)) = listener.accept().await {
            let Some(head) = read_head(&mut stream).await else {
                continue;
            };
            assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
            stream
                .write_all(CONTINUE.as_bytes())
                .await
                .expect("written");
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.expect("read");
            assert_eq!(&body, b"hello");
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    // No patience: at the speed of life it would be a second.
    let pod = Pod::start_at_speed(0.001, address, |settings| {
        settings.protocol = Protocol::Http1;
    });
    pod.becomes(Health::Ready).await;
    let mut client = asks(&pod).await;
    assert_eq!(read_until(&mut client, "\r\n\r\n").await, CONTINUE);
    client.write_all(b"hello").await.expect("written");
    let answer = read_until(&mut client, "ok").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_refusal_saves_the_upload() {
    let server = Scripted::start(
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno",
        End::Never,
    )
    .await;
    let pod = server.pod().await;
    let mut client = asks(&pod).await;
    let mut answer = String::new();
    within(client.read_to_string(&mut answer))
        .await
        .expect("an end in order");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(
        answer.contains("\r\nconnection: close\r\n") && answer.ends_with("\r\n\r\nno"),
        "{answer}"
    );
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(
        (reading.completions, reading.failures(), reading.bytes_in),
        (1, 0, 0)
    );
    // The connection on which the server may wait for the body is not used again.
    let mut client = asks(&pod).await;
    read_until(&mut client, "no").await;
}

#[tokio::test]
async fn a_server_that_says_nothing_gets_the_body_after_a_while() {
    let server = Scripted::stalls_after("").await;
    let pod = server.pod().await;
    let mut client = asks(&pod).await;
    assert_eq!(read_until(&mut client, "\r\n\r\n").await, CONTINUE);
    client.write_all(b"hello").await.expect("written");
    pod.accounted(|now| now.bytes_in == 5).await;
}

/// Said or not, the connection ends: what is left of the upload finds nobody. A client that is not told sends its next
/// request into the end.
#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_says_that_the_connection_ends() {
    let answer =
        "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
    let server = Scripted::start(answer, End::Closed).await;
    let pod = server.pod().await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let head = "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 1000000\r\n\r\nbegun";
    client.write_all(head.as_bytes()).await.expect("written");
    let answer = read_until(&mut client, "no").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}
