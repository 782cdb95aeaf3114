//! The Deployment under test and what stands beside it, as `inject` would write them.

use std::ops::Range;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::Resource as _;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::api_server::{FIRST_LEAD, SIDECARS, sidecar_user};
use crate::cluster::{Cluster, from_json};
use crate::manifest;
use crate::wait::eventually;

/// Controllers answer within a second or two on an idle machine; a busy one may take many times that.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The name of every Deployment in these tests: each has a namespace of its own.
pub(crate) const TARGET: &str = "bert";

/// The Lease of the Deployment's sidecars; also the name of their Role and its binding.
pub(crate) const LEASE: &str = "sidescale-bert";

/// The Deployment of leads; also the name of their Role and its binding.
pub(crate) const LEAD: &str = "sidescale-bert-lead";

/// Where the sidecars keep their history.
pub(crate) const HISTORY: &str = "sidescale-bert-history";

/// The annotation that holds the highest term that has acted on a Deployment.
pub(crate) const TERM: &str = "sidescale.dev/term";

/// The rules that the manifest's Role has, by what they are for: a test leaves one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To elect.
    Lease,
    /// To scale.
    Scale,
    /// To stamp a term.
    Stamp,
    /// To find its Deployment and see it change.
    Deployment,
    /// To find its fellows.
    Pods,
    /// To remember.
    History,
    /// To tell.
    Events,
}

// === impl Right ===

impl Right {
    /// All that the manifest's Role holds.
    pub(crate) const ALL: [Self; 7] = [
        Self::Lease,
        Self::Scale,
        Self::Stamp,
        Self::Deployment,
        Self::Pods,
        Self::History,
        Self::Events,
    ];

    /// The manifest's rules for it.
    fn rules(self) -> Vec<Value> {
        let mut found = Vec::new();
        for rule in manifest::rules() {
            let resources = rule["resources"].as_array().into_iter().flatten();
            for resource in resources.filter(|name| Self::of(name) == self) {
                let mut rule = rule.clone();
                rule["resources"] = json!([resource]);
                found.push(rule);
            }
        }
        assert!(!found.is_empty(), "the manifest has no rule for {self:?}");
        found
    }

