//! The watches against an API server made of one service that answers a script of lists and watches.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{
    Api, Deployment, EVENTS_BOUND, Event, Lost, Pods, Watched, members, mpsc, run, run_leads,
    selector,
};
use crate::lifecycle::Tasks;

/// What the API server answers next.
enum Answer {
    /// A JSON body with this status.
    Json(u16, Value),
    /// These watch events, and then the stream stays open.
    Watch(Vec<Value>),
}

type Scripted = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// Answers each path's requests in their order, then with watches that say nothing; notes all of them.
#[derive(Clone, Default)]
struct ApiServer {
    pods: Arc<Mutex<VecDeque<Answer>>>,
    deployments: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = server.answer(request.uri());
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "inference")
    }

    fn answer(&self, uri: &http::Uri) -> Response<Scripted> {
        self.requests
            .lock()
            .expect("no panic")
            .push(uri.to_string());
        let script = if uri.path().ends_with("/pods") {
            &self.pods
        } else {
            &self.deployments
        };
        match script.lock().expect("no panic").pop_front() {
            Some(Answer::Json(status, body)) => Response::builder()
                .status(status)
                .body(scripted(body.to_string(), false))
                .expect("a response"),
            Some(Answer::Watch(events)) => watching(&events),
            None => watching(&[]),
        }
    }

    fn asked(&self, part: &str) -> bool {
        let requests = self.requests.lock().expect("no panic");
        requests.iter().any(|request| request.contains(part))
    }
}

fn watching(events: &[Value]) -> Response<Scripted> {
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    let text = lines.join("\n") + "\n";
    Response::new(scripted(text, true))
}

fn scripted(text: String, stays_open: bool) -> Scripted {
    let first = stream::iter([Ok(Frame::data(Bytes::from(text)))]);
    StreamBody::new(if stays_open {
        first.chain(stream::pending()).boxed()
    } else {
        first.boxed()
    })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "uid": name, "resourceVersion": "5", "annotations": {"long": "text"}},
        "spec": {"containers": []},
    })
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "bert", "uid": "d", "resourceVersion": "5"},
        "spec": {"replicas": replicas, "selector": {}, "template": {}},
    })
}

fn list(items: &[Value]) -> Answer {
    let body = json!({
        "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "5"}, "items": items,
    });
    Answer::Json(200, body)
}

fn failure(code: u16, message: &str) -> Answer {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": "Forbidden", "message": message,
    });
    Answer::Json(code, body)
}

/// Runs the watches against `server` and gives the first `count` events, the pods' and the Deployment's apart.
async fn events_of(server: &ApiServer, count: usize) -> (Vec<Event>, Vec<Event>) {
    let client = server.client();
    let (sender, mut events) = mpsc::channel(EVENTS_BOUND);
    let tasks = Tasks::here();
    tasks.spawn(async move {
        let pods = Api::namespaced(client.clone(), "inference");
        let deployments = Api::namespaced(client, "inference");
        run(pods, "app=bert", deployments, "bert", sender).await;
    });
    let (mut of_pods, mut of_deployment) = (Vec::new(), Vec::new());
    for _event in 0..count {
        match events.recv().await.expect("the watches run") {
            event @ (Event::Deployment(_) | Event::DeploymentDeleted) => of_deployment.push(event),
            Event::Lost(lost) if lost.what == Watched::Deployments => {
                of_deployment.push(Event::Lost(lost));
            }
            event @ (Event::Pods(_) | Event::Leads(_) | Event::Lost(_)) => of_pods.push(event),
        }
    }
    (of_pods, of_deployment)
}

