//! Where a test runs: a namespace of its own on the embedded cluster or on a real one.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::runtime::wait::await_condition;
use kube::{Client, Config, Error};
use serde_json::Value;
use sidescale::clock::{Clock, Timestamp};
use sidescale::local::{Cluster, Settings};

/// A namespace on a server.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The time that the server's controllers, and so its kubelets, live in.
    pub(crate) clock: Clock,
    /// Kept, so that the embedded cluster lives as long as the test.
    _cluster: Option<Cluster>,
}

impl Place {
    /// On a cluster of its own in this process, at twenty times life.
    pub(crate) fn embedded() -> Self {
        let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 20.0);
        let cluster = Cluster::start(Settings::new(clock.clone(), 1));
        Self {
            client: cluster.client("test/1"),
            namespace: "default".to_owned(),
            clock,
            _cluster: Some(cluster),
        }
    }

    /// On the server of the kubeconfig that `SIDESCALE_TEST_KUBECONFIG` names, in the new namespace `name`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test is configured by nothing but its environment"
    )]
    pub(crate) async fn real(name: &str) -> Self {
        let path = std::env::var("SIDESCALE_TEST_KUBECONFIG")
            .expect("SIDESCALE_TEST_KUBECONFIG names the kubeconfig of a real API server");
        let kubeconfig = Kubeconfig::read_from(path).expect("the kubeconfig is readable");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig is complete");
        // Else a refusal that the test asks for (504) is asked for again for minutes.
        config.default_retry = false;
        let client = Client::try_from(config).expect("the client can be made");
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta {
                generate_name: Some(format!("{name}-")),
                ..Default::default()
            },
            ..Default::default()
        };
        let made = Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("the namespace is new");
        let namespace = made.metadata.name.expect("the server names it");
        // A pod cannot be made before its namespace has the default account.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        await_condition(accounts, "default", |account: Option<&ServiceAccount>| {
            account.is_some()
        })
        .await
        .expect("the account is made");
        Self {
            client,
            namespace,
            clock: Clock::real(),
            _cluster: None,
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// An object of a well-formed text.
pub(crate) fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("the object is well-formed")
}

/// The refusal that the server must have answered with.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> Box<Status> {
    let error = answer.expect_err("the server refuses this");
    let Error::Api(status) = error else {
        panic!("no refusal but {error}");
    };
    status
}

/// The parameters of a patch by this field manager.
pub(crate) fn merge(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    }
}

/// Runs a scenario on both servers: always on the embedded one, and when asked for on a real one.
#[macro_export]
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                super::$scenario(&$crate::place::Place::embedded()).await;
            })*
        }
        mod real {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a real API server: SIDESCALE_TEST_KUBECONFIG"]
            async fn $scenario() {
                let name = stringify!($scenario).replace('_', "-");
                super::$scenario(&$crate::place::Place::real(&name[..name.len().min(40)]).await).await;
            })*
        }
    };
}
