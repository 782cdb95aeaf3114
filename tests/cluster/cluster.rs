//! A cluster for one test: a namespace of its own behind a front of its own, on either flavour of API server.
//!
//! A scenario is written once, over [`Cluster`], and runs on both flavours ([`each_flavour`](crate::each_flavour)), so
//! that the embedded one cannot drift from the real one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client, Config};
use serde_json::json;
use sidescale::clock::Clock;
use sidescale::local::{self, Identity};

use crate::api_server::{ApiServer, sidecar_user};
use crate::control_plane::ControlPlane;
use crate::credentials::kubeconfig;
use crate::front::Front;
use crate::processes::run_folder;
use crate::wait::eventually;

/// No scenario takes as long on two busy cores: a test that hangs says so instead of holding up the run.
const LONGEST_SCENARIO: Duration = Duration::from_secs(150);

/// For those who ask a scenario for more than it does by itself: seconds.
#[expect(clippy::disallowed_methods, reason = "a person's wish, at the edge")]
fn longest_scenario() -> Duration {
    let given = std::env::var("SIDESCALE_LONGEST_SCENARIO");
    given.map_or(LONGEST_SCENARIO, |given| {
        Duration::from_secs(
            given
                .parse()
                .expect("SIDESCALE_LONGEST_SCENARIO is seconds"),
        )
    })
}

/// Of the names that the embedded server makes up.
const SEED: u64 = 3;

/// Held by every scenario, and alone by those that fill the machine: see [`each_flavour_alone`](crate::each_flavour_alone).
static MACHINE: RwLock<()> = RwLock::new(());

/// One test's cluster.
pub(crate) struct Cluster {
    admin: Client,
    front: Front,
    access: Arc<Access>,
    clock: Clock,
    /// The server itself, where it is not a process.
    embedded: Option<local::Cluster>,
}

/// How a sidecar's process reaches a [`Cluster`], apart from it: whoever starts processes keeps this.
#[derive(Debug)]
pub(crate) struct Access {
    namespace: String,
    url: String,
    /// Bearer tokens of the users `sidecar-0`, `sidecar-1`..
    tokens: Vec<String>,
    folder: PathBuf,
}

/// Makes two `#[test]`s of each named scenario, `scenario::embedded` and `scenario::real`, one on each flavour.
#[macro_export]
macro_rules! each_flavour {
    ($($scenario:ident),* $(,)?) => { $(
        mod $scenario {
            #[test]
            fn embedded() {
                $crate::cluster::on_embedded(stringify!($scenario), super::$scenario);
            }

            #[test]
            fn real() {
                $crate::cluster::on_real(stringify!($scenario), super::$scenario);
            }
        }
    )* };
}

/// The same for scenarios that start so many processes that others beside them would miss their leases: each of these
/// tests has the machine to itself.
#[macro_export]
macro_rules! each_flavour_alone {
    ($($scenario:ident),* $(,)?) => { $(
        mod $scenario {
            #[test]
            fn embedded() {
                $crate::cluster::alone(|| {
                    $crate::cluster::embedded_test(stringify!($scenario), super::$scenario);
                });
            }

            #[test]
            fn real() {
                $crate::cluster::alone(|| {
                    $crate::cluster::real_test(stringify!($scenario), super::$scenario);
                });
            }
        }
    )* };
}

/// Runs `scenario` on an embedded cluster of its own.
pub(crate) fn on_embedded(name: &str, scenario: impl AsyncFnOnce(&Cluster)) {
    // A scenario that failed has left nothing behind that another could stumble over.
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    embedded_test(name, scenario);
}

/// Runs `scenario` on the real control plane.
pub(crate) fn on_real(name: &str, scenario: impl AsyncFnOnce(&Cluster)) {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    real_test(name, scenario);
}

/// Runs `test` when no other scenario runs, and lets none begin beside it.
pub(crate) fn alone(test: impl FnOnce()) {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    test();
}

/// [`on_embedded`] for who has the machine.
pub(crate) fn embedded_test(name: &str, scenario: impl AsyncFnOnce(&Cluster)) {
    run(async {
        let cluster = Cluster::embedded(name).await;
        in_time(scenario(&cluster)).await;
    });
}

/// [`on_real`] for who has the machine.
pub(crate) fn real_test(name: &str, scenario: impl AsyncFnOnce(&Cluster)) {
    run(async {
        // Building the components may take minutes the first time, and is not the scenario's.
        let control_plane = ControlPlane::shared().await;
        let cluster = Cluster::real(control_plane, name).await;
        in_time(scenario(&cluster)).await;
    });
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system has threads left")
        .block_on(test);
}

