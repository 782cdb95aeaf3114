//! What can be done to an object: create, update, patch, scale, bind, delete; each as one step on the [`Objects`].
//!
//! The order of the checks is the real server's: a stale resourceVersion is a conflict before anything is validated,
//! a write that changes nothing makes no new version and no event.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::{self, Writer};
use super::json::{copy, elements, has, number, set, text, without_nulls};
use super::kind::Kind;
use super::merge::Style;
use super::refusal::{Cause, Refusal};
use super::store::{Key, Objects};
use super::{names, rules, selector};

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Object,
    Status,
    Scale,
}

/// What is to be written there.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The whole, as by PUT.
    Replace(Value),
    Patch(Style, Value),
}

/// Keeps a new object.
pub(super) fn create(
    objects: &mut Objects,
    kind: Kind,
    namespace: &str,
    mut object: Value,
    writer: &Writer,
) -> Result<Arc<Value>, Refusal> {
    without_nulls(&mut object);
    agrees(kind, namespace, "", &object)?;
    kind.name_type(&mut object);
    if let Some(wrong) = rules::mistyped(kind, &object) {
        return Err(unreadable(kind, &wrong));
    }
    if !matches!(text(&object, "/metadata/resourceVersion"), "" | "0") {
        return Err(Refusal::Internal(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    if kind.facts().namespaced {
        objects.find(&Key::new(Kind::Namespace, "", namespace))?;
        set(&mut object, &["metadata", "namespace"], namespace.into());
    }
    if text(&object, "/metadata/name").is_empty() && has(&object, "/metadata/generateName") {
        let prefix = text(&object, "/metadata/generateName");
        let name = format!("{prefix}{}", names::suffix(&mut objects.rng));
        set(&mut object, &["metadata", "name"], name.into());
    }
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ] {
        set(&mut object, &["metadata", field], Value::Null);
    }
    rules::default(kind, &mut object);
    rules::first_status(kind, &mut object);
    rules::validate(kind, &object)?;
    let key = Key::of(kind, &object);
    if objects.get(&key).is_some() {
        return Err(Refusal::AlreadyExists {
            kind,
            name: key.name,
        });
    }
    set(
        &mut object,
        &["metadata", "uid"],
        names::uid(&mut objects.rng).into(),
    );
    set(
        &mut object,
        &["metadata", "creationTimestamp"],
        writer.time.clone().into(),
    );
    if kind.facts().generation {
        set(&mut object, &["metadata", "generation"], 1.into());
    }
    fields::track(kind, &Value::Null, &mut object, writer);
    Ok(objects.put(key, object))
}

/// Changes an object or a part of it. A Lease may be made by a replacement, as on the real server.
pub(super) fn write(
    objects: &mut Objects,
    key: &Key,
    part: Part,
    change: Change,
    writer: &Writer,
) -> Result<Arc<Value>, Refusal> {
    let Some(current) = objects.get(key).cloned() else {
        return match change {
            Change::Replace(object)
                if key.kind == Kind::Lease && has(&object, "/metadata/resourceVersion") =>
            {
                let mut object = object;
                set(&mut object, &["metadata", "resourceVersion"], Value::Null);
                create(objects, key.kind, &key.namespace, object, writer)
            }
            Change::Replace(_) | Change::Patch(..) => Err(Refusal::not_found(key.kind, &key.name)),
        };
    };
    let proposed = if part == Part::Scale {
        let scale = changed(key, &scale_of(&current), change)?;
        with_scale(key, &current, &scale)?
    } else {
        changed(key, &current, change)?
    };
    commit(objects, key, part, &current, proposed, writer)
}

/// The `Scale` of a Deployment or ReplicaSet.
pub(super) fn scale_of(object: &Value) -> Value {
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "spec": {"replicas": number(object, "/spec/replicas").unwrap_or(0)},
        "status": {
            "replicas": number(object, "/status/replicas").unwrap_or(0),
            "selector": object.pointer("/spec/selector").map(selector::shown).unwrap_or_default(),
        },
    });
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        copy(&mut scale, object, &["metadata", field]);
    }
    scale
}

