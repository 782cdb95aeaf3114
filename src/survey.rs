//! Asks a cluster about workloads before they get their sidecar: what stands beside their pods, and how long requests take.
//!
//! It reads with the rights of whoever runs it and writes nothing. What the answers mean is judged in `inject`. Where a
//! right is missing, what it was for is left out and said; only a cluster that does not answer ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::Request;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{self, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use crate::api::{self, Fault, Kind};
use crate::clock::Clock;
use crate::fleet::phase::{exists, is_ready};
use crate::fleet::sidecar;
use crate::inject::{Node, Note, Observed, Prospect, Refusal, enough_grace, fit};
use crate::scale::view::query;

/// No answer of the API server is waited for longer: kubectl's users wait as long for a large list.
const LIMIT: Duration = Duration::from_secs(30);
/// A sidecar answers from memory, so one that has not done so by then is out of the API server's reach.
const METRICS_LIMIT: Duration = Duration::from_secs(5);
/// Requests under way at a time. Alone, a fleet of hundreds would take minutes; many more would be one client's burst.
const AT_A_TIME: usize = 8;

/// What is known of the workloads.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// In the order of the workloads.
    pub notes: Vec<Note>,
    /// What must not be applied.
    pub refusals: Vec<Refusal>,
}

/// A cluster that is asked about one workload.
struct Asker<'a> {
    client: &'a Client,
    namespace: &'a str,
    clock: &'a Clock,
    prospect: &'a Prospect,
}

/// Compares each workload with what runs in the cluster; one whose manifest names no namespace is looked for in `namespace`.
pub async fn survey(
    client: &Client,
    namespace: &str,
    clock: &Clock,
    prospects: &[Prospect],
) -> Result<Survey, Fault> {
    let mut survey = Survey::default();
    for prospect in prospects {
        let asker = Asker {
            client,
            namespace: prospect.namespace.as_deref().unwrap_or(namespace),
            clock,
            prospect,
        };
        asker.look(&mut survey).await?;
    }
    Ok(survey)
}

// === impl Asker ===

