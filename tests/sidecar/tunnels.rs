//! Tunnels: who broke them, and what passed through.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pod::{Pod, read_until, within};
use crate::scripted::{End, Scripted};

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nlast words";

async fn opened(pod: &Pod) -> TcpStream {
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let request = "GET / HTTP/1.1\r\nhost: m\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("written");
    read_until(&mut client, "last words").await;
    client
}

#[tokio::test]
async fn a_tunnel_that_the_server_breaks_is_a_failed_upstream_with_all_its_bytes() {
    let server = Scripted::start(SWITCHED, End::Reset).await;
    let pod = server.pod().await;
    let mut client = opened(&pod).await;
    // The client's own end may be a FIN or a RST.
    drop(within(client.read_to_end(&mut Vec::new())).await);
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.upstream_failed, reading.failures()), (1, 1));
    assert_eq!(reading.bytes_out, 10);
}

#[tokio::test]
async fn a_tunnel_that_the_client_breaks_is_the_clients_with_the_bytes_of_both() {
    let server = Scripted::stalls_after(SWITCHED).await;
    let pod = server.pod().await;
    let mut client = opened(&pod).await;
    client.write_all(b"ping").await.expect("written");
    // While it lasts.
    pod.accounted(|now| (now.bytes_out, now.bytes_in) == (10, 4))
        .await;
    let socket = SockRef::from(&client);
    socket.set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(client);
    server.was_left(1).await;
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.client_gone, reading.failures()), (1, 1));
    assert_eq!((reading.bytes_out, reading.bytes_in), (10, 4));
}

#[tokio::test]
async fn a_tunnel_that_both_end_is_completed_whoever_ends_first() {
    let server = Scripted::stalls_after(SWITCHED).await;
    let pod = server.pod().await;
    drop(opened(&pod).await);
    server.was_left(1).await;
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (1, 0));

    let server = Scripted::start(SWITCHED, End::Closed).await;
    let pod = server.pod().await;
    let mut client = opened(&pod).await;
    within(client.read_to_end(&mut Vec::new()))
        .await
        .expect("an end in order");
    drop(client);
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (1, 0));
}
