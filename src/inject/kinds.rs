//! What can have no sidecar, each in words of its own.

use serde_json::Value;

use super::owners;
use super::verdict::Refusal;
use super::workload::described;

const SERVE: &str = "serve the same image with a Deployment of your own";

/// A kind of a group (by the end of its name), why it can have none, and what to do.
const KINDS: [(&str, &str, &str, &str); 23] = [
    (
        "ReplicaSet",
        "apps",
        "whoever scales the Deployment that owns it would make another one",
        "annotate its Deployment",
    ),
    (
        "DaemonSet",
        "apps",
        "it has a pod on each node, and no number of them",
        SERVE,
    ),
    (
        "Job",
        "batch",
        "it runs to its end and serves nobody",
        SERVE,
    ),
    (
        "CronJob",
        "batch",
        "it runs to its end and serves nobody",
        SERVE,
    ),
    (
        "DeploymentConfig",
        "openshift.io",
        "OpenShift has given it up for Deployments",
        "make it a Deployment",
    ),
    (
        "Rollout",
        "argoproj.io",
        "Argo Rollouts makes its pods and moves its Services by itself",
        SERVE,
    ),
    ("CloneSet", "kruise.io", "OpenKruise makes its pods", SERVE),
    (
        "StatefulSet",
        "kruise.io",
        "OpenKruise makes its pods",
        SERVE,
    ),
    (
        "Model",
        "kubeai.org",
        "KubeAI makes its pods and stands in front of them",
        "leave it to KubeAI, or serve the same image with a Deployment of your own",
    ),
    (
        "SeldonDeployment",
        "seldon.io",
        "Seldon Core makes its pods",
        SERVE,
    ),
    (
        "Model",
        "seldon.io",
        "Seldon Core loads it into servers of its own",
        SERVE,
    ),
    ("Server", "seldon.io", "Seldon Core makes its pods", SERVE),
    ("BentoDeployment", "yatai.ai", "Yatai makes its pods", SERVE),
    (
        "DynamoGraphDeployment",
        "nvidia.com",
        "Dynamo makes its pods and scales them",
        SERVE,
    ),
    (
        "DynamoComponentDeployment",
        "nvidia.com",
        "Dynamo makes its pods and scales them",
        SERVE,
    ),
    (
        "ModelServing",
        "volcano.sh",
        "kthena makes its pods and scales them",
        SERVE,
    ),
    (
        "StormService",
        "aibrix.ai",
        "AIBrix makes its pods and scales them",
        SERVE,
    ),
    (
        "RayClusterFleet",
        "aibrix.ai",
        "AIBrix makes its pods and scales them",
        SERVE,
    ),
    (
        "Workspace",
        "kaito.sh",
        "KAITO makes its pods and their nodes",
        SERVE,
    ),
    (
        "VLLMRuntime",
        "vllm.ai",
        "the production stack's operator makes its pods",
        "use the chart, whose Deployments can be injected",
    ),
    (
        "PodCliqueSet",
        "grove.io",
        "Grove makes its pods in groups",
        SERVE,
    ),
    (
        "HelmRelease",
        "fluxcd.io",
        "what it installs is not written in it",
        "inject what the chart renders",
    ),
    (
        "Application",
        "argoproj.io",
        "what it installs is not written in it",
        "inject the manifests in its repository",
    ),
];

/// Why `object`, which asked for one, can have no sidecar.
pub(super) fn refuse(object: &Value) -> Refusal {
    let kind = object["kind"].as_str().unwrap_or("?");
    let version = object["apiVersion"].as_str().unwrap_or("?");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_of = |known: &str| group == known || group.ends_with(&format!(".{known}"));
    let place = described(object);
    if matches!(
        kind,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet"
    ) && (group == "extensions" || group == "apps" && version != "apps/v1")
    {
        return Refusal::new(
            place,
            format!("no API server has {version} since Kubernetes 1.16"),
            "write apiVersion: apps/v1 and, where it is missing, spec.selector (`kubectl convert` does both)",
        );
    }
    if kind == "Service" && is_of("knative.dev") || kind == "Configuration" && is_of("knative.dev")
    {
        let (who, remedy) = owners::controller("Revision").unwrap_or(("Knative", SERVE));
        return Refusal::new(
            place,
            format!("{who} makes its pods and scales them"),
            remedy,
        );
    }
    let known = KINDS
        .iter()
        .find(|(known, group, _, _)| *known == kind && is_of(group));
    if let Some((_, _, reason, remedy)) = known {
        return Refusal::new(place, *reason, *remedy);
    }
    if let Some((who, remedy)) = owners::controller(kind) {
        return Refusal::new(
            place,
            format!("{who} makes its pods and would take the sidecar out again"),
            remedy,
        );
    }
    Refusal::new(
        place,
        "only a Deployment, a StatefulSet or a Pod can have a sidecar",
        "take the annotation away, or serve with one of them",
    )
}