/// Gives a pod its node.
pub(super) fn bind(
    objects: &mut Objects,
    key: &Key,
    binding: &Value,
    writer: &Writer,
) -> Result<(), Refusal> {
    let current = Arc::clone(objects.find(key)?);
    let conflict = |why: String| Refusal::Conflict {
        kind: key.kind,
        subject: "pods/binding".to_owned(),
        name: key.name.clone(),
        why,
    };
    let node = text(&current, "/spec/nodeName");
    if !node.is_empty() {
        return Err(conflict(format!(
            "pod {} is already assigned to node \"{node}\"",
            key.name
        )));
    }
    if has(&current, "/metadata/deletionTimestamp") {
        return Err(conflict(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            key.name
        )));
    }
    let mut pod = Value::clone(&current);
    let target = text(binding, "/target/name");
    set(&mut pod, &["spec", "nodeName"], target.into());
    set(
        &mut pod,
        &["status", "conditions"],
        json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": writer.time}]),
    );
    fields::track(key.kind, &current, &mut pod, writer);
    objects.put(key.clone(), pod);
    Ok(())
}

/// The object that `change` makes of `current`.
fn changed(key: &Key, current: &Value, change: Change) -> Result<Value, Refusal> {
    match change {
        Change::Patch(_style, patch) if !patch.is_object() => Err(Refusal::BadRequest(
            "error decoding patch: json: cannot unmarshal it into a map[string]interface {}"
                .to_owned(),
        )),
        Change::Patch(style, patch) => {
            let mut object = current.clone();
            style.apply(&mut object, &patch);
            Ok(object)
        }
        Change::Replace(mut object) => {
            without_nulls(&mut object);
            agrees(key.kind, &key.namespace, &key.name, &object)?;
            let given = text(&object, "/metadata/uid");
            let uid = text(current, "/metadata/uid");
            if !given.is_empty() && given != uid && text(current, "/kind") != "Scale" {
                return Err(Refusal::Conflict {
                    kind: key.kind,
                    subject: key.kind.qualified(),
                    name: key.name.clone(),
                    why: format!(
                        "StorageError: invalid object, Code: 4, Key: /registry/{}/{}/{}, ResourceVersion: 0, \
                         AdditionalErrorMsg: Precondition failed: UID in precondition: {given}, UID in object meta: {uid}",
                        key.kind.facts().plural,
                        key.namespace,
                        key.name
                    ),
                });
            }
            if given.is_empty() {
                copy(&mut object, current, &["metadata", "uid"]);
            }
            if matches!(text(&object, "/metadata/resourceVersion"), "" | "0") {
                if key.kind == Kind::Lease {
                    return Err(Refusal::Invalid {
                        subject: key.kind.qualified(),
                        name: key.name.clone(),
                        causes: vec![Cause::value(
                            "metadata.resourceVersion",
                            &0,
                            "must be specified for an update",
                        )],
                    });
                }
                copy(&mut object, current, &["metadata", "resourceVersion"]);
            }
            Ok(object)
        }
    }
}

/// The object with the replicas and the precondition of a written `Scale`.
fn with_scale(key: &Key, current: &Value, scale: &Value) -> Result<Value, Refusal> {
    let mut causes = Vec::new();
    rules::at_least_zero(scale, "spec.replicas", &mut causes);
    if !causes.is_empty() {
        return Err(Refusal::Invalid {
            subject: "Scale.autoscaling".to_owned(),
            name: key.name.clone(),
            causes,
        });
    }
    let (given, uid) = (text(scale, "/metadata/uid"), text(current, "/metadata/uid"));
    if !given.is_empty() && given != uid {
        let facts = key.kind.facts();
        return Err(Refusal::Conflict {
            kind: key.kind,
            subject: format!("{}/scale.{}", facts.plural, facts.group),
            name: key.name.clone(),
            why: format!(
                "Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
            ),
        });
    }
    let mut object = current.clone();
    let replicas = number(scale, "/spec/replicas").unwrap_or(0);
    set(&mut object, &["spec", "replicas"], replicas.into());
    if has(scale, "/metadata/resourceVersion") {
        copy(&mut object, scale, &["metadata", "resourceVersion"]);
    }
    Ok(object)
}

