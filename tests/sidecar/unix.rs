//! A server that listens on a Unix socket.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sidescale::lifecycle::Tasks;
use sidescale::proxy::{Health, Upstream};
use tokio::net::UnixListener;

use crate::pod::Pod;

/// A socket of this process that is gone with this value.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let name = format!("sidescale-{}-{name}.sock", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// Says whom it was asked for, and by which HTTP.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request.headers().get(header::HOST).cloned();
    let text = format!("{host:?} by {:?}", request.version());
    Ok(Response::new(Full::new(Bytes::from(text))))
}

/// Serves until the tasks are dropped; `is_http2`: that alone.
fn serve(path: &Path, is_http2: bool) -> Tasks {
    let listener = UnixListener::bind(path).expect("a new socket");
    let tasks = Tasks::here();
    let children = tasks.handle();
    tasks.spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            let stream = TokioIo::new(stream);
            let executor = children.clone();
            children.spawn(async move {
                if is_http2 {
                    let builder = http2::Builder::new(executor);
                    drop(builder.serve_connection(stream, service_fn(answer)).await);
                } else {
                    let builder = http1::Builder::new();
                    drop(builder.serve_connection(stream, service_fn(answer)).await);
                }
            });
        }
    });
    tasks
}

fn pod(path: &Path) -> Pod {
    let nowhere = ([127, 0, 0, 1], 9).into();
    let upstream = Upstream::socket(path);
    Pod::start(nowhere, |settings| settings.upstream = upstream)
}

#[tokio::test]
async fn requests_pass_to_a_socket_and_its_end_and_return_are_noticed() {
    let socket = Socket::new("http1");
    let pod = pod(&socket.0);
    let early = pod.client().await.get("/").await.expect("answered");
    assert_eq!(early.status, 503, "nobody has made the socket");
    let server = serve(&socket.0, false);
    pod.becomes(Health::Ready).await;
    let answer = pod.client().await.get("/").await.expect("answered");
    let host = format!("{:?}", pod.address().to_string());
    assert_eq!(answer.body, format!("Some({host}) by HTTP/1.1"));
    drop(server);
    pod.becomes(Health::Down).await;
    let down = pod.client().await.get("/").await.expect("answered");
    assert_eq!(down.status, 502);
    std::fs::remove_file(&socket.0).expect("it is there");
    let _server = serve(&socket.0, true);
    pod.becomes(Health::Ready).await;
    // It is another one now, of HTTP/2 alone.
    let answer = pod.client().await.get("/").await.expect("answered");
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.ends_with("by HTTP/2.0"), "{text}");
    let reading = pod.accounted(|it| it.in_flight == 0).await;
    assert_eq!((reading.arrivals, reading.completions), (4, 2));
}
