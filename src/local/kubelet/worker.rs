//! One pod: its containers' lives, its status at the API server, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::MANAGER;
use super::addresses::Address;
use super::container::{Life, Shared};
use super::runtime::Runtime;
use super::state::{State, containers, grace_secs};
use super::status::status;
use crate::clock::{Clock, Instant};
use crate::lifecycle::Tasks;

/// Pause before the API server is asked again that did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A pod that runs here. Dropping it kills its containers.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// The last container has ended, and the API server knows.
    over: Arc<AtomicBool>,
    /// The API server has the pod no more.
    gone: bool,
    _tasks: Tasks,
}

/// What the worker needs of the kubelet.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) clock: Clock,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) pods: Api<Pod>,
}

/// Whether a request is done with, or the pod is gone.
enum Sent {
    Done,
    Gone,
}

// === impl Worker ===

impl Worker {
    /// Starts the pod's containers.
    pub(super) fn start(context: Context, pod: Pod, address: Address) -> Self {
        let (roles, states) = containers(&pod)
            .map(|(role, container)| {
                let image = container.image.as_deref().unwrap_or_default();
                (role, State::new(image))
            })
            .unzip();
        let shared = Arc::new(Shared {
            clock: context.clock.clone(),
            runtime: Arc::clone(&context.runtime),
            ip: address.ip(),
            roles,
            states: watch::Sender::new(states),
            pod: watch::Sender::new(Arc::new(pod)),
            deadline: watch::Sender::new(None),
        });
        let tasks = Tasks::here();
        for index in 0..shared.roles.len() {
            let shared = Arc::clone(&shared);
            tasks.spawn(Life { index, shared }.run());
        }
        let over = Arc::new(AtomicBool::new(false));
        let reporting = report(context, Arc::clone(&shared), address);
        let done = Arc::clone(&over);
        tasks.spawn(async move {
            reporting.await;
            done.store(true, Ordering::Release);
        });
        let worker = Self {
            shared,
            over,
            gone: false,
            _tasks: tasks,
        };
        worker.see_deletion();
        worker
    }

    /// The pod is now wanted like this.
    pub(super) fn change(&self, pod: Pod) {
        self.shared.pod.send_replace(Arc::new(pod));
        self.see_deletion();
    }

    /// Starts the grace period when the pod is being deleted; a later, shorter one shortens it.
    fn see_deletion(&self) {
        let pod = self.shared.pod.borrow();
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        // No grace means deleted by force, and a kubelet gives the containers the pod's own grace period all the same.
        let grace = pod
            .metadata
            .deletion_grace_period_seconds
            .and_then(|secs| u64::try_from(secs).ok())
            .filter(|secs| *secs > 0)
            .unwrap_or_else(|| grace_secs(&pod));
        self.end_within(grace);
    }

    /// The pod is gone from the API server. If it was deleted by force, its containers still have its grace period.
    pub(super) fn orphan(&mut self) {
        self.gone = true;
        let secs = grace_secs(&self.shared.pod.borrow());
        if self.shared.deadline.borrow().is_none() {
            self.end_within(secs);
        }
    }

    /// Whether nothing is left of the pod, here and at the API server. A worker forgotten sooner would be started anew by
    /// the last news of its pod.
    pub(super) fn is_over(&self) -> bool {
        self.gone && self.over.load(Ordering::Acquire)
    }

    fn end_within(&self, grace: u64) {
        // From now on, not from the server's timestamp: its clock may be another, and its seconds are whole.
        let end = self.shared.clock.instant() + Duration::from_secs(grace);
        self.shared.deadline.send_if_modified(|deadline| {
            let sooner = deadline.is_none_or(|have: Instant| end < have);
            if sooner {
                *deadline = Some(end);
            }
            sooner
        });
    }
}

/// Keeps the pod's status at the API server up to date; at last, completes its deletion.
async fn report(context: Context, shared: Arc<Shared>, address: Address) {
    let mut states = shared.states.subscribe();
    let mut deadline = shared.deadline.subscribe();
    let first = Arc::clone(&shared.pod.borrow());
    let mut sent = serde_json::to_value(&first.status).unwrap_or_default();
    loop {
        let now = shared.clock.now().timestamp;
        let pod = Arc::clone(&shared.pod.borrow());
        let (wanted, ended) = {
            let states = states.borrow_and_update();
            let ended = all_ended(&states);
            (status(&pod, &states, address.ip(), &sent, now), ended)
        };
        if wanted != sent {
            match send_status(&context, &pod, &wanted).await {
                Sent::Done => sent = wanted,
                // The address is this pod's until its last container has ended.
                Sent::Gone => {
                    drop(states.wait_for(|states| all_ended(states)).await);
                    return;
                }
            }
            // It may have changed while it was being sent.
            continue;
        }
        if ended && deadline.borrow_and_update().is_some() {
            complete_deletion(&context, &pod).await;
            return;
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            changed = deadline.changed(), if ended => if changed.is_err() { return },
        }
    }
}

fn all_ended(states: &[State]) -> bool {
    states.iter().all(|state| state.ended().is_some())
}

async fn send_status(context: &Context, pod: &Pod, status: &Value) -> Sent {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    // With the uid, so that a pod of the same name that came after is not touched.
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(&patch);
    loop {
        match context.pods.patch_status(name, &parameters, &patch).await {
            Ok(_pod) => return Sent::Done,
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => {
                return Sent::Gone;
            }
            // Another pod has the name now; or this status is one that the server does not take, which is a fault here.
            Err(kube::Error::Api(refusal)) if refusal.code == 422 => {
                tracing::warn!(pod = name, %refusal, "a pod's status is refused");
                return Sent::Gone;
            }
            Err(error) => tracing::debug!(pod = name, %error, "could not write a pod's status"),
        }
        context.clock.sleep(RETRY_AFTER).await;
    }
}

async fn complete_deletion(context: &Context, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    loop {
        match context.pods.delete(name, &parameters).await {
            Ok(_deleted) => return,
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => return,
            Err(error) => tracing::debug!(pod = name, %error, "could not complete a deletion"),
        }
        context.clock.sleep(RETRY_AFTER).await;
    }
}
