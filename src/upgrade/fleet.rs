//! The pods of a Deployment, and what is asked of each.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::Error;
use crate::clock::Clock;
use crate::fleet::phase::is_ready;
use crate::fleet::sidecar;
use crate::scale::view::query;

/// How often a pod is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The pods of one Deployment.
pub(super) struct Fleet {
    client: Client,
    namespace: String,
    target: String,
}

/// One pod, as it was found.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// Of its sidecar.
    pub(super) image: String,
    /// In which list of the pod's spec the sidecar stands.
    list: &'static str,
    admin_port: i32,
    restarts: i32,
}

// === impl Fleet ===

impl Fleet {
    pub(super) fn new(client: Client, namespace: &str, target: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            target: target.to_owned(),
        }
    }

    /// `deployment/bert`.
    pub(super) fn place(&self) -> String {
        format!("deployment/{}", self.target)
    }

    pub(super) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn replica_sets(&self) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) async fn deployment(&self) -> Result<Deployment, Error> {
        let got = self.deployments().get(&self.target).await;
        got.map_err(|source| self.failed("read", source))
    }

    pub(super) fn failed(&self, what: &str, source: kube::Error) -> Error {
        Error::Api {
            what: format!("{what} {}", self.place()),
            source,
        }
    }

    /// Refuses to begin while pods come and go.
    pub(super) async fn check_settled(&self) -> Result<(), Error> {
        let deployment = self.deployment().await?;
        let (spec, status) = (
            deployment.spec.unwrap_or_default(),
            deployment.status.unwrap_or_default(),
        );
        let unsettled = |why: String| {
            Err(Error::Unsettled {
                target: self.place(),
                why,
            })
        };
        if spec.paused == Some(true) {
            return unsettled("it is paused".to_owned());
        }
        if status.observed_generation != deployment.metadata.generation {
            return unsettled("its controller has not seen its last change".to_owned());
        }
        let wanted = spec.replicas.unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or(0);
        let (ready, all) = (
            status.ready_replicas.unwrap_or(0),
            status.replicas.unwrap_or(0),
        );
        if [updated, ready, all].iter().any(|count| *count != wanted) {
            return unsettled(format!(
                "of {wanted} pods {updated} have the newest template and {ready} are ready, {all} are there"
            ));
        }
        Ok(())
    }

    /// The ReplicaSet of the newest template.
    pub(super) async fn newest(&self, deployment: &Deployment) -> Result<ReplicaSet, Error> {
        let uid = deployment.uid();
        let listed = self.replica_sets().list(&selector(deployment)).await;
        let listed = listed.map_err(|source| self.failed("list the ReplicaSets of", source))?;
        let mut used = listed.items.into_iter().filter(|set| {
            let owner = set
                .owner_references()
                .iter()
                .any(|owner| Some(&owner.uid) == uid.as_ref());
            owner
                && set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(0)
                    > 0
        });
        match (used.next(), used.next()) {
            (Some(set), None) => Ok(set),
            (None, _) => Err(self.unsettled("none of its ReplicaSets has pods")),
            (Some(_), Some(_)) => Err(self.unsettled("more than one of its ReplicaSets has pods")),
        }
    }

    fn unsettled(&self, why: &str) -> Error {
        Error::Unsettled {
            target: self.place(),
            why: why.to_owned(),
        }
    }

    /// All pods that are not on their way out.
    pub(super) async fn members(&self) -> Result<Vec<Member>, Error> {
        let pods = self.listed().await?;
        pods.iter().map(Member::of).collect()
    }

    async fn listed(&self) -> Result<Vec<Pod>, Error> {
        let deployment = self.deployment().await?;
        let listed = self.pods().list(&selector(&deployment)).await;
        let mut pods = listed
            .map_err(|source| self.failed("list the pods of", source))?
            .items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// The pod that leads; `None`: nobody does, or it is no pod of this fleet.
    pub(super) async fn leader(&self) -> Result<Option<String>, Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = leases.get_opt(&format!("sidescale-{}", self.target)).await;
        let lease = lease.map_err(|source| self.failed("read the Lease of", source))?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity);
        Ok(holder.and_then(|holder| Some(holder.rsplit_once('_')?.0.to_owned())))
    }

    /// Waits until the others can take a pod's requests.
    pub(super) async fn others_are_ready(
        &self,
        member: &Member,
        patience: Duration,
        clock: &Clock,
    ) -> Result<(), Error> {
        let began = clock.instant();
        loop {
            let pods = self.listed().await?;
            let others = pods.iter().filter(|pod| pod.name_any() != member.name);
            let unready: Vec<String> = others
                .filter(|pod| !is_ready(pod))
                .map(kube::ResourceExt::name_any)
                .collect();
            if unready.is_empty() {
                return Ok(());
            }
            if clock.instant().since(began) > patience {
                return Err(self.unsettled(&format!("{} not ready", unready.join(", "))));
            }
            clock.sleep(LOOK).await;
        }
    }

    /// Asks a pod to drain and returns when it has. It is unready from the first moment.
    pub(super) async fn drain(&self, member: &Member) -> Result<(), Error> {
        let what = || format!("drain pod {}", member.name);
        let uri = sidecar::through_the_api_server(
            &self.namespace,
            &member.name,
            member.admin_port,
            "/api/v1/drained",
        );
        let request = Request::get(uri)
            .body(Vec::new())
            .map_err(|error| Error::Api {
                what: what(),
                source: kube::Error::HttpError(error),
            })?;
        let answer = self.client.request_text(request).await;
        answer.map(drop).map_err(|source| Error::Api {
            what: what(),
            source,
        })
    }

    pub(super) async fn set_image(&self, member: &Member, image: &str) -> Result<(), Error> {
        let patch = json!({"spec": {member.list: [{"name": sidecar::NAME, "image": image}]}});
        let params = PatchParams::default();
        let patched = self
            .pods()
            .patch(&member.name, &params, &Patch::Strategic(&patch))
            .await;
        patched.map(drop).map_err(|source| Error::Api {
            what: format!("change the sidecar's image in pod {}", member.name),
            source,
        })
    }

    /// Waits until a pod's sidecar was started anew and the pod is ready; what it says of itself otherwise.
    pub(super) async fn ready_again(
        &self,
        member: &Member,
        patience: Duration,
        clock: &Clock,
    ) -> Result<Result<(), String>, Error> {
        let began = clock.instant();
        loop {
            let pod = self.pods().get(&member.name).await;
            let pod = pod.map_err(|source| self.failed("read a pod of", source))?;
            let status = status_of(&pod);
            let is_new = status
                .as_ref()
                .is_some_and(|status| status.restart_count > member.restarts && status.ready);
            if is_new && is_ready(&pod) {
                return Ok(Ok(()));
            }
            if clock.instant().since(began) > patience {
                let waiting = status.and_then(|status| status.state?.waiting);
                let why = waiting.map(|waiting| {
                    let reason = waiting.reason.unwrap_or_default();
                    format!("{reason}: {}", waiting.message.unwrap_or_default())
                });
                return Ok(Err(why.unwrap_or_else(|| {
                    "its sidecar runs and is not ready".to_owned()
                })));
            }
            clock.sleep(LOOK).await;
        }
    }
}

// === impl Member ===

impl Member {
    fn of(pod: &Pod) -> Result<Self, Error> {
        let spec = pod.spec.clone().unwrap_or_default();
        let found = sidecar::container(&spec);
        let (list, container) = found.ok_or_else(|| Error::NoSidecar(pod.name_any()))?;
        Ok(Self {
            name: pod.name_any(),
            image: container.image.clone().unwrap_or_default(),
            list,
            admin_port: sidecar::admin_port(container),
            restarts: status_of(pod).map_or(0, |status| status.restart_count),
        })
    }
}

fn selector(deployment: &Deployment) -> ListParams {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    ListParams::default().labels(&selector.map(query).unwrap_or_default())
}

fn status_of(pod: &Pod) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    all.find(|one| one.name == sidecar::NAME).cloned()
}
