//! Where a response ends: lengths that are said twice, and clients of HTTP/1.0.

use sidescale::lifecycle::Phase;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::pod::{exchange, read_until};
use crate::scripted::{End, Scripted};

const OLD: &str = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_length_that_is_said_twice_is_said_once_or_refused() {
    let rows = [
        ("content-length: 2, 2", Some("2")),
        ("content-length: 2\r\ncontent-length: 2", Some("2")),
        ("content-length: 2,2 , 2", Some("2")),
        ("content-length: 2, 3", None),
        ("content-length: 2\r\ncontent-length: 3", None),
        ("content-length: +2", None),
        ("content-length: 2,", None),
        ("content-length: 2 2", None),
    ];
    for (lengths, expected) in rows {
        let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok");
        let server = Scripted::start(answer.leak(), End::Never).await;
        let pod = server.pod().await;
        let request = "GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
        let got = exchange(pod.address(), request).await;
        match expected {
            Some(length) => {
                assert!(got.starts_with("HTTP/1.1 200"), "{lengths}: {got}");
                assert!(
                    got.contains(&format!("\r\ncontent-length: {length}\r\n")),
                    "{lengths}: {got}"
                );
                assert_eq!(got.matches("content-length").count(), 1, "{lengths}: {got}");
            }
            None => assert!(got.starts_with("HTTP/1.1 502"), "{lengths}: {got}"),
        }
    }
}

/// `ab -k` believes a `keep-alive` and waits for ever for the end of a body that ends with the connection.
#[tokio::test]
async fn an_old_client_is_not_told_to_keep_a_connection_whose_end_is_the_bodys() {
    for answer in [CHUNKED, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"] {
        let server = Scripted::start(answer, End::Closed).await;
        let pod = server.pod().await;
        let got = exchange(pod.address(), OLD).await;
        assert!(
            got.starts_with("HTTP/1.0 200") && got.ends_with("\r\n\r\nhello"),
            "{got}"
        );
        assert!(!got.contains("keep-alive"), "{got}");
    }
}

#[tokio::test]
async fn an_old_client_keeps_its_connection_where_the_length_is_known() {
    let server = Scripted::start(SIZED, End::Never).await;
    let pod = server.pod().await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    for _time in 0..2 {
        client.write_all(OLD.as_bytes()).await.expect("written");
        let got = read_until(&mut client, "hello").await;
        assert!(got.contains("\r\nconnection: keep-alive\r\n"), "{got}");
    }
}

#[tokio::test]
async fn an_old_client_is_told_of_a_drain_in_one_word() {
    let server = Scripted::start(SIZED, End::Never).await;
    let pod = server.pod().await;
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    client.write_all(OLD.as_bytes()).await.expect("written");
    read_until(&mut client, "hello").await;
    pod.lifecycle.advance(Phase::Draining);
    client.write_all(OLD.as_bytes()).await.expect("written");
    let got = read_until(&mut client, "hello").await;
    assert!(
        got.contains("\r\nconnection: close\r\n") && !got.contains("keep-alive"),
        "{got}"
    );
}
