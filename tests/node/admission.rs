//! The webhook: a plain Deployment's pods get their sidecar at admission, and where the webhook goes in the middle of a
//! rollout, the other pods come without one. No request fails for it.

use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, image};
use crate::manifests::{TARGET, asking, companions, documents, plain};
use crate::visitors::{Visitors, Way};
use crate::wait::eventually;

/// Seconds that the server loads.
const COLD_START: u32 = 60;
const PODS: u32 = 2;
/// Whose pods have no sidecar cut what is kept when they end: see `injection`.
const CLIENTS: [(Way, usize); 1] = [(Way::Fresh, 8)];
/// The webhook, and its namespace.
const WEBHOOK: &str = "sidescale-node-webhook";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn no_request_fails_while_a_webhook_puts_the_sidecar_in_and_goes_half_way() {
    let (cluster, webhook) = (
        Cluster::new("admission").await,
        Cluster::new("webhook").await,
    );
    let long = SOON + Duration::from_secs(u64::from(2 * COLD_START * PODS));
    let workload = asking(plain(PODS, COLD_START));
    cluster.apply(&companions(&workload)).await;
    cluster.apply(&workload).await;
    cluster.is_rolled_out(TARGET, long).await;
    assert_eq!(sidecars(&cluster).await, 0, "nobody has put one in yet");
    let visitors = Visitors::start(&cluster.address(TARGET).await, &CLIENTS);

    let printed = printed();
    webhook.apply_anywhere(&printed).await;
    webhook.is_running(WEBHOOK, SOON).await;
    is_asked(&cluster).await;
    restart(&cluster, "with the webhook").await;
    cluster.is_rolled_out(TARGET, long).await;
    visitors.assert_none_failed("the webhook has put the sidecar in");
    assert_eq!(sidecars(&cluster).await, 2);
    for pod in cluster.pods_of(TARGET).await {
        let name = pod.metadata.name.expect("a pod has a name");
        eventually("requests go through the sidecar", SOON, async || {
            let metrics = cluster.ask(&name, "/metrics").await?;
            let counted = metrics
                .lines()
                .any(|line| line.starts_with("sidescale_requests_total") && !line.ends_with(" 0"));
            counted.then_some(()).ok_or(metrics)
        })
        .await;
    }

    restart(&cluster, "and then without").await;
    eventually("the first new pod is there", SOON, async || {
        let pods = cluster.pods_of(TARGET).await.len();
        (pods > 2).then_some(()).ok_or(format!("{pods} pods"))
    })
    .await;
    webhook
        .patch(WEBHOOK, &json!({"spec": {"replicas": 0}}))
        .await;
    cluster.is_rolled_out(TARGET, long).await;
    let seen = visitors.assert_none_failed("the webhook went half-way");
    assert_eq!(
        sidecars(&cluster).await,
        1,
        "one pod came before, one after"
    );
    cluster.print(&format!(
        "a webhook came, and went in the middle of a rollout: none failed of {:?}",
        seen.served
    ));
    for object in &printed {
        if object["metadata"].get("namespace").is_none() && object["kind"] != "Namespace" {
            webhook.delete_anywhere(object).await;
        }
    }
    webhook.end().await;
    cluster.end().await;
}

/// What the command prints.
fn printed() -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_sidescale"))
        .args(["webhook", "--manifests", "--service", WEBHOOK])
        .args(["--namespace", WEBHOOK, "--image", &image()])
        .output()
        .expect("it was built");
    assert!(output.status.success(), "{output:?}");
    documents(&String::from_utf8_lossy(&output.stdout))
}

/// Returns when the API server asks the webhook, and trusts it: a dry run shows it.
async fn is_asked(cluster: &Cluster) {
    let deployment = cluster.deployment(TARGET).await;
    let template = deployment.spec.expect("it has a spec").template;
    let mut pod = json!({"spec": template.spec, "metadata": template.metadata});
    let metadata = &mut pod["metadata"];
    metadata["generateName"] = json!(format!("{TARGET}-5d9f7-"));
    metadata["labels"]["pod-template-hash"] = json!("5d9f7");
    metadata["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{TARGET}-5d9f7"), "uid": "0", "controller": true,
    }]);
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("pods get a sidecar", SOON, async || {
        let made = cluster.pods().create(&dry, &pod).await;
        let made = made.map_err(|error| error.to_string())?;
        has_sidecar(&made).then_some(()).ok_or("without".to_owned())
    })
    .await;
}

async fn restart(cluster: &Cluster, why: &str) {
    let restart = json!({"kubectl.kubernetes.io/restartedAt": why});
    let restart = json!({"spec": {"template": {"metadata": {"annotations": restart}}}});
    cluster.patch(TARGET, &restart).await;
}

async fn sidecars(cluster: &Cluster) -> usize {
    let pods = cluster.pods_of(TARGET).await;
    pods.iter().filter(|pod| has_sidecar(pod)).count()
}

fn has_sidecar(pod: &Pod) -> bool {
    let first = pod.spec.as_ref().map(|spec| &spec.init_containers);
    let mut first = first.into_iter().flatten().flatten();
    first.any(|one| one.name == "sidescale")
}
