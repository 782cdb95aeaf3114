//! Which pods a ReplicaSet gives up first, by an annotation of theirs.

use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::{FIELD_MANAGER, Fault, Kind, Object, rule};
use crate::clock::Clock;

/// Of pods that are equally ready, a ReplicaSet gives up those with the least first (Kubernetes' documentation of ReplicaSet).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The least that Kubernetes takes: below whatever others have written.
const LEAST: i32 = i32::MIN;

/// The longest wait for the answers. The replicas wait for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes deletion costs.
#[derive(Clone, Debug)]
pub struct Costs {
    api: Api<Pod>,
    namespace: String,
    clock: Clock,
}

// === impl Costs ===

impl Costs {
    /// Of the pods of a namespace.
    pub fn new(client: kube::Client, namespace: &str, clock: Clock) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            clock,
        }
    }

    /// Marks pods to go first, and takes the mark from others. One that is gone needs none.
    pub async fn mark(&self, go: &[String], stay: &[String]) -> Result<(), Fault> {
        let go = go.iter().map(|pod| (pod, Some(LEAST.to_string())));
        let stay = stay.iter().map(|pod| (pod, None));
        let written = go.chain(stay).map(|(pod, cost)| self.write(pod, cost));
        join_all(written).await.into_iter().collect()
    }

    async fn write(&self, pod: &str, cost: Option<String>) -> Result<(), Fault> {
        let rules = rule("", &["pods"], &[], &["patch"]);
        let object = Object::new(
            &self.namespace,
            pod,
            rules,
            self.clock.clone(),
            REQUEST_TIMEOUT,
        );
        let patch = Patch::Merge(json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
        let params = PatchParams::apply(FIELD_MANAGER);
        let request = self.api.patch(pod, &params, &patch);
        match object.ask("patch", "pods", request).await {
            Err(fault) if fault.kind == Kind::Missing => Ok(()),
            answer => answer.map(drop),
        }
    }
}
