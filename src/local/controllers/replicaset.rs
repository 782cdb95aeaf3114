//! The controller of `ReplicaSets`: as many pods as asked for, and which of them go first.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Turn, controlled, reference, set_count, time_of};
use crate::clock::Timestamp;
use crate::local::delete::{self, Wish};
use crate::local::json::{copy, elements, has, number, set, text};
use crate::local::kind::Kind;
use crate::local::refusal::Refusal;
use crate::local::selector;
use crate::local::store::{Key, Objects};
use crate::local::verbs;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Makes or deletes pods until there are as many as `spec.replicas`, and writes the status.
pub(super) fn reconcile(
    objects: &mut Objects,
    key: &Key,
    set: &Value,
    turn: &mut Turn,
) -> Result<(), Refusal> {
    let uid = text(set, "/metadata/uid");
    let pods = controlled(objects, Kind::Pod, key, uid);
    let ending = pods
        .iter()
        .filter(|(_key, pod)| has(pod, "/metadata/deletionTimestamp"))
        .count();
    let active: Vec<(Key, Arc<Value>)> = pods
        .into_iter()
        .filter(|(_key, pod)| is_active(pod))
        .collect();
    let wanted = usize::try_from(number(set, "/spec/replicas").unwrap_or(0)).unwrap_or(0);
    for _missing in active.len()..wanted {
        let pod = pod_of(set);
        verbs::create(objects, Kind::Pod, &key.namespace, pod, &turn.writer)?;
    }
    if active.len() > wanted {
        let surplus = active.len() - wanted;
        for victim in victims(&active, turn.now).into_iter().take(surplus) {
            delete::delete(objects, &victim, &Wish::default(), turn.now, &turn.writer)?;
        }
    }
    let status = status(set, &active, ending, turn);
    turn.write_status(objects, key, status, &[])
}

/// Counts as a replica: neither over nor being deleted.
fn is_active(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        && !has(pod, "/metadata/deletionTimestamp")
}

fn pod_of(set: &Value) -> Value {
    let mut pod = json!({"metadata": {
        "generateName": format!("{}-", text(set, "/metadata/name")),
        "ownerReferences": [reference(Kind::ReplicaSet, set)],
    }});
    let template = set.pointer("/spec/template").unwrap_or(&Value::Null);
    for path in [
        &["metadata", "labels"][..],
        &["metadata", "annotations"],
        &["metadata", "finalizers"],
        &["spec"],
    ] {
        copy(&mut pod, template, path);
    }
    pod
}

