//! The embedded cluster: an API server, controllers and a kubelet in this process.
//!
//! What `sidescale demo` and the fast tests run on. It answers as a kube-apiserver does wherever sidescale can tell:
//! resourceVersions that conflict, watches that expire, subresources, `Status` errors with the real words. The tests
//! hold it against a real one. Out of scope: server-side apply, JSON patch, paging (a list is always whole), admission
//! webhooks, quotas, conversion.
//!
//! A dropped [`Cluster`] ends its controllers and its sockets; a client in process then gets no more changes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, header};
use serde_json::{Value, json};

use crate::clock::{Clock, Timestamp};
use crate::lifecycle::Tasks;

mod answer;
mod api;
mod controllers;
mod delete;
mod discovery;
mod faults;
mod fields;
mod json;
mod kind;
pub mod kubelet;
mod merge;
mod names;
mod rbac;
mod refusal;
mod rules;
mod selector;
mod serve;
mod store;
mod target;
mod verbs;
mod watch;

pub use answer::Unavailable;
pub use faults::{Action, Asked, Faults, Gate};
pub use rbac::{ADMINISTRATORS, Identity};

use api::Api;
use fields::Writer;
use kind::Kind;
use store::{Objects, Store};

/// Namespaces that are there from the start, as on a real cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// A cluster in this process.
#[derive(Debug)]
pub struct Cluster {
    api: Arc<Api>,
    tasks: Tasks,
}

/// What a [`Cluster`] is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Drives creation times, grace periods, and how long watches last.
    pub clock: Clock,
    /// Of names and uids: the same seed and the same requests make the same cluster.
    pub seed: u64,
    /// Changes that watches can still read; older ones are answered with 410.
    pub window: usize,
}

// === impl Settings ===

impl Settings {
    /// A cluster with a window that a demo does not outgrow.
    pub fn new(clock: Clock, seed: u64) -> Self {
        Self {
            clock,
            seed,
            window: store::WINDOW,
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts the server and its controllers on the runtime of the caller.
    pub fn start(settings: Settings) -> Self {
        let tasks = Tasks::here();
        let store = Arc::new(Store::new(Objects::new(settings.seed, settings.window)));
        let faults = Faults::default();
        let now = settings.clock.now().timestamp;
        store.transact(|objects| make_namespaces(objects, now));
        tasks.spawn(controllers::run(
            Arc::clone(&store),
            settings.clock.clone(),
            faults.available(),
        ));
        let api = Api::new(store, settings.clock, faults, tasks.handle());
        Self {
            api: Arc::new(api),
            tasks,
        }
    }

    /// A client in process that may do everything and shows as `agent`.
    pub fn client(&self, agent: &str) -> kube::Client {
        self.client_as(agent, Identity::administrator())
    }

    /// A client in process that shows as `agent` and may do what roles allow `identity`.
    pub fn client_as(&self, agent: &str, identity: Identity) -> kube::Client {
        let api = Arc::clone(&self.api);
        let agent = header::HeaderValue::from_str(agent).ok();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (api, agent, identity) = (Arc::clone(&api), agent.clone(), identity.clone());
            async move {
                let (mut head, body) = request.into_parts();
                if let Some(agent) = agent {
                    head.headers.entry(header::USER_AGENT).or_insert(agent);
                }
                let body = body.collect_bytes().await?;
                let answer = api
                    .answer(Request::from_parts(head, body), Some(identity))
                    .await?;
                Ok::<_, tower::BoxError>(answer)
            }
        });
        kube::Client::new(service, "default")
    }

    /// Serves on a free port of 127.0.0.1 too, until the cluster is dropped.
    pub async fn serve(&self) -> io::Result<SocketAddr> {
        serve::serve(Arc::clone(&self.api), self.tasks.handle()).await
    }

    /// The text of a kubeconfig for the server at `address`.
    pub fn kubeconfig(address: SocketAddr, token: Option<&str>, namespace: &str) -> String {
        serve::kubeconfig(address, token, namespace)
    }

    /// Makes the bearer `token` stand for `identity`. From the first one on, sockets want a token; before, everybody may
    /// do everything.
    pub fn admit(&self, token: &str, identity: Identity) {
        self.api.admit(token, identity);
    }

    /// Makes the bearer `token` void: it is answered with 401 from now on.
    pub fn expel(&self, token: &str) {
        self.api.expel(token);
    }

    /// The switches by which it fails, and the counts of requests.
    pub fn faults(&self) -> &Faults {
        &self.api.faults
    }
}

fn make_namespaces(objects: &mut Objects, now: Timestamp) {
    let writer = Writer {
        manager: "kube-apiserver".to_owned(),
        subresource: "",
        time: rfc3339(now),
    };
    for name in NAMESPACES {
        let object: Value = json!({"metadata": {"name": name}});
        verbs::create(objects, Kind::Namespace, "", object, &writer)
            .expect("the first objects of an empty store are valid and new");
    }
}

/// Whole seconds, as Kubernetes writes times.
fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_secs())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}
