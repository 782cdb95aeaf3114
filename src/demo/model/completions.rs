//! Requests and answers: `OpenAI`'s completions, plain, streamed, and as calls of gRPC.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Incoming;
use serde::Deserialize;

use super::batch::Batch;
use super::generation::{Generation, Piece};
use super::{Settings, calls};
use crate::clock::{Clock, Instant};

/// The longest prompt that is read, in bytes. It is thrown away; the limit keeps one request from filling the memory.
const LONGEST_REQUEST: usize = 1024 * 1024;

/// The most tokens an answer has. At 20 ms each this is more than half an hour; a typing error is not worth more.
const MOST_TOKENS: u32 = 100_000;

/// What a token looks like.
const TOKEN: &str = " token";

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is read of a request.
#[derive(Deserialize)]
struct Completion {
    max_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
}

pub(super) async fn answer(
    request: Request<Incoming>,
    batch: Arc<Batch>,
    settings: Settings,
    clock: Clock,
) -> Result<Response<Body>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => plain(StatusCode::OK, "{}"),
        (&Method::POST, "/v1/completions") => complete(request, batch, settings, clock).await,
        (&Method::POST, calls::PATH) => call(request, batch, settings, clock).await,
        (_, "/health" | "/v1/completions" | calls::PATH) => {
            plain(StatusCode::METHOD_NOT_ALLOWED, "{}")
        }
        _ => refuse(
            StatusCode::NOT_FOUND,
            "only /v1/completions and /health are here",
        ),
    })
}

async fn complete(
    request: Request<Incoming>,
    batch: Arc<Batch>,
    settings: Settings,
    clock: Clock,
) -> Response<Body> {
    let arrived = clock.instant();
    let asked = match read(request).await.and_then(|body| parse(&body)) {
        Ok(asked) => asked,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let (generation, queued) = begin(&asked, &batch, settings, clock, arrived).await;
    let mut response = if asked.stream {
        let mut response = Response::new(events(generation));
        set(&mut response, "text/event-stream");
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    } else {
        let tokens = generation.all().await;
        plain(StatusCode::OK, &completion(tokens, true))
    };
    response
        .headers_mut()
        .insert("x-queue-millis", millis(queued.as_millis()));
    response
}

/// By gRPC, always as a stream.
async fn call(
    request: Request<Incoming>,
    batch: Arc<Batch>,
    settings: Settings,
    clock: Clock,
) -> Response<Body> {
    let arrived = clock.instant();
    let asked = read(request).await.and_then(|body| {
        let message = calls::message(&body)?;
        parse(&message)
    });
    match asked {
        Ok(asked) => {
            let (generation, _queued) = begin(&asked, &batch, settings, clock, arrived).await;
            calls::stream(generation)
        }
        Err(why) => calls::refuse(&why),
    }
}

async fn read(request: Request<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(request.into_body(), LONGEST_REQUEST);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

fn parse(json: &[u8]) -> Result<Completion, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// Waits for a slot; how long that took.
async fn begin(
    asked: &Completion,
    batch: &Arc<Batch>,
    settings: Settings,
    clock: Clock,
    arrived: Instant,
) -> (Generation, Duration) {
    let tokens = asked.max_tokens.unwrap_or(settings.tokens);
    let tokens = tokens.clamp(1, MOST_TOKENS);
    let slot = batch.enter().await;
    let start = slot.start(arrived, clock.instant());
    let generation = Generation::new(clock, settings, slot, start, tokens);
    (generation, start.since(arrived))
}

/// The tokens as server-sent events, the last with `OpenAI`'s `[DONE]`.
fn events(generation: Generation) -> Body {
    let pieces = stream::unfold(generation, async |mut generation| {
        let piece = generation.next().await?;
        Some((Ok(Frame::data(event(piece))), generation))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn event(piece: Piece) -> Bytes {
    let done = if piece.last { "data: [DONE]\n\n" } else { "" };
    format!("data: {}\n\n{done}", completion(piece.tokens, piece.last)).into()
}

/// Some tokens as `OpenAI`'s object. Nothing in it needs escaping.
pub(super) fn completion(tokens: u32, last: bool) -> String {
    let finish = if last { "\"length\"" } else { "null" };
    let text = TOKEN.repeat(tokens as usize);
    format!(
        "{{\"id\":\"cmpl-0\",\"object\":\"text_completion\",\"model\":\"demo\",\"choices\":[{{\"index\":0,\"text\":\
         \"{text}\",\"finish_reason\":{finish}}}]}}"
    )
}

fn plain(status: StatusCode, json: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(json.to_owned())).boxed_unsync());
    *response.status_mut() = status;
    set(&mut response, "application/json");
    response
}

fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    plain(
        status,
        &serde_json::json!({ "error": { "message": why } }).to_string(),
    )
}

fn set(response: &mut Response<Body>, content_type: &'static str) {
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
}

fn millis(millis: u128) -> HeaderValue {
    HeaderValue::from(u64::try_from(millis).unwrap_or(u64::MAX))
}
