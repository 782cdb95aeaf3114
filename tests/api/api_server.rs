//! An API server that does what the test says: every request is handed over, and waits for the answer.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

pub(crate) struct ApiServer {
    requests: mpsc::UnboundedReceiver<Asked>,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    reply: oneshot::Sender<Answer>,
}

impl ApiServer {
    pub(crate) fn start() -> (kube::Client, Self) {
        let (sender, requests) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let sender = sender.clone();
            async move {
                let (reply, answer) = oneshot::channel();
                sender
                    .send(read(request, reply).await)
                    .map_err(|_closed| closed())?;
                answer.await.map_err(|_dropped| closed())
            }
        });
        (kube::Client::new(service, "ml"), Self { requests })
    }

    /// The next request, which must be this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) -> impl Future<Output = Asked> {
        let caller = std::panic::Location::caller();
        async move {
            let asked = self.next().await;
            assert_eq!(asked.line, line, "at {caller}: {}", asked.body);
            asked
        }
    }

    /// The next request, whichever it is.
    pub(crate) async fn next(&mut self) -> Asked {
        self.requests.recv().await.expect("the client lives")
    }

    /// Whether no request has come.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Asked {
    pub(crate) fn answer(self, body: &Value) {
        self.reply(200, body);
    }

    /// Answers as a real API server refuses.
    pub(crate) fn refuse(self, code: u16, reason: &str, message: &str) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        self.reply(code, &status);
    }

    /// Answers with a stream that stays open as long as the sender lives.
    pub(crate) fn stream(self) -> Sender<Bytes, std::convert::Infallible> {
        let (sender, body) = Channel::new(4);
        let answer = Response::builder()
            .status(200)
            .body(body.boxed())
            .expect("a response");
        self.reply.send(answer).expect("the client waits");
        sender
    }

    fn reply(self, code: u16, body: &Value) {
        let bytes = Bytes::from(body.to_string());
        let answer = Response::builder()
            .status(code)
            .body(Full::new(bytes).boxed())
            .expect("a response");
        self.reply.send(answer).expect("the client waits");
    }
}

async fn read(request: Request<Body>, reply: oneshot::Sender<Answer>) -> Asked {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.expect("a body in memory").to_bytes();
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let method: Method = parts.method;
    let content_type = parts.headers.get(http::header::CONTENT_TYPE);
    Asked {
        line: format!("{method} {}", parts.uri),
        content_type: content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        body,
        reply,
    }
}

fn closed() -> std::io::Error {
    std::io::Error::other("the API server is gone")
}
