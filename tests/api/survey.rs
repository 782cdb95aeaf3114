//! What `inject --live` asks a cluster about workloads, and what it makes of each answer.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};
use sidescale::clock::Clock;
use sidescale::inject::{self, Options, Prospect, Source};
use sidescale::proxy::Latencies;
use sidescale::survey::survey;
use sidescale::telemetry::{Readings, Requests, render};

const BERT: &str = "/apis/apps/v1/namespaces/ml/deployments/bert";
const PODS: &str = "/api/v1/namespaces/ml/pods?&labelSelector=app%3Dbert";
const METRICS_OF_A: &str = "/api/v1/namespaces/ml/pods/bert-a:9999/proxy/metrics";
const METRICS_OF_B: &str = "/api/v1/namespaces/ml/pods/bert-b:9090/proxy/metrics";

/// An API server that has these answers, by what is read; whatever else is asked fails the test.
#[derive(Clone, Default)]
struct Answers {
    by_path: BTreeMap<String, (u16, String)>,
    /// Never answered.
    mute: Vec<&'static str>,
}

impl Answers {
    /// Two pods of bert on a node each, with sidecars that have carried requests of 40 s, and pods of others.
    fn new() -> Self {
        let mut answers = Self::default();
        let selector = json!({"matchLabels": {"app": "bert"}});
        answers.set(
            BERT,
            &json!({"spec": {"selector": selector, "template": {}}}),
        );
        let mut a = pod("bert-a", "node-a", "3");
        a["spec"]["initContainers"] = json!([{
            "name": "sidescale", "ports": [{"name": "sidescale-admin", "containerPort": 9999}],
        }]);
        let mut b = pod("bert-b", "node-b", "3");
        let beside = b["spec"]["containers"].as_array_mut();
        beside.expect("a list").push(json!({"name": "sidescale"}));
        let unscheduled =
            json!({"metadata": {"name": "bert-c", "uid": "c"}, "spec": {"containers": []}});
        answers.set(PODS, &json!({"items": [a, b, unscheduled]}));
        let mut over = pod("over", "node-a", "64");
        over["status"]["phase"] = json!("Succeeded");
        answers.node("node-a", "3100m", &[&a, &over]);
        answers.node("node-b", "3200m", &[&b, &pod("other", "node-b", "200m")]);
        for path in [METRICS_OF_A, METRICS_OF_B] {
            answers.by_path.insert(path.to_owned(), (200, metrics(60)));
        }
        answers
    }

    fn set(&mut self, path: &str, answer: &Value) {
        self.by_path
            .insert(path.to_owned(), (200, answer.to_string()));
    }

    fn node(&mut self, name: &str, cpu: &str, pods: &[&Value]) {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "64Gi"}}});
        self.set(&format!("/api/v1/nodes/{name}"), &node);
        let path = format!("/api/v1/pods?&fieldSelector=spec.nodeName%3D{name}");
        self.set(&path, &json!({"items": pods}));
    }

    fn refuse(&mut self, path: &str, code: u16) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "not for you",
            "reason": "Refused", "code": code,
        });
        self.by_path
            .insert(path.to_owned(), (code, status.to_string()));
    }

    /// What is said about `prospects` and refused, or why it ended.
    async fn said(self, prospects: &[Prospect]) -> Result<(Vec<String>, Vec<String>), String> {
        let service = tower::service_fn(move |request: Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri());
            let path = line.strip_prefix("GET ").expect("it only reads").to_owned();
            let is_mute = self.mute.contains(&path.as_str());
            let answer = self.by_path.get(&path).cloned();
            async move {
                if is_mute {
                    std::future::pending::<()>().await;
                }
                let (code, text) = answer.unwrap_or_else(|| panic!("nobody expects {path}"));
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = StatusCode::from_u16(code).expect("a code");
                Ok::<_, std::io::Error>(response)
            }
        });
        let client = kube::Client::new(service, "ml");
        let survey = survey(&client, "ml", &Clock::real(), prospects).await;
        let survey = survey.map_err(|fault| fault.to_string())?;
        let notes = survey.notes.iter().map(ToString::to_string).collect();
        let refusals = survey.refusals.iter().map(ToString::to_string).collect();
        Ok((notes, refusals))
    }
}

