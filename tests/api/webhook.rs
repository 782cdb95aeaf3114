//! The webhook's certificates over years of paused time, and its conversation over a real TLS socket.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use kube::client::Body;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use sidescale::clock::{Clock, Timestamp};
use sidescale::inject::Options;
use sidescale::lifecycle::Tasks;
use sidescale::webhook::{Keeper, Running, Settings};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const NAME: &str = "sidescale.system.svc";
const MINUTE: Duration = Duration::from_secs(60);

/// The objects that the webhook works with, by compare-and-swap.
#[derive(Clone)]
struct Store(Arc<Mutex<Objects>>);

struct Objects {
    secret: Value,
    configuration: Value,
    binding: Option<Value>,
    version: u64,
    conflicts: usize,
}

impl Store {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Objects {
            secret: json!({"metadata": {"name": "sidescale", "namespace": "system", "resourceVersion": "1"}}),
            configuration: json!({
                "metadata": {"name": "sidescale"},
                "webhooks": [{
                    "name": "inject.sidescale.dev", "clientConfig": {}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                }],
            }),
            binding: None,
            version: 1,
            conflicts: 0,
        })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Objects) -> T) -> T {
        let Self(objects) = self;
        work(&mut objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn client(&self) -> kube::Client {
        let store = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let store = store.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("in memory").to_bytes();
                // So that two who ask at once see the same.
                tokio::task::yield_now().await;
                let path = head.uri.path().to_owned();
                let answer = store.with(|objects| objects.answer(&head.method, &path, &body));
                Ok::<_, std::io::Error>(answer)
            }
        });
        kube::Client::new(service, "system")
    }

    /// Whom the API server trusts, as PEM.
    fn bundle(&self) -> String {
        let bundle = self.with(|objects| {
            objects.configuration["webhooks"][0]["clientConfig"]["caBundle"].clone()
        });
        let ByteString(bytes) = serde_json::from_value(bundle).unwrap_or_default();
        String::from_utf8(bytes).expect("PEM is text")
    }
}

impl Objects {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let (code, object) = match (method.as_str(), path) {
            ("GET", "/api/v1/namespaces/system/secrets/sidescale") => (200, self.secret.clone()),
            ("PUT", "/api/v1/namespaces/system/secrets/sidescale") => {
                if sent["metadata"]["resourceVersion"] == self.secret["metadata"]["resourceVersion"]
                {
                    self.version += 1;
                    self.secret = sent;
                    self.secret["metadata"]["resourceVersion"] = json!(self.version.to_string());
                    (200, self.secret.clone())
                } else {
                    self.conflicts += 1;
                    (409, status(409, "Conflict"))
                }
            }
            (
                "GET",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/sidescale",
            ) => (200, self.configuration.clone()),
            (
                "PATCH",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/sidescale",
            ) => {
                assert_eq!(sent["webhooks"][0]["name"], "inject.sidescale.dev");
                let bundle = sent["webhooks"][0]["clientConfig"]["caBundle"].clone();
                self.configuration["webhooks"][0]["clientConfig"]["caBundle"] = bundle;
                (200, self.configuration.clone())
            }
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/namespaces/ml/rolebindings/sidescale-bert",
            ) => match &self.binding {
                Some(binding) => (200, binding.clone()),
                None => (404, status(404, "NotFound")),
            },
            other => panic!("the webhook has no right to {other:?}"),
        };
        let mut response = Response::new(Full::from(object.to_string()));
        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
        response
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code,
    })
}

fn keeper(store: &Store, clock: &Clock) -> Keeper {
    let names = vec![NAME.to_owned()];
    Keeper::new(store.client(), "system", "sidescale", names, clock.clone())
}

/// Whether somebody who trusts `bundle` accepts `certificate` at `now`.
fn is_trusted(bundle: &str, certificate: &str, now: Timestamp) -> bool {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("it is PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(bundle), provider)
        .build()
        .expect("the roots are good");
    let name = ServerName::try_from(NAME).expect("a name");
    let seconds = now.as_secs().try_into().expect("after 1970");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier
        .verify_server_cert(&certificate, &[], &name, &[], now)
        .is_ok()
}

fn roots(bundle: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.expect("it is PEM")).expect("an authority");
    }
    Arc::new(roots)
}