/// Keeps the proposed object in place of the current one, if nothing speaks against it and it changes anything.
pub(super) fn commit(
    objects: &mut Objects,
    key: &Key,
    part: Part,
    current: &Arc<Value>,
    mut proposed: Value,
    writer: &Writer,
) -> Result<Arc<Value>, Refusal> {
    let kind = key.kind;
    if text(&proposed, "/metadata/resourceVersion") != text(current, "/metadata/resourceVersion") {
        return Err(Refusal::stale(kind, &key.name));
    }
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
    ] {
        copy(&mut proposed, current, &["metadata", field]);
    }
    kind.name_type(&mut proposed);
    if let Some(wrong) = rules::mistyped(kind, &proposed) {
        return Err(unreadable(kind, &wrong));
    }
    match part {
        Part::Status => rules::keep_all_but_status(kind, current, &mut proposed),
        Part::Object | Part::Scale => {
            if kind.facts().status {
                copy(&mut proposed, current, &["status"]);
            }
        }
    }
    rules::default(kind, &mut proposed);
    rules::validate(kind, &proposed)?;
    rules::validate_change(kind, current, &proposed)?;
    if proposed == **current {
        return Ok(Arc::clone(current));
    }
    if kind.facts().generation && moves_generation(kind, part, current, &proposed) {
        let generation = number(current, "/metadata/generation").unwrap_or(0) + 1;
        set(
            &mut proposed,
            &["metadata", "generation"],
            generation.into(),
        );
    }
    fields::track(kind, current, &mut proposed, writer);
    let may_go = has(&proposed, "/metadata/deletionTimestamp")
        && number(&proposed, "/metadata/deletionGracePeriodSeconds") == Some(0)
        && elements(&proposed, "/metadata/finalizers").is_empty();
    if may_go {
        // The answer is the object without its last finalizer; only its end is seen by watches.
        objects.remove(key);
        return Ok(Arc::new(proposed));
    }
    Ok(objects.put(key.clone(), proposed))
}

/// A change of the spec does; for a Deployment one of the annotations too, unless it came through `status`.
fn moves_generation(kind: Kind, part: Part, current: &Value, proposed: &Value) -> bool {
    let differs = |pointer: &str| current.pointer(pointer) != proposed.pointer(pointer);
    differs("/spec")
        || (kind == Kind::Deployment && part == Part::Object && differs("/metadata/annotations"))
}

/// Refuses a body that speaks of another object than the path does.
fn agrees(kind: Kind, namespace: &str, name: &str, object: &Value) -> Result<(), Refusal> {
    let wrong = |message: String| Err(Refusal::BadRequest(message));
    let facts = kind.facts();
    let given = text(object, "/kind");
    if !matches!(given, "" | "Scale") && given != facts.kind {
        let version = text(object, "/apiVersion");
        return wrong(format!(
            "{given} in version \"{version}\" cannot be handled as a {}",
            facts.kind
        ));
    }
    let given = text(object, "/metadata/namespace");
    if !given.is_empty() && given != namespace {
        return wrong(
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned(),
        );
    }
    let given = text(object, "/metadata/name");
    if !name.is_empty() && !given.is_empty() && given != name {
        return wrong(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ));
    }
    Ok(())
}

fn unreadable(kind: Kind, wrong: &str) -> Refusal {
    let facts = kind.facts();
    Refusal::BadRequest(format!(
        "{0} in version \"{1}\" cannot be handled as a {0}: {wrong}",
        facts.kind, facts.version
    ))
}

#[cfg(test)]
mod tests;
