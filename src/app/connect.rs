//! The way to the Kubernetes API: the account of the pod, a kubeconfig, or a client that is given (the demo's).

use std::path::PathBuf;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::causes::chain;
use crate::config;
use crate::leader::without_retries;

/// How this sidecar reaches the API.
#[derive(Clone, Debug)]
pub enum Connector {
    /// By configuration: in-cluster account, else kubeconfig.
    Configured(config::Cluster),
    /// By a client that somebody made already.
    Given(Connection),
}

/// A way to the API and the place there that is ours.
#[derive(Clone)]
pub struct Connection {
    /// A client without retries of its own: every caller has a deadline and decides again.
    pub client: Client,
    /// The namespace of pod and Deployment.
    pub namespace: String,
}

/// No way to the API.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither of the two places has an account.
    #[error(
        "no Kubernetes account found: not in the pod (/var/run/secrets/kubernetes.io/serviceaccount: {in_cluster}), nor \
         a kubeconfig ({kubeconfig}) (mount a service \
         account token, give --kubeconfig FILE, or say --no-cluster)"
    )]
    NoAccount {
        /// Why the in-cluster account cannot be used.
        in_cluster: String,
        /// Why the default kubeconfig cannot be used.
        kubeconfig: String,
    },
    /// The file that was named cannot be used.
    #[error("kubeconfig {} cannot be used (check --kubeconfig)", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The account is there, and no client can be made of it.
    #[error("the Kubernetes account cannot be used")]
    Client(#[source] kube::Error),
}

// === impl Connection ===

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.namespace).finish()
    }
}

// === impl Connector ===

impl Connector {
    /// Makes the client. Reads files; does not yet talk to the API.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let cluster = match self {
            Self::Given(connection) => return Ok(connection.clone()),
            Self::Configured(cluster) => cluster,
        };
        let config = account(cluster).await?;
        let namespace = cluster
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = without_retries(config).map_err(ConnectError::Client)?;
        Ok(Connection { client, namespace })
    }

    /// The Deployment named by flag.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Configured(cluster) => cluster.target.as_deref(),
            Self::Given(_) => None,
        }
    }
}

async fn account(cluster: &config::Cluster) -> Result<kube::Config, ConnectError> {
    let options = KubeConfigOptions::default();
    if let Some(path) = &cluster.kubeconfig {
        let unusable = |source| ConnectError::Kubeconfig {
            path: path.clone(),
            source,
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
        return kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(unusable);
    }
    // The pod's own account comes first: a stray kubeconfig in an image must not send a pod to another cluster.
    let in_cluster = match kube::Config::incluster() {
        Ok(config) => return Ok(config),
        Err(error) => chain(&error),
    };
    kube::Config::from_kubeconfig(&options)
        .await
        .map_err(|error| ConnectError::NoAccount {
            in_cluster,
            kubeconfig: chain(&error),
        })
}
