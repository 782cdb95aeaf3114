//! Deleting: grace periods, finalizers, preconditions, and what becomes of the objects that were owned.

use std::sync::Arc;

use serde_json::Value;

use super::fields::Writer;
use super::json::{elements, has, number, set, text};
use super::kind::Kind;
use super::refusal::Refusal;
use super::store::{Key, Objects};
use crate::clock::Timestamp;

/// What a deletion asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Of pods; `None` takes the pod's own.
    pub(super) grace_secs: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
    /// The objects that this one owns stay, without an owner.
    pub(super) orphans: bool,
}

/// How far a deletion got.
#[derive(Clone, Debug)]
pub(super) enum Deleted {
    Gone(Arc<Value>),
    /// A grace period runs or a finalizer holds.
    Ending(Arc<Value>),
}

// === impl Wish ===

impl Wish {
    /// Reads `DeleteOptions`.
    pub(super) fn read(options: &Value) -> Self {
        let precondition = |field: &str| {
            let text = text(options, &format!("/preconditions/{field}"));
            (!text.is_empty()).then(|| text.to_owned())
        };
        Self {
            grace_secs: number(options, "/gracePeriodSeconds"),
            uid: precondition("uid"),
            version: precondition("resourceVersion"),
            orphans: text(options, "/propagationPolicy") == "Orphan",
        }
    }
}

/// Begins or completes the deletion of an object.
pub(super) fn delete(
    objects: &mut Objects,
    key: &Key,
    wish: &Wish,
    now: Timestamp,
    writer: &Writer,
) -> Result<Deleted, Refusal> {
    let current = Arc::clone(objects.find(key)?);
    holds(key, &current, wish)?;
    if wish.orphans {
        orphan(objects, text(&current, "/metadata/uid"), writer);
    }
    let grace = if key.kind == Kind::Pod {
        grace_of(&current, wish)
    } else {
        0
    };
    let running = number(&current, "/metadata/deletionGracePeriodSeconds");
    // A later wish can only shorten what runs.
    if running.is_some_and(|running| grace >= running && grace > 0) {
        return Ok(Deleted::Ending(current));
    }
    let free = grace == 0 && elements(&current, "/metadata/finalizers").is_empty();
    if free && key.kind != Kind::Pod {
        return Ok(Deleted::Gone(objects.remove(key).unwrap_or(current)));
    }
    // A pod's end is written before it goes, so that its last state says when it was to end.
    let mut ending = Value::clone(&current);
    if let Some(generation) = number(&current, "/metadata/generation")
        && !has(&current, "/metadata/deletionTimestamp")
    {
        let next = generation + 1;
        set(&mut ending, &["metadata", "generation"], next.into());
    }
    let end = now + std::time::Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    set(
        &mut ending,
        &["metadata", "deletionTimestamp"],
        super::rfc3339(end).into(),
    );
    set(
        &mut ending,
        &["metadata", "deletionGracePeriodSeconds"],
        grace.into(),
    );
    if ending == *current {
        return Ok(Deleted::Ending(current));
    }
    let ending = objects.put(key.clone(), ending);
    if free {
        objects.remove(key);
        return Ok(Deleted::Gone(ending));
    }
    Ok(Deleted::Ending(ending))
}

/// A pod that no kubelet has, or that has ended, needs no grace.
fn grace_of(pod: &Value, wish: &Wish) -> i64 {
    let alone = text(pod, "/spec/nodeName").is_empty();
    let over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if alone || over {
        return 0;
    }
    wish.grace_secs
        .or_else(|| number(pod, "/spec/terminationGracePeriodSeconds"))
        .unwrap_or(30)
        .max(0)
}

fn holds(key: &Key, current: &Value, wish: &Wish) -> Result<(), Refusal> {
    let conflict = |why: String| {
        Err(Refusal::Conflict {
            kind: key.kind,
            subject: key.kind.qualified_kind(),
            name: key.name.clone(),
            why,
        })
    };
    let uid = text(current, "/metadata/uid");
    if let Some(given) = wish.uid.as_ref().filter(|given| *given != uid) {
        return conflict(format!(
            "the UID in the precondition ({given}) does not match the UID in record ({uid}). The object might have \
             been deleted and then recreated"
        ));
    }
    let version = text(current, "/metadata/resourceVersion");
    if let Some(given) = wish.version.as_ref().filter(|given| *given != version) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({given}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

/// Takes the owner's name off the objects that it owns.
fn orphan(objects: &mut Objects, uid: &str, writer: &Writer) {
    let owned: Vec<(Key, Arc<Value>)> = objects
        .all()
        .filter(|(_key, object)| owners(object).any(|owner| owner == uid))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect();
    for (key, object) in owned {
        let mut freed = Value::clone(&object);
        let others: Vec<Value> = elements(&object, "/metadata/ownerReferences")
            .iter()
            .filter(|owner| text(owner, "/uid") != uid)
            .cloned()
            .collect();
        set(&mut freed, &["metadata", "ownerReferences"], others.into());
        super::fields::track(key.kind, &object, &mut freed, writer);
        objects.put(key, freed);
    }
}

/// The uids of an object's owners.
pub(super) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    elements(object, "/metadata/ownerReferences")
        .iter()
        .map(|owner| text(owner, "/uid"))
}
