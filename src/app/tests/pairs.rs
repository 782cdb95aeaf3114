//! Two ports of one server, the second of which nobody ever opens.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A port of this machine on which nobody listens.
async fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("it is bound")
}

async fn sidecar(name: &str, upstreams: [SocketAddr; 2]) -> Setting {
    let change = |config: &mut Config| {
        config.routes = upstreams
            .map(|upstream| Route {
                listen: ([127, 0, 0, 1], 0).into(),
                upstream: proxy::Upstream::new(upstream),
            })
            .into();
    };
    Setting::changed(name, |_| Action::Pass, None, POLICY, change).await
}

#[tokio::test]
async fn a_pod_is_ready_by_its_first_port_and_a_closed_second_one_answers_503_itself() {
    let open = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let first = open.local_addr().expect("it is bound");
    let setting = sidecar("pairs", [first, closed().await]).await;
    setting
        .until("the first port makes it ready", |shared| {
            shared.ready().is_ok()
        })
        .await;
    let second = setting.running.routes()[1];
    let mut client = TcpStream::connect(second).await.expect("it listens");
    let request = b"GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.expect("it reads");
    let mut answer = String::new();
    client
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn a_pod_whose_first_port_is_closed_is_not_ready_by_its_second() {
    let open = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let second = open.local_addr().expect("it is bound");
    let setting = sidecar("pairs-closed", [closed().await, second]).await;
    let is_second_ready =
        |shared: &Shared| *shared.proxies[1].upstream().borrow() == proxy::Health::Ready;
    setting
        .until("the second port answers", is_second_ready)
        .await;
    assert!(setting.running.shared.ready().is_err());
}
