//! The history in its ConfigMap: read by a new leader, written every few minutes and at handover.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tracing::{info, warn};

use super::connect::chain;
use crate::clock::Clock;
use crate::history::{self, CheckpointError, History, Sections};

/// The key that holds the present checkpoint.
const KEY: &str = "history";
/// The key that keeps one that could not be read: a newer version may read it again.
const PREVIOUS: &str = "previous";
/// Longer than a good answer takes, and two attempts fit into a grace period.
const CALL: Duration = Duration::from_secs(5);

/// Where a fleet's history is kept.
#[derive(Clone)]
pub(super) struct Store {
    api: Api<ConfigMap>,
    name: String,
    clock: Clock,
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
    pub(super) fn new(api: Api<ConfigMap>, target: &str, clock: Clock) -> Self {
        Self {
            api,
            name: format!("sidescale-{target}-history"),
            clock,
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
        match self.clock.timeout(CALL, self.api.get_opt(&self.name)).await {
            Ok(Ok(map)) => Ok(map),
            Ok(Err(error)) => Err(self.explain("get", &error)),
            Err(elapsed) => Err(elapsed.to_string()),
        }
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
        let params = PostParams {
            field_manager: Some("sidescale".to_owned()),
            ..PostParams::default()
        };
        let verb = if fresh { "create" } else { "update" };
        let written = async {
            if fresh {
                self.api.create(&params, &map).await
            } else {
                self.api.replace(&self.name, &params, &map).await
            }
        };
        match self.clock.timeout(CALL, written).await {
            Ok(Ok(_map)) => Ok(()),
            Ok(Err(error)) => Err(self.explain(verb, &error)),
            Err(elapsed) => Err(elapsed.to_string()),
        }
    }

    fn explain(&self, verb: &str, error: &kube::Error) -> String {
        let text = chain(error);
        if matches!(error, kube::Error::Api(status) if status.code == 403) {
            let name = &self.name;
            return format!(
                "{text} (give the Role: apiGroups [\"\"], resources [configmaps], resourceNames [{name}], verbs [get, \
                 update], and create the empty ConfigMap; refused: {verb})"
            );
        }
        format!("cannot {verb} ConfigMap {}: {text}", self.name)
    }
}
