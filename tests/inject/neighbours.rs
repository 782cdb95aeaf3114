//! What stands around a server: policies, containers before it, those who call it and those who call past it.

use serde_json::{Value, json};
use sidescale::inject::{self, Output, Refusal, Source};

use super::{objects, options};

/// A Deployment `m` with these containers and, beside them, more of its pod; and what else is in the input.
fn injected(annotations: &Value, pod: &Value, beside: &[Value]) -> Result<Output, Vec<Refusal>> {
    let mut all = json!({"sidescale.dev/inject": "true"});
    for (key, value) in annotations.as_object().expect("a map") {
        all[format!("sidescale.dev/{key}")] = value.clone();
    }
    let labels = json!({"app": "m"});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "m", "annotations": all},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    });
    let mut items = vec![deployment];
    items.extend(beside.iter().cloned());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let source = Source {
        name: "-".to_owned(),
        text: list.to_string(),
    };
    inject::inject(&[source], &options("-"))
}

fn service(name: &str, target: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "m"}, "ports": [{"port": 80, "targetPort": target}]},
    })
}

fn headless(name: &str, target: &Value) -> Value {
    let mut service = service(name, target);
    service["spec"]["clusterIP"] = json!("None");
    service
}

fn vllm(ports: &Value) -> Value {
    json!({"name": "vllm", "image": "vllm/vllm-openai", "args": ["--port", "8000"], "ports": ports})
}

fn said(output: &Output) -> String {
    let notes: Vec<String> = output.notes.iter().map(ToString::to_string).collect();
    notes.join("\n")
}

fn refused(refused: Result<Output, Vec<Refusal>>) -> String {
    let refusals = refused.expect_err("it is refused");
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// The pod's spec, as it comes out.
fn pod(output: &Output) -> Value {
    let all = objects(&output.manifests);
    let mut found = all.iter().filter(|one| one["kind"] == "Deployment");
    found.next().expect("it is there")["spec"]["template"]["spec"].clone()
}

/// Where the sidecar listens and what it asks.
fn route(output: &Output) -> (String, String) {
    let pod = pod(output);
    let first = pod["initContainers"].as_array().expect("a sidecar");
    let mut sidecars = first.iter().filter(|one| one["name"] == "sidescale");
    let env = sidecars.next().expect("a sidecar")["env"].clone();
    let value = |index: usize| env[index]["value"].as_str().expect("said").to_owned();
    (value(0), value(1))
}

fn policies(output: &Output) -> usize {
    let all = objects(&output.manifests);
    let ours =
        |one: &&Value| one["kind"] == "NetworkPolicy" && one["metadata"]["name"] == "sidescale-m";
    all.iter().filter(ours).count()
}

fn expression(operator: &str, values: &Value) -> Value {
    let mut one = json!({"key": "app", "operator": operator});
    if !values.is_null() {
        one["values"] = values.clone();
    }
    json!({"podSelector": {"matchExpressions": [one]}})
}

/// That with this policy beside the pods so many come along, and these words are said of it.
fn comes_along(namespace: Option<&str>, spec: &Value, expected: usize, words: &str) {
    let mut metadata = json!({"name": "p"});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec,
    });
    let containers =
        json!({"containers": [vllm(&json!([{"name": "http", "containerPort": 8000}]))]});
    let beside = [service("s", &json!("http")), policy];
    let output = injected(&json!({}), &containers, &beside).expect("taken");
    assert_eq!(policies(&output), expected, "{spec}");
    let said = said(&output);
    if words.is_empty() {
        assert!(!said.contains("networkpolicy/"), "{spec}: {said}");
    } else {
        assert!(said.contains(words), "{spec}: {said}");
    }
}

