//! The Lease on the API server: read, create, replace, watch; each with a time limit and an error that names the remedy.

use std::fmt;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};

use super::token::sha256_hex;
use super::{LeaseFault, Part, Record};
use crate::api::{Fault, Kind, Object, post_params, rule};
use crate::clock::{Clock, Timestamp};

/// On the Lease and the Deployment: the leader's term. On the ConfigMap of the history: the term it was saved in.
pub const ANNOTATION_TERM: &str = "sidescale.dev/term";

/// On the Lease: SHA-256 (hex) of the reign's token.
pub const ANNOTATION_TOKEN: &str = "sidescale.dev/token-sha256";

/// As a fault names what was asked for.
const LEASES: &str = "leases";

/// A Lease as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// What it says.
    pub record: Record,
    /// Its resourceVersion.
    pub version: String,
    /// The whole object: a replacement keeps the fields, labels and owners that others wrote.
    pub object: Lease,
}

/// What the watch shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    /// The Lease says this now.
    Lease(Box<Read>),
    /// The Lease is gone.
    Deleted,
}

/// How a write ended that the API server understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    /// It is done.
    Done(Box<Read>),
    /// Somebody else wrote first.
    Conflict,
}

/// One Lease on one API server. Cheap to clone.
#[derive(Clone)]
pub struct LeaseApi {
    api: Api<Lease>,
    namespace: String,
    name: String,
    object: Object,
}

// === impl LeaseApi ===

impl LeaseApi {
    /// The Lease `namespace/name` as `part` needs it, each request limited to `limit`. The client must not retry by itself: see
    /// [`without_retries`](super::without_retries).
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        part: Part,
        clock: Clock,
        limit: Duration,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            object: Object::new(namespace, name, rules(name, part), clock, limit),
        }
    }

    /// Reads the Lease; `None`: there is none.
    pub async fn get(&self) -> Result<Option<Read>, LeaseFault> {
        let request = self.api.get_opt(&self.name);
        let found = self.object.ask("get", LEASES, request).await?;
        Ok(found.map(Read::from))
    }

    /// Whether `holder` holds the Lease under the token that it showed: one request, so that a member obeys only who may
    /// write the Lease.
    pub async fn proves(&self, holder: &str, token: &str) -> Result<bool, LeaseFault> {
        Ok(self.get().await?.is_some_and(|read| {
            read.record.holder == holder && read.record.token_sha256 == sha256_hex(token)
        }))
    }

    pub(super) async fn create(&self, record: &Record) -> Result<Written, LeaseFault> {
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.name.clone());
        lease.metadata.namespace = Some(self.namespace.clone());
        write_into(&mut lease, record);
        let params = post_params();
        let request = self.api.create(&params, &lease);
        match written(self.object.ask("create", LEASES, request).await) {
            // The Role grants no `create`: it cannot be limited to one name.
            Err(LeaseFault::Api(fault)) if fault.is_forbidden() => Err(LeaseFault::Missing {
                lease: fault.object,
            }),
            written => written,
        }
    }

    /// Replaces what stands there, if it still has `version`. `base` is the object as it was read at that version.
    pub(super) async fn put(
        &self,
        base: Lease,
        record: &Record,
        version: &str,
    ) -> Result<Written, LeaseFault> {
        let mut lease = base;
        lease.metadata.name = Some(self.name.clone());
        lease.metadata.namespace = Some(self.namespace.clone());
        lease.metadata.resource_version = Some(version.to_owned());
        // A server-side field of others' writes; sending it back would claim their fields.
        lease.metadata.managed_fields = None;
        write_into(&mut lease, record);
        let params = post_params();
        let request = self.api.replace(&self.name, &params, &lease);
        written(self.object.ask("update", LEASES, request).await)
    }

    /// The changes of the Lease after `version`, until the stream breaks.
    pub(super) async fn watch(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<Shown, LeaseFault>> + Send + use<>, LeaseFault> {
        let params = WatchParams::default()
            .fields(&format!("metadata.name={}", self.name))
            .disable_bookmarks();
        let request = self.api.watch(&params, version);
        let stream = self.object.ask("watch", LEASES, request).await?;
        let object = self.object.clone();
        let broken = move |error: kube::Error| object.fault("watch", LEASES, &error).into();
        Ok(stream
            .map(move |event| match event {
                Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                    Ok(Some(Shown::Lease(Box::new(Read::from(lease)))))
                }
                Ok(WatchEvent::Deleted(_)) => Ok(Some(Shown::Deleted)),
                Ok(WatchEvent::Bookmark(_)) => Ok(None),
                Ok(WatchEvent::Error(status)) => Err(broken(kube::Error::Api(status))),
                Err(error) => Err(broken(error)),
            })
            .try_filter_map(|shown| std::future::ready(Ok(shown))))
    }
}

