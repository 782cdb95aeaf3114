//! Events on the Deployment: what `kubectl describe` shows of every change and every trouble.
//!
//! Written by hand. kube's `Recorder` joins Events of one reason for six minutes into the first one and keeps *its* text, so
//! "from 4 to 7" would be shown as a second "from 3 to 4"; it patches, where our Role grants `create` alone; and it reads
//! the system's clock. Here each change is one Event, and only a trouble that goes on is not said again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;

use super::DeploymentView;
use crate::api::post_params;
use crate::clock::{Clock, Instant};

/// An Event is told, not waited for: the turn goes on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The same trouble with the same words is not said again for this long. Kubernetes keeps Events for an hour: half of that
/// still leaves one to be seen at any time; none of it would write one per turn.
const REPEAT_AFTER: Duration = Duration::from_secs(30 * 60);

/// The API server refuses longer notes.
const LONGEST_NOTE_BYTES: usize = 1024;

/// The API server refuses longer instances.
const LONGEST_INSTANCE_BYTES: usize = 128;

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The replicas were changed.
    Scaled {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
        /// The plan's reasons, in words.
        why: String,
    },
    /// The replicas would have been changed, in `observe`.
    WouldScale {
        /// Now.
        from: u32,
        /// What the plan wants.
        to: u32,
        /// The plan's reasons, in words.
        why: String,
    },
    /// Another process took the lead.
    Leads {
        /// Its term.
        term: u64,
    },
    /// Something is wrong.
    Trouble {
        /// One word in camel case, as `ScaleForbidden`.
        reason: String,
        /// A sentence with the remedy.
        note: String,
    },
}

/// Writes Events on one Deployment.
pub struct Announcer {
    client: kube::Client,
    clock: Clock,
    instance: String,
    written: u64,
    troubles: BTreeMap<(String, String), Instant>,
}

// === impl Announcer ===

impl Announcer {
    /// Announces in the name of the process `identity`.
    pub fn new(client: kube::Client, identity: &str, clock: Clock) -> Self {
        Self {
            client,
            clock,
            instance: shortened(identity, LONGEST_INSTANCE_BYTES),
            written: 0,
            troubles: BTreeMap::new(),
        }
    }

    /// Writes one Event, unless it repeats a trouble. That an Event cannot be written is logged and changes nothing.
    pub async fn announce(&mut self, view: &DeploymentView, announcement: &Announcement) {
        if self.repeats(announcement) {
            return;
        }
        self.written += 1;
        let event = self.event(view, announcement);
        let api = Api::<Event>::namespaced(self.client.clone(), &view.namespace);
        let params = post_params();
        let request = api.create(&params, &event);
        match self.clock.timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(_created)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not write an Event (needs `create` on events.events.k8s.io)");
            }
            Err(elapsed) => tracing::warn!(%elapsed, "could not write an Event"),
        }
    }

    fn repeats(&mut self, announcement: &Announcement) -> bool {
        let Announcement::Trouble { reason, note } = announcement else {
            return false;
        };
        let now = self.clock.instant();
        self.troubles
            .retain(|_said, at| now.since(*at) < REPEAT_AFTER);
        let key = (reason.clone(), note.clone());
        if self.troubles.contains_key(&key) {
            return true;
        }
        self.troubles.insert(key, now);
        false
    }

    fn event(&self, view: &DeploymentView, announcement: &Announcement) -> Event {
        let now = self.clock.now().timestamp.as_millis();
        Event {
            action: Some(announcement.action().to_owned()),
            event_time: jiff::Timestamp::from_millisecond(now).ok().map(MicroTime),
            metadata: ObjectMeta {
                // Unique by time, and within a millisecond by count; only a leader writes, so processes do not meet.
                name: Some(format!("{}.{now:x}.{:x}", view.name, self.written)),
                namespace: Some(view.namespace.clone()),
                ..ObjectMeta::default()
            },
            note: Some(shortened(&announcement.note(), LONGEST_NOTE_BYTES)),
            reason: Some(announcement.reason().to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: Some("Deployment".to_owned()),
                name: Some(view.name.clone()),
                namespace: Some(view.namespace.clone()),
                uid: Some(view.uid.clone()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("sidescale.dev/sidescale".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(announcement.severity().to_owned()),
            ..Event::default()
        }
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer")
            .field("instance", &self.instance)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

// === impl Announcement ===

impl Announcement {
    fn reason(&self) -> &str {
        match self {
            Self::Scaled { from, to, .. } if to > from => "ScaledUp",
            Self::Scaled { .. } => "ScaledDown",
            Self::WouldScale { .. } => "WouldScale",
            Self::Leads { .. } => "LeaderElected",
            Self::Trouble { reason, .. } => reason,
        }
    }

    fn action(&self) -> &'static str {
        match self {
            Self::Scaled { .. } => "Scale",
            Self::WouldScale { .. } => "Observe",
            Self::Leads { .. } => "Elect",
            Self::Trouble { .. } => "Check",
        }
    }

    fn severity(&self) -> &'static str {
        match self {
            Self::Scaled { .. } | Self::WouldScale { .. } | Self::Leads { .. } => "Normal",
            Self::Trouble { .. } => "Warning",
        }
    }

    fn note(&self) -> String {
        match self {
            Self::Scaled { from, to, why } => format!("from {from} to {to} replicas: {why}"),
            Self::WouldScale { from, to, why } => {
                format!("would go from {from} to {to} replicas: {why}")
            }
            Self::Leads { term } => format!("leads in term {term}"),
            Self::Trouble { note, .. } => note.clone(),
        }
    }
}

/// At most `limit` bytes of `text`, cut between characters.
fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let ellipsis = "...";
    let room = limit - ellipsis.len();
    let end = (0..=room)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{}{ellipsis}", &text[..end])
}
