//! Where the pods come from: one watch on the Deployment's pods and one on the Deployment itself.
//!
//! kube's watcher relists after a lost watch, backs off by itself (0.8 s to 30 s, jittered) and never gives up, so an API
//! server that is away for minutes is an event here and not an end. A relist is handed on whole: a pod that went while
//! nobody looked is missing in it, and nothing in between shows a fleet without pods.

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::core::{Expression, Selector};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc;

/// Room for events that the leader has not taken yet: a relist is one event, so this is a ramp of some dozen pods, each
/// with several changes. A reader that falls behind makes the watch wait; the API server keeps what follows.
pub const EVENTS_BOUND: usize = 256;

/// What the API server said.
#[derive(Clone, Debug)]
pub enum Event {
    /// These are all pods there are.
    Pods(Vec<Pod>),
    /// A pod was added or changed.
    PodApplied(Box<Pod>),
    /// A pod is gone.
    PodDeleted(Box<Pod>),
    /// The Deployment, as it is now.
    Deployment(Box<Deployment>),
    /// The Deployment is gone.
    DeploymentDeleted,
    /// A watch failed and will be tried again; what was seen last still stands.
    Lost(Lost),
}

/// A watch that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What was watched.
    pub what: Watched,
    /// Whether the API server refused it: retrying will not help, a missing rule must be granted.
    pub is_forbidden: bool,
    /// What went wrong, in the API server's or the client's words.
    pub text: String,
}

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The pods of the Deployment.
    Pods,
    /// The Deployment itself.
    Deployments,
}

/// The Deployment names no pods that could be watched.
#[derive(Debug, thiserror::Error)]
pub enum SelectorError {
    /// There is no selector, which the API server would not have taken.
    #[error("the deployment has no `spec.selector`")]
    Missing,
    /// An operator that this client does not know.
    #[error("the deployment's `spec.selector` cannot be read")]
    Unreadable(#[source] kube::core::ParseExpressionError),
}

impl Lost {
    /// What went wrong with the watch for the Deployment `name`, and where a right is missing the rule that grants it.
    pub fn explained(&self, name: &str) -> String {
        let text = &self.text;
        if !self.is_forbidden {
            return text.clone();
        }
        let (group, resource, names) = match self.what {
            // Watched by label, so no names can limit it.
            Watched::Pods => ("", "pods", String::new()),
            Watched::Deployments => (
                "apps",
                "deployments",
                format!("  resourceNames: [\"{name}\"]\n"),
            ),
        };
        format!(
            "{text}; the Role of this service account needs:\n- apiGroups: [\"{group}\"]\n  resources: \
             [\"{resource}\"]\n{names}  verbs: [\"get\", \"list\", \"watch\"]"
        )
    }
}

/// The label selector of a Deployment's pods, as the API server takes it.
pub fn selector(deployment: &Deployment) -> Result<String, SelectorError> {
    let spec = deployment.spec.as_ref().ok_or(SelectorError::Missing)?;
    let selector: Selector = spec
        .selector
        .clone()
        .try_into()
        .map_err(SelectorError::Unreadable)?;
    let expressions: Vec<Expression> = selector.into_iter().collect();
    if expressions.is_empty() {
        return Err(SelectorError::Missing);
    }
    Ok(Selector::from_iter(expressions).to_string())
}

/// Watches until the receiver goes or the future is dropped.
pub async fn run(
    pods: Api<Pod>,
    selector: &str,
    deployments: Api<Deployment>,
    name: &str,
    events: mpsc::Sender<Event>,
) {
    // The watches share one task, since both end together; boxed, since each keeps 8 KiB of state.
    tokio::select! {
        () = Box::pin(watch_pods(pods, selector, &events)) => {}
        () = Box::pin(watch_deployment(deployments, name, &events)) => {}
    }
}

async fn watch_pods(pods: Api<Pod>, selector: &str, events: &mpsc::Sender<Event>) {
    let config = watcher::Config::default().labels(selector);
    let mut stream = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut listing = Vec::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                listing.push(slim(pod));
                continue;
            }
            Ok(watcher::Event::InitDone) => Event::Pods(std::mem::take(&mut listing)),
            Ok(watcher::Event::Apply(pod)) => Event::PodApplied(Box::new(slim(pod))),
            Ok(watcher::Event::Delete(pod)) => Event::PodDeleted(Box::new(slim(pod))),
            Err(error) => Event::Lost(lost(Watched::Pods, &error)),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn watch_deployment(deployments: Api<Deployment>, name: &str, events: &mpsc::Sender<Event>) {
    // By name, so that a Role with `resourceNames` allows it.
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = std::pin::pin!(watcher(deployments, config).default_backoff());
    let mut is_there = false;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                is_there = false;
                continue;
            }
            Ok(watcher::Event::InitApply(deployment) | watcher::Event::Apply(deployment)) => {
                is_there = true;
                Event::Deployment(Box::new(deployment))
            }
            Ok(watcher::Event::InitDone) if is_there => continue,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => Event::DeploymentDeleted,
            Err(error) => Event::Lost(lost(Watched::Deployments, &error)),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Without what nobody here reads and a fleet of a thousand pods would carry a thousand times.
fn slim(mut pod: Pod) -> Pod {
    pod.managed_fields_mut().clear();
    pod.annotations_mut().clear();
    pod.spec = None;
    pod
}

fn lost(what: Watched, error: &watcher::Error) -> Lost {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    };
    Lost {
        what,
        is_forbidden: status.is_some_and(|status| status.code == 403),
        // kube's own text carries its source's already.
        text: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
