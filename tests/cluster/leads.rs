//! `sidescale lead` beside a Deployment: it leads while it lives, with rights that the pods with GPUs do not have.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::api_server::{FIRST_LEAD, SIDECARS, sidecar_user};
use crate::cluster::Cluster;
use crate::fleet::{Fleet, Leader, policy};
use crate::front::Seen;
use crate::manifest;
use crate::processes::Signal;
use crate::sidecar::{self, LEASE_DURATION, RETRY_PERIOD};
use crate::wait::{eventually, measured, throughout};
use crate::workload::{LEAD, SOON};

crate::each_flavour![
    sidecars_that_may_only_read_are_scaled_by_a_lead_and_then_by_its_twin,
    a_sidecar_leads_while_no_lead_does_and_gives_up_to_the_one_that_comes_back,
    without_a_leader_followers_say_so_once_and_ask_for_next_to_nothing,
    a_lead_that_may_not_write_is_named_once_and_says_which_rule_is_missing,
];

/// Enough for five pods at their target.
const BURST: u32 = 80;

async fn sidecars_that_may_only_read_are_scaled_by_a_lead_and_then_by_its_twin(cluster: &Cluster) {
    grant_leads(cluster).await;
    cluster.deploy_leads(2).await;
    let fleet = Fleet::following(cluster, 2, &policy(2, 8)).await;
    let first = fleet.leader().await;
    assert!(is_lead(&first), "{first:?}");
    fleet.has_ready(2).await;
    fleet.reports_to(&first, 2).await;
    let load = fleet.load(BURST);
    fleet.is_enough_for(BURST).await;
    fleet.has_all_ready().await;
    only_members_count(cluster, &first).await;
    shows_the_fleet_everywhere(cluster, &fleet).await;

    has_twin(cluster, &fleet, &first).await;
    let told = fleet.signal(&first, Signal::Term);
    let second = fleet.successor_of(&first).await;
    assert!(is_lead(&second), "{second:?}");
    let acts = first_write_of(&fleet, &second);
    measured(
        cluster,
        "SIGTERM of a lead to its twin's write",
        acts.at.since(told),
    );

    // The kubelet starts the first one again.
    has_twin(cluster, &fleet, &second).await;
    let killed = fleet.signal(&second, Signal::Kill);
    let third = fleet.successor_of(&second).await;
    assert!(is_lead(&third), "{third:?}");
    measured(
        cluster,
        "SIGKILL of a lead to its twin's reign",
        cluster.clock().instant().since(killed),
    );
    assert_eq!(load.failed(), 0);

    // The rights that inject gives are all that either asks for, and a follower looks at its Lease and, once, for its Deployment.
    let seen = cluster.front().seen();
    let refused: Vec<&Seen> = seen.iter().filter(|seen| is_forbidden(seen)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let others: Vec<&Seen> = seen
        .iter()
        .filter(|seen| !is_user_of_lead(&seen.user))
        .filter(|seen| !is_a_followers(seen))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

async fn a_sidecar_leads_while_no_lead_does_and_gives_up_to_the_one_that_comes_back(
    cluster: &Cluster,
) {
    grant_leads(cluster).await;
    let fleet = Fleet::start(cluster, 3, &policy(3, 8)).await;
    let sidecar = fleet.leader().await;
    assert!(!is_lead(&sidecar), "{sidecar:?}");
    let load = fleet.load(20);
    cluster.deploy_leads(1).await;
    let lead = fleet.successor_of(&sidecar).await;
    assert!(is_lead(&lead), "{lead:?}");
    let gave_up = fleet.writes(|seen| seen.writes_lease() && seen.user == sidecar.user);
    let gave_up = gave_up.last().expect("it led");
    let took = first_write_of(&fleet, &lead).at.since(gave_up.at);
    measured(cluster, "a sidecar gives up to the lead's write", took);
    assert!(took < RETRY_PERIOD, "by its goodbye: {took:?}");

    is_prepared(&fleet, &lead, 3).await;
    let killed = fleet.signal(&lead, Signal::Kill);
    let sidecar = fleet.successor_of(&lead).await;
    assert!(!is_lead(&sidecar), "{sidecar:?}");
    let write = first_write_of(&fleet, &sidecar);
    measured(
        cluster,
        "SIGKILL of the only lead to a sidecar's write",
        write.at.since(killed),
    );
    // The kubelet starts the lead again, and it is given the lead when it has been there for a while.
    let again = fleet.successor_of(&sidecar).await;
    assert!(is_lead(&again), "{again:?}");
    throughout("it goes on leading", LEASE_DURATION * 3, async || {
        let now = fleet.leads().await?;
        (now == again)
            .then_some(())
            .ok_or(format!("{now:?}, no longer {again:?}"))
    })
    .await;
    only_members_count(cluster, &again).await;
    assert_eq!(load.failed(), 0);
}

async fn without_a_leader_followers_say_so_once_and_ask_for_next_to_nothing(cluster: &Cluster) {
    let fleet = Fleet::following(cluster, 2, &policy(2, 8)).await;
    fleet.has_ready(2).await;
    let words = ["nobody leads", "sidescale lead --target bert"];
    let pods = cluster.pods().await;
    let pods: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    let conditions = async |pod: &String| {
        let ip = fleet.sidecar(pod, |sidecar| sidecar.ip);
        let plan = sidecar::api(ip, "plan").await?;
        Ok::<_, String>(plan["conditions"].to_string())
    };
    for pod in &pods {
        eventually("its page says that nobody leads", SOON, async || {
            let said = conditions(pod).await?;
            words
                .iter()
                .all(|word| said.contains(word))
                .then_some(())
                .ok_or(said)
        })
        .await;
        let ip = fleet.sidecar(pod, |sidecar| sidecar.ip);
        let metrics = sidecar::metrics(ip).await.expect("it answers");
        assert!(
            metrics.contains("sidescale_fault{kind=\"leader\"} 1"),
            "{metrics}"
        );
    }
    let before = cluster.front().seen().len();
    let long = LEASE_DURATION * 4;
    throughout("they ask for nothing else", long, async || {
        let mut seen = cluster.front().seen();
        seen.retain(|seen| !is_a_followers(seen) || is_forbidden(seen));
        seen.is_empty().then_some(()).ok_or(format!("{seen:#?}"))
    })
    .await;
    let seen = cluster.front().seen();
    let asked = seen.len() - before;
    assert!(asked <= pods.len() * 2, "{asked} requests in {long:?}");
    for pod in &pods {
        let said = fleet.sidecar(pod, |sidecar| sidecar.process().said());
        assert_eq!(said.matches(words[0]).count(), 1, "{said}");
    }

    grant_leads(cluster).await;
    cluster.deploy_leads(1).await;
    let lead = fleet.leader().await;
    assert!(is_lead(&lead), "{lead:?}");
    for pod in &pods {
        eventually("its page shows the lead's plan", SOON, async || {
            let said = conditions(pod).await?;
            (said == "[]").then_some(()).ok_or(said)
        })
        .await;
    }
    let _load = fleet.load(BURST);
    fleet.is_enough_for(BURST).await;
}

/// Nobody knows that before it has tried. The sidecars must not hand the Lease to and fro for it.
async fn a_lead_that_may_not_write_is_named_once_and_says_which_rule_is_missing(cluster: &Cluster) {
    let (_lead, mut rules, _following) = manifest::of_lead();
    let of_lease = rules
        .iter_mut()
        .find(|rule| rule["resources"][0] == "leases");
    of_lease.expect("inject's Role has it")["verbs"] = json!(["get", "watch"]);
    cluster.grant_leads(rules).await;
    let fleet = Fleet::start(cluster, 3, &policy(3, 8)).await;
    let before = fleet.leader().await;
    cluster.deploy_leads(1).await;
    let tried =
        |seen: &Seen| is_user_of_lead(&seen.user) && is_forbidden(seen) && !is_a_followers(seen);
    eventually("it was given the chance", SOON, async || {
        let seen = cluster.front().seen();
        seen.iter()
            .any(tried)
            .then_some(())
            .ok_or("not yet".to_owned())
    })
    .await;
    let after = eventually("a sidecar leads after it", SOON, async || {
        let leader = fleet.leads().await?;
        (leader.term > before.term)
            .then_some(leader)
            .ok_or("not yet".to_owned())
    })
    .await;
    assert!(!is_lead(&after), "{after:?}");
    throughout("that one leads", LEASE_DURATION * 4, async || {
        let now = fleet.leads().await?;
        (now == after)
            .then_some(())
            .ok_or(format!("{now:?}, no longer {after:?}"))
    })
    .await;
    let pods = cluster.pods().await;
    let lead = pods.iter().map(ResourceExt::name_any);
    let lead = lead.into_iter().find(|pod| pod.starts_with(LEAD));
    let ip = fleet.sidecar(&lead.expect("it runs"), |sidecar| sidecar.ip);
    let why = sidecar::is_ready(ip).await.expect_err("it cannot lead");
    for word in ["503", "leases", "\"update\""] {
        assert!(why.contains(word), "{word} not in {why}");
    }
}

/// inject's Role for leads.
async fn grant_leads(cluster: &Cluster) {
    let (_lead, rules, _following) = manifest::of_lead();
    cluster.grant_leads(rules).await;
}

fn is_lead(leader: &Leader) -> bool {
    let by_name = leader.pod.starts_with(LEAD);
    assert_eq!(by_name, is_user_of_lead(&leader.user), "{leader:?}");
    by_name
}

fn is_user_of_lead(user: &str) -> bool {
    (FIRST_LEAD..SIDECARS).any(|number| sidecar_user(number) == user)
}

fn is_forbidden(seen: &Seen) -> bool {
    seen.status == Some(StatusCode::FORBIDDEN)
}

/// Whether it is a look at one Lease, or at what leads from a pod to its Deployment.
fn is_a_followers(seen: &Seen) -> bool {
    let objects = ["/leases/", "/pods/", "/replicasets/"];
    seen.method == Method::GET && objects.iter().any(|part| seen.path.contains(part))
}

/// The first accepted write to the Deployment of one who leads.
fn first_write_of(fleet: &Fleet<'_>, leader: &Leader) -> Seen {
    let writes = fleet.writes(Seen::writes_deployment);
    let before = writes.iter().rposition(|seen| seen.user != leader.user);
    let first = before.map_or(0, |before| before + 1);
    writes.get(first).expect("it has stamped").clone()
}

/// Waits until all members have been told by `leader` who stands by.
async fn is_prepared(fleet: &Fleet<'_>, leader: &Leader, members: u32) {
    fleet.reports_to(leader, members).await;
    another_turn(leader).await;
}

/// Waits until the other lead follows `leader`, and stands by.
async fn has_twin(cluster: &Cluster, fleet: &Fleet<'_>, leader: &Leader) {
    let pods = cluster.pods().await;
    let leads = pods.iter().map(ResourceExt::name_any);
    let mut twins = leads.filter(|pod| pod.starts_with(LEAD) && *pod != leader.pod);
    let twin = twins.next().expect("there are two");
    let ip = fleet.sidecar(&twin, |sidecar| sidecar.ip);
    eventually("the twin follows", SOON, async || {
        sidecar::is_ready(ip).await?;
        let plan = sidecar::api(ip, "plan").await?;
        let follows = plan["leader"] == leader.pod.as_str();
        follows.then_some(()).ok_or(plan.to_string())
    })
    .await;
    // Kubernetes has to know that it is ready, too.
    eventually("the twin is ready", SOON, async || {
        let pod: Pod = cluster.api().get(&twin).await.expect("it is there");
        let conditions = pod.status.and_then(|status| status.conditions);
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ready.then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    another_turn(leader).await;
}

/// Waits until `leader` has made a turn on what it knows by now: each tells everybody who stands by.
async fn another_turn(leader: &Leader) {
    let turn = async || {
        let plan = sidecar::api(leader.ip, "plan").await?;
        plan["now"].as_f64().ok_or(plan.to_string())
    };
    // Of the next one the look may have been before.
    for _turn in 0..2 {
        let last = turn().await.expect("it has just answered");
        eventually("another turn is made", SOON, async || {
            let now = turn().await?;
            (now > last).then_some(()).ok_or(format!("still {now}"))
        })
        .await;
    }
}

/// The plan knows of the Deployment's pods and of no other.
async fn only_members_count(cluster: &Cluster, leader: &Leader) {
    eventually("only members count", SOON, async || {
        let plan = sidecar::api(leader.ip, "plan").await?;
        let replicas = &plan["replicas"];
        let asked = cluster.replicas().await;
        let all =
            replicas["ready"] == asked && replicas["unknown"] == 0 && replicas["starting"] == 0;
        all.then_some(()).ok_or(format!("{replicas} of {asked}"))
    })
    .await;
}

/// Whichever pod is asked shows the leader's plan.
async fn shows_the_fleet_everywhere(cluster: &Cluster, fleet: &Fleet<'_>) {
    for pod in cluster.pods().await {
        let ip = fleet.sidecar(&pod.name_any(), |sidecar| sidecar.ip);
        eventually("it shows the plan", SOON, async || {
            let plan = sidecar::api(ip, "plan").await?;
            let desired = plan["plan"]["desired"].as_u64();
            desired.map(drop).ok_or(plan.to_string())
        })
        .await;
    }
}
