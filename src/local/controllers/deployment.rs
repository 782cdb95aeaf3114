//! The controller of Deployments: one `ReplicaSet` per template, sized by the rollout's arithmetic.
//!
//! One simplification: a Deployment that is scaled in the middle of a rollout gives the difference to the new set and
//! the rollout's bounds, where the real one shares it among the sets in proportion.

use std::sync::Arc;

use serde_json::{Value, json};

use super::replicaset::resize;
use super::rollout::{Size, Strategy};
use super::{Turn, controlled, reference, set_count};
use crate::local::delete::{self, Wish};
use crate::local::json::{copy, elements, number, set, text};
use crate::local::kind::Kind;
use crate::local::names;
use crate::local::refusal::Refusal;
use crate::local::store::{Key, Objects};
use crate::local::verbs;

const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

type Sets = Vec<(Key, Arc<Value>)>;

/// Makes the set of the present template, sizes all sets, drops those beyond the history, and writes the status.
pub(super) fn reconcile(
    objects: &mut Objects,
    key: &Key,
    deployment: &Value,
    turn: &Turn,
) -> Result<(), Refusal> {
    let uid = text(deployment, "/metadata/uid");
    let (new, mut old): (Sets, Sets) = controlled(objects, Kind::ReplicaSet, key, uid)
        .into_iter()
        .partition(|(_key, set)| is_of_template(set, deployment));
    old.sort_by_key(|(_key, set)| revision(set));
    let paused = deployment.pointer("/spec/paused") == Some(&Value::Bool(true));
    match new.first() {
        None if !paused => make_set(objects, key, deployment, &old, turn)?,
        None => {}
        Some(new) => size_sets(objects, deployment, new, &old, turn)?,
    }
    drop_history(objects, deployment, &old, turn)?;
    let status = status(objects, deployment, new.first(), &old, turn);
    let revision = new.first().map_or(0, |(_key, set)| revision(set));
    let annotations = (revision > 0).then(|| (REVISION, revision.to_string()));
    turn.write_status(objects, key, status, annotations.as_slice())
}

/// Whether the set's template is the Deployment's, apart from the hash that tells its pods from others.
fn is_of_template(set: &Value, deployment: &Value) -> bool {
    let mut template = set.pointer("/spec/template").cloned().unwrap_or_default();
    super::set(
        &mut template,
        &["metadata", "labels", HASH_LABEL],
        Value::Null,
    );
    Some(&template) == deployment.pointer("/spec/template")
}

fn revision(set: &Value) -> i64 {
    set.pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(REVISION))
        .and_then(Value::as_str)
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0)
}

/// Makes the set of the present template, empty: the next round sizes it.
fn make_set(
    objects: &mut Objects,
    key: &Key,
    deployment: &Value,
    old: &Sets,
    turn: &Turn,
) -> Result<(), Refusal> {
    let template = deployment.pointer("/spec/template").unwrap_or(&Value::Null);
    let hash = names::hash(&template.to_string());
    let next = old
        .iter()
        .map(|(_key, set)| revision(set))
        .max()
        .unwrap_or(0)
        + 1;
    let mut made = json!({
        "metadata": {
            "name": format!("{}-{hash}", key.name),
            "ownerReferences": [reference(Kind::Deployment, deployment)],
        },
        "spec": {"replicas": 0},
    });
    copy(&mut made, deployment, &["spec", "selector"]);
    copy(&mut made, deployment, &["spec", "template"]);
    copy(&mut made, deployment, &["spec", "minReadySeconds"]);
    let labels = template
        .pointer("/metadata/labels")
        .cloned()
        .unwrap_or_default();
    set(&mut made, &["metadata", "labels"], labels);
    for path in [
        &["metadata", "labels", HASH_LABEL][..],
        &["spec", "selector", "matchLabels", HASH_LABEL],
        &["spec", "template", "metadata", "labels", HASH_LABEL],
    ] {
        set(&mut made, path, hash.clone().into());
    }
    super::annotate(&mut made, &[(REVISION, next.to_string())]);
    verbs::create(
        objects,
        Kind::ReplicaSet,
        &key.namespace,
        made,
        &turn.writer,
    )?;
    Ok(())
}

fn size_sets(
    objects: &mut Objects,
    deployment: &Value,
    new: &(Key, Arc<Value>),
    old: &Sets,
    turn: &Turn,
) -> Result<(), Refusal> {
    let replicas = number(deployment, "/spec/replicas").unwrap_or(0);
    let strategy = Strategy::of(deployment);
    let sizes: Vec<Size> = old.iter().map(|(_key, set)| size(set)).collect();
    let old_pods = old
        .iter()
        .map(|(key, set)| controlled(objects, Kind::Pod, key, text(set, "/metadata/uid")).len())
        .sum();
    let annotations = [
        (DESIRED, replicas.to_string()),
        (MAXIMUM, strategy.maximum(replicas).to_string()),
    ];
    let grown = strategy.grow(replicas, size(&new.1), &sizes, old_pods);
    resize(objects, &new.0, grown, &annotations, turn)?;
    if grown > size(&new.1).asked {
        // The room that the new ones took is not there for this round.
        return Ok(());
    }
    let shrunk = strategy.shrink(replicas, size(&new.1), &sizes);
    for ((key, _set), size) in old.iter().zip(shrunk) {
        resize(objects, key, size, &annotations, turn)?;
    }
    Ok(())
}

