//! Which path is answered by what.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::Serialize;

use crate::admin::answer::{Answer, answer, failure, json, not_allowed, text};
use crate::admin::{Condition, Source, ask, page};
use crate::clock::Clock;
use crate::lifecycle::TasksHandle;

/// What a connection answers from.
pub(super) struct Routes<S> {
    pub(super) source: Arc<S>,
    pub(super) clock: Clock,
    /// For the drain that one request starts and another may wait for.
    pub(super) tasks: TasksHandle,
}

/// Why there is no leader's answer.
enum NoLeader {
    /// Asked by another pod, which took this one for the leader.
    NotHere,
    /// It is known and does not answer, in these words.
    Silent(String),
    /// None is known.
    Unknown,
}

// === impl Routes ===

impl<S: Source> Routes<S> {
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        let method = request.method();
        if path == "/api/v1/drained" {
            return match *method {
                Method::GET => self.drained(request).await,
                // A HEAD must not act.
                _ => not_allowed("GET"),
            };
        }
        if method != Method::GET && method != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        let source = &self.source;
        match path {
            "/metrics" => {
                let metrics = source.metrics();
                answer(
                    StatusCode::OK,
                    metrics.content_type,
                    Bytes::from(metrics.text),
                )
            }
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" => match source.ready() {
                Ok(()) => text(StatusCode::OK, "ready"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
            },
            "/api/v1/report" => json(&source.report()),
            "/api/v1/plan" => self.plan(request).await,
            "/api/v1/decisions" => {
                self.of_leader(request, "/api/v1/decisions", S::decisions)
                    .await
            }
            "/api/v1/history" => self.of_leader(request, "/api/v1/history", S::history).await,
            "/api/v1/forecast" => {
                self.of_leader(request, "/api/v1/forecast", S::forecast)
                    .await
            }
            other => page::file(other).unwrap_or_else(|| {
                failure(StatusCode::NOT_FOUND, &format!("no such path: {other}"))
            }),
        }
    }

    /// This pod's own answer if it leads, else the leader's.
    async fn of_leader<B, T: Serialize>(
        &self,
        request: &Request<B>,
        path: &'static str,
        own: fn(&S) -> Option<T>,
    ) -> Answer {
        match self.lead_by(request, path, own).await {
            Ok(answer) => answer,
            Err(NoLeader::Silent(text)) => failure(StatusCode::BAD_GATEWAY, &text),
            Err(NoLeader::NotHere) => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "this pod does not lead")
            }
            Err(NoLeader::Unknown) => failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "no leader is known (an election may be under way; /api/v1/plan says what is wrong)",
            ),
        }
    }

    /// The leader's, or what this pod knows: whoever asks why nothing happens must not be told that nobody answers.
    async fn plan<B>(&self, request: &Request<B>) -> Answer {
        let silent = match self.lead_by(request, "/api/v1/plan", S::overview).await {
            Ok(answer) => return answer,
            Err(NoLeader::NotHere) => {
                return failure(StatusCode::SERVICE_UNAVAILABLE, "this pod does not lead");
            }
            Err(NoLeader::Silent(text)) => Some(text),
            Err(NoLeader::Unknown) => None,
        };
        let mut standing = self.source.standing();
        standing.conditions.extend(silent.map(|text| Condition {
            kind: "leader",
            since: standing.now,
            text,
            remedy: Some("Another pod takes over when the Lease has expired.".to_owned()),
        }));
        json(&standing)
    }

    async fn lead_by<B, T: Serialize>(
        &self,
        request: &Request<B>,
        path: &'static str,
        own: fn(&S) -> Option<T>,
    ) -> Result<Answer, NoLeader> {
        if let Some(value) = own(&self.source) {
            return Ok(json(&value));
        }
        if request.headers().contains_key(ask::FORWARDED) {
            return Err(NoLeader::NotHere);
        }
        let leader: SocketAddr = self.source.leader_admin().ok_or(NoLeader::Unknown)?;
        let answer = ask::leader(&self.clock, leader, path).await;
        answer.map_err(NoLeader::Silent)
    }

    async fn drained<B>(&self, request: &Request<B>) -> Answer {
        if is_from_a_browser(request) {
            return text(
                StatusCode::FORBIDDEN,
                "a browser may not drain a pod (use `kubectl delete pod`, or curl)",
            );
        }
        // Its own task: a kubelet that gives up waiting must not leave the pod half drained.
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        let source = Arc::clone(&self.source);
        self.tasks.spawn(async move {
            source.drained().await;
            // Nobody waits any more: the drain is done all the same.
            done.send(()).ok();
        });
        match wait.await {
            Ok(()) => text(StatusCode::OK, "drained"),
            Err(_ended) => text(StatusCode::SERVICE_UNAVAILABLE, "this sidecar is ending"),
        }
    }
}

/// Every browser calls itself Mozilla. Over HTTPS and on localhost it also says how a request came about, which scripts in
/// it cannot change.
fn is_from_a_browser<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let agent = headers.get(http::header::USER_AGENT);
    headers.contains_key("sec-fetch-mode")
        || headers.contains_key(http::header::ORIGIN)
        || headers.contains_key(http::header::REFERER)
        || agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}