fn pod(name: &str, node: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": name},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "server", "resources": {"requests": {"cpu": cpu}}}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// What a sidecar tells that has carried so many requests of 40 s.
fn metrics(requests: usize) -> String {
    let service = std::iter::repeat_n(Duration::from_secs(40), requests).collect();
    let took = Latencies {
        service,
        ..Latencies::default()
    };
    render(Readings {
        requests: Some(Requests {
            took,
            ..Requests::default()
        }),
        ..Readings::default()
    })
}

/// What inject makes of bert, whose server asks for 3 cores.
fn bert(kind: &str, grace: &str) -> Vec<Prospect> {
    let mut spec = pod("", "", "3")["spec"].clone();
    spec.as_object_mut().expect("a spec").remove("nodeName");
    spec["containers"][0]["image"] = json!("vllm/vllm-openai:v0.9");
    spec["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8000}]);
    let annotations = json!({"sidescale.dev/inject": "true", "sidescale.dev/grace": grace});
    let metadata = json!({"name": "bert", "annotations": annotations});
    let manifest = if kind == "Pod" {
        json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
    } else {
        let spec = json!({"selector": {}, "template": {"metadata": {}, "spec": spec}});
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let options = Options {
        image: "sidescale:test".to_owned(),
        classic: false,
        selector: None,
        lead: false,
        network: None,
    };
    let source = Source {
        name: "bert.yaml".to_owned(),
        text: manifest.to_string(),
    };
    let output = inject::inject(&[source], &options).expect("it can be injected");
    output.prospects
}

#[tokio::test(start_paused = true)]
async fn pods_that_no_longer_fit_are_said_and_a_grace_below_the_p99_is_refused() {
    let (notes, refusals) = Answers::new()
        .said(&bert("Deployment", "50s"))
        .await
        .expect("it answers");
    assert_eq!(notes.len(), 1, "{notes:?}");
    let words = "deployment/bert: with the sidecar its cpu no longer fits on 1 of its 2 nodes: on node-b its pod will ask for \
                 3100m, and 3000m are free for it (";
    assert!(notes[0].starts_with(words), "{notes:?}");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let words = "bert.yaml line 1: deployment/bert annotation sidescale.dev/grace: a drain would have 50 s, and the p99 of the 120 \
                 requests that its 2 pods have carried lies between 33.6 s and 67.1 s; write sidescale.dev/grace: \"68s\"";
    assert!(refusals[0].starts_with(words), "{refusals:?}");
    let (_, refusals) = Answers::new()
        .said(&bert("Deployment", "68s"))
        .await
        .expect("it answers");
    assert!(refusals.is_empty(), "{refusals:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_does_not_answer_is_left_out_and_said() {
    let mut answers = Answers::new();
    answers.mute.push(METRICS_OF_A);
    let all = metrics(200);
    answers.by_path.insert(METRICS_OF_B.to_owned(), (200, all));
    let (notes, refusals) = answers
        .said(&bert("Deployment", "50s"))
        .await
        .expect("it answers");
    let words = "1 of 2 sidecars cannot be asked how long requests take, and theirs are not counted (no answer within 5s";
    assert!(notes.iter().any(|note| note.contains(words)), "{notes:?}");
    assert!(
        refusals[0].contains("200 requests that its pod has carried"),
        "{refusals:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_costs_what_it_was_for_and_nothing_else() {
    let unfit =
        "deployment/bert: whether its pods still fit their nodes is not known, as you may not";
    let unseen = "deployment/bert: how long its requests take is not known, as you may not get pods/proxy (not for you)";
    let others = "/api/v1/pods?&fieldSelector=spec.nodeName%3Dnode-b";
    for (path, words, is_refused) in [
        (
            "/api/v1/nodes/node-a",
            format!("{unfit} get nodes (not for you)"),
            true,
        ),
        (
            others,
            format!("{unfit} list pods in all namespaces (not for you)"),
            true,
        ),
        (METRICS_OF_B, unseen.to_owned(), false),
    ] {
        let mut answers = Answers::new();
        answers.refuse(path, 403);
        let (notes, refusals) = answers
            .said(&bert("Deployment", "50s"))
            .await
            .expect("it answers");
        assert!(
            notes.iter().any(|note| note.starts_with(&words)),
            "{path}: {notes:?}"
        );
        assert_eq!(
            notes.len(),
            1 + usize::from(!is_refused),
            "{path}: {notes:?}"
        );
        assert_eq!(!refusals.is_empty(), is_refused, "{path}: {refusals:?}");
    }
    for path in [BERT, PODS] {
        let mut answers = Answers::new();
        answers.refuse(path, 403);
        let (notes, refusals) = answers
            .said(&bert("Deployment", "50s"))
            .await
            .expect("it answers");
        assert!(
            notes[0].contains("nothing was compared with the cluster, as you may not"),
            "{notes:?}"
        );
        assert_eq!((notes.len(), refusals.len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_is_not_there_is_a_note_and_a_node_that_went_is_none() {
    let mut answers = Answers::new();
    answers.refuse(BERT, 404);
    let (notes, _) = answers
        .said(&bert("Deployment", "50s"))
        .await
        .expect("it answers");
    let words =
        "deployment/bert: nothing was compared with the cluster, as it is not in namespace ml yet";
    assert!(notes.len() == 1 && notes[0].starts_with(words), "{notes:?}");

    let mut answers = Answers::new();
    answers.refuse("/api/v1/nodes/node-b", 404);
    let (notes, refusals) = answers
        .said(&bert("Deployment", "50s"))
        .await
        .expect("it answers");
    assert_eq!((notes.len(), refusals.len()), (0, 1), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_asked_for_its_pods_and_a_pod_is_its_own() {
    for (kind, path) in [
        (
            "StatefulSet",
            "/apis/apps/v1/namespaces/ml/statefulsets/bert",
        ),
        ("Pod", "/api/v1/namespaces/ml/pods/bert"),
    ] {
        let mut answers = Answers::new();
        let answer = if kind == "Pod" {
            pod("bert-b", "node-b", "3")
        } else {
            json!({"spec": {"selector": {"matchLabels": {"app": "bert"}}, "template": {}}})
        };
        answers.set(path, &answer);
        let (notes, _) = answers.said(&bert(kind, "50s")).await.expect("it answers");
        assert!(
            notes[0].contains("its cpu no longer fits on 1 of its "),
            "{kind}: {notes:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_ends_it() {
    let mut answers = Answers::new();
    answers.mute.push(BERT);
    let ended = answers.said(&bert("Deployment", "50s")).await;
    let words = "no answer within 30s when trying to get deployments ml/bert";
    assert_eq!(ended, Err(words.to_owned()));
    for code in [401, 500] {
        let mut answers = Answers::new();
        answers.refuse("/api/v1/nodes/node-a", code);
        let ended = answers
            .said(&bert("Deployment", "50s"))
            .await
            .expect_err("it failed");
        assert!(ended.contains("get nodes node/node-a"), "{ended}");
    }
}
