//! Servers that speak TLS: refused whoever says so, and not where something else is meant.

use serde_json::{Value, json};
use sidescale::inject;

use super::options;
use super::ports::pair;

fn plain() -> Value {
    json!({"ports": [{"name": "http", "containerPort": 8000}]})
}

fn with(key: &str, value: Value) -> Value {
    let mut server = plain();
    server[key] = value;
    server
}

fn to(name: &str) -> Value {
    json!([{"port": 80, "targetPort": name}])
}

/// That it is refused, with a proxy and without one, for what stands at `place`.
fn is_refused(server: &Value, ports: &Value, place: &str) {
    for data_path in ["proxy", "passive"] {
        let annotations = json!({"data-path": data_path, "port-flag": "--port"});
        let refusals = inject::inject(&pair(&annotations, server, ports), &options("-"));
        let refusals = refusals.expect_err(place);
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        let text = refusals[0].to_string();
        assert!(text.contains(place), "{text}");
        let why = "the server speaks TLS, which the sidecar does not";
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_server_that_is_asked_by_https_is_refused() {
    let check = |probe: &str, port: Value| {
        let https = json!({"httpGet": {"scheme": "HTTPS", "path": "/", "port": port}});
        let place = format!(".{probe}.httpGet.scheme");
        is_refused(&with(probe, https), &to("http"), &place);
    };
    check("readinessProbe", json!("http"));
    check("livenessProbe", json!(8000));
    check("startupProbe", json!("http"));
    let curl = json!({"exec": {"command": ["curl", "-k", "https://localhost:8000/health"]}});
    is_refused(
        &with("livenessProbe", curl),
        &to("http"),
        ".livenessProbe.exec",
    );
}

#[test]
fn a_server_whose_port_is_said_to_have_tls_is_refused() {
    for name in ["https", "tls-api", "grpcs"] {
        let called = json!({"ports": [{"name": name, "containerPort": 8443}]});
        is_refused(&called, &to(name), &format!("it is called {name}"));
    }
    for app in ["https", "HTTPS", "kubernetes.io/wss", "tls"] {
        let ports = json!([{"port": 80, "targetPort": "http", "appProtocol": app}]);
        is_refused(&plain(), &ports, &format!("says appProtocol {app}"));
    }
    let unnamed = json!({"ports": [{"containerPort": 8443}], "args": ["--port", "8443"]});
    let secret = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
    is_refused(&unnamed, &secret, "calls it https");
}

#[test]
fn a_server_that_is_told_a_key_is_refused() {
    let flag = |words: Value, place: &str| is_refused(&with("args", words), &to("http"), place);
    flag(
        json!(["--ssl-keyfile", "/key.pem"]),
        "it is told --ssl-keyfile",
    );
    flag(
        json!(["--ssl-certfile=/crt"]),
        "it is told --ssl-certfile=/crt",
    );
    flag(json!(["--ssl-key-file", "/k"]), "it is told --ssl-key-file");
    flag(json!(["--ssl"]), "it is told --ssl");
    let script = json!(["sh", "-c", "vllm serve m --ssl_keyfile /key.pem"]);
    is_refused(
        &with("command", script),
        &to("http"),
        "it is told --ssl_keyfile",
    );
    let variable = |name: &str, value: &str, place: &str| {
        let list = json!([{"name": name, "value": value}]);
        is_refused(&with("env", list), &to("http"), place);
    };
    variable(
        "UVICORN_SSL_KEYFILE",
        "/k",
        "it is told UVICORN_SSL_KEYFILE",
    );
    variable("NIM_SSL_MODE", "TLS", "it is told NIM_SSL_MODE");
    variable("GUNICORN_CMD_ARGS", "--keyfile /k", "it is told --keyfile");
    let grpc =
        json!({"ports": [{"name": "grpc", "containerPort": 8001}], "args": ["--grpc-use-ssl=1"]});
    is_refused(&grpc, &to("grpc"), "it is told --grpc-use-ssl=1");
}

#[test]
fn what_ends_tls_elsewhere_or_turns_it_off_is_no_tls() {
    let https = json!({"httpGet": {"scheme": "HTTPS", "path": "/", "port": 8443}});
    let rows = [
        // Another port of the pod.
        (with("livenessProbe", https), to("http")),
        // Whom a client trusts.
        (
            with(
                "env",
                json!([{"name": "SSL_CERT_FILE", "value": "/etc/ca.pem"}]),
            ),
            to("http"),
        ),
        (
            with(
                "env",
                json!([{"name": "NIM_SSL_MODE", "value": "DISABLED"}]),
            ),
            to("http"),
        ),
        (with("args", json!(["--ssl-keyfile="])), to("http")),
        (with("args", json!(["--ssl", "false"])), to("http")),
        (with("args", json!(["--ssl-ca-certs", "/ca"])), to("http")),
        (
            with(
                "livenessProbe",
                json!({"exec": {"command": ["curl", "https://localhost:80001/"]}}),
            ),
            to("http"),
        ),
        // A load balancer that ends it.
        (
            plain(),
            json!([{"name": "https", "port": 443, "targetPort": "http"}]),
        ),
        (
            json!({"ports": [{"name": "x", "containerPort": 8000}]}),
            json!([{"name": "http", "port": 80, "targetPort": "x"}, {"name": "https", "port": 443, "targetPort": "x"}]),
        ),
        // gRPC has no port here that would be meant.
        (with("args", json!(["--grpc-use-ssl=1"])), to("http")),
    ];
    for (server, ports) in rows {
        let output = inject::inject(&pair(&json!({}), &server, &ports), &options("-"));
        let output = output.unwrap_or_else(|refusals| panic!("{server}: {refusals:?}"));
        assert_eq!(output.changed, 1, "{server}");
    }
}