#[test]
fn a_policy_comes_along_only_where_one_surely_isolates_the_pods() {
    let isolates = "isolates the pods, so";
    let everything = json!({"podSelector": {}});
    let labels = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    comes_along(None, &everything, 1, isolates);
    comes_along(None, &labels("m"), 1, isolates);
    comes_along(None, &labels("o"), 0, "");
    comes_along(None, &expression("In", &json!(["o"])), 0, "");
    comes_along(None, &expression("In", &json!(["o", "m"])), 1, isolates);
    comes_along(None, &expression("NotIn", &json!(["m"])), 0, "");
    comes_along(None, &expression("NotIn", &json!(["o"])), 1, isolates);
    comes_along(None, &expression("Exists", &Value::Null), 1, isolates);
    comes_along(None, &expression("DoesNotExist", &Value::Null), 0, "");
    comes_along(Some("other"), &everything, 0, "--network-policy isolated");
    let calls = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    comes_along(None, &calls, 0, "says whom the pods may call");
    let all = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]});
    comes_along(None, &all, 0, "");
}

#[test]
fn a_server_behind_another_container_of_its_pod_gives_its_number_up() {
    let front =
        json!({"name": "router", "image": "r", "ports": [{"name": "in", "containerPort": 9000}]});
    let mut server = vllm(&json!([{"name": "http", "containerPort": 8000}]));
    server["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
    let native = |target: Value, more: Value| {
        let mut first = front.clone();
        first["restartPolicy"] = json!("Always");
        let pod = json!({"initContainers": [first], "containers": [server]});
        injected(&more, &pod, &[service("s", &target)])
    };
    let beside = |target: Value| {
        let pod = json!({"containers": [front, server]});
        injected(
            &json!({"container": "vllm"}),
            &pod,
            &[service("s", &target)],
        )
    };
    for output in [
        native(json!(9000), json!({})),
        native(json!("in"), json!({})),
        beside(json!(9000)),
        beside(json!("in")),
    ] {
        let output = output.expect("taken");
        assert_eq!(
            route(&output),
            ("0.0.0.0:8000".to_owned(), "127.0.0.1:18000".to_owned())
        );
        let said = said(&output);
        assert!(
            said.contains("s sends its requests to the container router, which stands before"),
            "{said}"
        );
        assert!(!said.contains("no Service in"), "{said}");
    }
    // Who is asked for its metrics stands before nobody.
    let exporter = json!({"name": "exporter", "image": "e", "ports": [{"name": "metrics", "containerPort": 9000}]});
    let pod = json!({"containers": [exporter, server]});
    let output = injected(
        &json!({}),
        &pod,
        &[service("s", &json!(9000)), service("t", &json!("http"))],
    );
    assert_eq!(route(&output.expect("taken")).0, "0.0.0.0:8080");
    // A pool that asks the one before it does not ask past the sidecar.
    let pool = json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "p"},
        "spec": {"selector": {"matchLabels": {"app": "m"}}, "targetPorts": [{"number": 9000}]},
    });
    let mut first = front.clone();
    first["restartPolicy"] = json!("Always");
    let pod = json!({"initContainers": [first], "containers": [server]});
    let output = injected(&json!({}), &pod, &[pool]).expect("taken");
    assert_eq!(route(&output).0, "0.0.0.0:8000");
    assert!(
        !said(&output).contains("pass sidescale by"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_service_whose_requests_pass_by_is_named() {
    let containers = json!({"containers": [vllm(&json!([{"name": "http", "containerPort": 8000}, {"name": "grpc", "containerPort": 9000}]))]});
    let by = |ports: &str, target: &Value| {
        let output = injected(
            &json!({"ports": ports}),
            &containers,
            &[service("s", target)],
        );
        said(&output.expect("taken"))
    };
    let words =
        |port: &str| format!("requests of Service s to {port} pass sidescale by: add {port} to");
    assert!(by("http", &json!(8000)).contains(&words("8000")));
    assert!(by("http", &json!("grpc")).contains(&words("grpc")));
    assert!(!by("http", &json!("http")).contains("pass sidescale by"));
    assert!(!by("8000", &json!(8000)).contains("pass sidescale by"));
    assert!(!by("8000", &json!("http")).contains("pass sidescale by"));
}

#[test]
fn a_service_that_targets_what_is_not_there_is_named() {
    let containers =
        json!({"containers": [vllm(&json!([{"name": "api", "containerPort": 8000}]))]});
    let output = injected(&json!({}), &containers, &[service("s", &json!("http"))]).expect("taken");
    let said = said(&output);
    assert!(
        said.contains("Service s targets http, which no port of the pod is called"),
        "{said}"
    );
}

#[test]
fn clients_of_a_headless_service_pass_by_only_where_the_number_stays() {
    let past =
        "who connect to the pods by the server's own port number pass sidescale by: add 8000 to";
    let rows = [
        (
            vec![service("s", &json!(8000)), headless("h", &json!(8000))],
            false,
        ),
        (
            vec![service("s", &json!("http")), headless("h", &json!(8000))],
            true,
        ),
        (
            vec![service("s", &json!("http")), headless("h", &json!("http"))],
            true,
        ),
        (vec![headless("h", &json!(8000))], true),
        (vec![headless("h", &json!("http"))], true),
    ];
    for (beside, expected) in rows {
        let containers =
            json!({"containers": [vllm(&json!([{"name": "http", "containerPort": 8000}]))]});
        let said = said(&injected(&json!({}), &containers, &beside).expect("taken"));
        assert_eq!(said.contains(past), expected, "{beside:?}: {said}");
        assert!(!said.contains("give it along"), "{said}");
    }
}

#[test]
fn each_name_of_a_number_that_is_asked_for_moves() {
    let ports = json!([
        {"name": "http", "containerPort": 8000},
        {"name": "grpc", "containerPort": 8000},
        {"name": "metrics", "containerPort": 8000},
    ]);
    let beside = [service("s", &json!("http")), service("t", &json!("grpc"))];
    let output =
        injected(&json!({}), &json!({"containers": [vllm(&ports)]}), &beside).expect("taken");
    let ports = pod(&output)["containers"][0]["ports"].clone();
    let numbers: Vec<u64> = (0..3)
        .filter_map(|at| ports[at]["containerPort"].as_u64())
        .collect();
    assert_eq!(numbers, [8080, 8080, 8000], "{ports}");
}

#[test]
fn who_may_work_for_the_requests_ends_after_them() {
    let front = json!({"name": "front", "image": "oauth2-proxy", "ports": [{"name": "web", "containerPort": 4180}]});
    let idle = json!({"name": "idle", "image": "i"});
    let mut gpu = vllm(&json!([{"containerPort": 8000}]));
    gpu["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
    let containers = json!({"containers": [front, gpu, idle]});
    let beside = [service("s", &json!("web"))];
    let output = injected(&json!({}), &containers, &beside).expect("taken");
    let containers = pod(&output)["containers"].clone();
    let hook = json!({"httpGet": {"path": "/api/v1/drained", "port": 9090}});
    assert_eq!(containers[0]["lifecycle"]["preStop"], hook);
    assert_eq!(containers[1]["lifecycle"]["preStop"], hook);
    assert!(
        containers[2].get("lifecycle").is_none(),
        "{}",
        containers[2]
    );
    // A hook that somebody wrote stays.
    gpu["lifecycle"] = json!({"preStop": {"exec": {"command": ["flush"]}}});
    let containers = json!({"containers": [front, gpu]});
    let output = injected(&json!({}), &containers, &beside).expect("taken");
    assert_eq!(pod(&output)["containers"][1]["lifecycle"], gpu["lifecycle"]);
    let said = said(&output);
    assert!(
        said.contains("the container vllm has a preStop hook of its own"),
        "{said}"
    );
}

#[test]
fn a_server_at_the_pods_own_address_is_refused() {
    let address =
        json!({"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}});
    let node = json!({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
    let rows = [
        (
            json!(["--port", "8000", "--host", "$(MY_IP)"]),
            json!([address]),
            true,
        ),
        (
            json!(["--port=8000", "--host=$(MY_IP)"]),
            json!([address]),
            true,
        ),
        (
            json!(["--port", "8000"]),
            json!([address, {"name": "VLLM_HOST", "value": "$(MY_IP)"}]),
            true,
        ),
        (
            json!(["--port", "8000", "--host", "0.0.0.0"]),
            json!([address]),
            false,
        ),
        (
            json!(["--port", "8000", "--host", "$(NODE)"]),
            json!([node]),
            false,
        ),
        (
            json!(["--port", "8000", "--dist-init-addr", "$(MY_IP):5000"]),
            json!([address]),
            false,
        ),
    ];
    for (args, env, expected) in rows {
        let mut server = vllm(&json!([{"name": "http", "containerPort": 8000}]));
        server["args"] = args.clone();
        server["env"] = env;
        let beside = [service("s", &json!("http"))];
        let output = injected(&json!({}), &json!({"containers": [server]}), &beside);
        if expected {
            let said = refused(output);
            assert!(said.contains("the pod's address alone"), "{args}: {said}");
        } else {
            output.unwrap_or_else(|refusals| panic!("{args}: {refusals:?}"));
        }
    }
}

#[test]
fn pods_that_are_called_under_tls_are_refused_whoever_says_so() {
    let annotated = |kind: &str, key: &str, value: &str| {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
        json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": "s", "annotations": {key: value}},
            "spec": {
                "rules": [{"http": {"paths": paths}}],
                "selector": {"app": "m"},
                "ports": [{"port": 80, "targetPort": "http"}],
            },
        })
    };
    let nginx = "nginx.ingress.kubernetes.io/backend-protocol";
    let policy = |name: &str| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": {"name": "p"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": name}]},
        })
    };
    let mut elsewhere = annotated("Ingress", nginx, "HTTPS");
    elsewhere["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] =
        json!("other");
    let rows = [
        (annotated("Ingress", nginx, "HTTPS"), true),
        (annotated("Ingress", nginx, "GRPCS"), true),
        (annotated("Ingress", nginx, "GRPC"), false),
        (elsewhere, false),
        (
            annotated(
                "Service",
                "traefik.ingress.kubernetes.io/service.serversscheme",
                "https",
            ),
            true,
        ),
        (
            annotated(
                "Service",
                "cloud.google.com/app-protocols",
                r#"{"http":"HTTPS"}"#,
            ),
            true,
        ),
        (
            annotated(
                "Service",
                "cloud.google.com/app-protocols",
                r#"{"http":"HTTP"}"#,
            ),
            false,
        ),
        (policy("s"), true),
        (policy("other"), false),
    ];
    for (front, expected) in rows {
        let containers =
            json!({"containers": [vllm(&json!([{"name": "http", "containerPort": 8000}]))]});
        let beside = [service("s", &json!("http")), front.clone()];
        let output = injected(&json!({}), &containers, &beside);
        if expected {
            let said = refused(output);
            assert!(said.contains("the server speaks TLS"), "{front}: {said}");
        } else {
            output.unwrap_or_else(|refusals| panic!("{front}: {refusals:?}"));
        }
    }
}

#[test]
fn a_clients_way_to_its_database_is_no_tls_of_the_server() {
    let rows = [
        ("POSTGRES_SSL_MODE", false),
        ("MYSQL_SSL_MODE", false),
        ("OTEL_EXPORTER_OTLP_TLS_CERT_FILE", false),
        ("OTEL_EXPORTER_OTLP_TLS_KEY_FILE", false),
        ("ELASTIC_SSL_CERTFILE", false),
        ("MY_STORE_SSL_CERTFILE", false),
        ("UVICORN_SSL_CERTFILE", true),
        ("UVICORN_SSL_KEYFILE", true),
        ("SSL_KEYFILE", true),
        ("MY_SERVER_SSL_KEYFILE", true),
        ("NIM_SSL_MODE", true),
        ("SSL_CERTFILE", true),
    ];
    for (name, expected) in rows {
        let mut server = vllm(&json!([{"name": "http", "containerPort": 8000}]));
        server["env"] = json!([{"name": name, "value": "/run/it.pem"}]);
        let beside = [service("s", &json!("http"))];
        let output = injected(&json!({}), &json!({"containers": [server]}), &beside);
        assert_eq!(output.is_err(), expected, "{name}");
    }
}
