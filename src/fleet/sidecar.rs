//! The sidecar in a pod's spec, and the way to its admin port through the API server.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// What its container is called.
pub(crate) const NAME: &str = "sidescale";
/// What the port is called at which it answers.
pub(crate) const ADMIN: &str = "sidescale-admin";
/// Where it answers, where its container does not say otherwise.
const ADMIN_PORT: i32 = 9090;

/// The list of the spec that it stands in, and its container.
pub(crate) fn container(spec: &PodSpec) -> Option<(&'static str, &Container)> {
    let first = spec.init_containers.iter().flatten();
    let first = first.map(|one| ("initContainers", one));
    let beside = spec.containers.iter().map(|one| ("containers", one));
    first.chain(beside).find(|(_, one)| one.name == NAME)
}

/// Where its metrics and its drain are.
pub(crate) fn admin_port(container: &Container) -> i32 {
    let mut ports = container.ports.iter().flatten();
    let admin = ports.find(|port| port.name.as_deref() == Some(ADMIN));
    admin.map_or(ADMIN_PORT, |port| port.container_port)
}

/// Where the API server passes a request on to a pod's admin port.
pub(crate) fn through_the_api_server(namespace: &str, pod: &str, port: i32, path: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}")
}
