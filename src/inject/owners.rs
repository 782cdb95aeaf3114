//! What others own: workloads that a controller would write back, and numbers that somebody else writes.

use serde_json::Value;

use super::task::Task;
use super::workload::{Kind, Workload, described, is_one_namespace, strings};

/// Labels of workloads that a controller renders, who it is, and where the pod's template is written instead.
const RENDERED: [(&str, &str, &str); 6] = [
    (
        "serving.kserve.io/inferenceservice",
        "KServe",
        "use an InferenceService with the annotation serving.kserve.io/autoscalerClass: none and put the sidecar into \
         its spec.predictor (initContainers), or serve with a Deployment of your own",
    ),
    (
        "serving.knative.dev/revision",
        "Knative",
        "Knative's queue-proxy stands there already; serve with a Deployment of your own",
    ),
    (
        "leaderworkerset.sigs.k8s.io/name",
        "LeaderWorkerSet",
        "its groups are scaled as a whole, which sidescale cannot yet",
    ),
    (
        "llm-d.ai/model",
        "llm-d",
        "set it in the values of its chart, and render without the label",
    ),
    (
        "app.nvidia.com/nim-service",
        "NVIDIA's NIM operator",
        "switch spec.scale off in the NIMService and serve the same image with a Deployment of your own",
    ),
    (
        "ray.io/cluster",
        "KubeRay",
        "Ray scales its own workers; put sidescale in front of a Deployment",
    ),
];

/// Kinds whose controllers render workloads.
const CONTROLLERS: [(&str, usize); 11] = [
    ("InferenceService", 0),
    ("LLMInferenceService", 0),
    ("ServingRuntime", 0),
    ("ClusterServingRuntime", 0),
    ("Revision", 1),
    ("LeaderWorkerSet", 2),
    ("NIMService", 4),
    ("NIMPipeline", 4),
    ("RayCluster", 5),
    ("RayService", 5),
    ("RayJob", 5),
];

/// Who renders workloads of this kind, and where the pod's template is written instead.
pub(super) fn controller(kind: &str) -> Option<(&'static str, &'static str)> {
    let (_, index) = CONTROLLERS.iter().find(|(known, _)| *known == kind)?;
    let (_, who, remedy) = RENDERED[*index];
    Some((who, remedy))
}

/// Refuses what a controller would write back at once.
pub(super) fn refuse_rendered(task: &mut Task) {
    let metadata = &task.workload.metadata;
    let owners = metadata["ownerReferences"].as_array();
    let owned = owners
        .into_iter()
        .flatten()
        // The ReplicaSet that owns an admitted pod writes nothing back.
        .find(|owner| owner["controller"] == true && task.workload.kind != Kind::Admitted);
    if let Some(owner) = owned {
        let kind = owner["kind"].as_str().unwrap_or("?").to_owned();
        let known = controller(&kind);
        let (who, remedy) =
            known.unwrap_or(("its owner", "inject the object that it is made from"));
        task.refuse(
            "metadata.ownerReferences",
            format!("a {kind} owns it, and {who} would take the sidecar out again"),
            remedy,
        );
        return;
    }
    let mut labels = strings(&metadata["labels"]);
    labels.extend(task.workload.labels.clone());
    let operated = labels
        .get("app.kubernetes.io/managed-by")
        .is_some_and(|by| by == "k8s-nim-operator");
    let found = RENDERED
        .iter()
        .find(|(label, _, _)| labels.contains_key(*label))
        .or_else(|| operated.then(|| &RENDERED[4]));
    if let Some((label, who, remedy)) = found {
        task.refuse(
            "metadata.labels",
            format!("{label} says that {who} renders it and would take the sidecar out again"),
            *remedy,
        );
    }
}

/// Says who else writes the number of replicas, and how it is handed over.
pub(super) fn hand_over_replicas(task: &mut Task, others: &[Value]) {
    let place = task.workload.place();
    let mine = others.iter().filter(|other| scales(other, &task.workload));
    let mine: Vec<String> = mine.map(described).collect();
    for other in mine {
        task.note(format!(
            "{other} writes its replicas, too. The policy says mode: observe, in which sidescale writes none: compare \
             them on the page, and take {other} away before you write mode: auto"
        ));
    }
    let annotations = strings(&task.workload.metadata["annotations"]);
    let labels = strings(&task.workload.metadata["labels"]);
    let by_argo = annotations.contains_key("argocd.argoproj.io/tracking-id")
        || labels.contains_key("argocd.argoproj.io/instance");
    if by_argo {
        task.note(
            "Argo CD would set its replicas back: before mode: auto, give the Application `ignoreDifferences` with the \
             jsonPointer /spec/replicas and the sync option RespectIgnoreDifferences=true",
        );
    }
    if let Some(replicas) = task.workload.replicas {
        task.note(format!(
            "spec.replicas: {replicas} is left as it is, so each apply sets the fleet to {replicas}. Before mode: auto, hand the \
             number over: `kubectl apply edit-last-applied {place}`, take the line replicas out there and then in your manifest; \
             out of the manifest alone, the next apply would set 1"
        ));
    }
}

/// The bounds of an HPA or a ScaledObject for this workload.
pub(super) fn bounds(others: &[Value], workload: &Workload) -> Option<(Option<u64>, u64)> {
    let found = others.iter().find(|other| scales(other, workload))?;
    let spec = &found["spec"];
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| spec[*key].as_u64());
    Some((
        first(["minReplicas", "minReplicaCount"]),
        first(["maxReplicas", "maxReplicaCount"])?,
    ))
}

fn scales(other: &Value, workload: &Workload) -> bool {
    let target = &other["spec"]["scaleTargetRef"];
    let is_kind = match target["kind"].as_str() {
        // KEDA's default.
        None => workload.kind.word() == "deployment",
        Some(kind) => kind.to_lowercase() == workload.kind.word(),
    };
    matches!(
        other["kind"].as_str(),
        Some("HorizontalPodAutoscaler" | "ScaledObject")
    ) && is_kind
        && target["name"] == workload.name.as_str()
        && is_one_namespace(
            other["metadata"]["namespace"].as_str(),
            workload.namespace.as_deref(),
        )
}
