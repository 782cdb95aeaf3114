//! Servers whose ports are not as simple as the demo's: each gets a sidecar and gives it back, under load.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::cluster::Cluster;
use crate::manifests::{TARGET, injected, named, plain};
use crate::visitors::{Visitors, Way};

/// Seconds that a server loads.
const COLD_START: u32 = 5;
const PODS: u32 = 2;
const LONG: Duration = Duration::from_secs(240);
/// Before it has a sidecar, a pod cuts what is kept when it ends.
const CLIENTS: [(Way, usize); 1] = [(Way::Fresh, 8)];

/// As `TorchServe` has it: the port has a name, and its number is the sidecar's own first choice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_server_at_the_sidecars_own_number_keeps_it() {
    let objects = server_at(8080, "0.0.0.0:8080", &json!([]));
    let cluster = Cluster::new("own-number").await;
    let with = coming(&cluster, &objects).await;
    for pod in cluster.pods_of(TARGET).await {
        let told = told(&pod).expect("it has a sidecar");
        assert_eq!(
            told,
            ("0.0.0.0:8081".to_owned(), "127.0.0.1:8080".to_owned())
        );
        let shown = &spec_of(&pod)["containers"][0]["ports"][0];
        assert_eq!(
            shown,
            &json!({"name": "http", "containerPort": 8081, "protocol": "TCP"})
        );
    }
    going(cluster, with, &objects).await;
}

/// As Triton without gRPC has it: a second port is declared and has a Service, and nobody listens there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_port_that_stays_closed_makes_no_pod_unready() {
    let mut objects = plain(PODS, COLD_START);
    let ports = &mut server_of(&mut objects)["ports"];
    let ports = ports.as_array_mut().expect("it has some");
    ports.push(json!({"name": "grpc", "containerPort": 8001}));
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "closed"},
        "spec": {
            "type": "NodePort",
            "selector": {"app": TARGET},
            "ports": [{"name": "grpc", "port": 8001, "targetPort": "grpc"}],
        },
    }));
    let cluster = Cluster::new("closed-port").await;
    let with = coming(&cluster, &objects).await;
    // Its own sidecar is there, and says so in words.
    let closed = cluster.address("closed").await;
    let stream = TcpStream::connect(&closed).await.expect("somebody listens");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    let asked = Request::get("/").header(HOST, &closed);
    let asked = asked.body(Empty::<Bytes>::new()).expect("a request");
    let answer = async {
        let answer = sender.send_request(asked).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("whole");
        (status, body.to_bytes())
    };
    let (status, body) = tokio::select! {
        answer = answer => answer,
        ended = connection => panic!("it ended without an answer: {ended:?}"),
    };
    assert_eq!(status, 503, "{body:?}");
    going(cluster, with, &objects).await;
}

/// As text-generation-inference has it: the port is said in a variable, and the Service knows the number.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with nodes: see tests/node/main.rs"]
async fn a_server_that_is_told_its_port_in_a_variable_gives_the_number_up() {
    let variable = json!([{"name": "PORT", "value": "8080"}]);
    let mut objects = server_at(8080, "0.0.0.0:$(PORT)", &variable);
    let service = named(&mut objects, "Service", TARGET);
    service["spec"]["ports"][0]["targetPort"] = json!(8080);
    let cluster = Cluster::new("variable").await;
    let with = coming(&cluster, &objects).await;
    for pod in cluster.pods_of(TARGET).await {
        let told = told(&pod).expect("it has a sidecar");
        assert_eq!(
            told,
            ("0.0.0.0:8080".to_owned(), "127.0.0.1:18080".to_owned())
        );
        let variables = &spec_of(&pod)["containers"][0]["env"];
        assert_eq!(variables[0]["value"], "18080", "{variables}");
    }
    going(cluster, with, &objects).await;
}

/// The plain workload with another port.
fn server_at(number: u16, listen: &str, variables: &Value) -> Vec<Value> {
    let mut objects = plain(PODS, COLD_START);
    let server = server_of(&mut objects);
    let words = server["args"].as_array_mut().expect("it has some");
    let at = words.iter().position(|word| word == "--listen");
    words[at.expect("it is told where it listens") + 1] = json!(listen);
    server["ports"][0]["containerPort"] = json!(number);
    server["env"] = variables.clone();
    objects
}

fn server_of(objects: &mut [Value]) -> &mut Value {
    let deployment = named(objects, "Deployment", TARGET);
    &mut deployment["spec"]["template"]["spec"]["containers"][0]
}

/// The workload gets sidecars that carry its requests, and no client notices.
async fn coming(cluster: &Cluster, objects: &[Value]) -> Visitors {
    cluster.apply(objects).await;
    cluster.is_rolled_out(TARGET, LONG).await;
    let visitors = Visitors::start(&cluster.address(TARGET).await, &CLIENTS);
    visitors.are_served(50).await;
    cluster.apply(&injected(objects, false)).await;
    cluster.is_rolled_out(TARGET, LONG).await;
    visitors.assert_none_failed("the sidecar came");
    visitors.are_served(50).await;
    for pod in cluster.pods_of(TARGET).await {
        let name = pod.metadata.name.expect("a pod has a name");
        let metrics = cluster.ask(&name, "/metrics").await.expect("it answers");
        let carried: Vec<f64> = { metrics.lines() }
            .filter(|line| line.starts_with("sidescale_requests_total"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        let carried: f64 = carried.iter().sum();
        assert!(carried > 0.0, "requests go through {name}: {metrics}");
    }
    visitors
}

/// They go again.
async fn going(cluster: Cluster, visitors: Visitors, objects: &[Value]) {
    cluster.apply(objects).await;
    cluster.is_rolled_out(TARGET, LONG).await;
    for pod in cluster.pods_of(TARGET).await {
        assert_eq!(told(&pod), None, "no sidecar is left");
    }
    let seen = visitors.assert_none_failed("the sidecar went");
    cluster.print(&format!(
        "a sidecar came and went, {PODS} pods, none failed of {:?}",
        seen.served
    ));
    cluster.end().await;
}

fn spec_of(pod: &Pod) -> Value {
    serde_json::to_value(&pod.spec).expect("a pod is JSON")
}

/// Where the sidecar takes requests and where it sends them, as its variables say; `None`: there is no sidecar.
fn told(pod: &Pod) -> Option<(String, String)> {
    let spec = spec_of(pod);
    let first = spec["initContainers"].as_array()?;
    let sidecar = first.iter().find(|one| one["name"] == "sidescale")?;
    let said = |name: &str| {
        let all = sidecar["env"].as_array().expect("it has some");
        let one = all.iter().find(|one| one["name"] == name);
        let value = one.and_then(|one| one["value"].as_str());
        value.expect("it is told").to_owned()
    };
    Some((said("SIDESCALE_LISTEN"), said("SIDESCALE_UPSTREAM")))
}
