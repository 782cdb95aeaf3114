//! HTTP as a user sends it: one request on one connection, never tried twice.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use sidescale::clock::{Clock, Elapsed};
use tokio::net::TcpStream;

/// No whole answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no whole response")]
    Http(#[from] hyper::Error),
    #[error("too late")]
    Late(#[from] Elapsed),
}

/// GETs `path` and reads the whole body, all within `limit`.
pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<(StatusCode, Bytes), NoAnswer> {
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(NoAnswer::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .body(Empty::<Bytes>::new())
            .expect("a path and an address are a request");
        let answered = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, body))
        };
        // The connection is driven here and goes with the request: nothing outlives a test.
        tokio::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            _closed = connection => answered.await,
        }
    };
    Clock::real().timeout(limit, exchange).await?
}