fn names(event: &Event) -> Vec<String> {
    match event {
        Event::Pods(Pods::Listed(pods)) | Event::Leads(Pods::Listed(pods)) => {
            pods.iter().map(ResourceExt::name_any).collect()
        }
        Event::Pods(Pods::Applied(pod) | Pods::Deleted(pod))
        | Event::Leads(Pods::Applied(pod) | Pods::Deleted(pod)) => vec![pod.name_any()],
        Event::Deployment(_) | Event::DeploymentDeleted | Event::Lost(_) => {
            panic!("no pods in {event:?}")
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_whole_and_changes_one_by_one() {
    let server = ApiServer::default();
    server.pods.lock().expect("no panic").extend([
        list(&[pod("a"), pod("b")]),
        Answer::Watch(vec![
            json!({"type": "MODIFIED", "object": pod("a")}),
            json!({"type": "DELETED", "object": pod("b")}),
        ]),
    ]);
    server.deployments.lock().expect("no panic").extend([
        list(&[deployment(3)]),
        Answer::Watch(vec![json!({"type": "MODIFIED", "object": deployment(4)})]),
    ]);
    let (pods, deployments) = events_of(&server, 5).await;
    assert_eq!(names(&pods[0]), ["a", "b"]);
    assert!(matches!(pods[1], Event::Pods(Pods::Applied(_))) && names(&pods[1]) == ["a"]);
    assert!(matches!(pods[2], Event::Pods(Pods::Deleted(_))) && names(&pods[2]) == ["b"]);
    let mut replicas = Vec::new();
    for event in &deployments {
        let Event::Deployment(deployment) = event else {
            panic!("{event:?}")
        };
        replicas.push(deployment.spec.as_ref().and_then(|spec| spec.replicas));
    }
    assert_eq!(replicas, [Some(3), Some(4)]);
    // By label and by name: what a Role with `resourceNames` allows.
    assert!(server.asked("/pods?") && server.asked("labelSelector=app%3Dbert"));
    assert!(server.asked("fieldSelector=metadata.name%3Dbert"));
    let Event::Pods(Pods::Applied(applied)) = &pods[1] else {
        panic!("seen above")
    };
    assert!(
        applied.spec.is_none()
            && applied
                .metadata
                .annotations
                .as_ref()
                .is_none_or(BTreeMap::is_empty)
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_then_the_whole_list_comes_again() {
    let server = ApiServer::default();
    server.pods.lock().expect("no panic").extend([
        list(&[pod("a")]),
        Answer::Json(503, json!({})),
        failure(503, "away"),
        Answer::Watch(vec![json!({"type": "ERROR", "object": {
            "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old",
        }})]),
        list(&[pod("b")]),
    ]);
    server
        .deployments
        .lock()
        .expect("no panic")
        .extend([list(&[deployment(3)])]);
    let (pods, _) = events_of(&server, 6).await;
    assert_eq!(names(&pods[0]), ["a"]);
    for lost in &pods[1..4] {
        let Event::Lost(lost) = lost else {
            panic!("{lost:?}")
        };
        assert!(!lost.is_forbidden, "{lost:?}");
    }
    assert_eq!(names(&pods[4]), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_right_is_told_apart_from_an_outage() {
    let server = ApiServer::default();
    let words = "pods is forbidden: User \"u\" cannot list resource \"pods\"";
    server
        .pods
        .lock()
        .expect("no panic")
        .extend([failure(403, words)]);
    server
        .deployments
        .lock()
        .expect("no panic")
        .extend([list(&[])]);
    let (pods, deployments) = events_of(&server, 2).await;
    let Event::Lost(lost) = &pods[0] else {
        panic!("{pods:?}")
    };
    assert!(lost.is_forbidden && lost.text.contains(words), "{lost:?}");
    let explained = lost.explained("bert");
    for rule in [
        words,
        "apiGroups: [\"\"]",
        "[\"pods\"]",
        "[\"get\", \"list\", \"watch\"]",
    ] {
        assert!(explained.contains(rule), "{rule} not in {explained}");
    }
    assert!(!explained.contains("resourceNames"), "{explained}");
    let of_deployment = Lost {
        what: Watched::Deployments,
        ..lost.clone()
    };
    let explained = of_deployment.explained("bert");
    assert!(
        explained.contains("resourceNames: [\"bert\"]"),
        "{explained}"
    );
    assert!(matches!(deployments[0], Event::DeploymentDeleted));
}

#[test]
fn the_selector_is_written_as_the_api_server_takes_it() {
    let check = |given: Value, expected: Option<&str>| {
        let labels: LabelSelector = serde_json::from_value(given).expect("a selector");
        let mut deployment: Deployment =
            serde_json::from_value(deployment(1)).expect("a deployment");
        deployment.spec.as_mut().expect("a spec").selector = labels;
        assert_eq!(selector(&deployment).ok().as_deref(), expected);
    };
    check(json!({"matchLabels": {"app": "bert"}}), Some("app=bert"));
    check(
        json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["gpu", "big"]}]}),
        Some("tier in (big,gpu)"),
    );
    // Empty selects everything, other people's pods too.
    check(json!({}), None);
}

#[tokio::test(start_paused = true)]
async fn leads_are_found_by_their_label_and_are_no_members() {
    let server = ApiServer::default();
    let refused = failure(403, "pods is forbidden");
    let answers = [refused, list(&[pod("lead-0")])];
    server.pods.lock().expect("no panic").extend(answers);
    let (sender, mut events) = mpsc::channel(EVENTS_BOUND);
    let (tasks, client) = (Tasks::here(), server.client());
    tasks.spawn(async move {
        run_leads(Api::namespaced(client, "inference"), "bert", sender).await;
    });
    let lost = events.recv().await;
    let of_leads = matches!(&lost, Some(Event::Lost(lost)) if lost.what == Watched::Leads);
    assert!(of_leads, "{lost:?}");
    let leads = events.recv().await.expect("it runs");
    assert!(matches!(leads, Event::Leads(_)) && names(&leads) == ["lead-0"]);
    assert!(server.asked("labelSelector=sidescale.dev%2Flead%3Dbert"));
    assert_eq!(members("app=bert"), "app=bert,!sidescale.dev/lead");
}