#[tokio::test(start_paused = true)]
async fn over_two_years_an_api_server_that_hears_late_trusts_every_certificate() {
    const STEP: Duration = Duration::from_secs(30 * 60);
    let start = Timestamp::from_secs(1_800_000_000);
    let clock = Clock::scaled(start, 1.0);
    let store = Store::new();
    let replicas = [keeper(&store, &clock), keeper(&store, &clock)];
    let (mut certificates, mut bundles) = (Vec::new(), Vec::new());
    let steps = (2 * 365 * 24 * 3600) / STEP.as_secs();
    let mut late = String::new();
    for step in 0..steps {
        let replica = &replicas[usize::from(step % 2 == 1)];
        let certificate = replica.turn().await.expect("the store answers").certificate;
        let bundle = store.bundle();
        if late.is_empty() {
            late.clone_from(&bundle);
        }
        let is_new = certificates.last() != Some(&certificate);
        // Once a day, too: what is served with has not expired.
        if is_new || step % 48 == 0 {
            let now = clock.now().timestamp;
            for bundle in [&late, &bundle] {
                assert!(is_trusted(bundle, &certificate, now), "step {step}");
            }
        }
        if is_new {
            certificates.push(certificate);
        }
        if bundles.last() != Some(&bundle) {
            bundles.push(bundle.clone());
        }
        // Whoever hears of it half an hour late.
        late = bundle;
        tokio::time::advance(STEP).await;
    }
    // Every 20 days, and one more each time that another authority signs.
    assert!(
        (36..=40).contains(&certificates.len()),
        "{}",
        certificates.len()
    );
    // The first; second beside it; second alone; third beside it; third alone.
    assert!((4..=6).contains(&bundles.len()), "{}", bundles.len());
    let count = |bundle: &String| bundle.matches("BEGIN CERTIFICATE").count();
    assert!(
        bundles
            .iter()
            .all(|bundle| (1..=2).contains(&count(bundle)))
    );
}

#[tokio::test(start_paused = true)]
async fn replicas_that_start_at_once_serve_with_the_same_certificate() {
    let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 1.0);
    let store = Store::new();
    let (one, other) = (keeper(&store, &clock), keeper(&store, &clock));
    let (first, second) = tokio::join!(one.turn(), other.turn());
    let first = first.expect("one has won");
    assert_eq!(first, second.expect("the other reads it"));
    assert_eq!(store.with(|objects| objects.conflicts), 1);
    let now = clock.now().timestamp;
    assert!(
        is_trusted(&store.bundle(), &first.certificate, now),
        "it has been published"
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_nobody_can_read_is_made_anew() {
    let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 1.0);
    let store = Store::new();
    let odd =
        json!({"webhook.json": ByteString(b"{".to_vec()), "note": ByteString(b"mine".to_vec())});
    store.with(|objects| objects.secret["data"] = odd);
    let certificate = keeper(&store, &clock).turn().await.expect("made anew");
    let now = clock.now().timestamp;
    assert!(
        is_trusted(&store.bundle(), &certificate.certificate, now),
        "it is published"
    );
    let note = store.with(|objects| objects.secret["data"]["note"].clone());
    assert_eq!(note, json!(ByteString(b"mine".to_vec())));
}

/// A connection to `address` by somebody who trusts `bundle`.
async fn connect(
    address: SocketAddr,
    bundle: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots(bundle))
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).expect("a name");
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// What the webhook answers about `pod`.
async fn review(address: SocketAddr, bundle: &str, pod: &Value) -> Value {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "7", "namespace": "ml", "operation": "CREATE", "object": pod},
    });
    let request = Request::post("/inject?timeout=5s")
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(review.to_string()))
        .expect("a request");
    let (code, body) = ask(address, bundle, request).await.expect("it answers");
    assert_eq!(code, StatusCode::OK);
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["response"]["uid"], "7");
    assert_eq!(answer["response"]["allowed"], true);
    answer["response"].clone()
}

async fn ask(
    address: SocketAddr,
    bundle: &str,
    request: Request<Full<Bytes>>,
) -> std::io::Result<(StatusCode, Bytes)> {
    let stream = TokioIo::new(connect(address, bundle).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(std::io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((code, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer.map_err(std::io::Error::other),
        _closed = connection => exchange.await.map_err(std::io::Error::other),
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "bert-5d9f7-",
            "annotations": {"sidescale.dev/inject": "true"},
            "labels": {"app": "bert", "pod-template-hash": "5d9f7"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "bert-5d9f7", "controller": true}],
        },
        "spec": {
            "serviceAccountName": "bert",
            "terminationGracePeriodSeconds": 30,
            "initContainers": [{"name": "first"}],
            "containers": [{"name": "server", "ports": [{"name": "http", "containerPort": 8000}]}],
        },
    })
}

