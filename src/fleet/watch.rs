//! Where the pods come from: one watch on the Deployment's pods, one on those of `sidescale lead`, and one on the Deployment
//! itself.
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

use crate::leader::preference::LABEL_LEAD;

/// Room for events that the leader has not taken yet: a relist is one event, so this is a ramp of some dozen pods, each
/// with several changes. A reader that falls behind makes the watch wait; the API server keeps what follows.
pub const EVENTS_BOUND: usize = 256;

/// What the API server said.
#[derive(Clone, Debug)]
pub enum Event {
    /// Of the Deployment's pods.
    Pods(Pods),
    /// Of the leads' pods.
    Leads(Pods),
    /// The Deployment, as it is now.
    Deployment(Box<Deployment>),
    /// The Deployment is gone.
    DeploymentDeleted,
    /// A watch failed and will be tried again; what was seen last still stands.
    Lost(Lost),
}

/// What a watch on pods shows.
#[derive(Clone, Debug)]
pub enum Pods {
    /// These are all that there are.
    Listed(Vec<Pod>),
    /// One was added or changed.
    Applied(Box<Pod>),
    /// One is gone.
    Deleted(Box<Pod>),
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
    /// The pods of `sidescale lead`.
    Leads,
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
            Watched::Pods | Watched::Leads => ("", "pods", String::new()),
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

/// The query for a Deployment's members: what `selector` says and is no lead. A person may well give both the same labels.
pub fn members(selector: &str) -> String {
    format!("{selector},!{LABEL_LEAD}")
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
        () = Box::pin(watch_pods(pods, selector, Watched::Pods, &events)) => {}
        () = Box::pin(watch_deployment(deployments, name, &events)) => {}
    }
}

/// Watches the pods of `sidescale lead` for the Deployment `name` until the receiver goes or the future is dropped.
pub async fn run_leads(pods: Api<Pod>, name: &str, events: mpsc::Sender<Event>) {
    let selector = format!("{LABEL_LEAD}={name}");
    Box::pin(watch_pods(pods, &selector, Watched::Leads, &events)).await;
}

async fn watch_pods(pods: Api<Pod>, selector: &str, what: Watched, events: &mpsc::Sender<Event>) {
    let wrap = match what {
        Watched::Leads => Event::Leads,
        Watched::Pods | Watched::Deployments => Event::Pods,
    };
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
            Ok(watcher::Event::InitDone) => wrap(Pods::Listed(std::mem::take(&mut listing))),
            Ok(watcher::Event::Apply(pod)) => wrap(Pods::Applied(Box::new(slim(pod)))),
            Ok(watcher::Event::Delete(pod)) => wrap(Pods::Deleted(Box::new(slim(pod)))),
            Err(error) => Event::Lost(lost(what, &error)),
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
