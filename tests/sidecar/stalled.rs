//! Uploads that a server of HTTP/2 does not read stop nobody else's.

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use sidescale::lifecycle::Tasks;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http2::{self, read_frame};
use crate::pod::{Pod, within};
use crate::scripted::{reset_of, serve_http2};

/// Reads nothing of `/stalled`, and echoes all else. Its windows are those of RFC 9113.
async fn server(tasks: &Tasks) -> std::net::SocketAddr {
    serve_http2(
        tasks,
        |request: Request<RecvStream>, mut respond: SendResponse<Bytes>| async move {
            if request.uri().path() == "/stalled" {
                reset_of(&mut respond).await;
                return drop(request);
            }
            let mut body = request.into_body();
            let mut all = Vec::new();
            while let Some(data) = read_frame(&mut body).await {
                all.extend_from_slice(&data.expect("whole"));
            }
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("sent");
            stream.send_data(all.into(), true).expect("sent");
        },
    )
    .await
}

/// What keeps a client with an upload that stalls where it is.
struct Stalled(#[expect(dead_code, reason = "held for its drop")] Box<dyn std::any::Any>);

async fn by_http1(pod: &Pod, framing: &str, body: &[u8]) -> Stalled {
    let mut client = TcpStream::connect(pod.address()).await.expect("it accepts");
    let head = format!("POST /stalled HTTP/1.1\r\nhost: m\r\n{framing}\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("written");
    client.write_all(body).await.expect("written");
    Stalled(Box::new(client))
}

async fn by_http2(pod: &Pod, kind: &str, body: Vec<u8>) -> Stalled {
    let client = http2::Client::connect(pod.address()).await;
    let request = http2::post("/stalled").header("content-type", kind);
    let call = client.open(request, false).await.expect("sent");
    let (response, mut stream) = (call.response, call.stream);
    // h2 keeps what the window has no room for.
    stream.send_data(body.into(), false).expect("sent");
    Stalled(Box::new((client, response, stream)))
}

async fn assert_others_pass(pod: &Pod, stalled: Vec<Stalled>, case: &str) {
    // All that the server's window takes is with it.
    pod.accounted(|now| now.bytes_in >= 65_535 && now.in_flight == stalled.len() as u64)
        .await;
    for _time in 0..3 {
        let mut client = pod.client().await;
        let echoed = within(client.post("/echo", "ten bytes."))
            .await
            .expect("answered");
        assert_eq!(echoed.body, "ten bytes.", "{case}");
        let large = vec![b'x'; 200_000];
        let echoed = within(client.post("/echo", large.clone()))
            .await
            .expect("answered");
        assert!(echoed.body == large, "{case}");
    }
    assert_eq!(pod.accounts.in_flight(), stalled.len() as u64, "{case}");
}

#[tokio::test]
async fn stalled_uploads_of_a_known_length_stop_nobody() {
    let tasks = Tasks::here();
    let pod = Pod::ready(server(&tasks).await).await;
    let body = vec![b'x'; 100_000];
    let length = "content-length: 1000000";
    let stalled = vec![
        by_http1(&pod, length, &body).await,
        by_http1(&pod, length, &body).await,
    ];
    assert_others_pass(&pod, stalled, length).await;
}

#[tokio::test]
async fn stalled_uploads_of_no_known_length_stop_nobody() {
    let tasks = Tasks::here();
    let pod = Pod::ready(server(&tasks).await).await;
    let body = [b"1000\r\n".to_vec(), vec![b'x'; 4_096], b"\r\n".to_vec()]
        .concat()
        .repeat(24);
    let chunked = "transfer-encoding: chunked";
    let stalled = vec![
        by_http1(&pod, chunked, &body).await,
        by_http1(&pod, chunked, &body).await,
    ];
    assert_others_pass(&pod, stalled, chunked).await;
}

#[tokio::test]
async fn stalled_calls_of_grpc_stop_nobody() {
    let tasks = Tasks::here();
    let pod = Pod::ready(server(&tasks).await).await;
    let mut stalled = Vec::new();
    for _call in 0..3 {
        stalled.push(by_http2(&pod, "application/grpc", vec![0; 100_000]).await);
    }
    assert_others_pass(&pod, stalled, "gRPC").await;
}

#[tokio::test]
async fn many_small_stalled_requests_stop_nobody() {
    let tasks = Tasks::here();
    let pod = Pod::ready(server(&tasks).await).await;
    let (body, mut stalled) = (vec![b'x'; 12_000], Vec::new());
    for _request in 0..10 {
        stalled.push(by_http1(&pod, "content-length: 12000", &body).await);
    }
    assert_others_pass(&pod, stalled, "small").await;
}