/// A webhook, and whom to trust that calls it.
async fn started(store: &Store, tasks: &Tasks) -> (Running, String) {
    // A look takes three seconds of life: no test must wait for a minute.
    let clock = Clock::scaled(Clock::real().now().timestamp, 20.0);
    let settings = Settings {
        listen: "127.0.0.1:0".parse().expect("an address"),
        service: "sidescale".to_owned(),
        namespace: "system".to_owned(),
        hosts: Vec::new(),
        options: Options {
            image: "sidescale:1".to_owned(),
            classic: false,
            selector: None,
            lead: false,
            network: None,
        },
    };
    let running = settings
        .start(store.client(), clock, tasks)
        .await
        .expect("a free port");
    let bundle = until("it is ready", async || {
        let bundle = store.bundle();
        let code = readiness(running.address(), &bundle).await;
        code.is_ok_and(|code| code == 200).then_some(bundle)
    })
    .await;
    (running, bundle)
}

async fn readiness(address: SocketAddr, bundle: &str) -> std::io::Result<StatusCode> {
    let request = Request::get("/readyz").header("host", NAME);
    let request = request
        .body(Full::default())
        .map_err(std::io::Error::other)?;
    ask(address, bundle, request).await.map(|(code, _)| code)
}

#[tokio::test]
async fn a_webhook_that_ends_answers_until_nobody_calls_it_any_more() {
    let store = Store::new();
    let tasks = Tasks::here();
    let (running, bundle) = started(&store, &tasks).await;
    let address = running.address();
    let probed = async {
        until("it is unready", async || {
            let code = readiness(address, &bundle).await.expect("it answers");
            (code == StatusCode::SERVICE_UNAVAILABLE).then_some(())
        })
        .await;
        review(address, &bundle, &pod()).await
    };
    let ((), answer) = tokio::join!(running.drain(), probed);
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(1));
    until("it takes no connections", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_api_server_is_answered_over_tls_and_a_new_certificate_needs_no_restart() {
    let store = Store::new();
    let tasks = Tasks::here();
    let (running, bundle) = started(&store, &tasks).await;
    let address = running.address();

    let without = review(address, &bundle, &pod()).await;
    let warning = without["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("its Role is not there"), "{warning}");
    assert!(without.get("patch").is_none());

    let binding = json!({
        "metadata": {"name": "sidescale-bert", "namespace": "ml"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sidescale-bert"},
        "subjects": [{"kind": "ServiceAccount", "name": "bert"}],
    });
    store.with(|objects| objects.binding = Some(binding));
    let with = review(address, &bundle, &pod()).await;
    assert_eq!(with["patchType"], "JSONPatch");
    let ByteString(patch) = serde_json::from_value(with["patch"].clone()).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let mut patched = pod();
    json_patch::patch(&mut patched, &patch).expect("it applies");
    assert_eq!(patched["spec"]["initContainers"][0]["name"], "sidescale");
    assert_eq!(patched["spec"]["initContainers"][1]["name"], "first");
    assert_eq!(patched["spec"]["initContainers"][0]["image"], "sidescale:1");

    assert!(!patch.to_string().contains("SIDESCALE_FOLLOW"));
    store.with(|objects| {
        let binding = objects.binding.as_mut().expect("it has been made");
        binding["metadata"]["annotations"] = json!({"sidescale.dev/follow": "true"});
    });
    let follower = review(address, &bundle, &pod()).await;
    let ByteString(patch) = serde_json::from_value(follower["patch"].clone()).expect("base64");
    let patch = String::from_utf8(patch).expect("JSON");
    assert!(patch.contains("SIDESCALE_FOLLOW"), "{patch}");

    let odd = Request::post("/inject")
        .header("host", NAME)
        .body(Full::from("{}"));
    let (code, _) = ask(address, &bundle, odd.expect("a request"))
        .await
        .expect("it answers");
    assert_eq!(code, StatusCode::BAD_REQUEST);

    // Somebody empties the Secret: there is another authority, and whoever trusts that alone is answered.
    store.with(|objects| {
        objects.version += 1;
        objects.secret["data"] = Value::Null;
        objects.secret["metadata"]["resourceVersion"] = json!(objects.version.to_string());
    });
    until("the new certificate is served", async || {
        let new = store.bundle();
        let is_answered = new != bundle && connect(address, &new).await.is_ok();
        is_answered.then_some(())
    })
    .await;
    let old = connect(address, &bundle)
        .await
        .expect_err("it is another authority");
    assert!(old.to_string().contains("certificate"), "{old}");
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = Clock::real();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(
            clock.instant().offset() < MINUTE,
            "not within {MINUTE:?}: {what}"
        );
        clock.sleep(Duration::from_millis(20)).await;
    }
}
