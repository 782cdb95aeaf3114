//! The Secret with the certificates, and what the API server is told to trust.
//!
//! Replicas do not elect: whoever finds something due makes it and writes it at the version that was read, and who comes
//! second reads what the first has written. What is served with is always what lies in the Secret, and only after its
//! authorities stand in the configuration.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::{info, warn};

use super::issue::{self, IssueError};
use super::renewal::{Certificate, Due, Material};
use crate::api::{FIELD_MANAGER, Fault, Kind, Object};
use crate::clock::Clock;

/// What the data of the Secret is called.
const KEY: &str = "webhook.json";
/// How long the API server may take for an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Each lost write means that another replica has won one, and each makes one thing; more than a few is not ours.
const TRIES: usize = 5;

/// Keeps the certificates of one webhook.
#[derive(Debug)]
pub struct Keeper {
    secrets: Api<Secret>,
    secret: Object,
    configurations: Api<MutatingWebhookConfiguration>,
    configuration: Object,
    name: String,
    names: Vec<String>,
    clock: Clock,
}

/// Why the certificates are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The API server refuses, or does not answer.
    #[error("{0} (apply what `sidescale webhook --manifests` prints)")]
    Api(Fault),
    /// No certificate can be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// What lies in the Secret is none.
    #[error(
        "the certificate in the Secret cannot be served with (delete its data, and a new one is made)"
    )]
    Unusable(#[source] rustls::Error),
    /// It is no PEM.
    #[error("the certificate in the Secret is no PEM (delete its data, and a new one is made)")]
    NoPem(#[source] rustls::pki_types::pem::Error),
    /// Others write the Secret all the time.
    #[error("the Secret {name} was written by somebody else {TRIES} times in a row")]
    Lost {
        /// The Secret.
        name: String,
    },
}

// === impl Keeper ===

impl Keeper {
    /// The keeper of the webhook `name`, which is called by `names`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        names: Vec<String>,
        clock: Clock,
    ) -> Self {
        let object = |group: &str, resource: &str, verbs: &str| {
            let rules = format!(
                "- apiGroups: [\"{group}\"]\n  resources: [{resource}]\n  resourceNames: [{name}]\n  verbs: [{verbs}]"
            );
            Object::new(namespace, name, rules, clock.clone(), LIMIT)
        };
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            secret: object("", "secrets", "get, update"),
            configurations: Api::all(client),
            configuration: object(
                "admissionregistration.k8s.io",
                "mutatingwebhookconfigurations",
                "get, patch",
            ),
            name: name.to_owned(),
            names,
            clock,
        }
    }

    /// Makes and tells what is due; the certificate to serve with.
    pub async fn turn(&self) -> Result<Certificate, KeeperError> {
        for _try in 0..TRIES {
            let Some(material) = self.renew().await? else {
                continue;
            };
            let bundle = material.bundle();
            if let Some(certificate) = material.certificate {
                self.publish(&bundle).await?;
                return Ok(certificate);
            }
        }
        Err(KeeperError::Lost {
            name: self.name.clone(),
        })
    }

    /// `None`: somebody else has written meanwhile.
    async fn renew(&self) -> Result<Option<Material>, KeeperError> {
        let read = self.secrets.get(&self.name);
        let mut secret = self
            .secret
            .ask("get", "secrets", read)
            .await
            .map_err(KeeperError::Api)?;
        let stored = secret.data.as_ref().and_then(|data| data.get(KEY));
        let mut material = match stored.map(|ByteString(bytes)| serde_json::from_slice(bytes)) {
            None => Material::default(),
            Some(Ok(material)) => material,
            Some(Err(error)) => {
                warn!(%error, "what lies in the Secret {} cannot be read: everything is made anew", self.name);
                Material::default()
            }
        };
        let now = self.clock.now().timestamp;
        let mut is_changed = material.forget(now);
        while let Some(due) = material.due(&self.names, now) {
            is_changed = true;
            match due {
                Due::Authority => material.authorities.push(issue::authority(now)?),
                Due::Certificate(signer) => {
                    let signer = &material.authorities[signer];
                    material.certificate = Some(issue::certificate(signer, &self.names, now)?);
                }
            }
        }
        if !is_changed {
            return Ok(Some(material));
        }
        let bytes = serde_json::to_vec(&material).unwrap_or_default();
        let data = secret.data.get_or_insert_default();
        data.insert(KEY.to_owned(), ByteString(bytes));
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let write = self.secrets.replace(&self.name, &params, &secret);
        match self.secret.ask("update", "secrets", write).await {
            Ok(_written) => {
                info!("new certificates are in the Secret {}", self.name);
                Ok(Some(material))
            }
            Err(fault) if fault.kind == Kind::Conflict => Ok(None),
            Err(fault) => Err(KeeperError::Api(fault)),
        }
    }

    /// Tells the API server whom to trust, where it does not know.
    async fn publish(&self, bundle: &str) -> Result<(), KeeperError> {
        let resource = "mutatingwebhookconfigurations";
        let read = self.configurations.get(&self.name);
        let configuration = self
            .configuration
            .ask("get", resource, read)
            .await
            .map_err(KeeperError::Api)?;
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let stale = configuration.webhooks.into_iter().flatten();
        let stale =
            stale.filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&bundle));
        let stale: Vec<_> = stale
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        // A strategic merge finds webhooks by their names and leaves everything else of them as it is.
        let patch = Patch::Strategic(json!({ "webhooks": stale }));
        let write = self.configurations.patch(&self.name, &params, &patch);
        self.configuration
            .ask("patch", resource, write)
            .await
            .map_err(KeeperError::Api)?;
        info!("the API server has been told whom to trust");
        Ok(())
    }
}
