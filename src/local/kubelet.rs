//! A kubelet: a node, its pods, and their containers, run by a [`Runtime`] on loopback addresses.
//!
//! It speaks to the API server through `kube::Client` alone, so that the same one serves the embedded server and a real
//! one. There need be no scheduler: it binds the pods without a node to its own. Pods start and end in the order of a
//! real kubelet: sidecars before main containers and after them, all preStop hooks first and at once, SIGTERM, SIGKILL
//! at the end of the grace period, and only then the pod is gone. A pod that is deleted by force is gone from the API server
//! at once, and its containers end as those of any other.
//!
//! Pods are taken for a Deployment's: that a sidecar ends by itself when the main containers of a Job are done is not
//! here.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};

use crate::clock::Clock;
use crate::lifecycle::{Tasks, TasksHandle};

mod addresses;
mod container;
mod node;
mod probe;
mod runtime;
mod state;
mod status;
mod worker;

pub use addresses::{Address, Addresses};
pub use runtime::{Running, Runtime, Signal, Start};

use worker::{Context, Worker};

/// The field manager of what the kubelet writes.
const MANAGER: &str = "kubelet";

/// Pause before a request is made again that the API server did not take.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A running kubelet. Dropping it kills its containers and leaves its pods as they are, as a node that burns down does.
#[derive(Debug)]
pub struct Kubelet {
    _tasks: Tasks,
}

/// Which node it is and which pods are its own.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of its Node.
    pub node: String,
    /// The namespace whose pods it takes, or those of all namespaces.
    pub namespace: Option<String>,
}

/// The loop over what happens to pods.
struct Pods {
    client: Client,
    clock: Clock,
    runtime: Arc<dyn Runtime>,
    addresses: Addresses,
    settings: Settings,
    tasks: TasksHandle,
    /// The pods that run here, by uid.
    workers: BTreeMap<String, Worker>,
    /// What a list that has not ended has shown, by uid.
    listed: Vec<String>,
}

// === impl Kubelet ===

impl Kubelet {
    /// Starts it on the runtime of the caller.
    pub fn start(
        client: Client,
        clock: Clock,
        runtime: Arc<dyn Runtime>,
        addresses: Addresses,
        settings: Settings,
    ) -> Self {
        let tasks = Tasks::here();
        let node = settings.node.clone();
        let heart = (client.clone(), clock.clone());
        let pods = Pods {
            client,
            clock,
            runtime,
            addresses,
            settings,
            tasks: tasks.handle(),
            workers: BTreeMap::new(),
            listed: Vec::new(),
        };
        tasks.spawn(node::beat(heart.0, heart.1, node));
        tasks.spawn(pods.run());
        Self { _tasks: tasks }
    }
}

// === impl Pods ===

impl Pods {
    async fn run(mut self) {
        while let Err(error) = node::register(&self.client, &self.clock, &self.settings.node).await
        {
            tracing::debug!(%error, "could not register the node");
            self.clock.sleep(RETRY_AFTER).await;
        }
        let pods: Api<Pod> = match &self.settings.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut events = pin!(watcher(pods, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event),
                Err(error) => tracing::debug!(%error, "the kubelet's watch broke"),
            }
        }
    }

    fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.push(uid(&pod));
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                for (uid, worker) in &mut self.workers {
                    if !listed.contains(uid) {
                        worker.orphan();
                    }
                }
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                if let Some(worker) = self.workers.get_mut(&uid(&pod)) {
                    worker.orphan();
                }
            }
        }
        self.workers.retain(|_uid, worker| !worker.is_over());
    }

    fn apply(&mut self, pod: Pod) {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default();
        if node.is_empty() && pod.metadata.deletion_timestamp.is_none() {
            self.bind(&pod);
        } else if node == self.settings.node {
            self.run_pod(pod);
        }
    }

    /// Takes a pod without a node. What comes of it, the watch says.
    fn bind(&self, pod: &Pod) {
        let name = pod.name_any();
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(self.settings.node.clone()),
                ..ObjectReference::default()
            },
        };
        let (pods, clock) = (self.pods_of(pod), self.clock.clone());
        self.tasks.spawn(async move {
            let parameters = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            loop {
                let bound: Result<serde_json::Value, _> = pods
                    .create_subresource("binding", &name, &parameters, &binding)
                    .await;
                match bound {
                    Ok(_status) => return,
                    // The pod is gone, or another one took it.
                    Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => return,
                    Err(error) => tracing::debug!(pod = name, %error, "could not bind a pod"),
                }
                clock.sleep(RETRY_AFTER).await;
            }
        });
    }

    fn run_pod(&mut self, pod: Pod) {
        let uid = uid(&pod);
        if let Some(worker) = self.workers.get(&uid) {
            worker.change(pod);
            return;
        }
        let Some(address) = self.addresses.take() else {
            tracing::warn!(
                pod = pod.name_any(),
                "no address is left for a pod: it stays pending"
            );
            return;
        };
        let context = Context {
            clock: self.clock.clone(),
            runtime: Arc::clone(&self.runtime),
            pods: self.pods_of(&pod),
        };
        self.workers
            .insert(uid, Worker::start(context, pod, address));
    }

    fn pods_of(&self, pod: &Pod) -> Api<Pod> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}
