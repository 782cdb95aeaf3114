//! The cluster that the tests are given, and one namespace of it.

use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use http::Request;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::wait::eventually;

/// An image that is there already comes up at once; a node that pulls needs longer.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A namespace for one test.
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
}

/// The image that the nodes have.
#[expect(clippy::disallowed_methods, reason = "a person's wish, at the edge")]
pub(crate) fn image() -> String {
    static LOADED: Once = Once::new();
    let image = std::env::var("SIDESCALE_IMAGE").unwrap_or_else(|_unset| {
        format!("ghcr.io/sidescale/sidescale:{}", env!("CARGO_PKG_VERSION"))
    });
    LOADED.call_once(|| {
        if let Ok(command) = std::env::var("SIDESCALE_LOAD_IMAGE") {
            let loaded = Command::new("sh")
                .args(["-c", &format!("{command} {image}")])
                .status();
            assert!(
                loaded.is_ok_and(|status| status.success()),
                "SIDESCALE_LOAD_IMAGE failed: {command}"
            );
        }
    });
    image
}

// === impl Cluster ===

impl Cluster {
    /// A new namespace that enforces the `restricted` standard.
    pub(crate) async fn new(test: &str) -> Self {
        let client = Client::try_default()
            .await
            .expect("KUBECONFIG names a cluster: see tests/node/main.rs");
        let namespace = format!("sidescale-node-{test}");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        drop(
            namespaces
                .delete(&namespace, &DeleteParams::default())
                .await,
        );
        eventually(
            "what an earlier run left is gone",
            SOON,
            async || match namespaces.get_opt(&namespace).await {
                Ok(None) => Ok(()),
                there => Err(format!("{there:?}")),
            },
        )
        .await;
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let object = json!({"metadata": {"name": namespace, "labels": labels}});
        let object = serde_json::from_value(object).expect("a namespace");
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .expect("the cluster takes a namespace");
        Self { client, namespace }
    }

