//! Which numbers the sidecar takes where somebody has its own, which ports it carries, and which of them is asked for readiness.

use serde_json::{Value, json};
use sidescale::inject::{self, Output, Refusal, Source};

use super::{objects, options};

/// A server with these ports and annotations, and a Service before it.
pub(crate) fn pair(annotations: &Value, server: &Value, ports: &Value) -> Vec<Source> {
    let mut container = json!({"name": "server", "image": "registry.example/bert:2"});
    for (key, value) in server.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    let mut all = json!({"sidescale.dev/inject": "true"});
    for (key, value) in annotations.as_object().into_iter().flatten() {
        all[format!("sidescale.dev/{key}")] = value.clone();
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "bert", "annotations": all},
        "spec": {
            "selector": {"matchLabels": {"app": "bert"}},
            "template": {"metadata": {"labels": {"app": "bert"}}, "spec": {"containers": [container]}},
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "bert"},
        "spec": {"selector": {"app": "bert"}, "ports": ports},
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]});
    vec![Source {
        name: "-".to_owned(),
        text: list.to_string(),
    }]
}

fn injected(annotations: &Value, server: &Value, ports: &Value) -> Result<Output, Vec<Refusal>> {
    inject::inject(&pair(annotations, server, ports), &options("-"))
}

/// What the sidecar's variable says.
fn variable(output: &Output, name: &str) -> Option<String> {
    let objects = objects(&output.manifests);
    let mut deployments = objects
        .iter()
        .filter(|object| object["kind"] == "Deployment");
    let spec = &deployments.next()?["spec"]["template"]["spec"];
    let list = spec["initContainers"][0]["env"].as_array()?;
    let found = list.iter().find(|variable| variable["name"] == name)?;
    found["value"].as_str().map(str::to_owned)
}

/// Listen, upstream, admin and member ports, as far as they are not the default.
fn numbers(output: &Output) -> [String; 4] {
    ["LISTEN", "UPSTREAM", "ADMIN", "MEMBER"].map(|name| {
        let value = variable(output, &format!("SIDESCALE_{name}")).unwrap_or_default();
        value.replace("0.0.0.0:", "").replace("127.0.0.1:", "")
    })
}

fn named(number: u16) -> Value {
    json!({"ports": [{"name": "http", "containerPort": number}]})
}

fn by_name() -> Value {
    json!([{"port": 80, "targetPort": "http"}])
}

fn says(output: &Output, words: &str) -> bool {
    output.notes.iter().any(|note| note.text.contains(words))
}

/// That this manifest is injected with these [`numbers`].
fn takes(annotations: &Value, server: &Value, ports: &Value, expected: [&str; 4]) {
    let output = injected(annotations, server, ports);
    let output = output.unwrap_or_else(|refusals| panic!("{annotations} {server}: {refusals:?}"));
    assert_eq!(numbers(&output), expected, "{annotations} {server} {ports}");
}

#[test]
fn a_number_of_the_sidecars_own_that_somebody_has_makes_it_take_the_next_free_one() {
    let none = json!({});
    let two = |first: u16, second: u16| json!({"ports": [{"name": "http", "containerPort": first}, {"name": "extra", "containerPort": second}]});
    let check = |server: Value, expected| takes(&none, &server, &by_name(), expected);
    check(named(8000), ["8080", "8000", "", ""]);
    check(named(8080), ["8081", "8080", "", ""]);
    check(two(8080, 8081), ["8082", "8080", "", ""]);
    check(named(9090), ["8080", "9090", "9091", ""]);
    check(named(9190), ["8080", "9190", "", "9191"]);
    check(two(9090, 9190), ["8080", "9090", "9091", "9191"]);
    // Without a proxy it must not dial itself either.
    let passive = json!({"data-path": "passive"});
    let number = |number: u16| json!([{"port": 80, "targetPort": number}]);
    let bare = |number: u16| json!({"ports": [{"containerPort": number}]});
    takes(
        &passive,
        &bare(8080),
        &number(8080),
        ["8081", "8080", "", ""],
    );
    takes(
        &passive,
        &bare(9190),
        &number(9190),
        ["8080", "9190", "", "9191"],
    );
    // The sidecar takes a number that is its own for others.
    let moves = json!({"port-flag": "--port"});
    let flagged = |number: u16| json!({"args": ["--port", number.to_string()], "ports": [{"containerPort": number}]});
    takes(
        &moves,
        &flagged(9090),
        &number(9090),
        ["9090", "19090", "9091", ""],
    );
    takes(
        &moves,
        &flagged(8080),
        &number(8080),
        ["8080", "18080", "", ""],
    );
}

