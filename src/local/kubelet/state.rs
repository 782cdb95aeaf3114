//! What the kubelet keeps of each container of a pod, and which containers a pod has.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::clock::Timestamp;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays: started before the main containers, ended after them.
    Sidecar,
    Main,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not running, for the reason that the status gives.
    Waiting(&'static str),
    Running(Timestamp),
    /// Over for good.
    Ended(Exit),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

/// What is to be said of a container in the pod's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) stage: Stage,
    pub(super) started: bool,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    pub(super) last: Option<Exit>,
    pub(super) image: String,
}

// === impl State ===

impl State {
    pub(super) fn new(image: &str) -> Self {
        Self {
            stage: Stage::Waiting("PodInitializing"),
            started: false,
            ready: false,
            restarts: 0,
            last: None,
            image: image.to_owned(),
        }
    }

    pub(super) fn ended(&self) -> Option<Exit> {
        match self.stage {
            Stage::Ended(exit) => Some(exit),
            Stage::Waiting(_) | Stage::Running(_) => None,
        }
    }
}

/// The pod's containers in the order of their starts.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let init = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .map(|container| match container.restart_policy.as_deref() {
            Some("Always") => (Role::Sidecar, container),
            _ => (Role::Init, container),
        });
    let main = pod.spec.iter().flat_map(|spec| &spec.containers);
    init.chain(main.map(|container| (Role::Main, container)))
}

/// `terminationGracePeriodSeconds` of a pod.
pub(super) fn grace_secs(pod: &Pod) -> u64 {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds)
        .and_then(|secs| u64::try_from(secs).ok())
        .unwrap_or(30)
}

/// The container of this index, in the order of [`containers`].
pub(super) fn find(pod: &Pod, index: usize) -> Option<&Container> {
    containers(pod)
        .nth(index)
        .map(|(_role, container)| container)
}