fn status(set: &Value, active: &[(Key, Arc<Value>)], ending: usize, turn: &mut Turn) -> Value {
    let min_ready = Duration::from_secs(
        number(set, "/spec/minReadySeconds")
            .and_then(|secs| u64::try_from(secs).ok())
            .unwrap_or(0),
    );
    let template_labels = set
        .pointer("/spec/template/metadata/labels")
        .cloned()
        .unwrap_or_default();
    let as_template = json!({"matchLabels": template_labels});
    let (mut labeled, mut ready, mut available) = (0, 0, 0);
    for (_key, pod) in active {
        labeled += i64::from(selector::selects(
            &as_template,
            pod.pointer("/metadata/labels"),
        ));
        let Some(since) = ready_since(pod) else {
            continue;
        };
        ready += 1;
        let at = since + min_ready;
        if at <= turn.now {
            available += 1;
        } else {
            turn.wake = Some(turn.wake.map_or(at, |wake| wake.min(at)));
        }
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut status = json!({
        "replicas": count(active.len()),
        "terminatingReplicas": count(ending),
        "observedGeneration": number(set, "/metadata/generation").unwrap_or(0),
    });
    set_count(&mut status, "fullyLabeledReplicas", labeled);
    set_count(&mut status, "readyReplicas", ready);
    set_count(&mut status, "availableReplicas", available);
    status
}

/// Since when the pod is ready, if it is.
pub(super) fn ready_since(pod: &Value) -> Option<Timestamp> {
    elements(pod, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == "Ready")
        .filter(|condition| text(condition, "/status") == "True")
        .map(|condition| {
            time_of(text(condition, "/lastTransitionTime")).unwrap_or(Timestamp::from_millis(0))
        })
}

/// The pods in the order in which they are given up.
fn victims(pods: &[(Key, Arc<Value>)], now: Timestamp) -> Vec<Key> {
    let mut ranked: Vec<(&Key, Rank)> = pods
        .iter()
        .map(|(key, pod)| (key, Rank::of(pod, pods)))
        .collect();
    ranked.sort_by(|(_, a), (_, b)| a.order(b, now));
    ranked.into_iter().map(|(key, _rank)| key.clone()).collect()
}

/// What decides which pod goes first, in the real controller's order (`ActivePodsWithRanks`).
struct Rank {
    assigned: bool,
    phase: u8,
    ready: Option<Timestamp>,
    cost: i64,
    beside: usize,
    restarts: i64,
    created: Option<Timestamp>,
    uid: String,
}

// === impl Rank ===

impl Rank {
    fn of(pod: &Value, all: &[(Key, Arc<Value>)]) -> Self {
        let node = text(pod, "/spec/nodeName");
        let cost = pod
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(DELETION_COST))
            .and_then(Value::as_str)
            .and_then(|cost| cost.parse().ok());
        Self {
            assigned: !node.is_empty(),
            phase: match text(pod, "/status/phase") {
                "Pending" => 0,
                "Running" => 2,
                _ => 1,
            },
            ready: ready_since(pod),
            cost: cost.unwrap_or(0),
            beside: all
                .iter()
                .filter(|(_key, other)| !node.is_empty() && text(other, "/spec/nodeName") == node)
                .count(),
            restarts: elements(pod, "/status/containerStatuses")
                .iter()
                .filter_map(|status| number(status, "/restartCount"))
                .max()
                .unwrap_or(0),
            created: time_of(text(pod, "/metadata/creationTimestamp")),
            uid: text(pod, "/metadata/uid").to_owned(),
        }
    }

    /// The lesser goes first.
    fn order(&self, other: &Self, now: Timestamp) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.is_some().cmp(&other.ready.is_some()))
            .then(self.cost.cmp(&other.cost))
            .then(other.beside.cmp(&self.beside))
            .then_with(|| self.younger(self.ready, other, other.ready, now))
            .then(other.restarts.cmp(&self.restarts))
            .then_with(|| self.younger(self.created, other, other.created, now))
    }

    /// The younger goes first, but only where it is younger by a power of two: ages within one are as good as equal and
    /// the uid decides, so that no one node or zone holds all the old pods.
    fn younger(
        &self,
        mine: Option<Timestamp>,
        other: &Self,
        others: Option<Timestamp>,
        now: Timestamp,
    ) -> Ordering {
        let (Some(mine), Some(others)) = (mine, others) else {
            return Ordering::Equal;
        };
        if mine == others {
            return Ordering::Equal;
        }
        let magnitude = |since: Timestamp| now.since(since).as_nanos().checked_ilog2();
        magnitude(mine)
            .cmp(&magnitude(others))
            .then_with(|| self.uid.cmp(&other.uid))
    }
}

/// Changes how many pods a set is to have.
pub(super) fn resize(
    objects: &mut Objects,
    key: &Key,
    size: i64,
    annotations: &[(&str, String)],
    turn: &Turn,
) -> Result<(), Refusal> {
    let current = Arc::clone(objects.find(key)?);
    let mut proposed = Value::clone(&current);
    set(&mut proposed, &["spec", "replicas"], size.into());
    super::annotate(&mut proposed, annotations);
    verbs::commit(
        objects,
        key,
        verbs::Part::Object,
        &current,
        proposed,
        &turn.writer,
    )?;
    Ok(())
}