#[test]
fn a_number_that_only_a_flag_a_probe_or_a_variable_tells_of_is_somebodys() {
    let check = |key: &str, value: Value| {
        let mut server = named(8000);
        server[key] = value;
        takes(&json!({}), &server, &by_name(), ["8081", "8000", "", ""]);
    };
    check("args", json!(["--metrics-address=0.0.0.0:8080"]));
    check("livenessProbe", json!({"httpGet": {"port": 8080}}));
    check("env", json!([{"name": "MANAGEMENT_PORT", "value": "8080"}]));
}

#[test]
fn what_a_person_wrote_makes_that_of_which_nobody_wrote_give_way() {
    let check = |annotations, expected| takes(&annotations, &named(8000), &by_name(), expected);
    check(json!({"admin-port": "8080"}), ["8081", "8000", "8080", ""]);
    check(json!({"listen-port": "9090"}), ["9090", "8000", "9091", ""]);
}

#[test]
fn a_number_that_a_person_wrote_and_somebody_has_is_refused_with_its_annotation() {
    let numbered = json!([{"port": 80, "targetPort": 8000}]);
    let rows = [
        (
            json!({"listen-port": "8000"}),
            named(8000),
            by_name(),
            "8000 is taken by containers[server] and wanted for the sidecar",
            "listen-port",
        ),
        (
            json!({"admin-port": "8000"}),
            named(8000),
            by_name(),
            "8000 is taken by containers[server]",
            "admin-port",
        ),
        (
            json!({"member-port": "8000"}),
            named(8000),
            by_name(),
            "8000 is taken by containers[server]",
            "member-port",
        ),
        (
            json!({"listen-port": "8000", "data-path": "passive"}),
            named(8000),
            by_name(),
            "8000 is taken by containers[server]",
            "listen-port",
        ),
        (
            json!({"server-port": "8000", "port-flag": "--port"}),
            json!({"ports": [{"containerPort": 8000}], "args": ["--port", "8000"]}),
            numbered,
            "8000 is taken by containers[server] and wanted for the server",
            "server-port",
        ),
        (
            json!({"listen-port": "7000", "admin-port": "7000"}),
            named(8000),
            by_name(),
            "7000 is taken by",
            "admin-port",
        ),
    ];
    for (annotations, server, ports, reason, annotation) in rows {
        let refusals = injected(&annotations, &server, &ports).expect_err(reason);
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert!(refusals[0].reason.contains(reason), "{}", refusals[0]);
        assert!(refusals[0].remedy.ends_with(annotation), "{}", refusals[0]);
    }
}

#[test]
fn the_port_that_the_old_probe_asked_comes_first_and_is_asked_in_its_words() {
    let ports =
        json!([{"name": "grpc", "containerPort": 8001}, {"name": "http", "containerPort": 9000}]);
    let service = json!([{"name": "a", "port": 1, "targetPort": "grpc"}, {"name": "b", "port": 2, "targetPort": "http"}]);
    let check = |probes: Value, upstream: &str, ready: Option<&str>| {
        let mut server = probes.clone();
        server["ports"] = ports.clone();
        let output = injected(&json!({}), &server, &service).expect("both are HTTP");
        assert_eq!(numbers(&output)[1], upstream, "{probes}");
        let asked = variable(&output, "SIDESCALE_UPSTREAM_READY");
        assert_eq!(asked.as_deref(), ready, "{probes}");
    };
    let http = json!({"httpGet": {"path": "/ready", "port": "http"}});
    check(
        json!({"readinessProbe": http}),
        "9000,8001",
        Some("http:/ready"),
    );
    check(
        json!({"readinessProbe": {"grpc": {"port": 8001}}, "livenessProbe": http}),
        "8001,9000",
        None,
    );
    check(
        json!({"readinessProbe": {"tcpSocket": {"port": 9000}}}),
        "9000,8001",
        None,
    );
    check(json!({"livenessProbe": http}), "9000,8001", None);
    check(
        json!({"readinessProbe": {"exec": {"command": ["true"]}}, "startupProbe": http}),
        "9000,8001",
        None,
    );
    // Nobody asks: gRPC is what may be off.
    check(json!({}), "9000,8001", None);
}

