//! Which cluster a command talks to, and where in it.

use std::path::PathBuf;

use clap::Args;

use crate::app::Connector;
use crate::config;

/// Which cluster, and where in it.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// Namespace; default: the kubeconfig's
    #[arg(long, short, value_name = "NAME")]
    pub(super) namespace: Option<String>,

    /// Kubeconfig file; default: $KUBECONFIG or ~/.kube/config
    #[arg(long, env = "SIDESCALE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

// === impl Place ===

impl Place {
    /// The way there.
    pub(super) fn connector(self) -> Connector {
        Connector::Configured(config::Cluster {
            kubeconfig: self.kubeconfig,
            namespace: self.namespace,
            target: None,
        })
    }
}