impl Asker<'_> {
    async fn look(&self, survey: &mut Survey) -> Result<(), Fault> {
        let whole = "nothing was compared with the cluster";
        let Some(pods) = self.allowed(self.pods().await, whole, survey)? else {
            return Ok(());
        };
        let unfit = "whether its pods still fit their nodes is not known";
        if let Some(nodes) = self.allowed(self.nodes(&pods).await, unfit, survey)? {
            survey.notes.extend(fit(self.prospect, &nodes));
        }
        let unseen = "how long its requests take is not known";
        if let Some(observed) = self.allowed(self.observed(&pods, survey).await, unseen, survey)? {
            match enough_grace(self.prospect, &observed) {
                Ok(note) => survey.notes.extend(note),
                Err(refusal) => survey.refusals.push(refusal),
            }
        }
        Ok(())
    }

    /// `None` where a right is missing or the object is: that is a note, and no reason not to inject.
    fn allowed<T>(
        &self,
        answer: Result<T, Fault>,
        lost: &str,
        survey: &mut Survey,
    ) -> Result<Option<T>, Fault> {
        let fault = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(fault) => fault,
        };
        let note = match &fault.kind {
            Kind::Forbidden { answer, .. } => format!(
                "{lost}, as you may not {} {} ({answer}): ask for that right, or have it looked at by who has it",
                fault.verb, fault.resource
            ),
            Kind::Missing if self.prospect.namespace.is_some() => {
                format!("{lost}, as it is not in namespace {} yet", self.namespace)
            }
            Kind::Missing => format!(
                "{lost}, as it is not in namespace {} yet: if it is in another one, say --namespace",
                self.namespace
            ),
            Kind::Unauthorized { .. } | Kind::Conflict | Kind::TimedOut(_) | Kind::Failed(_) => {
                return Err(fault);
            }
        };
        survey.notes.push(self.prospect.note(note));
        Ok(None)
    }

    /// Its pods that have a node and will go on.
    async fn pods(&self) -> Result<Vec<Pod>, Fault> {
        let name = &self.prospect.name;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let workload = self.object(self.namespace, name, LIMIT);
        let selector = match self.prospect.kind {
            "deployment" => {
                let all: Api<Deployment> = Api::namespaced(self.client.clone(), self.namespace);
                let got = workload.ask("get", "deployments", all.get(name)).await?;
                got.spec.map(|spec| spec.selector)
            }
            "statefulset" => {
                let all: Api<StatefulSet> = Api::namespaced(self.client.clone(), self.namespace);
                let got = workload.ask("get", "statefulsets", all.get(name)).await?;
                got.spec.map(|spec| spec.selector)
            }
            _ => {
                let pod = workload.ask("get", "pods", pods.get(name)).await?;
                return Ok(vec![pod].into_iter().filter(stands).collect());
            }
        };
        let theirs = ListParams::default().labels(&query(&selector.unwrap_or_default()));
        let mut pods = workload
            .ask("list", "pods", pods.list(&theirs))
            .await?
            .items;
        pods.retain(stands);
        Ok(pods)
    }

    /// The nodes that they stand on, with all that stands there.
    async fn nodes(&self, own: &[Pod]) -> Result<Vec<Node>, Fault> {
        let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in own {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            by_node
                .entry(node.unwrap_or_default())
                .or_default()
                .push(pod);
        }
        let asked = by_node.iter();
        let asked = asked.map(async |(name, own)| match self.node(name, own).await {
            // It went meanwhile, and its pods with it.
            Err(fault) if fault.kind == Kind::Missing => Ok(None),
            answer => answer.map(Some),
        });
        let answers: Vec<_> = stream::iter(asked).buffered(AT_A_TIME).collect().await;
        let nodes: Result<Vec<_>, Fault> = answers.into_iter().collect();
        Ok(nodes?.into_iter().flatten().collect())
    }

    async fn node(&self, name: &str, own: &[&Pod]) -> Result<Node, Fault> {
        let nodes: Api<v1::Node> = Api::all(self.client.clone());
        let asked = self.object("node", name, LIMIT);
        let node = asked.ask("get", "nodes", nodes.get(name)).await?;
        let pods: Api<Pod> = Api::all(self.client.clone());
        let there = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let listed = asked.ask("list", "pods in all namespaces", pods.list(&there));
        let (mut others, mut theirs) = (Vec::new(), Vec::new());
        for pod in listed.await?.items.iter().filter(|pod| stands(pod)) {
            let is_own = own.iter().any(|own| own.uid() == pod.uid());
            let list = if is_own { &mut theirs } else { &mut others };
            list.push(json(&pod.spec));
        }
        Ok(Node {
            name: name.to_owned(),
            allocatable: json(&node.status.and_then(|status| status.allocatable)),
            own: theirs,
            others,
        })
    }

    /// What the sidecars say that are there already.
    async fn observed(&self, pods: &[Pod], survey: &mut Survey) -> Result<Observed, Fault> {
        let ready = pods.iter().filter(|pod| is_ready(pod));
        let with_one = ready.filter_map(|pod| {
            let (_, container) = sidecar::container(pod.spec.as_ref()?)?;
            Some((pod.name_any(), sidecar::admin_port(container)))
        });
        let asked = with_one.map(async |(pod, port)| self.metrics(&pod, port).await);
        let answers: Vec<_> = stream::iter(asked).buffered(AT_A_TIME).collect().await;
        let (mut observed, mut silent, count) = (Observed::default(), Vec::new(), answers.len());
        for answer in answers {
            match answer {
                Ok(metrics) => observed.add(&metrics),
                Err(fault) if fault.is_forbidden() => return Err(fault),
                Err(fault) => silent.push(fault),
            }
        }
        if let Some(first) = silent.first() {
            let silent = silent.len();
            survey.notes.push(self.prospect.note(format!(
                "{silent} of {count} sidecars cannot be asked how long requests take, and theirs are not counted ({first})"
            )));
        }
        Ok(observed)
    }

    async fn metrics(&self, pod: &str, port: i32) -> Result<String, Fault> {
        let uri = sidecar::through_the_api_server(self.namespace, pod, port, "/metrics");
        let asked = self.object(self.namespace, pod, METRICS_LIMIT);
        let request = async {
            let request = Request::get(uri).body(Vec::new());
            let request = request.map_err(kube::Error::HttpError)?;
            self.client.request_text(request).await
        };
        asked.ask("get", "pods/proxy", request).await
    }

    fn object(&self, place: &str, name: &str, limit: Duration) -> api::Object {
        // The answer to a missing right is for a person, whose rules are not a Role of ours.
        api::Object::new(place, name, String::new(), self.clock.clone(), limit)
    }
}

/// Whether it takes room on a node that its successor could have.
fn stands(pod: &Pod) -> bool {
    let has_node = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    has_node && exists(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// As a manifest would have it.
fn json(part: &impl serde::Serialize) -> Value {
    // These are made of nothing but texts, numbers, lists and maps with texts for keys.
    serde_json::to_value(part).unwrap_or_default()
}
