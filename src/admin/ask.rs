//! A follower's question to the leader's admin port.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::admin::answer::{Answer, answer};
use crate::clock::Clock;
use crate::lifecycle::Tasks;

/// Marks a question that was passed on: who gets it answers itself or not at all. Two pods that each take the other for the
/// leader would otherwise ask in a circle.
pub(super) const FORWARDED: &str = "x-sidescale-forwarded";

/// How long the leader has to answer. It answers from memory; doubled, a page that asks each second piles up questions
/// while the leader is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The longest answer passed on: two hundred decisions with their reasons take about 300 KiB.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot connect to the leader")]
    Connect(#[source] std::io::Error),
    #[error("the leader does not answer as HTTP")]
    Http(#[source] hyper::Error),
    #[error("the leader's answer cannot be read")]
    Body(#[source] Box<dyn Error + Send + Sync>),
}

/// The answer of the pod at `leader`, or why there is none.
pub(super) async fn leader(
    clock: &Clock,
    leader: SocketAddr,
    path: &'static str,
) -> Result<Answer, String> {
    Err(
        match clock.timeout(ANSWER_WITHIN, get(leader, path)).await {
            Ok(Ok((StatusCode::OK, body))) => {
                return Ok(answer(StatusCode::OK, "application/json", body));
            }
            Ok(Ok((status, _body))) => format!("the leader at {leader} answered {status}"),
            Ok(Err(trouble)) => {
                let source = trouble.source().map(ToString::to_string);
                format!("{trouble} at {leader}: {}", source.unwrap_or_default())
            }
            Err(elapsed) => format!("the leader at {leader} gave {elapsed}"),
        },
    )
}

async fn get(leader: SocketAddr, path: &'static str) -> Result<(StatusCode, Bytes), Trouble> {
    let tcp = TcpStream::connect(leader).await.map_err(Trouble::Connect)?;
    // The connection ends with the question.
    let tasks = Tasks::here();
    let (mut requests, connection) = http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(Trouble::Http)?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the leader's admin port broke");
        }
    });
    let request = Request::get(path)
        .header(http::header::HOST, leader.to_string())
        .header(FORWARDED, "1")
        .body(Empty::<Bytes>::new())
        .expect("a constant path and an address make a request");
    let response = requests
        .send_request(request)
        .await
        .map_err(Trouble::Http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER);
    let whole = body.collect().await.map_err(Trouble::Body)?;
    Ok((status, whole.to_bytes()))
}
