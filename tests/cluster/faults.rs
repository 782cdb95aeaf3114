//! What is missing is named, with its remedy; requests flow all the same.

use std::net::Ipv4Addr;
use std::time::Duration;

use kube::ResourceExt as _;
use sidescale::local::kubelet::Address;

use crate::client;
use crate::cluster::Cluster;
use crate::fleet::{Fleet, SERVICE_TIME, policy};
use crate::front::Seen;
use crate::model_server::{ANSWER, ModelServer};
use crate::node::addresses;
use crate::sidecar::{self, ADMIN, LEASE_DURATION, Pod, Sidecar, Surroundings, TRAFFIC};
use crate::wait::{eventually, throughout};
use crate::workload::{Right, SOON, idle_pod};

crate::each_flavour![
    without_the_right_to_the_lease_the_rule_is_printed_and_requests_flow,
    without_the_right_to_scale_the_rule_is_printed_and_requests_flow,
    without_the_right_to_stamp_the_fleet_is_shown_and_the_rule_is_printed,
    without_the_right_to_the_pods_the_rule_is_printed_and_requests_flow,
    without_a_policy_requests_flow_and_nothing_scales,
    without_a_cluster_both_places_are_named_and_requests_flow,
];

async fn without_the_right_to_the_lease_the_rule_is_printed_and_requests_flow(cluster: &Cluster) {
    let rights = all_but(Right::Lease);
    let fleet = Fleet::start_with(cluster, 2, &policy(2, 8), &rights).await;
    fleet.has_ready(2).await;
    let words = ["coordination.k8s.io", "leases", "sidescale-bert", "update"];
    say(cluster, &fleet, &words).await;
    for pod in cluster.pods().await {
        let ip = fleet.sidecar(&pod.name_any(), |sidecar| sidecar.ip);
        shows(ip, "lease", &words).await;
    }
    flows_without_scaling(cluster, &fleet).await;
}

async fn without_the_right_to_scale_the_rule_is_printed_and_requests_flow(cluster: &Cluster) {
    let rights = all_but(Right::Scale);
    let fleet = Fleet::start_with(cluster, 2, &policy(2, 8), &rights).await;
    fleet.has_ready(2).await;
    let leader = fleet.leader().await;
    let load = fleet.load(80);
    let words = ["deployments/scale", "apps", "patch"];
    eventually(
        "the leader prints the rule",
        Duration::from_secs(30),
        async || fleet.sidecar(&leader.pod, |sidecar| sidecar.has_said(&words)),
    )
    .await;
    shows(leader.ip, "scale", &words).await;
    tells(cluster, "ScaleForbidden").await;
    assert_eq!(load.failed(), 0);
    assert_eq!(cluster.replicas().await, 2);
}

/// It leads, measures and shows, and cannot write: whoever looks at any pod sees the fleet and what is missing.
async fn without_the_right_to_stamp_the_fleet_is_shown_and_the_rule_is_printed(cluster: &Cluster) {
    let rights = all_but(Right::Stamp);
    let fleet = Fleet::start_with(cluster, 2, &policy(2, 8), &rights).await;
    fleet.has_ready(2).await;
    let words = ["deployments/status", "apps", "patch"];
    tells(cluster, "StampForbidden").await;
    for pod in cluster.pods().await {
        let ip = fleet.sidecar(&pod.name_any(), |sidecar| sidecar.ip);
        is_wrong(ip, "scale", &words).await;
        eventually("it shows the fleet", SOON, async || {
            let plan = sidecar::api(ip, "plan").await?;
            let is_shown = plan["replicas"]["ready"] == 2;
            is_shown.then_some(()).ok_or(plan.to_string())
        })
        .await;
    }
    flows_without_scaling(cluster, &fleet).await;
}

async fn without_the_right_to_the_pods_the_rule_is_printed_and_requests_flow(cluster: &Cluster) {
    let rights = all_but(Right::Pods);
    let fleet = Fleet::start_with(cluster, 2, &policy(2, 8), &rights).await;
    fleet.has_ready(2).await;
    let leader = fleet.leader().await;
    // The Deployment's own watch works, and does not clear what the pods' suffers from.
    let words = ["\"pods\"", "apiGroups", "list", "watch"];
    shows(leader.ip, "watch_pods", &words).await;
    flows_without_scaling(cluster, &fleet).await;
    shows(leader.ip, "watch_pods", &words).await;
}

async fn without_a_policy_requests_flow_and_nothing_scales(cluster: &Cluster) {
    cluster.grant(&Right::ALL).await;
    cluster.deploy(1, idle_pod()).await;
    let around = Surroundings {
        policy: None,
        cluster: true,
        follow: false,
        costs: false,
    };
    let lone = lone(cluster, &around).await;
    says(&lone.sidecar, &["lone.policy.yaml"]).await;
    shows(lone.sidecar.ip, "policy", &["lone.policy.yaml", "mount it"]).await;
    tells(cluster, "PolicyRefused").await;
    is_served(lone.sidecar.ip).await;
    throughout("nothing scales", LEASE_DURATION * 2, async || {
        let writes = cluster.front().seen();
        let scaled = writes.iter().any(Seen::writes_deployment);
        (!scaled)
            .then_some(())
            .ok_or("the Deployment was written".to_owned())
    })
    .await;
}

