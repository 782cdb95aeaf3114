//! The sidecar's first half on a laptop: a toy model server, the proxy in front of it, a few requests, the report.
//!
//! `cargo run --example proxy_in_front`
//!
//! You will see a pod that is unready while its model loads, eight prompts answered, one client that loses patience,
//! and the report of all that: the line that a member sends to the leader every second.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use sidescale::clock::Clock;
use sidescale::lifecycle::{Lifecycle, Tasks};
use sidescale::proxy::{Accounts, Health, Settings, Upstream, serve};
use sidescale::report::meter::{Meter, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Half a second of loading, then a quarter of a second for every prompt.
async fn model_server(address: SocketAddr, clock: Clock, tasks: Tasks) {
    clock.sleep(Duration::from_millis(500)).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    socket.bind(address).expect("the port is free");
    let listener = socket.listen(64).expect("it listens");
    while let Ok((mut stream, _peer)) = listener.accept().await {
        let clock = clock.clone();
        tasks.spawn(async move {
            let mut request = [0; 4_096];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                clock.sleep(Duration::from_millis(250)).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nHello.";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
    }
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
    let (clock, tasks) = (Clock::real(), Tasks::here());
    // Bound to learn a free port, and let go for the server that will listen there.
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let upstream = port.local_addr().expect("bound");
    drop(port);
    tasks.spawn(model_server(upstream, clock.clone(), Tasks::here()));

    let accounts = Arc::new(Accounts::new(clock.clone()));
    let mut meter = Meter::new("pod-0".to_owned(), 1, Arc::clone(&accounts), clock.now());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let settings = Settings::new(Upstream::new(upstream));
    let lifecycle = Lifecycle::default();
    let proxy = serve(
        settings,
        listener,
        accounts,
        lifecycle,
        clock.clone(),
        &tasks,
    )
    .expect("it starts");

    println!("while the model loads:  {}", ask(proxy.address()).await);
    let mut upstream = proxy.upstream();
    let ready = upstream.wait_for(|health| *health == Health::Ready).await;
    println!("the server is now:      {:?}", *ready.expect("it lives"));
    let prompts = (0..8).map(|_prompt| ask(proxy.address()));
    let answers = futures_util::future::join_all(prompts).await;
    println!("eight prompts at once:  {} each", answers[0]);
    let patience = Duration::from_millis(50);
    let left = clock.timeout(patience, ask(proxy.address())).await;
    println!("one without patience:   {left:?}");
    clock.sleep(Duration::from_millis(10)).await;

    let status = Status {
        ready: proxy.is_ready(),
        ..Status::default()
    };
    let report = meter.report(clock.now(), status);
    let json = serde_json::to_string_pretty(&report).expect("a report is JSON");
    println!("\nthe report to the leader:\n{json}");
}
