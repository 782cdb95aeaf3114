//! The controllers: Deployments make `ReplicaSets`, these make pods, and what lost its owner goes.
//!
//! They read and write the store itself, one whole turn under its lock: with the same seed, clock and requests they do
//! the same. A turn runs until nothing changes any more.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::fields::Writer;
use super::json::{elements, has, set, text};
use super::kind::Kind;
use super::refusal::Refusal;
use super::store::{Key, Objects, Store};
use super::verbs::{self, Part};
use crate::clock::{Clock, Timestamp};

mod deployment;
mod garbage;
mod replicaset;
mod rollout;

/// Rounds of a turn. Three settle any change; a hundred mean that two controllers undo each other.
const ROUNDS: usize = 100;

/// What one turn works with.
#[derive(Clone, Debug)]
struct Turn {
    now: Timestamp,
    writer: Writer,
    /// When a pod that is ready becomes available, if that is still to come: the turn must be taken again then.
    wake: Option<Timestamp>,
}

/// Runs the controllers as long as the store is used. They stand still while the server is not `available`.
pub(super) async fn run(store: Arc<Store>, clock: Clock, mut available: watch::Receiver<bool>) {
    let mut changes = store.changes();
    let mut seen = 0;
    let mut wake = None;
    loop {
        if available.wait_for(|available| *available).await.is_err() {
            return;
        }
        let now = clock.now().timestamp;
        (seen, wake) = store.transact(|objects| {
            let due = wake.is_some_and(|wake| wake <= now);
            if due || concerns(objects, seen) {
                wake = take_turn(objects, now);
            }
            (objects.version(), wake)
        });
        let sleep = wake.map(|wake| wake.since(now).max(Duration::from_millis(1)));
        tokio::select! {
            moved = changes.wait_for(|version| *version != seen) => {
                if moved.is_err() {
                    return;
                }
            }
            () = clock.sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
        }
    }
}

/// Whether anything changed since `seen` that a controller looks at: a Lease renewed every second is none of it.
fn concerns(objects: &Objects, seen: u64) -> bool {
    objects.since(seen).map_or(true, |mut changes| {
        changes.any(|change| {
            change.deleted
                || matches!(
                    change.key.kind,
                    Kind::Deployment | Kind::ReplicaSet | Kind::Pod
                )
        })
    })
}

/// Brings everything to where it should be, and says when to look again although nothing changed.
fn take_turn(objects: &mut Objects, now: Timestamp) -> Option<Timestamp> {
    let mut turn = Turn {
        now,
        writer: Writer {
            manager: "kube-controller-manager".to_owned(),
            subresource: "",
            time: super::rfc3339(now),
        },
        wake: None,
    };
    for _round in 0..ROUNDS {
        let before = objects.version();
        turn.wake = None;
        garbage::sweep(objects, &turn);
        for (key, object) in living(objects, Kind::Deployment) {
            log(&key, deployment::reconcile(objects, &key, &object, &turn));
        }
        for (key, object) in living(objects, Kind::ReplicaSet) {
            let done = replicaset::reconcile(objects, &key, &object, &mut turn);
            log(&key, done);
        }
        if objects.version() == before {
            return turn.wake;
        }
    }
    tracing::error!("the embedded controllers do not come to rest");
    turn.wake
}

// === impl Turn ===

impl Turn {
    /// Writes an object's status, if it differs, and `annotations` beside it.
    fn write_status(
        &self,
        objects: &mut Objects,
        key: &Key,
        status: Value,
        annotations: &[(&str, String)],
    ) -> Result<(), Refusal> {
        let current = Arc::clone(objects.find(key)?);
        let mut proposed = Value::clone(&current);
        set(&mut proposed, &["status"], status);
        annotate(&mut proposed, annotations);
        let writer = Writer {
            subresource: "status",
            ..self.writer.clone()
        };
        verbs::commit(objects, key, Part::Status, &current, proposed, &writer)?;
        Ok(())
    }
}

/// The objects of a kind that are not being deleted.
fn living(objects: &Objects, kind: Kind) -> Vec<(Key, Arc<Value>)> {
    objects
        .of(kind, None)
        .filter(|(_key, object)| !has(object, "/metadata/deletionTimestamp"))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect()
}

fn log(key: &Key, done: Result<(), Refusal>) {
    if let Err(refusal) = done {
        let (kind, name) = (key.kind.facts().kind, &key.name);
        tracing::warn!(kind, name, %refusal, "an embedded controller could not do its work");
    }
}

/// The objects of `kind` in the owner's namespace whose controller it is.
fn controlled(objects: &Objects, kind: Kind, owner: &Key, uid: &str) -> Vec<(Key, Arc<Value>)> {
    objects
        .of(kind, Some(&owner.namespace))
        .filter(|(_key, object)| {
            elements(object, "/metadata/ownerReferences")
                .iter()
                .any(|reference| {
                    text(reference, "/uid") == uid && reference["controller"] == Value::Bool(true)
                })
        })
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect()
}

/// The reference by which an object names its controller.
fn reference(kind: Kind, owner: &Value) -> Value {
    serde_json::json!({
        "apiVersion": kind.api_version(),
        "kind": kind.facts().kind,
        "name": text(owner, "/metadata/name"),
        "uid": text(owner, "/metadata/uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn annotate(object: &mut Value, annotations: &[(&str, String)]) {
    for (name, value) in annotations {
        let path = ["metadata", "annotations", *name];
        set(object, &path, value.clone().into());
    }
}

/// Writes a count the way Go does: zero is left out.
fn set_count(status: &mut Value, field: &str, count: i64) {
    let count = if count == 0 {
        Value::Null
    } else {
        count.into()
    };
    set(status, &[field], count);
}

/// The time of an RFC 3339 text.
fn time_of(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests;
