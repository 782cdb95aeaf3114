//! What the proxy adds to a request: through it against direct, to the same upstream, in one run.
//!
//! `cargo bench --bench proxy`. Upstream, proxy and client each have a thread of their own, as in a pod; the client
//! waits for every response, so the figures are latencies of one request at a time. Compare the ratio of the two, not
//! figures of different runs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sidescale::clock::Clock;
use sidescale::lifecycle::Lifecycle;
use sidescale::proxy::{Accounts, Proxy, Settings, TrafficThread, Upstream, serve};

const REQUEST: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: model\r\n\r\n";

/// A server of blocking sockets that answers `size` bytes: it costs the same on both ways.
fn upstream(size: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + size, b'x');
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.expect("accepted"), answer.clone());
            stream.set_nodelay(true).expect("set");
            std::thread::spawn(move || {
                let mut request = [0; 4_096];
                while stream.read(&mut request).is_ok_and(|bytes| bytes > 0) {
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn proxied(upstream: SocketAddr, traffic: &TrafficThread) -> Proxy {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let clock = runtime.block_on(async { Clock::real() });
    let accounts = Arc::new(Accounts::new(clock.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let settings = Settings::new(Upstream::new(upstream));
    let lifecycle = Lifecycle::default();
    serve(
        settings,
        listener,
        accounts,
        lifecycle,
        clock,
        traffic.tasks(),
    )
    .expect("the proxy starts")
}

/// One request and its whole response on a kept connection.
fn round_trip(stream: &mut TcpStream, size: usize, buffer: &mut [u8]) {
    stream.write_all(REQUEST).expect("written");
    let (mut filled, mut whole) = (0, usize::MAX);
    while filled < whole {
        let read = stream.read(&mut buffer[filled..]).expect("read");
        assert!(read > 0, "the connection was closed");
        filled += read;
        if whole == usize::MAX
            && let Some(head) = buffer[..filled]
                .windows(4)
                .position(|end| end == b"\r\n\r\n")
        {
            whole = head + 4 + size;
        }
    }
}

fn through_and_direct(criterion: &mut Criterion) {
    for size in [128, 64 * 1_024] {
        let address = upstream(size);
        let traffic = TrafficThread::start().expect("a thread");
        let proxy = proxied(address, &traffic);
        let mut group = criterion.benchmark_group(format!("{size} bytes"));
        group.throughput(Throughput::Bytes(size as u64));
        for (name, address) in [("direct", address), ("through", proxy.address())] {
            let mut stream = TcpStream::connect(address).expect("it accepts");
            stream.set_nodelay(true).expect("set");
            let mut buffer = vec![0; size + 4_096];
            group.bench_function(name, |bencher| {
                bencher.iter(|| round_trip(&mut stream, size, &mut buffer));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, through_and_direct);
criterion_main!(benches);
