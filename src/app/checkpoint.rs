//! The history in its ConfigMap: read by a new leader, written every few minutes and at handover.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::ObjectMeta;
use tracing::{info, warn};

use crate::api::{Fault, Object, post_params, rule};
use crate::causes::chain;
use crate::clock::Clock;
use crate::history::{self, CheckpointError, History, Sections};

/// The key that holds the present checkpoint.
const KEY: &str = "history";
/// The key that keeps one that could not be read: a newer version may read it again.
const PREVIOUS: &str = "previous";
/// Longer than a good answer takes, and two attempts fit into a grace period.
const CALL: Duration = Duration::from_secs(5);

/// As a fault names what was asked for.
const CONFIGMAPS: &str = "configmaps";

/// Where a fleet's history is kept.
#[derive(Clone)]
pub(super) struct Store {
    api: Api<ConfigMap>,
    name: String,
    object: Object,
}

/// What came back.
pub(super) enum Loaded {
    /// The history, as it was saved.
    History(Box<History>),
    /// There is no checkpoint yet.
    Nothing,
    /// There is one and it cannot be read; it is kept under `previous`.
    Unreadable(CheckpointError),
    /// The API did not say.
    Unknown(String),
}

// === impl Store ===

impl Store {
    pub(super) fn new(client: kube::Client, namespace: &str, target: &str, clock: Clock) -> Self {
        let name = format!("sidescale-{target}-history");
        let rules = rule("", &[CONFIGMAPS], &[&name], &["get", "update"]);
        Self {
            api: Api::namespaced(client, namespace),
            object: Object::new(namespace, &name, rules, clock, CALL),
            name,
        }
    }

    /// Reads the checkpoint. One that cannot be decoded is moved out of the way and kept.
    pub(super) async fn load(&self) -> Loaded {
        let map = match self.get().await {
            Ok(map) => map,
            Err(error) => return Loaded::Unknown(error),
        };
        let Some(bytes) = map
            .as_ref()
            .and_then(|map| map.binary_data.as_ref()?.get(KEY))
        else {
            return Loaded::Nothing;
        };
        match history::decode(&bytes.0) {
            Ok((history, _sections)) => {
                info!(
                    configmap = self.name,
                    bytes = bytes.0.len(),
                    "history is back"
                );
                Loaded::History(Box::new(history))
            }
            Err(error) => {
                warn!(
                    configmap = self.name,
                    error = chain(&error),
                    "checkpoint kept as `previous`, starting without it"
                );
                let kept = bytes.0.clone();
                if let Err(failed) = self.put(map, None, Some(kept)).await {
                    warn!(
                        configmap = self.name,
                        error = failed,
                        "the unreadable checkpoint could not be moved"
                    );
                }
                Loaded::Unreadable(error)
            }
        }
    }

    /// Writes the checkpoint; what was kept as `previous` stays.
    ///
    /// Two leaders cannot overwrite each other unseen: the write carries the version that was read, and only the
    /// holder of a valid claim gets here.
    pub(super) async fn save(&self, history: &History) -> Result<(), String> {
        let bytes = history::encode(history, &Sections::new());
        let map = self.get().await?;
        self.put(map, Some(bytes), None).await
    }

    async fn get(&self) -> Result<Option<ConfigMap>, String> {
        let request = self.api.get_opt(&self.name);
        let answer = self.object.ask("get", CONFIGMAPS, request).await;
        answer.map_err(|fault| fault.to_string())
    }

    async fn put(
        &self,
        map: Option<ConfigMap>,
        present: Option<Vec<u8>>,
        previous: Option<Vec<u8>>,
    ) -> Result<(), String> {
        let fresh = map.is_none();
        let mut map = map.unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        let data = map.binary_data.get_or_insert_with(BTreeMap::new);
        if present.is_none() {
            data.remove(KEY);
        }
        data.extend(present.map(|bytes| (KEY.to_owned(), ByteString(bytes))));
        data.extend(previous.map(|bytes| (PREVIOUS.to_owned(), ByteString(bytes))));
        let params = post_params();
        let written = if fresh {
            let request = self.api.create(&params, &map);
            self.object.ask("create", CONFIGMAPS, request).await
        } else {
            let request = self.api.replace(&self.name, &params, &map);
            self.object.ask("update", CONFIGMAPS, request).await
        };
        match written {
            Ok(_map) => Ok(()),
            // The Role grants no `create`: it cannot be limited to one name.
            Err(fault) if fresh && fault.is_forbidden() => Err(missing(&fault)),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

fn missing(fault: &Fault) -> String {
    format!(
        "ConfigMap {} does not exist and may not be created (apply the empty ConfigMap that `sidescale inject` prints, \
         or grant `create` on configmaps)",
        fault.object
    )
}
