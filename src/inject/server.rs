//! Which of a pod's containers is the inference server.

use super::services::Service;
use super::task::{Container, Task, containers, declared};

/// What an accelerator is called among resources, whoever made it: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`,
/// `gpu.intel.com/i915`, `google.com/tpu`, `habana.ai/gaudi`, `aws.amazon.com/neuroncore`...
const ACCELERATORS: [&str; 12] = [
    "/gpu",
    "/mig-",
    "/vgpu",
    "/pgpu",
    "gpu.intel.com/",
    "/tpu",
    "/gaudi",
    "/neuron",
    "/ascend",
    "/qaic",
    "/mlu",
    "/npu",
];

/// The only container that can be it: the one that is named; else the only one; else the only one that declares what the
/// Services target; else the only one with an accelerator; else the only one with a port.
pub(super) fn choose(task: &mut Task, services: &[Service]) -> Option<String> {
    let pod = task.in_pod("");
    let beside: Vec<_> = pod["containers"].as_array().into_iter().flatten().collect();
    let name = |container: &serde_json::Value| container["name"].as_str().map(str::to_owned);
    if let Some(wanted) = task.settings.container.clone() {
        if beside.iter().any(|one| name(one).as_ref() == Some(&wanted)) {
            return Some(wanted);
        }
        let there: Vec<_> = beside.iter().filter_map(|one| name(one)).collect();
        let there = there.join(", ");
        task.refuse(
            "containers",
            format!("no container is called {wanted:?}"),
            format!("name one of {there} in the annotation sidescale.dev/container"),
        );
        return None;
    }
    let has_gpu = |container: &&&serde_json::Value| has_accelerator(container);
    let has_port = |container: &&&serde_json::Value| declared(container).next().is_some();
    let only = |found: Vec<&&serde_json::Value>| match found.as_slice() {
        [one] => name(one),
        _ => None,
    };
    let is_targeted = |container: &&&serde_json::Value| {
        let container = Container {
            name: "",
            value: container,
            stays: true,
        };
        let mut mine = services
            .iter()
            .filter(|service| service.selects(&task.workload));
        mine.any(|service| {
            service
                .targets(&container)
                .any(|port| port.is_of(&container))
        })
    };
    let found = only(beside.iter().collect())
        .or_else(|| only(beside.iter().filter(is_targeted).collect()))
        .or_else(|| only(beside.iter().filter(has_gpu).collect()))
        .or_else(|| only(beside.iter().filter(has_port).collect()));
    if found.is_none() {
        let all: Vec<_> = containers(pod)
            .filter(|one| one.stays)
            .map(|one| one.name)
            .collect();
        let all = all.join(", ");
        task.refuse(
            "containers",
            format!("which of {all} is the inference server cannot be told"),
            "name it in the annotation sidescale.dev/container",
        );
    }
    found
}

/// Whether a container asks for an accelerator, or for a device by a claim.
pub(super) fn has_accelerator(container: &serde_json::Value) -> bool {
    let resources = &container["resources"];
    let named = [&resources["limits"], &resources["requests"]];
    let keys = named.iter().filter_map(|list| list.as_object());
    let mut keys = keys.flat_map(|list| list.keys());
    let is_named = keys.any(|key| {
        let key = key.to_lowercase();
        ACCELERATORS.iter().any(|one| key.contains(one))
    });
    let claims = resources["claims"].as_array();
    is_named || claims.is_some_and(|claims| !claims.is_empty())
}
