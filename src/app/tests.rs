//! One whole sidecar against the embedded API server: which Deployment it takes part for, and what is left of a leader.

mod lead;
mod pairs;
mod passive;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::faults::Fault;
use super::*;
use crate::clock::Timestamp;
use crate::config::{Cluster, Election, Pod, Route};
use crate::leader::Part;
use crate::lifecycle::Phase;
use crate::local::{self, Action};
use crate::proxy::Protocol;

struct Setting {
    clock: Clock,
    cluster: local::Cluster,
    running: Running,
    policy: std::path::PathBuf,
}

impl Setting {
    /// A sidecar of the pod `alone`, which nobody owns, beside the Deployment `bert`; `hook` is the API server's.
    async fn new(
        name: &str,
        hook: impl Fn(&Request<Bytes>) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, hook, None).await
    }

    /// The same; with `accounts` of a server that counts for itself it has no proxy.
    async fn with(
        name: &str,
        hook: impl Fn(&Request<Bytes>) -> Action + Send + Sync + 'static,
        accounts: Option<Arc<proxy::Accounts>>,
    ) -> Self {
        let change = |config: &mut Config| {
            if accounts.is_some() {
                config.routes.clear();
            }
        };
        Self::changed(name, hook, accounts.clone(), POLICY, change).await
    }

    /// The same under another `policy`, and with what `change` makes of its configuration.
    async fn changed(
        name: &str,
        hook: impl Fn(&Request<Bytes>) -> Action + Send + Sync + 'static,
        accounts: Option<Arc<proxy::Accounts>>,
        policy: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        // Not faster: a machine under load would miss a renewal.
        let clock = Clock::scaled(Timestamp::from_secs(1_700_000_000), 5.0);
        let cluster = local::Cluster::start(local::Settings::new(clock.clone(), 1));
        let deployment = json!({"metadata": {"name": "bert"}, "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "bert"}},
            "template": {
                "metadata": {"labels": {"app": "bert"}},
                "spec": {"containers": [{"name": "model", "image": "model"}]},
            },
        }});
        let deployment = serde_json::from_value(deployment).expect("a Deployment");
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client("test"));
        let created = deployments
            .create(&PostParams::default(), &deployment)
            .await;
        created.expect("it is new");
        cluster.faults().set_hook(hook);
        let path = std::env::temp_dir().join(format!("sidescale-{}-{name}", std::process::id()));
        std::fs::write(&path, policy).expect("a folder for such files");
        let connection = Connection {
            client: cluster.client("sidescale"),
            namespace: "default".to_owned(),
        };
        let mut config = config(path.clone());
        change(&mut config);
        let sidecar = Sidecar {
            config,
            accounts,
            connector: Some(Connector::Given(connection)),
            clock: clock.clone(),
            seed: 7,
            traffic: Tasks::here(),
            control: Handle::current(),
        };
        Self {
            clock,
            cluster,
            running: sidecar.start().expect("the ports are free"),
            policy: path,
        }
    }

    async fn until(&self, what: &str, reached: impl Fn(&Shared) -> bool) {
        let start = self.clock.instant();
        while !reached(&self.running.shared) {
            let waited = self.clock.instant().since(start);
            assert!(waited < Duration::from_secs(600), "{what}");
            self.clock.sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        std::fs::remove_file(&self.policy).ok();
    }
}

fn config(policy: std::path::PathBuf) -> Config {
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    Config {
        part: Part::Sidecar,
        routes: vec![Route {
            listen: free,
            upstream: proxy::Upstream::new(([127, 0, 0, 1], 9).into()),
        }],
        upstream_protocol: Protocol::default(),
        upstream_ready: UpstreamReady::Tcp,
        server_metrics: None,
        limit: None,
        admin: free,
        member: free,
        policy,
        cluster: Some(Cluster {
            kubeconfig: None,
            namespace: None,
            target: None,
        }),
        deletion_costs: false,
        memory_limit: None,
        gpu_devices: Vec::new(),
        election: Election {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        },
        propagation: Duration::from_secs(1),
        grace: Duration::from_secs(10),
        pod: Pod {
            name: "alone".to_owned(),
            ip: None,
        },
    }
}