async fn without_a_cluster_both_places_are_named_and_requests_flow(cluster: &Cluster) {
    let around = Surroundings {
        policy: Some(policy(1, 2)),
        cluster: false,
        follow: false,
        costs: false,
    };
    let lone = lone(cluster, &around).await;
    let places = [
        ".kube/config",
        "/var/run/secrets/kubernetes.io/serviceaccount",
    ];
    says(&lone.sidecar, &places).await;
    shows(lone.sidecar.ip, "cluster", &places).await;
    is_served(lone.sidecar.ip).await;
    assert_eq!(cluster.front().seen(), [], "there is nothing it could ask");
}

fn all_but(missing: Right) -> Vec<Right> {
    Right::ALL
        .into_iter()
        .filter(|right| *right != missing)
        .collect()
}

/// A sidecar without a pod, the server behind it, and the address they have.
struct Lone {
    sidecar: Sidecar,
    _model: ModelServer,
    _address: Address,
}

async fn lone(cluster: &Cluster, around: &Surroundings) -> Lone {
    let address = addresses().take().expect("a new network has addresses");
    let ip = address.ip();
    let model = ModelServer::start(ip, SERVICE_TIME).expect("the address is ours alone");
    let pod = Pod {
        name: "lone".to_owned(),
        ip,
        number: 0,
        env: [
            ("POD_NAME", "lone"),
            ("POD_NAMESPACE", cluster.namespace()),
            ("POD_IP", &ip.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        leads: false,
    };
    let mut sidecar = Sidecar::start(&cluster.access(), around, &pod);
    sidecar.ready().await;
    Lone {
        sidecar,
        _model: model,
        _address: address,
    }
}

async fn is_served(ip: Ipv4Addr) {
    let limit = Duration::from_secs(5);
    let (status, body) = client::get((ip, TRAFFIC).into(), "/infer", limit)
        .await
        .expect("the sidecar passes it on");
    assert_eq!(status, 200);
    assert_eq!(body, ANSWER);
}

/// Waits until this sidecar's log has all of `words`.
async fn says(sidecar: &Sidecar, words: &[&str]) {
    eventually(
        &format!("it says {words:?}"),
        Duration::from_secs(30),
        async || sidecar.has_said(words),
    )
    .await;
}

/// Waits until the plan of the sidecar at `ip` says that this is wrong, in all of `words`.
async fn is_wrong(ip: Ipv4Addr, kind: &str, words: &[&str]) {
    let what = format!("the plan at {ip} says {kind}: {words:?}");
    eventually(&what, SOON, async || {
        let plan = sidecar::api(ip, "plan").await?;
        let conditions = plan["conditions"].as_array().into_iter().flatten();
        let texts = conditions
            .filter(|condition| condition["kind"] == kind)
            .filter_map(|condition| condition["text"].as_str());
        if texts
            .into_iter()
            .any(|text| words.iter().all(|word| text.contains(word)))
        {
            return Ok(());
        }
        Err(plan["conditions"].to_string())
    })
    .await;
}

/// The same, and its metric.
async fn shows(ip: Ipv4Addr, kind: &str, words: &[&str]) {
    is_wrong(ip, kind, words).await;
    let limit = Duration::from_secs(5);
    let answer = client::get((ip, ADMIN).into(), "/metrics", limit).await;
    let (_status, metrics) = answer.expect("the sidecar answers");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let line = format!("sidescale_fault{{kind=\"{kind}\"}} 1");
    assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
}

/// Waits until an Event of this reason was written.
async fn tells(cluster: &Cluster, reason: &str) {
    eventually(&format!("an Event says {reason}"), SOON, async || {
        let seen = cluster.front().seen();
        let mut events = seen.iter().filter(|seen| seen.writes_event());
        let told = events.any(|seen| {
            seen.body.contains(reason) && seen.status.is_some_and(|status| status.is_success())
        });
        told.then_some(()).ok_or("none does".to_owned())
    })
    .await;
}

/// Waits until every sidecar's log has all of `words`.
async fn say(cluster: &Cluster, fleet: &Fleet<'_>, words: &[&str]) {
    for pod in cluster.pods().await {
        let pod = pod.name_any();
        eventually(
            &format!("{pod} says {words:?}"),
            Duration::from_secs(30),
            async || fleet.sidecar(&pod, |sidecar| sidecar.has_said(words)),
        )
        .await;
    }
}

async fn flows_without_scaling(cluster: &Cluster, fleet: &Fleet<'_>) {
    let load = fleet.load(80);
    throughout("nothing scales", LEASE_DURATION * 2, async || {
        let scaled = cluster.front().seen().iter().any(Seen::writes_scale);
        (!scaled)
            .then_some(())
            .ok_or("a scale was written".to_owned())
    })
    .await;
    assert_eq!(load.failed(), 0);
    assert!(load.served() > 0);
}
