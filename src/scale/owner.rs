//! Which Deployment a pod belongs to: pod, its ReplicaSet, its Deployment.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;

use crate::api::{Fault, Kind, Object, rule};
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
    /// A request came to nothing.
    #[error("{0}\n(or name the deployment: `--target deployment/NAME`)")]
    Api(Fault),
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
    let found = step.ask(clock, pods.get(pod)).await?;
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
    let found = step.ask(clock, sets.get(&set.name)).await?;
    let deployment = step.controller(&found.metadata)?;
    Ok(Owner {
        deployment: deployment.name,
        uid: deployment.uid,
    })
}

// === impl Step ===

impl Step<'_> {
    async fn ask<T>(
        &self,
        clock: &Clock,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, NoOwner> {
        // Names of pods and of their sets are not known beforehand: the rule cannot be limited to one.
        let rules = rule(self.group, &[self.resource], &[], &["get"]);
        let (namespace, name, clock) = (self.namespace, self.name, clock.clone());
        let object = Object::new(namespace, name, rules, clock, REQUEST_TIMEOUT);
        let answer = object.ask("get", self.resource, request).await;
        answer.map_err(|fault| {
            if fault.kind != Kind::Missing {
                return NoOwner::Api(fault);
            }
            NoOwner::Missing {
                kind: self.kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }
        })
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
