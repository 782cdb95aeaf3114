//! A Deployment whose pods run: the kubelet brings them up, keeps their status, and ends them in order.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sidescale::local::kubelet::{Addresses, Kubelet, Settings};

use super::containers::{Containers, Handle};
use super::place::Place;

crate::on_its_server! {
    a_deployment_comes_up_and_gives_up_the_unready_pod_first
    a_pod_ends_in_the_order_of_a_real_kubelet
    a_pod_deleted_by_force_is_gone_at_once_and_still_ends_in_order
    a_container_that_will_not_end_is_killed_at_the_end_of_the_grace_period
    a_sidecar_that_dies_is_started_again_and_the_pod_is_unready_meanwhile
    a_new_image_restarts_one_container_alone
}

/// How a pod ends on a real node.
const IN_ORDER: [&str; 4] = [
    "sidescale is asked to drain",
    "sidescale has drained",
    "server gets SIGTERM",
    "sidescale gets SIGTERM",
];

/// A kubelet with its containers, on a place.
struct Fleet<'a> {
    place: &'a Place,
    containers: Arc<Containers>,
    node: String,
    _kubelet: Kubelet,
}

impl<'a> Fleet<'a> {
    fn start(place: &'a Place) -> Self {
        let containers = Containers::new(place.clock.clone());
        let addresses = Addresses::claim(&mut StdRng::seed_from_u64(5)).expect("a network is free");
        let node = format!("node-{}", place.namespace);
        let kubelet = Kubelet::start(
            place.client.clone(),
            place.clock.clone(),
            Arc::new(Handle(Arc::clone(&containers))),
            addresses,
            Settings {
                node: node.clone(),
                namespace: Some(place.namespace.clone()),
            },
        );
        Self {
            place,
            containers,
            node,
            _kubelet: kubelet,
        }
    }

    fn pods(&self) -> Api<Pod> {
        self.place.api()
    }

    async fn deploy(&self, replicas: i32, server: &str) -> Vec<Pod> {
        let deployment = deployment(replicas, server);
        self.deployments()
            .create(&PostParams::default(), &deployment)
            .await
            .expect("it is new");
        self.ready(replicas).await
    }

    fn deployments(&self) -> Api<Deployment> {
        self.place.api()
    }

    /// Waits until as many pods are ready, and lists them.
    async fn ready(&self, replicas: i32) -> Vec<Pod> {
        let ready = move |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.is_some_and(|status| {
                status.ready_replicas.unwrap_or(0) == replicas
                    && status.replicas.unwrap_or(0) == replicas
            })
        };
        await_condition(self.deployments(), "web", ready)
            .await
            .expect("the watch lives");
        self.living().await
    }

    async fn living(&self) -> Vec<Pod> {
        let list = self
            .pods()
            .list(&ListParams::default())
            .await
            .expect("they can be listed");
        list.items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect()
    }

    async fn wait_for(&self, pod: &str, condition: impl Fn(&Pod) -> bool) -> Pod {
        let reached = move |pod: Option<&Pod>| pod.is_some_and(&condition);
        let pod = await_condition(self.pods(), pod, reached)
            .await
            .expect("the watch lives");
        pod.expect("the condition is of a pod that is there")
    }

    async fn wait_until_gone(&self, pod: &str) {
        let gone = |pod: Option<&Pod>| pod.is_none();
        await_condition(self.pods(), pod, gone)
            .await
            .expect("the watch lives");
    }
}

fn deployment(replicas: i32, server: &str) -> Deployment {
    let name =
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    // A timeout of a second is 50 ms of life at twenty times it, which a machine under load may take for an answer.
    let probe = |port: u16, failures: u16| {
        json!({
            "httpGet": {"path": "/ready", "port": port},
            "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": failures,
        })
    };
    let drain = json!({"preStop": {"httpGet": {"path": "/drain", "port": 8080}}});
    let object = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "terminationGracePeriodSeconds": 8,
            "initContainers": [{
                "name": "sidescale", "image": "sidescale:1", "restartPolicy": "Always", "env": [name],
                "startupProbe": probe(8080, 60), "readinessProbe": probe(8080, 1),
            }],
            "containers": [{
                "name": server, "image": "server:1", "env": [name], "readinessProbe": probe(8000, 1), "lifecycle": drain,
            }],
        }},
    }});
    serde_json::from_value(object).expect("the deployment is well-formed")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn restarts(pod: &Pod, container: &str) -> i32 {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let main = status.and_then(|status| status.container_statuses.as_ref());
    init.into_iter()
        .chain(main)
        .flatten()
        .find(|status| status.name == container)
        .map_or(-1, |status| status.restart_count)
}

