//! gRPC through the proxy: calls of all four shapes, and what a client is told when nobody answers.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::Response;
use sidescale::proxy::Health;

use crate::http2::{Call, Client, Server, framed, post, read, read_message};
use crate::pod::{Pod, within};

async fn call(client: &Client, method: &str) -> Call {
    let request = post(&format!("/echo.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    client.open(request, false).await.expect("sent")
}

/// The messages up to the trailers, and what these say.
async fn messages(response: Response<RecvStream>) -> (Vec<String>, String) {
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (mut body, mut buffer, mut all) = (response.into_body(), BytesMut::new(), Vec::new());
    while let Some(message) = within(read_message(&mut body, &mut buffer))
        .await
        .expect("whole")
    {
        all.push(String::from_utf8(message.to_vec()).expect("text"));
    }
    let trailers = within(body.trailers()).await.expect("whole");
    let status = trailers.expect("trailers")["grpc-status"].clone();
    (all, status.to_str().expect("text").to_owned())
}

#[tokio::test]
async fn calls_of_all_four_shapes_pass_with_their_trailers() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    for (method, sent, expected) in [
        ("Unary", &["a"][..], &["a"][..]),
        ("ClientStream", &["a", "b", "c"], &["a+b+c"]),
        ("ServerStream", &["a"], &["a 0", "a 1", "a 2"]),
        ("Bidi", &["a", "b"], &["a", "b"]),
    ] {
        let mut call = call(&client, method).await;
        for message in sent {
            call.send(framed(message.as_bytes())).await;
        }
        call.stream.send_data(Bytes::new(), true).expect("sent");
        let response = within(call.response).await.expect("a head");
        let (received, status) = messages(response).await;
        assert_eq!(received, expected, "{method}");
        assert_eq!(status, "0", "{method}");
    }
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.completions, reading.failures()), (4, 0));
}

/// Each message waits for the answer to the one before: a proxy that held a piece back, either way, would stop here.
#[tokio::test]
async fn a_conversation_passes_message_by_message() {
    let server = Server::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let mut call = call(&client, "Bidi").await;
    let response = within(&mut call.response)
        .await
        .expect("a head before a message");
    let (mut body, mut buffer) = (response.into_body(), BytesMut::new());
    for turn in 0..50 {
        let message = format!("turn {turn}");
        call.send(framed(message.as_bytes())).await;
        let echoed = within(read_message(&mut body, &mut buffer)).await;
        assert_eq!(echoed.expect("whole").expect("more"), message);
        assert_eq!(pod.accounts.in_flight(), 1);
    }
    call.stream.send_data(Bytes::new(), true).expect("sent");
    assert_eq!(
        within(read_message(&mut body, &mut buffer))
            .await
            .expect("whole"),
        None
    );
    let trailers = within(body.trailers())
        .await
        .expect("whole")
        .expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    pod.accounted(|now| now.completions == 1).await;
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_unavailable_and_is_counted_as_what_it_is() {
    let server = Server::start().await;
    let address = server.address;
    server.die();
    while tokio::net::TcpStream::connect(address).await.is_ok() {}
    let pod = Pod::start(address, |_settings| {});
    let client = Client::connect(pod.address()).await;
    let answer = refused(&client).await;
    assert!(answer.contains("still starting"), "{answer}");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!((reading.refused, reading.statuses), (1, [0, 0, 0, 0, 1]));
    let server = Server::start_at(address, 100).await;
    pod.becomes(Health::Ready).await;
    let mut unary = call(&client, "Unary").await;
    unary.send(framed(b"a")).await;
    unary.stream.send_data(Bytes::new(), true).expect("sent");
    let response = within(unary.response).await.expect("a head");
    assert_eq!(messages(response).await.1, "0");
    server.die();
    pod.becomes(Health::Down).await;
    let answer = refused(&client).await;
    assert!(!answer.contains("still starting"), "{answer}");
    let reading = pod.accounted(|now| now.in_flight == 0).await;
    assert_eq!(
        (reading.upstream_failed, reading.statuses),
        (1, [0, 1, 0, 0, 2])
    );
    // Who does not speak gRPC is told as ever.
    let plain = client.get("/").await.expect("answered");
    assert_eq!(plain.status.as_u16(), 502);
    assert!(plain.body.starts_with(b"sidescale: "), "{plain:?}");
}

/// The message of a call that was answered without a server.
async fn refused(client: &Client) -> String {
    let mut call = call(client, "Unary").await;
    call.send(framed(b"a")).await;
    let response = within(&mut call.response).await.expect("a head");
    let answer = read(response).await.expect("whole");
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.headers["content-type"], "application/grpc");
    assert_eq!(answer.headers["grpc-status"], "14");
    assert_eq!(answer.trailers, None);
    let message = answer.headers["grpc-message"].to_str().expect("text");
    message.to_owned()
}

/// What is no server of gRPC at all answers as it does, and the client makes of it what it can.
#[tokio::test]
async fn a_call_to_a_server_of_http1_gets_that_servers_answer() {
    let server = crate::model_server::ModelServer::start().await;
    let pod = Pod::ready(server.address).await;
    let client = Client::connect(pod.address()).await;
    let request = post("/status/404").header("content-type", "application/grpc");
    let call = client.open(request, true).await.expect("sent");
    assert_eq!(call.answer().await.expect("answered").status.as_u16(), 404);
}