const POLICY: &str = "target: {kind: Deployment, name: bert}\nmode: auto\nmaxReplicas: 3\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_policys_target_is_the_deployment_and_nobody_is_asked_for_the_pods_owner() {
    let setting = Setting::new("target", |_| Action::Pass).await;
    let known = |shared: &Shared| shared.workload().get().is_some();
    setting.until("a target", known).await;
    let shared = &setting.running.shared;
    assert_eq!(shared.workload().get().expect("waited for"), "default/bert");
    let kinds = shared.faults.counts();
    assert!(
        kinds.iter().all(|fault| fault.kind != "target"),
        "{kinds:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_shows_and_suffers_from_ends_with_its_reign() {
    let hook = |request: &Request<Bytes>| {
        if request.uri().path().ends_with("/pods") {
            return Action::Fail(403);
        }
        Action::Pass
    };
    let setting = Setting::new("reign", hook).await;
    let suffers = |shared: &Shared| shared.faults.text(Fault::WatchPods).is_some();
    setting.until("the pods cannot be watched", suffers).await;
    let shared = &setting.running.shared;
    assert!(shared.board().is_some());
    // The Deployment's watch is well, and says nothing of the pods'.
    assert_eq!(shared.faults.text(Fault::WatchDeployment), None);
    let text = shared.faults.text(Fault::WatchPods).unwrap_or_default();
    assert!(text.contains("resources: [\"pods\"]"), "{text}");
    // Without its pods it has no plan to show, and says that it leads and what is missing.
    let source = setting.running.source();
    assert_eq!(source.overview(), None);
    let standing = source.standing();
    assert_eq!(standing.leader.as_deref(), Some("alone"));
    assert_eq!(standing.workload, "default/bert");
    assert_eq!(standing.conditions, shared.faults.conditions());
    setting.running.drain().await;
    assert!(shared.board().is_none(), "a drained pod leads no more");
    assert_eq!(shared.faults.conditions(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reign_that_cannot_stamp_or_whose_policy_breaks_says_so_on_the_deployment() {
    let (heard, told) = std::sync::mpsc::channel();
    let hook = move |request: &Request<Bytes>| {
        let path = request.uri().path();
        if path.ends_with("/events") {
            let event: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
            let reason = event["reason"].as_str().unwrap_or_default().to_owned();
            heard.send(reason).ok();
        }
        // The stamp's.
        if path.ends_with("/deployments/bert/status") {
            return Action::Fail(403);
        }
        Action::Pass
    };
    let setting = Setting::new("stamp", hook).await;
    let told = std::sync::Mutex::new(told);
    let is_told = |reason: &str| {
        let told = told.lock().expect("no panic");
        told.try_iter().any(|told| told == reason)
    };
    setting
        .until("StampForbidden", |_| is_told("StampForbidden"))
        .await;
    let reigns = |shared: &Shared| shared.board().is_some();
    setting.until("a reign without a stamp", reigns).await;
    let shared = &setting.running.shared;
    let text = shared.faults.text(Fault::Scale).unwrap_or_default();
    assert!(text.contains("deployments/status"), "{text}");
    std::fs::write(&setting.policy, "maxReplicas: many\n").expect("it can be written");
    setting
        .until("PolicyRefused", |_| is_told("PolicyRefused"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_counts_for_itself_reports_leads_drains_and_hands_over() {
    let accounts = Arc::new(proxy::Accounts::new(Clock::real()));
    let given = Some(Arc::clone(&accounts));
    let setting = Setting::with("counts", |_| Action::Pass, given).await;
    setting
        .until("it leads", |shared| shared.board().is_some())
        .await;
    let running = &setting.running;
    assert!(running.routes().is_empty() && running.is_ready());
    let in_flight = accounts.arrive();
    let report = running.shared.report();
    assert_eq!((report.total.arrivals, report.in_flight), (1.0, 1));
    drop(in_flight);
    running.drain().await;
    assert!(!running.is_ready());
    let report = running.shared.report();
    assert_eq!((report.ready, report.draining), (false, true));
    let candidacy = running.shared.candidacy().borrow().clone();
    let leadership = candidacy
        .expect("it took part")
        .leadership()
        .borrow()
        .clone();
    assert!(
        !matches!(leadership, crate::leader::Leadership::Leading(_)),
        "{leadership:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_to_stand_aside_does_so_for_a_time_and_serves_on() {
    let accounts = Arc::new(proxy::Accounts::new(Clock::real()));
    let given = Some(Arc::clone(&accounts));
    let setting = Setting::with("aside", |_| Action::Pass, given).await;
    let (running, shared) = (&setting.running, &setting.running.shared);
    assert!(running.is_ready());
    let long = Duration::from_secs(30);
    assert!(shared.stand_aside(long));
    assert!(!shared.stand_aside(long), "said again it is no news");
    let text = shared.ready().expect_err("unready");
    assert!(text.contains("standing aside"), "{text}");
    let report = shared.report();
    assert_eq!((report.ready, report.draining), (false, true));
    assert_eq!(shared.phase(), Phase::Serving, "nothing ends for it");
    assert!(shared.stand_aside(Duration::ZERO), "taken back");
    assert!(running.is_ready() && !shared.report().draining);
    // A leader that has died takes nothing back, and one that errs keeps nobody away for ever.
    assert!(shared.stand_aside(Duration::MAX));
    setting
        .until("it is ready by itself", |shared| shared.ready().is_ok())
        .await;
}

/// std's own listener has room for 128.
#[test]
fn a_fleets_clients_may_come_all_at_once() {
    let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let clients: Vec<_> = (0..400)
        .map(|_client| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)))
        .collect();
    let turned_away = clients.iter().filter(|client| client.is_err()).count();
    assert_eq!(
        turned_away, 0,
        "(is net.core.somaxconn below 4096? see `sysctl net.core.somaxconn`)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_reaches_none_of_its_members_says_what_may_stand_between() {
    let setting = Setting::new("reach", |_| Action::Pass).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::default_namespaced(setting.cluster.client("test"));
    let reigns = |shared: &Shared| shared.board().is_some();
    setting.until("a reign", reigns).await;
    let mut listed = pods.list(&kube::api::ListParams::default()).await;
    while listed.as_ref().is_ok_and(|pods| pods.items.is_empty()) {
        setting.clock.sleep(Duration::from_millis(200)).await;
        listed = pods.list(&kube::api::ListParams::default()).await;
    }
    let pod = listed.expect("pods can be listed").items.remove(0);
    let name = pod.metadata.name.expect("a pod has a name");
    // Ready, and nobody listens at its address.
    let status = json!({"status": {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let (params, patch) = (
        kube::api::PatchParams::default(),
        kube::api::Patch::Merge(status),
    );
    let patched = pods.patch_status(&name, &params, &patch).await;
    patched.expect("a kubelet may");
    let suffers = |shared: &Shared| shared.faults.text(Fault::Members).is_some();
    setting
        .until("the members cannot be reached", suffers)
        .await;
    let shared = &setting.running.shared;
    let text = shared.faults.text(Fault::Members).unwrap_or_default();
    for word in ["1 of 1", "NetworkPolicy", "mesh"] {
        assert!(text.contains(word), "{word} not in {text}");
    }
}
