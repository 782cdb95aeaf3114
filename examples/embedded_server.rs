//! A server in Rust that is its own sidecar: no proxy, no second container, the same accounts.
//!
//! `cargo run --example embedded_server -- --no-cluster --admin 127.0.0.1:0`
//!
//! You will see eight prompts answered, one client that loses patience, the report of it that the leader gets every second,
//! and the drain: unready first, then the end. The flags are those of `sidescale run`; without `--no-cluster` it takes part in
//! the election and scales its own Deployment as any sidecar does.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use sidescale::admin::Source as _;
use sidescale::app::{Connector, Running, Sidecar};
use sidescale::clock::Clock;
use sidescale::config::{Config, Given};
use sidescale::layer::CountLayer;
use sidescale::lifecycle::Tasks;
use sidescale::proxy::{Accounts, Uncounted};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, service_fn};

/// The flags of `sidescale run`.
#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    given: Given,
}

/// The model: a quarter of a second for every prompt.
async fn answer(_prompt: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Clock::real().sleep(Duration::from_millis(250)).await;
    Ok(Response::new(Full::new(Bytes::from_static(b"Hello."))))
}

/// The server, with the layer around its service.
async fn serve(listener: TcpListener, layer: CountLayer, tasks: Tasks) {
    while let Ok((stream, _peer)) = listener.accept().await {
        let service = TowerToHyperService::new(layer.layer(service_fn(answer)));
        tasks.spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                println!("a client left: {error}");
            }
        });
    }
}

/// The sidecar in the same process: everything but the proxy.
fn sidecar(given: Given, accounts: Arc<Accounts>, clock: Clock) -> Running {
    let config = given.into_config().expect("the flags make sense");
    let sidecar = Sidecar {
        // The requests come in at the server's own port.
        config: Config {
            routes: Vec::new(),
            ..config.clone()
        },
        accounts: Some(accounts),
        connector: config.cluster.map(Connector::Configured),
        clock,
        seed: 1,
        traffic: Tasks::here(),
        control: tokio::runtime::Handle::current(),
    };
    sidecar.start().expect("the ports are free")
}

/// The status line of an answer.
async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    let request = b"POST /v1/completions HTTP/1.1\r\nhost: model\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut given = Line::parse().given;
    // A demonstration waits for no endpoint list.
    given.propagation = Duration::from_millis(100);
    let (clock, tasks) = (Clock::real(), Tasks::here());
    let accounts = Arc::new(Accounts::new(clock.clone()));
    let layer = CountLayer::new(Arc::clone(&accounts), Uncounted::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tasks.spawn(serve(listener, layer, Tasks::here()));
    let running = sidecar(given, accounts, clock.clone());

    let answers = futures_util::future::join_all((0..8).map(|_prompt| ask(address))).await;
    println!("eight prompts at once:  {} each", answers[0]);
    let left = clock.timeout(Duration::from_millis(50), ask(address)).await;
    println!("one without patience:   {left:?}");
    clock.sleep(Duration::from_millis(10)).await;
    let report = running.source().report();
    let json = serde_json::to_string_pretty(&report).expect("a report is JSON");
    println!("\nthe report to the leader:\n{json}");

    println!("\nready before the drain: {}", running.is_ready());
    running.drain().await;
    println!("and after it:           {}", running.is_ready());
}
