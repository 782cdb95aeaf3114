//! Which Deployment a pod belongs to: pod, its ReplicaSet, its Deployment.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;

use crate::clock::Clock;

/// The longest wait for one answer. Asked once at the start, so patience costs nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The Deployment that owns a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub deployment: String,
    /// Its uid, as the ReplicaSet names it.
    pub uid: String,
}

/// Why no Deployment was found for a pod.
#[derive(Debug, thiserror::Error)]
pub enum NoOwner {
    /// The object does not exist.
    #[error(
        "{kind} {namespace}/{name} does not exist (POD_NAME and POD_NAMESPACE must come from the downward API, or name the deployment: `--target deployment/NAME`)"
    )]
    Missing {
        /// Pod or ReplicaSet.
        kind: &'static str,
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Its controller is none, or no Deployment.
    #[error(
        "{kind} {namespace}/{name} is controlled by {by}, not by a {wanted} (name the deployment to scale: `--target deployment/NAME`)"
    )]
    OtherOwner {
        /// Pod or ReplicaSet.
        kind: &'static str,
        /// Where it is.
        namespace: String,
        /// Its name.
        name: String,
        /// What controls it.
        by: String,
        /// What should.
        wanted: &'static str,
    },
    /// The account lacks a right.
    #[error(
        "may not get {resource} {namespace}/{name} ({answer}); name the deployment with `--target deployment/NAME`, or add to the Role:\n- apiGroups: [\"{group}\"]\n  resources: [\"{resource}\"]\n  verbs: [\"get\"]"
    )]
    Forbidden {
        /// The API group.
        group: &'static str,
        /// The resource.
        resource: &'static str,
        /// Where it is.
        namespace: String,
        /// Its name.
        name: String,
        /// The API server's words.
        answer: String,
    },
    /// No answer in time.
    #[error("no answer to get {kind} {namespace}/{name} within {limit:?}")]
    TimedOut {
        /// Pod or ReplicaSet.
        kind: &'static str,
        /// Where it is.
        namespace: String,
        /// Its name.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// Anything else.
    #[error("could not get {kind} {namespace}/{name}")]
    Failed {
        /// Pod or ReplicaSet.
        kind: &'static str,
        /// Where it is.
        namespace: String,
        /// Its name.
        name: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A step from an object to its controller.
struct Step<'a> {
    kind: &'static str,
    group: &'static str,
    resource: &'static str,
    wanted: &'static str,
    namespace: &'a str,
    name: &'a str,
}

/// Finds the Deployment that owns the pod `namespace/pod`: two requests.
pub async fn owner_of_pod(
    client: kube::Client,
    namespace: &str,
    pod: &str,
    clock: &Clock,
) -> Result<Owner, NoOwner> {
    let step = Step {
        kind: "pod",
        group: "",
        resource: "pods",
        wanted: "ReplicaSet",
        namespace,
        name: pod,
    };
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let found = clock.timeout(REQUEST_TIMEOUT, pods.get(pod)).await;
    let found = step.answer(found.ok())?;
    let set = step.controller(&found.metadata)?;
    let step = Step {
        kind: "replicaset",
        group: "apps",
        resource: "replicasets",
        wanted: "Deployment",
        namespace,
        name: &set.name,
    };
    let sets = Api::<ReplicaSet>::namespaced(client, namespace);
    let found = clock.timeout(REQUEST_TIMEOUT, sets.get(&set.name)).await;
    let found = step.answer(found.ok())?;
    let deployment = step.controller(&found.metadata)?;
    Ok(Owner {
        deployment: deployment.name,
        uid: deployment.uid,
    })
}

// === impl Step ===

impl Step<'_> {
    /// `None`: no answer came in time.
    fn answer<T>(&self, answer: Option<Result<T, kube::Error>>) -> Result<T, NoOwner> {
        let (kind, namespace, name) = (self.kind, self.namespace.to_owned(), self.name.to_owned());
        match answer {
            Some(Ok(found)) => Ok(found),
            None => Err(NoOwner::TimedOut {
                kind,
                namespace,
                name,
                limit: REQUEST_TIMEOUT,
            }),
            Some(Err(kube::Error::Api(status))) if status.is_not_found() => Err(NoOwner::Missing {
                kind,
                namespace,
                name,
            }),
            Some(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                Err(NoOwner::Forbidden {
                    group: self.group,
                    resource: self.resource,
                    namespace,
                    name,
                    answer: status.message.clone(),
                })
            }
            Some(Err(error)) => Err(NoOwner::Failed {
                kind,
                namespace,
                name,
                source: Box::new(error),
            }),
        }
    }

    fn controller(&self, metadata: &ObjectMeta) -> Result<OwnerReference, NoOwner> {
        let mut owners = metadata.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true)).cloned();
        let by = match controller {
            Some(owner) if owner.kind == self.wanted => return Ok(owner),
            Some(owner) => Shown(Some(&owner)).to_string(),
            None => Shown(None).to_string(),
        };
        Err(NoOwner::OtherOwner {
            kind: self.kind,
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            by,
            wanted: self.wanted,
        })
    }
}

struct Shown<'a>(Option<&'a OwnerReference>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(owner) => write!(f, "{} {}", owner.kind, owner.name),
            None => f.write_str("nothing"),
        }
    }
}
