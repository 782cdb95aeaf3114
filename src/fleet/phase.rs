//! What one pod object says: its phase in our words, and the moments that Kubernetes stamped on it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::clock::Timestamp;
use crate::fleet::PodPhase;

/// The label by which a Deployment tells the pods of its revisions apart.
pub(super) const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// How much later than the pod's start the Ready condition must have moved to mean that the pod was Ready before.
///
/// The kubelet stamps `Ready=False` with its first status, in the same second or the next as `startTime`, and the stamp
/// stays until the condition moves. Halved, a slow first status would make a loading pod look like a failed one; doubled,
/// a pod that fell over within ten seconds of its start would look as if it still loaded.
const FIRST_STATUS_WITHIN: Duration = Duration::from_secs(5);

/// Whether a pod still counts: one that Succeeded or Failed (an evicted one, say) is a record, not a pod.
pub(crate) fn exists(pod: &Pod) -> bool {
    !matches!(status_phase(pod), Some("Succeeded" | "Failed"))
}

/// The pod's phase. `was_ready`: somebody has seen it Ready before.
pub(super) fn phase(pod: &Pod, was_ready: bool) -> PodPhase {
    if pod.metadata.deletion_timestamp.is_some() {
        return PodPhase::Terminating;
    }
    let is_ready = is_ready(pod);
    let is_running = status_phase(pod) == Some("Running");
    match (is_ready, was_ready, is_running) {
        (true, _, _) => PodPhase::Ready,
        (false, true, _) => PodPhase::Unready,
        (false, false, true) => PodPhase::Starting,
        (false, false, false) => PodPhase::Pending,
    }
}

/// Of pods that are equally ready, a ReplicaSet gives up those with the least first (Kubernetes' documentation of ReplicaSet).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The least that Kubernetes takes: below whatever others have written.
pub const LEAST_COST: i32 = i32::MIN;

/// Whether it is marked to go.
pub(super) fn is_marked(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()) == Some(LEAST_COST)
}

/// Whether Kubernetes says that it is Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == "True")
}

/// Whether the object itself shows that the pod was Ready once, though it is not now.
pub(super) fn shows_it_was_ready(pod: &Pod) -> bool {
    let moved = ready_condition(pod)
        .filter(|ready| ready.status != "True")
        .and_then(|ready| ready.last_transition_time.as_ref());
    let started = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    match (moved, started) {
        (Some(moved), Some(started)) => {
            timestamp(moved).since(timestamp(started)) > FIRST_STATUS_WITHIN
        }
        _ => false,
    }
}

/// From the creation to the moment it turned Ready, by Kubernetes' own stamps (whole seconds).
pub(super) fn stamped_start(pod: &Pod) -> Option<Duration> {
    let ready = ready_condition(pod).filter(|ready| ready.status == "True")?;
    let moved = timestamp(ready.last_transition_time.as_ref()?);
    Some(moved.since(created(pod)?))
}

/// When it was created, by the API server's clock.
pub(super) fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(timestamp)
}

/// Which revision of the pod template it comes from.
pub(super) fn template_hash(pod: &Pod) -> Option<&str> {
    let labels = pod.metadata.labels.as_ref()?;
    labels.get(TEMPLATE_HASH_LABEL).map(String::as_str)
}

fn status_phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

fn timestamp(time: &Time) -> Timestamp {
    Timestamp::from_millis(time.0.as_millisecond())
}
