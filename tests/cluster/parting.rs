//! Which pods go when the fleet gets smaller. Left to itself a ReplicaSet would give up the youngest: the busy pod and the
//! leader would be left of six one time in fifteen.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admission::{apply_ahead, deployment, pod};
use crate::cluster::{Cluster, from_json, on_real};
use crate::fleet::{Fleet, Leader, policy};
use crate::front::Seen;
use crate::keepers::{Keepers, Way};
use crate::scaling::annotate;
use crate::sidecar::{self, LEASE_DURATION, TRAFFIC};
use crate::wait::{eventually, throughout};
use crate::workload::{Right, SOON};

crate::each_flavour![
    the_idlest_pods_go_and_the_busy_one_and_the_leader_stay,
    pods_that_are_marked_go_without_turning_unready,
    without_the_right_to_mark_them_pods_turn_unready,
    while_nothing_can_be_lowered_every_pod_serves,
];

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const PODS: u32 = 6;

async fn the_idlest_pods_go_and_the_busy_one_and_the_leader_stay(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let fleet = Fleet::beside(cluster, PODS, &policy(2, 8)).await;
    idle_pods_go(cluster, &fleet).await;
    assert!(fleet.writes(marks).is_empty(), "nobody writes pods");
}

async fn pods_that_are_marked_go_without_turning_unready(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    cluster.grant_marking().await;
    let fleet = Fleet::marking(cluster, PODS, &policy(2, 8)).await;
    let leader = idle_pods_go(cluster, &fleet).await;
    let marks = fleet.writes(marks);
    assert_eq!(marks.len(), 4, "{marks:?}");
    assert!(marks.iter().all(|seen| seen.user == leader.user));
}

async fn without_the_right_to_mark_them_pods_turn_unready(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    let fleet = Fleet::marking(cluster, PODS, &policy(2, 8)).await;
    let leader = idle_pods_go(cluster, &fleet).await;
    let plan = sidecar::api(leader.ip, "plan").await;
    let plan = plan.expect("it leads still").to_string();
    for word in ["deletion_costs", "patch", "turn unready first"] {
        assert!(plan.contains(word), "{word} is not in {plan}");
    }
}

/// Who stands aside for a write that never comes is paid for and serves nobody.
async fn while_nothing_can_be_lowered_every_pod_serves(cluster: &Cluster) {
    let rights = Right::ALL.into_iter();
    let rights: Vec<Right> = rights.filter(|right| *right != Right::Scale).collect();
    let fleet = Fleet::start_with(cluster, 4, &policy(2, 8), &rights).await;
    let leader = fleet.leader().await;
    let plan = async || sidecar::api(leader.ip, "plan").await;
    eventually(
        "the write was refused, and all are back",
        SOON * 2,
        async || {
            let plan = plan().await?;
            let told = plan.to_string().contains("deployments/scale");
            let all_serve = plan["replicas"]["ready"] == 4;
            (told && all_serve).then_some(()).ok_or(plan.to_string())
        },
    )
    .await;
    throughout("all of them serve", LEASE_DURATION * 2, async || {
        let plan = plan().await?;
        let wants_fewer = plan["plan"]["desired"] == 2;
        let all_serve = plan["replicas"]["ready"] == 4;
        (wants_fewer && all_serve)
            .then_some(())
            .ok_or(plan.to_string())
    })
    .await;
}

fn marks(seen: &Seen) -> bool {
    seen.writes() && seen.path.contains("/pods/") && seen.body.contains(COST)
}