async fn in_time(scenario: impl Future<Output = ()>) {
    Clock::real()
        .timeout(longest_scenario(), scenario)
        .await
        .expect("a scenario ends in time");
}

// === impl Cluster ===

impl Cluster {
    /// A namespace on the real control plane, named after the test.
    async fn real(control_plane: &ControlPlane, test: &str) -> Self {
        let cluster = Self::new(test, control_plane.api_server()).await;
        // Without it every pod of the namespace is refused, and the ReplicaSet's controller backs off for seconds.
        let accounts: Api<ServiceAccount> = cluster.api();
        eventually(
            "the namespace has its default service account",
            Duration::from_secs(60),
            async || match accounts.get("default").await {
                Ok(_account) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        )
        .await;
        cluster
    }

    /// The same on an embedded server of the test's own, through a socket as the real one.
    async fn embedded(test: &str) -> Self {
        let clock = Clock::real();
        let embedded = local::Cluster::start(local::Settings::new(clock, SEED));
        let address = embedded.serve().await.expect("a loopback port is free");
        let api_server = ApiServer::at(format!("http://{address}"), None);
        embedded.admit(&api_server.admin, Identity::administrator());
        for (number, token) in api_server.sidecars.iter().enumerate() {
            let identity = Identity {
                user: sidecar_user(number),
                groups: vec!["system:authenticated".to_owned()],
            };
            embedded.admit(token, identity);
        }
        let mut cluster = Self::new(test, &api_server).await;
        cluster.embedded = Some(embedded);
        cluster
    }

    async fn new(test: &str, api_server: &ApiServer) -> Self {
        let namespace = namespace_for(test);
        let folder = run_folder().join(&namespace);
        fs::create_dir_all(&folder).expect("the run's folder can be written");
        let clock = Clock::real();
        let users: BTreeMap<String, String> = api_server
            .sidecars
            .iter()
            .enumerate()
            .map(|(number, token)| (token.clone(), sidecar_user(number)))
            .collect();
        let front = Front::before(api_server.anonymous(), users, clock.clone()).await;
        let cluster = Self {
            admin: api_server.admin(&namespace),
            access: Arc::new(Access {
                namespace,
                url: front.url(),
                tokens: api_server.sidecars.clone(),
                folder,
            }),
            front,
            clock,
            embedded: None,
        };
        let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
        let namespace = json!({ "metadata": { "name": cluster.namespace() } });
        namespaces
            .create(&PostParams::default(), &from_json(namespace))
            .await
            .expect("a new namespace can be created");
        cluster
    }

    /// The test's own namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.access.namespace
    }

    /// Every right, and not through the front: what a test does itself is neither counted nor cut.
    pub(crate) fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// Objects of a kind in the test's namespace, with every right.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.admin.clone(), self.namespace())
    }

    /// A client of the user `sidecar-<number>`, through the front.
    pub(crate) fn client_of(&self, number: usize) -> Client {
        let access = &self.access;
        let mut config = Config::new(access.url.parse().expect("a loopback address is a URI"));
        config.default_namespace.clone_from(&access.namespace);
        config.default_retry = false;
        config.auth_info = AuthInfo {
            token: Some(access.tokens[number].clone().into()),
            ..AuthInfo::default()
        };
        Client::try_from(config).expect("plain HTTP needs no certificate")
    }

    /// The proxy that all but [`Self::admin`] goes through.
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// What a process needs to reach it.
    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.clone()
    }

    /// The time that [`Seen::at`](crate::front::Seen::at) is in.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

// === impl Access ===

impl Access {
    /// The namespace of the test.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A kubeconfig file of the user `sidecar-<number>`, through the front.
    pub(crate) fn kubeconfig_of(&self, number: usize) -> PathBuf {
        let path = self.file(&format!("{}.kubeconfig", sidecar_user(number)));
        let text = kubeconfig(&self.url, None, &self.tokens[number], &self.namespace);
        fs::write(&path, text).expect("the test's folder can be written");
        path
    }

    /// A path in the test's own folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A typed object from the JSON that a manifest would have.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).expect("a manifest written in a test is of its type")
}

/// A name for the namespace: the test's, cut to what a DNS label holds, and a number because two flavours run at once.
fn namespace_for(test: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name: String = test.replace('_', "-").chars().take(50).collect();
    format!("{}-{number}", name.trim_end_matches('-'))
}
