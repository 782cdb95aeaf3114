//! Which pods a ReplicaSet gives up first, by an annotation of theirs.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::{FIELD_MANAGER, Fault, Kind, Object, rule};
use crate::clock::Clock;
use crate::fleet::{DELETION_COST, LEAST_COST};

/// The longest wait for an answer. The replicas wait for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests under way at a time: a fleet that gets smaller by a hundred is no reason for the API server to push back.
const AT_A_TIME: usize = 8;

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

    /// Marks pods to go first, and takes the mark from others. One that is gone needs none. All are tried, whatever becomes of one.
    pub async fn mark(&self, go: &[String], stay: &[String]) -> Result<(), Fault> {
        let go = go.iter().map(|pod| (pod.clone(), Some(LEAST_COST)));
        let stay = stay.iter().map(|pod| (pod.clone(), None));
        let written = go.chain(stay).map(|(pod, cost)| {
            let costs = self.clone();
            async move { costs.write(&pod, cost).await }
        });
        // Each future owns what it needs: the compiler cannot show that one which borrows may move to another thread.
        let written: Vec<_> = written.collect();
        let answers: Vec<_> = stream::iter(written).buffered(AT_A_TIME).collect().await;
        answers.into_iter().collect()
    }

    async fn write(&self, pod: &str, cost: Option<i32>) -> Result<(), Fault> {
        let rules = rule("", &["pods"], &[], &["patch"]);
        let object = Object::new(
            &self.namespace,
            pod,
            rules,
            self.clock.clone(),
            REQUEST_TIMEOUT,
        );
        let cost = cost.map(|cost| cost.to_string());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
        let params = PatchParams::apply(FIELD_MANAGER);
        let request = self.api.patch(pod, &params, &patch);
        match object.ask("patch", "pods", request).await {
            Err(fault) if fault.kind == Kind::Missing => Ok(()),
            answer => answer.map(drop),
        }
    }
}