/// Lets a fleet that starts go from six pods to two while one is busy; who leads it.
async fn idle_pods_go(cluster: &Cluster, fleet: &Fleet<'_>) -> Leader {
    annotate(cluster, json!("true")).await;
    fleet.has_ready(PODS).await;
    let leader = fleet.leader().await;
    fleet.reports_to(&leader, PODS).await;
    let pods = cluster.pods().await.into_iter().map(|pod| pod.name_any());
    let mut others = pods.filter(|pod| *pod != leader.pod);
    let busy = others.next_back().expect("six pods");
    let address = SocketAddr::from((fleet.sidecar(&busy, |sidecar| sidecar.ip), TRAFFIC));
    let (_to_one, endpoints) = watch::channel(vec![address]);
    let keepers = Keepers::start(&endpoints, &[(Way::Answers, 3)]);
    eventually("two would do, and one pod is busy", SOON, async || {
        let plan = sidecar::api(leader.ip, "plan").await?;
        let two = plan["plan"]["desired"] == 2 && !keepers.seen().served.is_empty();
        two.then_some(()).ok_or(plan.to_string())
    })
    .await;
    annotate(cluster, json!(null)).await;
    let left = BTreeSet::from([busy, leader.pod.clone()]);
    eventually("these two are left", SOON, async || {
        let pods = cluster.pods().await.into_iter();
        let pods = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let there: BTreeSet<String> = pods.map(|pod| pod.name_any()).collect();
        assert!(there.is_superset(&left), "{there:?} are left, not {left:?}");
        (there == left)
            .then_some(())
            .ok_or_else(|| format!("{there:?}"))
    })
    .await;
    let decisions = sidecar::api(leader.ip, "decisions").await;
    let decisions = decisions.expect("it leads still").to_string();
    assert!(decisions.contains("idlest first: "), "{decisions}");
    assert!(keepers.seen().failed.is_empty(), "{:?}", keepers.seen());
    leader
}

#[test]
fn of_a_pod_the_leader_may_write_its_deletion_cost_alone() {
    on_real("deletion_costs", kept_to_one_annotation);
}

/// With what inject prints, and as the account that it prints it for.
async fn kept_to_one_annotation(cluster: &Cluster) {
    let mut manifest = deployment(cluster.namespace());
    manifest["metadata"]["annotations"]["sidescale.dev/deletion-costs"] = json!("true");
    apply_ahead(cluster, &manifest, false).await;
    let mut own = pod(&manifest);
    own["metadata"]["annotations"]["theirs"] = json!("1");
    own["metadata"]["finalizers"] = json!(["example.com/keep"]);
    own["spec"]["serviceAccountName"] = json!("default");
    let name = created(cluster, &own).await;
    let mut other = own.clone();
    other["metadata"]["ownerReferences"][0]["name"] = json!("t5-5d9f7");
    let other = created(cluster, &other).await;
    let cost = |value: Value| json!({"metadata": {"annotations": {COST: value}}});
    let refused = eventually("the policy is known", SOON, async || {
        let (code, answer) = patched(cluster, &other, &cost(json!("-7"))).await;
        (code != StatusCode::OK)
            .then_some(answer)
            .ok_or_else(|| "written".to_owned())
    })
    .await;
    assert!(
        refused.contains("may write pods of bert alone"),
        "{refused}"
    );
    for value in [json!("-7"), json!("-9"), json!(null)] {
        let (code, answer) = patched(cluster, &name, &cost(value)).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
    }
    for what in [
        json!({"metadata": {"annotations": {"sidescale.dev/term": "9"}}}),
        json!({"metadata": {"annotations": {"theirs": "2"}}}),
        json!({"metadata": {"annotations": {"theirs": null}}}),
        json!({"metadata": {"labels": {"app": "t5"}}}),
        json!({"metadata": {"labels": null}}),
        json!({"metadata": {"finalizers": null}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"spec": {"activeDeadlineSeconds": 5}}),
        json!({"spec": {"containers": [{"name": "server", "image": "evil:1"}]}}),
    ] {
        let (code, answer) = patched(cluster, &name, &what).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{what}: {answer}");
        assert!(answer.contains("and nothing else"), "{what}: {answer}");
    }
}

async fn created(cluster: &Cluster, pod: &Value) -> String {
    let pods: kube::Api<Pod> = cluster.api();
    let (params, pod) = (PostParams::default(), from_json(pod.clone()));
    let created = pods.create(&params, &pod).await;
    created.expect("a pod can be made").name_any()
}

/// As the fleet's account, by a strategic merge.
async fn patched(cluster: &Cluster, pod: &str, patch: &Value) -> (StatusCode, String) {
    let namespace = cluster.namespace();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    let account = format!("system:serviceaccount:{namespace}:sidescale-bert");
    let request = Request::patch(path)
        .header("content-type", "application/strategic-merge-patch+json")
        .header("impersonate-user", account)
        .body(patch.to_string().into_bytes().into())
        .expect("a request");
    let response = cluster.admin().send(request).await.expect("it answers");
    let status = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    let body = body.expect("a whole body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}
