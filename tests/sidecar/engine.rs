//! The server's own metrics over real sockets: what is understood, and what each failure says.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sidescale::clock::{Clock, Timestamp};
use sidescale::engine::{self, Address, Engine, ReadError};
use sidescale::lifecycle::Tasks;
use tokio::net::{TcpListener, UnixListener};

use crate::pod::within;

const TEXT: &str = "\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0
vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 2.0
";

type Body = BoxBody<Bytes, Infallible>;

/// The heads of the requests that came, a line each.
type Heads = Arc<Mutex<Vec<String>>>;

async fn answer(request: Request<Incoming>, heads: Heads) -> Result<Response<Body>, Infallible> {
    let headers = request.headers();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let head = format!(
        "{} {} {:?} {:?}",
        request.method(),
        request.uri(),
        header("host"),
        header("accept")
    );
    heads.lock().expect("whole").push(head);
    let full = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes())).boxed();
    let mut response = Response::new(full(""));
    match request.uri().path() {
        "/metrics" => *response.body_mut() = full(TEXT),
        "/page" => *response.body_mut() = full("<html>a page</html>"),
        "/endless" => {
            let comment = Bytes::from(vec![b'#'; 64 * 1024]);
            let frames = futures_util::stream::repeat_with(move || {
                Ok(http_body::Frame::data(comment.clone()))
            });
            *response.body_mut() = StreamBody::new(frames).boxed();
        }
        "/hangs" => std::future::pending().await,
        _ => *response.status_mut() = http::StatusCode::NOT_FOUND,
    }
    Ok(response)
}

/// Serves one connection after the other, in `tasks`.
fn serve<S>(stream: S, heads: &Heads, tasks: &Tasks)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let heads = Arc::clone(heads);
    let service = service_fn(move |request| answer(request, Arc::clone(&heads)));
    tasks.spawn(async move {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        drop(connection.await);
    });
}

/// A server on a free port: its `host:port`, what came, and what it lives by.
async fn server() -> (String, Heads, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let host = listener.local_addr().expect("bound").to_string();
    let (heads, tasks) = (Heads::default(), Tasks::here());
    let (shared, children) = (Arc::clone(&heads), Tasks::here());
    tasks.spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            serve(stream, &shared, &children);
        }
    });
    (host, heads, tasks)
}

async fn failure(host: &str, path: &str) -> ReadError {
    let address: Address = format!("http://{host}{path}").parse().expect("an address");
    let read = within(engine::read(&address, &Clock::real())).await;
    read.expect_err(path)
}

#[tokio::test]
async fn a_servers_metrics_are_read_at_a_port() {
    let (host, heads, _tasks) = server().await;
    let address = Address::at(host.parse().expect("an address"));
    let read = within(engine::read(&address, &Clock::real())).await;
    let sample = read.expect("its metrics");
    assert_eq!((sample.engine, sample.waiting), (Engine::Vllm, 2.0));
    assert_eq!(sample.running, Some(3.0));
    let head = format!("GET /metrics Some({host:?}) Some(\"text/plain; version=0.0.4\")");
    assert_eq!(*heads.lock().expect("whole"), [head]);
}

#[tokio::test]
async fn a_servers_metrics_are_read_on_a_socket() {
    struct Socket(PathBuf);
    impl Drop for Socket {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).ok();
        }
    }
    let name = format!("sidescale-{}-metrics.sock", std::process::id());
    let socket = Socket(std::env::temp_dir().join(name));
    let listener = UnixListener::bind(&socket.0).expect("a new socket");
    let (heads, tasks) = (Heads::default(), Tasks::here());
    let children = Tasks::here();
    let shared = Arc::clone(&heads);
    tasks.spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            serve(stream, &shared, &children);
        }
    });
    let address = Address::on_socket(&socket.0);
    let read = within(engine::read(&address, &Clock::real())).await;
    let sample = read.expect("its metrics");
    assert!((sample.in_flight() - 5.0).abs() < 1e-9, "{sample:?}");
}

#[tokio::test]
async fn each_failure_says_where_and_what_to_do() {
    let (host, _heads, tasks) = server().await;
    for (path, words) in [
        (
            "/gone",
            "404 Not Found and not with metrics (SGLang needs --enable-metrics",
        ),
        ("/page", "not understood"),
        ("/endless", "longer than 4194304 bytes"),
    ] {
        let error = failure(&host, path).await;
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(&host), "{error:?}");
    }
    drop(tasks);
    let gone = failure(&host, "/metrics").await;
    assert!(matches!(gone, ReadError::Connect { .. }), "{gone:?}");
    assert!(gone.to_string().contains("--server-metrics"), "{gone}");
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for() {
    let (host, _heads, _tasks) = server().await;
    let address: Address = format!("http://{host}/hangs").parse().expect("an address");
    let clock = Clock::scaled(Timestamp::default(), 100.0);
    let read = within(engine::read(&address, &clock)).await;
    let error = read.expect_err("it hangs");
    assert!(matches!(error, ReadError::Late { .. }), "{error:?}");
    assert!(clock.instant().offset() >= Duration::from_secs(2));
}