async fn a_deployment_comes_up_and_gives_up_the_unready_pod_first(place: &Place) {
    let fleet = Fleet::start(place);
    let pods = fleet.deploy(3, "server").await;
    assert_eq!(pods.len(), 3);
    let mut addresses: Vec<&str> = Vec::new();
    for pod in &pods {
        let status = pod.status.as_ref().expect("it has a status");
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!(
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()),
            Some(fleet.node.as_str())
        );
        addresses.push(status.pod_ip.as_deref().expect("it has an address"));
        // The sidecar is up before the server starts.
        assert_eq!(
            fleet.containers.log_of(&pod.name_any()),
            ["sidescale starts", "server starts"]
        );
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "every pod has its own");
    let node = Api::<Node>::all(place.client.clone())
        .get(&fleet.node)
        .await
        .expect("the node is there");
    let conditions = node
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    assert!(
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    );

    let victim = pods[1].name_any();
    fleet.containers.make_unready(&victim);
    fleet.wait_for(&victim, |pod| !is_ready(pod)).await;
    // Only when the controller has seen it too does it choose by it.
    let counted = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(2))
    };
    await_condition(fleet.deployments(), "web", counted)
        .await
        .expect("the watch lives");
    let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
    fleet
        .deployments()
        .patch_scale("web", &PatchParams::default(), &two)
        .await
        .expect("it may be scaled");
    fleet.wait_until_gone(&victim).await;
    let left: Vec<String> = fleet.ready(2).await.iter().map(Pod::name_any).collect();
    assert_eq!(left, [pods[0].name_any(), pods[2].name_any()]);
}

async fn a_pod_ends_in_the_order_of_a_real_kubelet(place: &Place) {
    let fleet = Fleet::start(place);
    let pod = fleet.deploy(1, "server").await[0].name_any();
    fleet
        .pods()
        .delete(&pod, &DeleteParams::default())
        .await
        .expect("it is there");
    fleet.wait_until_gone(&pod).await;
    assert_eq!(fleet.containers.log_of(&pod)[2..], IN_ORDER);
    // The set has put another in its place.
    assert_eq!(fleet.ready(1).await.len(), 1);
}

async fn a_pod_deleted_by_force_is_gone_at_once_and_still_ends_in_order(place: &Place) {
    let fleet = Fleet::start(place);
    let pod = fleet.deploy(1, "server").await[0].name_any();
    let by_force = DeleteParams::default().grace_period(0);
    fleet
        .pods()
        .delete(&pod, &by_force)
        .await
        .expect("it is there");
    let answer = fleet
        .pods()
        .get_opt(&pod)
        .await
        .expect("the server answers");
    assert!(answer.is_none(), "it is gone although its containers run");
    fleet
        .containers
        .wait_for(&pod, "sidescale gets SIGTERM")
        .await;
    assert_eq!(fleet.containers.log_of(&pod)[2..], IN_ORDER);
}

async fn a_container_that_will_not_end_is_killed_at_the_end_of_the_grace_period(place: &Place) {
    let fleet = Fleet::start(place);
    let pod = fleet.deploy(1, "stubborn").await[0].name_any();
    let asked = place.clock.instant();
    fleet
        .pods()
        .delete(&pod, &DeleteParams::default())
        .await
        .expect("it is there");
    fleet.containers.wait_for(&pod, "stubborn is killed").await;
    let took = place.clock.instant().since(asked).as_secs_f64();
    assert!(took >= 8.0, "{took} s of a grace period of 8 s");
    fleet.wait_until_gone(&pod).await;
    // At the end of the grace period the sidecar's turn has come, whether the server is gone or not.
    let mut log = fleet.containers.log_of(&pod).split_off(4);
    log.sort_unstable();
    assert_eq!(
        log,
        [
            "sidescale gets SIGTERM",
            "stubborn gets SIGTERM",
            "stubborn is killed",
        ]
    );
}

async fn a_sidecar_that_dies_is_started_again_and_the_pod_is_unready_meanwhile(place: &Place) {
    let fleet = Fleet::start(place);
    let pod = fleet.deploy(1, "server").await[0].name_any();
    fleet.containers.crash(&pod, "sidescale", 9);
    let down = fleet
        .wait_for(&pod, |pod| restarts(pod, "sidescale") == 1)
        .await;
    let up = fleet
        .wait_for(&pod, |pod| is_ready(pod) && restarts(pod, "sidescale") == 1)
        .await;
    assert_eq!(restarts(&up, "server"), 0);
    let moved = |pod: &Pod| -> Option<Value> {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")?;
        serde_json::to_value(ready.last_transition_time.as_ref()?).ok()
    };
    assert!(moved(&down).is_some());
    let last = up
        .status
        .as_ref()
        .and_then(|status| status.init_container_statuses.as_ref())
        .and_then(|statuses| statuses[0].last_state.as_ref())
        .and_then(|state| state.terminated.as_ref())
        .map(|terminated| terminated.exit_code);
    assert_eq!(last, Some(9));
    assert_eq!(
        fleet.containers.log_of(&pod),
        ["sidescale starts", "server starts", "sidescale starts"]
    );
    // A second death waits for its back-off, and shows that it does.
    fleet.containers.crash(&pod, "sidescale", 9);
    let waiting = fleet
        .wait_for(&pod, |pod| {
            restarts(pod, "sidescale") == 2 && !is_ready(pod)
        })
        .await;
    assert_eq!(
        waiting.status.and_then(|status| status.phase).as_deref(),
        Some("Running")
    );
}

async fn a_new_image_restarts_one_container_alone(place: &Place) {
    let fleet = Fleet::start(place);
    let pod = fleet.deploy(1, "server").await[0].name_any();
    let image =
        json!({"spec": {"initContainers": [{"name": "sidescale", "image": "sidescale:2"}]}});
    fleet
        .pods()
        .patch(&pod, &PatchParams::default(), &Patch::Strategic(image))
        .await
        .expect("an image may change");
    fleet
        .wait_for(&pod, |pod| is_ready(pod) && restarts(pod, "sidescale") == 1)
        .await;
    assert_eq!(
        fleet.containers.log_of(&pod)[2..],
        ["sidescale gets SIGTERM", "sidescale starts"]
    );
}