    /// Takes the namespace away.
    pub(crate) async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client);
        let params = DeleteParams::default();
        let gone = namespaces.delete(&self.namespace, &params).await;
        gone.expect("the namespace is there");
    }

    /// As `kubectl apply --server-side` does, in this namespace.
    pub(crate) async fn apply(&self, objects: &[Value]) {
        for object in objects {
            let resource = resource_of(object);
            let api = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
            apply_to(&api, object).await;
        }
    }

    /// The same where each object says where it belongs.
    pub(crate) async fn apply_anywhere(&self, objects: &[Value]) {
        for object in objects {
            apply_to(&self.place_of(object), object).await;
        }
    }

    /// Takes such an object away, if it is there.
    pub(crate) async fn delete_anywhere(&self, object: &Value) {
        let deleted = self
            .place_of(object)
            .delete(name_of(object), &DeleteParams::default())
            .await;
        match deleted {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{} stays: {error}", name_of(object)),
        }
    }

    fn place_of(&self, object: &Value) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), resource_of(object));
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    /// The objects of a kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn deployments(&self) -> Api<Deployment> {
        self.api()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        self.api()
    }

    pub(crate) async fn replicas(&self, name: &str) -> i32 {
        let spec = self.deployment(name).await.spec.unwrap_or_default();
        spec.replicas.unwrap_or(1)
    }

    pub(crate) async fn deployment(&self, name: &str) -> Deployment {
        self.deployments().get(name).await.expect("it is there")
    }

    /// Changes a Deployment as `kubectl patch` does.
    pub(crate) async fn patch(&self, name: &str, patch: &Value) {
        let (deployments, params) = (self.deployments(), PatchParams::default());
        let patched = deployments.patch(name, &params, &Patch::Merge(patch)).await;
        patched.expect("the patch is good");
    }

    /// Returns when all pods of a Deployment are of its newest template, ready, and no other one is left.
    pub(crate) async fn is_rolled_out(&self, name: &str, within: Duration) {
        eventually("it is rolled out", within, async || {
            // An API server on a busy machine breaks an answer off now and then; that is not what is asked here.
            let deployment = self.deployments().get(name).await;
            let deployment = deployment.map_err(|error| error.to_string())?;
            let (spec, status) = (
                deployment.spec.unwrap_or_default(),
                deployment.status.unwrap_or_default(),
            );
            let seen = status.observed_generation == deployment.metadata.generation;
            let wanted = spec.replicas.unwrap_or(1);
            let counts = [
                status.updated_replicas,
                status.ready_replicas,
                status.available_replicas,
                status.replicas,
            ];
            let pods = self.list(name).await.map_err(|error| error.to_string())?;
            let pods = pods.len();
            if seen
                && counts.iter().all(|count| count.unwrap_or(0) == wanted)
                && i32::try_from(pods) == Ok(wanted)
            {
                Ok(())
            } else {
                Err(format!("wanted {wanted}, {counts:?}, {pods} pods"))
            }
        })
        .await;
    }

    /// Returns when all replicas of a Deployment are available.
    pub(crate) async fn is_running(&self, name: &str, within: Duration) {
        eventually("it runs", within, async || {
            let deployment = self.deployment(name).await;
            let wanted = deployment.spec.and_then(|spec| spec.replicas);
            let status = deployment.status.unwrap_or_default();
            let available = status.available_replicas;
            (available.is_some() && available == wanted)
                .then_some(())
                .ok_or(format!("{available:?} of {wanted:?}"))
        })
        .await;
    }

    /// All pods with the label `app` of this name, those that end included.
    pub(crate) async fn pods_of(&self, app: &str) -> Vec<Pod> {
        self.list(app).await.expect("pods can be listed")
    }

    async fn list(&self, app: &str) -> kube::Result<Vec<Pod>> {
        let list = ListParams::default().labels(&format!("app={app}"));
        Ok(self.pods().list(&list).await?.items)
    }

    /// Where a Service of type `NodePort` is reached.
    pub(crate) async fn address(&self, service: &str) -> String {
        self.addresses(service).await.swap_remove(0)
    }

    /// The same of all its ports, in their order.
    pub(crate) async fn addresses(&self, service: &str) -> Vec<String> {
        let services: Api<Service> = self.api();
        let service = services.get(service).await.expect("it is there");
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let nodes = nodes
            .list(&ListParams::default())
            .await
            .expect("nodes can be listed");
        let addresses = nodes
            .items
            .into_iter()
            .filter_map(|node| node.status?.addresses)
            .flatten();
        let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
        let node = internal.next().expect("a node has an address").address;
        let mut addresses = Vec::new();
        for port in ports {
            let port = port.node_port.expect("it has a port on the nodes");
            let address = format!("{node}:{port}");
            // Pods are ready a moment before every node knows it, and until then the Service refuses.
            eventually("the Service answers", SOON, async || {
                let connected = tokio::net::TcpStream::connect(&address).await;
                connected.map(drop).map_err(|error| error.to_string())
            })
            .await;
            addresses.push(address);
        }
        addresses
    }

    /// What the admin port of a pod answers, by way of the API server.
    pub(crate) async fn ask(&self, pod: &str, path: &str) -> Result<String, String> {
        let uri = format!(
            "/api/v1/namespaces/{}/pods/{pod}:9090/proxy{path}",
            self.namespace
        );
        let request = Request::get(uri)
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        self.client
            .request_text(request)
            .await
            .map_err(|error| error.to_string())
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn print(&self, figure: &str) {
        use std::io::Write as _;
        // A closed stderr is no reason to fail.
        writeln!(
            std::io::stderr(),
            "measured in {}: {figure}",
            self.namespace
        )
        .ok();
    }
}

fn resource_of(object: &Value) -> ApiResource {
    let (group, version) = object["apiVersion"]
        .as_str()
        .map(|text| text.split_once('/').unwrap_or(("", text)))
        .expect("an object has a version");
    let kind = object["kind"].as_str().expect("an object has a kind");
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn name_of(object: &Value) -> &str {
    let name = object["metadata"]["name"].as_str();
    name.expect("an object has a name")
}

async fn apply_to(api: &Api<DynamicObject>, object: &Value) {
    let (kind, name) = (&object["kind"], name_of(object));
    let params = PatchParams::apply("kubectl").force();
    let applied = api.patch(name, &params, &Patch::Apply(object)).await;
    applied.unwrap_or_else(|error| panic!("{kind} {name} is refused: {error}"));
}

/// How often a container of a pod has been started again.
pub(crate) fn restarts(pod: &Pod, container: &str) -> i32 {
    let status = pod.status.clone().unwrap_or_default();
    let beside = status.container_statuses.unwrap_or_default();
    let mut all = beside
        .into_iter()
        .chain(status.init_container_statuses.unwrap_or_default());
    let found = all.find(|one| one.name == container);
    found.map_or(0, |one| one.restart_count)
}

/// Whether a pod is ready, and not on its way out.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .clone()
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
