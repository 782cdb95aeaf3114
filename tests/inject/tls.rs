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

#[test]
fn a_server_that_speaks_tls_is_refused_whoever_says_so() {
    let https = |port: Value| json!({"httpGet": {"scheme": "HTTPS", "path": "/", "port": port}});
    let called = |name: &str| json!({"ports": [{"name": name, "containerPort": 8443}]});
    let unnamed = json!({"ports": [{"containerPort": 8443}], "args": ["--port", "8443"]});
    let rows = [
        (
            with("readinessProbe", https(json!("http"))),
            to("http"),
            ".readinessProbe.httpGet.scheme",
        ),
        (
            with("livenessProbe", https(json!(8000))),
            to("http"),
            ".livenessProbe.httpGet.scheme",
        ),
        (
            with("startupProbe", https(json!("http"))),
            to("http"),
            ".startupProbe.httpGet.scheme",
        ),
        (
            with(
                "livenessProbe",
                json!({"exec": {"command": ["curl", "-k", "https://localhost:8000/health"]}}),
            ),
            to("http"),
            ".livenessProbe.exec",
        ),
        (called("https"), to("https"), "it is called https"),
        (called("tls-api"), to("tls-api"), "it is called tls-api"),
        (
            plain(),
            json!([{"port": 80, "targetPort": "http", "appProtocol": "https"}]),
            "says appProtocol https",
        ),
        (
            plain(),
            json!([{"port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/wss"}]),
            "says appProtocol kubernetes.io/wss",
        ),
        (
            unnamed,
            json!([{"name": "https", "port": 443, "targetPort": 8443}]),
            "calls it https",
        ),
        (
            with("args", json!(["--ssl-keyfile", "/tls/key.pem"])),
            to("http"),
            "it is told --ssl-keyfile",
        ),
        (
            with("args", json!(["--ssl-certfile=/tls/crt.pem"])),
            to("http"),
            "it is told --ssl-certfile=/tls/crt.pem",
        ),
        (
            with(
                "command",
                json!(["sh", "-c", "vllm serve m --ssl_keyfile /tls/key.pem"]),
            ),
            to("http"),
            "it is told --ssl_keyfile",
        ),
        (
            with(
                "args",
                json!(["--ssl-key-file", "/k", "--ssl-cert-file", "/c"]),
            ),
            to("http"),
            "it is told --ssl-key-file",
        ),
        (
            with(
                "env",
                json!([{"name": "UVICORN_SSL_KEYFILE", "value": "/k"}]),
            ),
            to("http"),
            "it is told UVICORN_SSL_KEYFILE",
        ),
        (
            with("env", json!([{"name": "NIM_SSL_MODE", "value": "TLS"}])),
            to("http"),
            "it is told NIM_SSL_MODE",
        ),
        (
            with(
                "env",
                json!([{"name": "GUNICORN_CMD_ARGS", "value": "--keyfile /k --certfile /c"}]),
            ),
            to("http"),
            "it is told --keyfile",
        ),
    ];
    for (server, ports, place) in rows {
        for annotations in [json!({}), json!({"data-path": "passive"})] {
            let mut all = annotations;
            all["port-flag"] = json!("--port");
            let refusals = inject::inject(&pair(&all, &server, &ports), &options("-"));
            let refusals = refusals.expect_err(place);
            assert_eq!(refusals.len(), 1, "{refusals:?}");
            let text = refusals[0].to_string();
            assert!(text.contains(place), "{text}");
            assert!(
                text.contains("the server speaks TLS, which the sidecar does not"),
                "{text}"
            );
        }
    }
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
