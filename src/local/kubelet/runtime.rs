//! What runs containers, as the kubelet sees it: something it starts, signals and waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;

use k8s_openapi::api::core::v1::{Container, Pod};

/// Runs containers: as processes in the cluster's tests, as tasks in the demo.
pub trait Runtime: Send + Sync + 'static {
    /// Starts one container. A container that cannot start has exited, with a code other than 0.
    fn start(&self, start: Start<'_>) -> Running;
}

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The pod; its status may be older than what runs.
    pub pod: &'a Pod,
    /// The container, one of the pod's.
    pub container: &'a Container,
    /// The pod's address, on which the container listens.
    pub ip: Ipv4Addr,
    /// Its environment, the downward API's fields filled in.
    pub env: BTreeMap<String, String>,
    /// How often it has been started before.
    pub restarts: i32,
}

/// A signal to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end in good order.
    Terminate,
    /// SIGKILL: end now.
    Kill,
}

/// A container that was started. Dropping it kills it.
pub struct Running {
    exit: Pin<Box<dyn Future<Output = i32> + Send>>,
    signal: Box<dyn FnMut(Signal) + Send>,
}

// === impl Running ===

impl Running {
    /// A container that ends with the code of `exit` and takes signals by `signal`. Dropping both must kill it.
    pub fn new(
        exit: impl Future<Output = i32> + Send + 'static,
        signal: impl FnMut(Signal) + Send + 'static,
    ) -> Self {
        Self {
            exit: Box::pin(exit),
            signal: Box::new(signal),
        }
    }

    /// Waits for its end and says its exit code; after that, it must not be asked again.
    pub(super) async fn exited(&mut self) -> i32 {
        self.exit.as_mut().await
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        (self.signal)(signal);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// The container's environment, with the fields that the downward API gives.
pub(super) fn env(pod: &Pod, container: &Container, ip: Ipv4Addr) -> BTreeMap<String, String> {
    container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| {
            let path = variable
                .value_from
                .as_ref()
                .and_then(|source| source.field_ref.as_ref())
                .map(|field| field.field_path.as_str());
            let value = match path {
                Some(path) => field(pod, path, ip)?,
                None => variable.value.clone()?,
            };
            Some((variable.name.clone(), value))
        })
        .collect()
}

/// A field as the downward API names it; `$(VARIABLES)` and references to other objects are not filled in.
fn field(pod: &Pod, path: &str, ip: Ipv4Addr) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => Some(ip.to_string()),
        "status.hostIP" => Some(Ipv4Addr::LOCALHOST.to_string()),
        _ => {
            let (map, key) = path
                .strip_suffix("']")
                .and_then(|path| path.split_once("['"))?;
            let map = match map {
                "metadata.labels" => metadata.labels.as_ref(),
                "metadata.annotations" => metadata.annotations.as_ref(),
                _ => None,
            };
            // An absent label is an empty variable, as the real kubelet has it.
            Some(
                map.and_then(|map| map.get(key))
                    .cloned()
                    .unwrap_or_default(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_environment_holds_the_fields_of_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "env": [
                {"name": "PLAIN", "value": "1"},
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "NONE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}},
            ]}]},
        }))
        .expect("the pod is well-formed");
        let container = &pod.spec.as_ref().expect("the pod has a spec").containers[0];
        let env = env(&pod, container, Ipv4Addr::new(127, 1, 2, 3));
        let expected = [
            ("APP", "web"),
            ("NONE", ""),
            ("PLAIN", "1"),
            ("POD_IP", "127.1.2.3"),
            ("POD_NAME", "p"),
        ];
        assert!(
            env.iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .eq(expected)
        );
    }
}
