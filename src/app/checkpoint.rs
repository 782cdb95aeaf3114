//! The history in its ConfigMap: read by a new leader, written every few minutes and at handover.
//!
//! What a leader has not read it never writes over, and what it writes names the version that it read or wrote last: of
//! two leaders, a newer one and one that slept, neither overwrites the other unseen.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::ObjectMeta;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::{Fault, Kind, Object, post_params, rule};
use crate::causes::chain;
use crate::clock::Clock;
use crate::history::{self, CheckpointError, History, Sections};
use crate::leader::{ANNOTATION_TERM, Leadership};

/// The key that holds the present checkpoint.
const KEY: &str = "history";
/// The key that keeps one that could not be read: a newer version may read it again.
const PREVIOUS: &str = "previous";
/// The section of a leader that saved without knowing the past: for how many milliseconds it and those before it saw
/// the whole fleet since.
const AWAITS: &str = "controller.awaits";
/// Longer than a good answer takes, and two attempts fit into a grace period.
const CALL: Duration = Duration::from_secs(5);
/// How often a write is made anew when somebody wrote in between. Others write the ConfigMap by hand, if at all: a third
/// conflict in a row is something that writes in a loop.
const ATTEMPTS: u32 = 3;

/// As a fault names what was asked for.
const CONFIGMAPS: &str = "configmaps";

/// Where a fleet's history is kept. Clones made before it was read, as the task that goes on reading holds one, share
/// nothing but the place.
#[derive(Clone)]
pub(super) struct Store {
    api: Api<ConfigMap>,
    name: String,
    object: Object,
    clock: Clock,
    leadership: watch::Receiver<Leadership>,
    term: u64,
    known: Option<Known>,
}

/// The ConfigMap as this reign knows it.
#[derive(Clone)]
struct Known {
    /// As it was read or written last; `None`: there is none.
    map: Option<ConfigMap>,
    /// What others keep beside the history: handed through.
    sections: Sections,
    /// What the next write keeps as `previous`.
    aside: Option<ByteString>,
    /// The term that was on it when it was read. The reader's may be below it, where Lease and Deployment were made anew.
    term: u64,
}

/// What came back.
pub(super) enum Loaded {
    /// The history, as it was saved.
    History {
        /// All that is remembered.
        history: Box<History>,
        /// The leader that saved it did not know the past, and the whole fleet had been seen for so long since.
        awaits: Option<Duration>,
    },
    /// There is no checkpoint yet.
    Nothing,
    /// There is one and it cannot be read; the next save keeps it under `previous`.
    Unreadable(CheckpointError),
}

/// How a write ended that was not done.
enum Unwritten {
    /// The ConfigMap is not what it was.
    Moved,
    /// For this reason.
    Failed(String),
}

// === impl Store ===

impl Store {
    pub(super) fn new(
        client: kube::Client,
        namespace: &str,
        target: &str,
        clock: Clock,
        leadership: watch::Receiver<Leadership>,
        term: u64,
    ) -> Self {
        let name = format!("sidescale-{target}-history");
        let rules = rule("", &[CONFIGMAPS], &[&name], &["get", "update"]);
        Self {
            api: Api::namespaced(client, namespace),
            object: Object::new(namespace, &name, rules, clock.clone(), CALL),
            name,
            clock,
            leadership,
            term,
            known: None,
        }
    }

    /// Whether the checkpoint was read in this reign, so that it may be written.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Reads the checkpoint. The error is for a person: the API did not say what there is.
    pub(super) async fn load(&mut self) -> Result<Loaded, String> {
        let map = self.get().await?;
        let (loaded, sections) = self.decode(map.as_ref());
        let read = map.as_ref().and_then(checkpoint);
        self.known = Some(Known {
            term: term_on(map.as_ref()),
            aside: read
                .filter(|_| matches!(loaded, Loaded::Unreadable(_)))
                .cloned(),
            map,
            sections,
        });
        Ok(loaded)
    }

    /// Writes the checkpoint, over what was read or written last and nothing else. `awaits`: see [`Loaded::History`].
    pub(super) async fn save(
        &mut self,
        history: &History,
        awaits: Option<Duration>,
    ) -> Result<(), String> {
        let Some(known) = &self.known else {
            return Err(format!(
                "ConfigMap {} was not read yet, and what is not known is not written over",
                self.name
            ));
        };
        let mut sections = known.sections.clone();
        sections.extend(awaits.map(|seen| {
            let millis = u64::try_from(seen.as_millis()).unwrap_or(u64::MAX);
            (AWAITS.to_owned(), millis.to_le_bytes().to_vec())
        }));
        let bytes = history::encode(history, &sections);
        for _attempt in 0..ATTEMPTS {
            match self.put(self.next(&bytes)).await {
                Ok(map) => {
                    if let Some(known) = &mut self.known {
                        known.map = Some(map);
                        known.aside = None;
                    }
                    return Ok(());
                }
                Err(Unwritten::Moved) => self.look_again().await?,
                Err(Unwritten::Failed(text)) => return Err(text),
            }
        }
        Err(format!(
            "ConfigMap {} changes faster than it can be written (`kubectl get configmap {} --show-managed-fields` \
             tells who writes it)",
            self.name, self.name
        ))
    }