fn size(set: &Value) -> Size {
    Size {
        asked: number(set, "/spec/replicas").unwrap_or(0),
        available: number(set, "/status/availableReplicas").unwrap_or(0),
    }
}

/// Deletes the oldest sets without pods beyond `revisionHistoryLimit`.
fn drop_history(
    objects: &mut Objects,
    deployment: &Value,
    old: &Sets,
    turn: &Turn,
) -> Result<(), Refusal> {
    let empty: Vec<&Key> = old
        .iter()
        .filter(|(_key, set)| {
            size(set).asked == 0 && number(set, "/status/replicas").unwrap_or(0) == 0
        })
        .map(|(key, _set)| key)
        .collect();
    let kept = number(deployment, "/spec/revisionHistoryLimit").unwrap_or(10);
    let surplus = empty
        .len()
        .saturating_sub(usize::try_from(kept).unwrap_or(0));
    for key in empty.into_iter().take(surplus) {
        delete::delete(objects, key, &Wish::default(), turn.now, &turn.writer)?;
    }
    Ok(())
}

fn status(
    objects: &Objects,
    deployment: &Value,
    new: Option<&(Key, Arc<Value>)>,
    old: &Sets,
    turn: &Turn,
) -> Value {
    // As they are after this round's sizing.
    let fresh = |key: &Key| objects.get(key).cloned();
    let new = new.and_then(|(key, _set)| fresh(key));
    let sets: Vec<Arc<Value>> = old
        .iter()
        .filter_map(|(key, _set)| fresh(key))
        .chain(new.clone())
        .collect();
    let sum = |pointer: &str| -> i64 { sets.iter().filter_map(|set| number(set, pointer)).sum() };
    let updated = new
        .as_ref()
        .and_then(|set| number(set, "/status/replicas"))
        .unwrap_or(0);
    let available = sum("/status/availableReplicas");
    let mut status = json!({
        "observedGeneration": number(deployment, "/metadata/generation").unwrap_or(0),
        "terminatingReplicas": sum("/status/terminatingReplicas"),
    });
    for (field, count) in [
        ("replicas", sum("/status/replicas")),
        ("updatedReplicas", updated),
        ("readyReplicas", sum("/status/readyReplicas")),
        ("availableReplicas", available),
        (
            "unavailableReplicas",
            (sum("/spec/replicas") - available).max(0),
        ),
    ] {
        set_count(&mut status, field, count);
    }
    let name = new.as_ref().map_or("", |set| text(set, "/metadata/name"));
    let conditions = [
        available_condition(deployment, available),
        progressing_condition(deployment, &status, name),
    ]
    .map(|condition| since(deployment, condition, &turn.writer.time));
    set(&mut status, &["conditions"], conditions.to_vec().into());
    status
}

fn available_condition(deployment: &Value, available: i64) -> Value {
    let replicas = number(deployment, "/spec/replicas").unwrap_or(0);
    if available >= Strategy::of(deployment).minimum(replicas) {
        json!({
            "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
        })
    } else {
        json!({
            "type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable",
            "message": "Deployment does not have minimum availability.",
        })
    }
}

/// Progressing means rolling out: a Deployment whose rollout is complete stays so while it is only scaled.
fn progressing_condition(deployment: &Value, status: &Value, set: &str) -> Value {
    const COMPLETE: &str = "NewReplicaSetAvailable";
    let replicas = number(deployment, "/spec/replicas").unwrap_or(0);
    let count = |field: &str| number(status, &format!("/{field}")).unwrap_or(0);
    let all_new = count("replicas") == count("updatedReplicas");
    let complete =
        all_new && count("updatedReplicas") == replicas && count("availableReplicas") == replicas;
    let was_complete = elements(deployment, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/reason") == COMPLETE);
    let (reason, how) = if complete || (was_complete && all_new) {
        (COMPLETE, "has successfully progressed.")
    } else {
        ("ReplicaSetUpdated", "is progressing.")
    };
    json!({
        "type": "Progressing", "status": "True", "reason": reason,
        "message": format!("ReplicaSet \"{set}\" {how}"),
    })
}

/// Dates a condition: since when it has its status, and when it last changed at all.
fn since(deployment: &Value, mut condition: Value, now: &str) -> Value {
    let was = elements(deployment, "/status/conditions")
        .iter()
        .find(|was| was["type"] == condition["type"]);
    let kept = |field: &str, same: bool| match was {
        Some(was) if same => was[field].clone(),
        Some(_) | None => now.into(),
    };
    let same_status = was.is_some_and(|was| was["status"] == condition["status"]);
    let same = same_status && was.is_some_and(|was| was["reason"] == condition["reason"]);
    condition["lastTransitionTime"] = kept("lastTransitionTime", same_status);
    condition["lastUpdateTime"] = kept("lastUpdateTime", same);
    condition
}
