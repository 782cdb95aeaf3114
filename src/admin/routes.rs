//! Which path is answered by what.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::Serialize;

use crate::admin::answer::{Answer, answer, failure, json, not_allowed, text};
use crate::admin::{Source, ask, page};
use crate::clock::Clock;
use crate::lifecycle::TasksHandle;

/// What a connection answers from.
pub(super) struct Routes<S> {
    pub(super) source: Arc<S>,
    pub(super) clock: Clock,
    /// For the drain that one request starts and another may wait for.
    pub(super) tasks: TasksHandle,
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
            "/api/v1/plan" => self.of_leader(request, "/api/v1/plan", S::overview).await,
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
        if let Some(value) = own(&self.source) {
            return json(&value);
        }
        let was_passed_on = request.headers().contains_key(ask::FORWARDED);
        let leader: Option<SocketAddr> = self.source.leader_admin();
        match leader.filter(|_leader| !was_passed_on) {
            Some(leader) => ask::leader(&self.clock, leader, path).await,
            None if was_passed_on => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "this pod does not lead")
            }
            None => failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "no leader is known (an election may be under way; see the log for what it waits for)",
            ),
        }
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
