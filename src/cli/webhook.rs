//! `sidescale webhook`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tracing::info;

use super::words::{Signals, input, print};
use super::{Failure, control_runtime};
use crate::app::Connector;
use crate::clock::Clock;
use crate::config;
use crate::inject::{self, Options};
use crate::lifecycle::Tasks;
use crate::webhook::{self, Settings};

/// Adds the sidecar to pods with the annotation sidescale.dev/inject: "true" at their admission
#[derive(Args, Debug)]
pub(super) struct Webhook {
    /// Prints what to apply so that the webhook runs in a cluster, and ends
    #[arg(long)]
    manifests: bool,

    /// Where it listens
    #[arg(
        long,
        env = "SIDESCALE_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:8443"
    )]
    listen: SocketAddr,

    /// Its Service, Secret and MutatingWebhookConfiguration
    #[arg(long, value_name = "NAME", default_value = "sidescale-webhook")]
    service: String,

    /// The namespace of Service and Secret
    #[arg(
        long,
        env = "SIDESCALE_NAMESPACE",
        value_name = "NAME",
        default_value = "sidescale"
    )]
    namespace: String,

    /// Another name or address that the API server calls it by: a webhook outside of the cluster
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", default_value = super::inject::IMAGE)]
    image: String,

    /// A kubeconfig; default: the account of the pod, else $KUBECONFIG, else ~/.kube/config
    #[arg(long, env = "SIDESCALE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

// === impl Webhook ===

impl Webhook {
    pub(super) fn start(self) -> Result<(), Failure> {
        for (flag, name) in [
            ("--service", &self.service),
            ("--namespace", &self.namespace),
        ] {
            if !is_label(name) {
                return input(&format!(
                    "{flag} is {name:?}; write up to 63 small letters, digits and hyphens"
                ));
            }
        }
        if self.manifests {
            let objects = webhook::manifests(&self.service, &self.namespace, &self.image);
            let text = inject::yaml(objects).map_err(|refusal| Failure::Other(refusal.into()))?;
            return print(&text);
        }
        control_runtime()?.block_on(self.run())
    }

    async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let account = config::Cluster {
            kubeconfig: self.kubeconfig,
            namespace: Some(self.namespace.clone()),
            target: None,
        };
        let connection = Connector::Configured(account)
            .connect()
            .await
            .map_err(|error| Failure::Input(error.into()))?;
        let settings = Settings {
            listen: self.listen,
            service: self.service,
            namespace: self.namespace,
            hosts: self.host,
            options: Options {
                image: self.image,
                classic: false,
                selector: None,
                lead: false,
                network: None,
            },
        };
        let tasks = Tasks::here();
        let running = settings
            .start(connection.client, Clock::real(), &tasks)
            .await
            .with_context(|| format!("cannot listen on {} (check --listen)", self.listen))
            .map_err(Failure::Input)?;
        info!(listen = %running.address(), "running");
        signals.heard().await;
        info!("asked to end: answering what still comes");
        tokio::select! {
            () = running.drain() => {}
            // Whoever asks twice means it.
            () = signals.heard() => {}
        }
        Ok(())
    }
}

/// A DNS label, which names of Services and namespaces are.
fn is_label(name: &str) -> bool {
    let is_inner = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