    /// The ConfigMap with `bytes` for its checkpoint. One that could not be read moves aside in the same write: there is
    /// no moment at which it stands nowhere.
    fn next(&self, bytes: &[u8]) -> ConfigMap {
        let known = self.known.as_ref();
        let map = known.and_then(|known| known.map.clone());
        let mut map = map.unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        let data = map.binary_data.get_or_insert_default();
        data.insert(KEY.to_owned(), ByteString(bytes.to_vec()));
        if let Some(aside) = known.and_then(|known| known.aside.clone()) {
            data.insert(PREVIOUS.to_owned(), aside);
        }
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_TERM.to_owned(), self.term.to_string());
        map
    }

    /// Somebody wrote in between: a person, an older leader whose write came late, or the next leader, which then has it.
    async fn look_again(&mut self) -> Result<(), String> {
        let map = self.get().await?;
        let Some(known) = &mut self.known else {
            return Ok(());
        };
        let term = term_on(map.as_ref());
        if term > self.term.max(known.term) {
            return Err(format!(
                "ConfigMap {} was saved in term {term}, after this process's {}: another leads",
                self.name, self.term
            ));
        }
        let read = known.map.as_ref().and_then(checkpoint);
        let found = map.as_ref().and_then(checkpoint);
        // A backup that a person put back, or what an older leader knew: nobody here has read it.
        if term != self.term && found != read && known.aside.is_none() {
            known.aside = found.cloned();
        }
        known.map = map;
        Ok(())
    }

    fn decode(&self, map: Option<&ConfigMap>) -> (Loaded, Sections) {
        let Some(bytes) = map.and_then(checkpoint) else {
            return (Loaded::Nothing, Sections::new());
        };
        match history::decode(&bytes.0) {
            Ok((history, mut sections)) => {
                let bytes = bytes.0.len();
                info!(configmap = self.name, bytes, "history is back");
                // A newer program's own sections speak of a history that will be another one.
                sections.retain(|name, _| !name.starts_with("history."));
                let loaded = Loaded::History {
                    history: Box::new(history),
                    awaits: sections.remove(AWAITS).map(|bytes| millis(&bytes)),
                };
                (loaded, sections)
            }
            Err(error) => {
                warn!(
                    configmap = self.name,
                    error = chain(&error),
                    "checkpoint will be kept as `previous`, starting without it"
                );
                (Loaded::Unreadable(error), Sections::new())
            }
        }
    }

    async fn get(&self) -> Result<Option<ConfigMap>, String> {
        let request = self.api.get_opt(&self.name);
        let answer = self.object.ask("get", CONFIGMAPS, request).await;
        answer.map_err(|fault| fault.to_string())
    }

    async fn put(&self, map: ConfigMap) -> Result<ConfigMap, Unwritten> {
        let params = post_params();
        let fresh = map.metadata.resource_version.is_none();
        // The last thing before the request goes out: a process that slept must not write what it knew before.
        if !self.leads() {
            let text = "this process does not lead now, so it saves nothing";
            return Err(Unwritten::Failed(text.to_owned()));
        }
        let written = if fresh {
            let request = self.api.create(&params, &map);
            self.object.ask("create", CONFIGMAPS, request).await
        } else {
            let request = self.api.replace(&self.name, &params, &map);
            self.object.ask("update", CONFIGMAPS, request).await
        };
        written.map_err(|fault| match fault.kind {
            Kind::Missing | Kind::Conflict => Unwritten::Moved,
            // The Role grants no `create`: it cannot be limited to one name.
            Kind::Forbidden { .. } if fresh => Unwritten::Failed(missing(&fault)),
            Kind::Forbidden { .. }
            | Kind::Unauthorized { .. }
            | Kind::TimedOut(_)
            | Kind::Failed(_) => Unwritten::Failed(fault.to_string()),
        })
    }

    fn leads(&self) -> bool {
        let now = self.clock.instant();
        self.leadership.borrow().valid_claim(now).is_some()
    }
}

fn missing(fault: &Fault) -> String {
    format!(
        "ConfigMap {} does not exist and may not be created (apply the empty ConfigMap that `sidescale inject` prints, \
         or grant `create` on configmaps)",
        fault.object
    )
}

fn checkpoint(map: &ConfigMap) -> Option<&ByteString> {
    map.binary_data.as_ref()?.get(KEY)
}

/// The term that a ConfigMap was saved in; 0: in none.
fn term_on(map: Option<&ConfigMap>) -> u64 {
    let annotations = map.and_then(|map| map.metadata.annotations.as_ref());
    let term = annotations.and_then(|annotations| annotations.get(ANNOTATION_TERM)?.parse().ok());
    term.unwrap_or(0)
}

/// A section that makes no sense says all the same that the past was awaited.
fn millis(bytes: &[u8]) -> Duration {
    let millis = bytes.try_into().map_or(0, u64::from_le_bytes);
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests;