#[test]
fn a_port_that_is_no_http_gets_no_proxy_and_a_note() {
    let service = |port: Value| json!([{"name": "a", "port": 80, "targetPort": "http"}, port]);
    let other = |name: &str| json!({"ports": [{"name": "http", "containerPort": 8000}, {"name": name, "containerPort": 5557}]});
    let to = |name: &str| json!({"name": "b", "port": 5557, "targetPort": name});
    let rows = [
        (
            other("zmq-port"),
            service(to("zmq-port")),
            "it is called zmq-port",
        ),
        (other("nixl"), service(to("nixl")), "it is called nixl"),
        (
            other("x"),
            service(json!({"name": "ucx-port", "port": 1, "targetPort": "x"})),
            "it is called ucx-port",
        ),
        (
            other("x"),
            service(json!({"name": "b", "port": 1, "targetPort": "x", "appProtocol": "tcp"})),
            "its appProtocol is tcp",
        ),
        (
            other("x"),
            service(json!({"name": "b", "port": 1, "targetPort": 5557, "appProtocol": "redis"})),
            "its appProtocol is redis",
        ),
        (
            {
                let mut server = other("side");
                server["env"] = json!([{"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": "5557"}]);
                server
            },
            service(to("side")),
            "the variable VLLM_NIXL_SIDE_CHANNEL_PORT has it",
        ),
        (
            {
                let mut server = other("events");
                server["args"] = json!(["--kv-events-config", "{\"endpoint\":\"tcp://*:5557\"}"]);
                server
            },
            service(to("events")),
            "has it",
        ),
    ];
    for (server, ports, why) in rows {
        let output = injected(&json!({}), &server, &ports);
        let output = output.unwrap_or_else(|refusals| panic!("{server}: {refusals:?}"));
        assert_eq!(numbers(&output)[1], "8000", "{server}");
        assert!(
            says(&output, "port 5557 gets no proxy") && says(&output, why),
            "{:?}",
            output.notes
        );
    }
    // Other words, and a probe that asks by HTTP, leave it what it was taken for.
    for name in ["grpc", "admin", "http-zmq"] {
        let output = injected(&json!({}), &other(name), &service(to(name))).expect("it is HTTP");
        assert_eq!(numbers(&output)[1].split(',').count(), 2, "{name}");
    }
    let alone = json!({"ports": [{"name": "zmq", "containerPort": 5557}]});
    let refusals = injected(&json!({}), &alone, &json!([to("zmq")])).expect_err("nothing is left");
    assert!(
        refusals[0]
            .reason
            .contains("none of its ports carries HTTP")
    );
    let output =
        injected(&json!({"ports": "zmq"}), &alone, &json!([to("zmq")])).expect("a person knows it");
    assert_eq!(numbers(&output)[1], "5557");
}

#[test]
fn a_port_without_tcp_gets_no_proxy_and_a_note() {
    let ports = json!([{"name": "http", "containerPort": 8000}, {"name": "quic", "containerPort": 8000, "protocol": "UDP"}]);
    let output = injected(&json!({}), &json!({ "ports": ports }), &by_name()).expect("it can");
    assert_eq!(numbers(&output)[1], "8000");
    assert!(says(&output, "port 8000/UDP gets no proxy"));
}