    /// What a resource is there for.
    fn of(resource: &Value) -> Self {
        match resource.as_str() {
            Some("leases") => Self::Lease,
            Some("deployments/scale") => Self::Scale,
            Some("deployments/status") => Self::Stamp,
            Some("deployments" | "replicasets") => Self::Deployment,
            Some("pods") => Self::Pods,
            Some("configmaps") => Self::History,
            Some("events") => Self::Events,
            _ => panic!("the manifest has a rule for {resource}, and no test knows what for"),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Creates the Deployment [`TARGET`] from `template`, which gets the label that its selector wants.
    pub(crate) async fn deploy(&self, replicas: u32, mut template: Value) -> Deployment {
        template["metadata"]["labels"]["app"] = json!(TARGET);
        let deployment = json!({
            "metadata": { "name": TARGET },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": TARGET } },
                "template": template,
            },
        });
        self.api()
            .create(&PostParams::default(), &from_json(deployment))
            .await
            .expect("the Deployment can be created")
    }

    /// Creates the empty Lease and ConfigMap, and a Role with `rights` for all sidecars.
    pub(crate) async fn grant(&self, rights: &[Right]) {
        let rules = rights.iter().flat_map(|right| right.rules()).collect();
        self.bind(LEASE, rules, 0..FIRST_LEAD).await;
        self.add_empty().await;
    }

    /// The same with the rules of sidecars that only follow.
    pub(crate) async fn grant_following(&self) {
        let (_lead, _rules, following) = manifest::of_lead();
        self.bind(LEASE, following, 0..FIRST_LEAD).await;
        self.add_empty().await;
    }

    /// A Role with `rules` for all leads.
    pub(crate) async fn grant_leads(&self, rules: Vec<Value>) {
        self.bind(LEAD, rules, FIRST_LEAD..SIDECARS).await;
    }

    /// And the right that goes with deletion costs.
    pub(crate) async fn grant_marking(&self) {
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]});
        self.bind("marking", vec![rule], 0..FIRST_LEAD).await;
    }

    async fn bind(&self, name: &str, rules: Vec<Value>, users: Range<usize>) {
        let create = PostParams::default();
        let rules: Vec<PolicyRule> = rules.into_iter().map(from_json).collect();
        let subjects: Vec<Value> = users
            .map(|number| {
                json!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": sidecar_user(number) })
            })
            .collect();
        let role = json!({ "metadata": { "name": name }, "rules": rules });
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": subjects,
        });
        let created = async {
            self.api::<Role>().create(&create, &from_json(role)).await?;
            let bindings = self.api::<RoleBinding>();
            bindings.create(&create, &from_json(binding)).await
        };
        created.await.expect("a Role can be created");
    }

    async fn add_empty(&self) {
        let create = PostParams::default();
        let created = async {
            let lease = from_json(json!({ "metadata": { "name": LEASE }, "spec": {} }));
            self.api::<Lease>().create(&create, &lease).await?;
            let history = from_json(json!({ "metadata": { "name": HISTORY } }));
            self.api::<ConfigMap>().create(&create, &history).await
        };
        created.await.expect("what inject emits can be created");
    }

    /// Creates inject's Deployment of leads for [`TARGET`], with so many of them.
    pub(crate) async fn deploy_leads(&self, replicas: u32) {
        let (mut lead, _rules, _following) = manifest::of_lead();
        lead["spec"]["replicas"] = json!(replicas);
        // Here its account is a user with a token in a kubeconfig.
        lead["spec"]["template"]["spec"]
            .as_object_mut()
            .expect("a pod has a spec")
            .remove("serviceAccountName");
        let deployments = self.api::<Deployment>();
        let created = deployments
            .create(&PostParams::default(), &from_json(lead))
            .await;
        created.expect("inject's Deployment can be created");
    }

    /// The Deployment, now.
    pub(crate) async fn deployment(&self) -> Deployment {
        self.api()
            .get(TARGET)
            .await
            .expect("the Deployment is there")
    }

    /// Waits until the controllers have nothing more to write about the Deployment, whose pods nobody runs.
    pub(crate) async fn settled(&self) {
        eventually("the controllers are done", SOON, async || {
            let deployment = self.deployment().await;
            let status = deployment.status.unwrap_or_default();
            let replica_sets = self.replica_sets().await;
            let done = status.observed_generation == deployment.metadata.generation
                && status.replicas.unwrap_or(0) == self.replicas().await
                && replica_sets.iter().all(|set| {
                    let status = set.status.as_ref();
                    status.and_then(|status| status.observed_generation) == set.metadata.generation
                })
                && status.unavailable_replicas == status.replicas;
            done.then_some(()).ok_or(format!("{status:?}"))
        })
        .await;
    }

    /// The replicas that the Deployment asks for, now.
    pub(crate) async fn replicas(&self) -> i32 {
        let spec = self.deployment().await.spec;
        let replicas = spec.and_then(|spec| spec.replicas);
        replicas.expect("the server fills in the replicas")
    }

    /// Asks for another number of replicas, as a person with kubectl would.
    pub(crate) async fn set_replicas(&self, replicas: u32) {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let deployments = self.api::<Deployment>();
        let patched = deployments
            .patch_scale(TARGET, &PatchParams::default(), &patch)
            .await;
        patched.expect("without a precondition there is no conflict");
    }

    /// The `ReplicaSet`s of the Deployment.
    pub(crate) async fn replica_sets(&self) -> Vec<ReplicaSet> {
        let list = self.api().list(&ListParams::default()).await;
        list.expect("ReplicaSets can be listed").items
    }

    /// The pods that are not on their way out.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let list = self.api::<Pod>().list(&ListParams::default()).await;
        let mut pods = list.expect("pods can be listed").items;
        pods.retain(|pod| pod.meta().deletion_timestamp.is_none());
        pods
    }

    /// The Lease, now.
    pub(crate) async fn lease(&self) -> Lease {
        self.api().get(LEASE).await.expect("the Lease is there")
    }
}

/// The smallest pod that an API server takes; nothing ever runs it.
pub(crate) fn idle_pod() -> Value {
    json!({ "spec": { "containers": [{ "name": "model", "image": "model" }] } })
}
