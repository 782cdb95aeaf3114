//! The server on a real socket, for `sidescale run` processes and kubectl: plain HTTP, HTTP/1.1 and h2c.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::answer::Unavailable;
use super::api::Api;
use crate::lifecycle::TasksHandle;

/// Pause after a connection could not be accepted: with no file descriptor left, the next try fails as fast.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Listens on a free port of 127.0.0.1 and serves until the tasks end.
pub(super) async fn serve(api: Arc<Api>, tasks: TasksHandle) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let children = tasks.clone();
    tasks.spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => {
                    let connection = connection(Arc::clone(&api), stream, children.clone());
                    children.spawn(connection);
                }
                // One connection that failed before it was taken, or no file descriptors left for a moment.
                Err(error) => {
                    tracing::debug!(%error, "the embedded API server accepts no connection");
                    api.clock.sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    });
    Ok(address)
}

/// Serves one connection, until either side ends it or the server is taken away.
async fn connection(api: Arc<Api>, stream: TcpStream, tasks: TasksHandle) {
    let mut available = api.faults.available();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let api = Arc::clone(&api);
        async move {
            let (head, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|_cut_off| Unavailable)?
                .to_bytes();
            api.answer(http::Request::from_parts(head, body), None)
                .await
        }
    });
    let mut builder = auto::Builder::new(tasks);
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = available.wait_for(|available| !available) => {}
        served = serving => {
            if let Err(error) = served {
                tracing::debug!(error, "a connection to the embedded API server broke");
            }
        }
    }
}

/// A kubeconfig for the server at `address`. JSON, which every reader of YAML reads.
pub(super) fn kubeconfig(address: SocketAddr, token: Option<&str>, namespace: &str) -> String {
    let user = token.map_or_else(|| json!({}), |token| json!({"token": token}));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "local", "user": user}],
        "contexts": [{
            "name": "local",
            "context": {"cluster": "local", "user": "local", "namespace": namespace},
        }],
        "current-context": "local",
    });
    format!("{config:#}\n")
}