impl fmt::Debug for LeaseApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseApi")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

// === impl Read ===

impl From<Lease> for Read {
    fn from(object: Lease) -> Self {
        Self {
            record: record_of(&object),
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            object,
        }
    }
}

fn written(answer: Result<Lease, Fault>) -> Result<Written, LeaseFault> {
    match answer {
        Ok(lease) => Ok(Written::Done(Box::new(Read::from(lease)))),
        // A Lease that is gone is another version, too: the next read tells which.
        Err(fault) if matches!(fault.kind, Kind::Conflict | Kind::Missing) => Ok(Written::Conflict),
        Err(fault) => Err(fault.into()),
    }
}

/// The rules that the Role needs for the Lease `name`, as YAML.
fn rules(name: &str, part: Part) -> String {
    let verbs: &[&str] = if part.may_lead() {
        &["get", "watch", "update"]
    } else {
        &["get"]
    };
    rule("coordination.k8s.io", &[LEASES], &[name], verbs)
}

/// Numbers that nobody's Lease should have (negative, beyond an `i32`) count as not written.
fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let annotation = |name: &str| {
        let annotations = lease.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(name))
            .map(String::as_str)
    };
    let time = |time: Option<MicroTime>| {
        Timestamp::from_millis(time.map_or(0, |time| time.0.as_millisecond()))
    };
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lease_duration: Duration::from_secs(number(spec.lease_duration_seconds)),
        transitions: number(spec.lease_transitions),
        acquired: time(spec.acquire_time),
        renewed: time(spec.renew_time),
        token_sha256: annotation(ANNOTATION_TOKEN).unwrap_or_default().to_owned(),
        term: annotation(ANNOTATION_TERM)
            .and_then(|term| term.parse().ok())
            .unwrap_or(0),
    }
}

fn number(value: Option<i32>) -> u64 {
    value
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(0)
}

fn write_into(lease: &mut Lease, record: &Record) {
    let time = |time: Timestamp| {
        jiff::Timestamp::from_millisecond(time.as_millis())
            .ok()
            .map(MicroTime)
    };
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(record.holder.clone());
    spec.lease_duration_seconds =
        Some(i32::try_from(record.lease_duration.as_secs()).unwrap_or(i32::MAX));
    spec.lease_transitions = Some(i32::try_from(record.transitions).unwrap_or(i32::MAX));
    spec.acquire_time = time(record.acquired);
    spec.renew_time = time(record.renewed);
    let annotations = lease.metadata.annotations.get_or_insert_default();
    let mut set = |name: &str, value: Option<String>| match value {
        Some(value) => drop(annotations.insert(name.to_owned(), value)),
        None => drop(annotations.remove(name)),
    };
    set(
        ANNOTATION_TOKEN,
        Some(record.token_sha256.clone()).filter(|hash| !hash.is_empty()),
    );
    set(
        ANNOTATION_TERM,
        (record.term > 0).then(|| record.term.to_string()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_what_others_wrote_stays() {
        let mut lease = Lease::default();
        let spec = lease.spec.get_or_insert_default();
        spec.strategy = Some("OldestEmulationVersion".to_owned());
        lease.metadata.labels = Some([("team".to_owned(), "search".to_owned())].into());
        let mut record = Record {
            holder: "a_1".to_owned(),
            lease_duration: Duration::from_secs(15),
            transitions: 3,
            acquired: Timestamp::from_millis(1_700_000_000_123),
            renewed: Timestamp::from_millis(1_700_000_004_567),
            token_sha256: sha256_hex("secret"),
            term: 7,
        };
        write_into(&mut lease, &record);
        assert_eq!(record_of(&lease), record);
        record.token_sha256 = String::new();
        record.holder = String::new();
        write_into(&mut lease, &record);
        assert_eq!(record_of(&lease), record);
        assert_eq!(
            lease.spec.and_then(|spec| spec.strategy).as_deref(),
            Some("OldestEmulationVersion")
        );
        assert_eq!(lease.metadata.labels.map(|labels| labels.len()), Some(1));
    }

    #[test]
    fn an_empty_lease_is_free_and_nonsense_counts_as_not_written() {
        assert_eq!(record_of(&Lease::default()), Record::default());
        let mut lease = Lease::default();
        let spec = lease.spec.get_or_insert_default();
        spec.lease_duration_seconds = Some(-1);
        spec.lease_transitions = Some(i32::MIN);
        lease.metadata.annotations =
            Some([(ANNOTATION_TERM.to_owned(), "first".to_owned())].into());
        assert_eq!(record_of(&lease), Record::default());
    }
}
