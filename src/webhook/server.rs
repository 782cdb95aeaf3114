//! HTTPS for the API server: `/inject` answers about pods, `/readyz` and `/healthz` the kubelet.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::keeper::KeeperError;
use super::renewal::Certificate;
use super::review::{Question, Verdict};
use crate::causes::chain;
use crate::clock::Clock;
use crate::inject::{self, Admission, Admitted, Options, Refusal};
use crate::lifecycle::{Lifecycle, Phase, TasksHandle};

/// What TLS connections are made with.
pub(super) type Tls = Arc<ServerConfig>;

/// An object has 1.5 MiB at most, which is etcd's limit; a review has it once and some words about who asks.
const LARGEST: usize = 4 * 1024 * 1024;
/// Each API server takes a few; what is beyond that is a mistake, and its memory is the pod's.
const MOST_CONNECTIONS: usize = 256;
/// For the handshake, and for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// For the question whether the account has the Role: less than the API server waits for us.
const LOOKUP_WITHIN: Duration = Duration::from_secs(2);
/// After a failure to accept (too many open files, most likely): it fails again at once otherwise.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the answers come from.
pub(super) struct Answers {
    pub(super) client: Client,
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) lifecycle: Lifecycle,
}

/// Serves with the certificate that is shown last, until the webhook has drained.
pub(super) async fn serve(
    listener: TcpListener,
    mut shown: watch::Receiver<Option<Tls>>,
    answers: Arc<Answers>,
    tasks: TasksHandle,
    open: watch::Sender<usize>,
) {
    // Whoever calls before waits in the listener's queue.
    if shown.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let open = Arc::new(open);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = answers.lifecycle.reached(Phase::Drained) => return,
        };
        let tcp = match accepted {
            Ok((tcp, _from)) => tcp,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                answers.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if *open.borrow() >= MOST_CONNECTIONS {
            warn!("refused a connection: {MOST_CONNECTIONS} are open");
            continue;
        }
        let Some(tls) = shown.borrow().clone() else {
            continue;
        };
        open.send_modify(|open| *open += 1);
        let place = Place(Arc::clone(&open));
        tasks.spawn(connection(
            tcp,
            tls,
            Arc::clone(&answers),
            tasks.clone(),
            place,
        ));
    }
}

/// What a certificate is served with.
pub(super) fn tls(certificate: &Certificate) -> Result<Tls, KeeperError> {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes());
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(KeeperError::NoPem)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes());
    let key = key.map_err(KeeperError::NoPem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(KeeperError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn connection(
    tcp: TcpStream,
    tls: Tls,
    answers: Arc<Answers>,
    tasks: TasksHandle,
    _place: Place,
) {
    let handshake = TlsAcceptor::from(tls).accept(tcp);
    let stream = match answers.clock.timeout(HEAD_WITHIN, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            // A replica that has just taken over its Secret's certificate is told so by the API server's alert.
            debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(late) => {
            debug!(%late, "a TLS handshake took too long");
            return;
        }
    };
    let asked = Arc::clone(&answers);
    let service = service_fn(move |request| {
        let answers = Arc::clone(&asked);
        async move { Ok::<_, Infallible>(answers.answer(request).await) }
    });
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN);
    builder.http2().timer(TokioTimer::new());
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = answers.lifecycle.reached(Phase::Drained) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

/// One of the [`MOST_CONNECTIONS`] places, given back when dropped.
struct Place(Arc<watch::Sender<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        let Self(open) = self;
        open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

// === impl Answers ===

impl Answers {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => text(StatusCode::OK, "ok"),
            (&Method::GET, "/readyz") if self.lifecycle.phase() == Phase::Serving => {
                text(StatusCode::OK, "ok")
            }
            (&Method::GET, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (&Method::POST, "/inject") => {
                let body = Limited::new(request.into_body(), LARGEST).collect().await;
                match body {
                    Ok(body) => self.review(&body.to_bytes()).await,
                    Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
                }
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "POST /inject, GET /readyz or /healthz",
            ),
        }
    }

    async fn review(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let question = match Question::read(body) {
            Ok(question) => question,
            Err(error) => {
                warn!(%error, "somebody asked what is no AdmissionReview with a pod");
                let error =
                    format!("no AdmissionReview of admission.k8s.io/v1 with an object: {error}");
                return text(StatusCode::BAD_REQUEST, &error);
            }
        };
        let verdict = match self.decide(&question).await {
            Ok(verdict) => verdict,
            Err(refusal) => {
                warn!(namespace = question.namespace, "no sidecar: {refusal}");
                Verdict::Warned(refusal.warning())
            }
        };
        let answer = question.answer(&verdict).to_string();
        let mut response = Response::new(Full::from(answer));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    async fn decide(&self, question: &Question) -> Result<Verdict, Refusal> {
        let Admission::Injected(mut admitted) = inject::pod(&question.object, &self.options)?
        else {
            return Ok(Verdict::Unchanged);
        };
        let binding = self.binding(&question.namespace, &admitted).await?;
        inject::has_the_role(&binding, &admitted.account, &admitted.place)?;
        if inject::only_follows(&binding) {
            let options = Options {
                lead: true,
                ..self.options.clone()
            };
            if let Admission::Injected(follower) = inject::pod(&question.object, &options)? {
                admitted = follower;
            }
        }
        info!(
            namespace = question.namespace,
            "a sidecar for a pod of {}", admitted.place
        );
        Ok(Verdict::Injected(admitted.patch))
    }

    /// The fleet's RoleBinding; `null`: there is none.
    async fn binding(&self, namespace: &str, admitted: &Admitted) -> Result<Value, Refusal> {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace);
        let read = bindings.get_opt(&admitted.binding);
        let why = match self.clock.timeout(LOOKUP_WITHIN, read).await {
            Ok(Ok(binding)) => return Ok(serde_json::to_value(binding).unwrap_or_default()),
            Ok(Err(error)) => chain(&error),
            Err(late) => late.to_string(),
        };
        Err(Refusal {
            place: admitted.place.clone(),
            reason: format!("whether its Role is there cannot be seen ({why})"),
            remedy: "see the webhook's log, then create the pod anew".to_owned(),
        })
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}
