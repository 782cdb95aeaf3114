//! Probes: liveness and startup stay the server's own; readiness asks the sidecar, which asks the server.
//!
//! A kubelet that asked the server for its readiness would wait behind the requests there, and would go on asking a
//! server that a drain keeps from ending.

use serde_json::{Value, json};

use super::ports::Route;
use super::task::{Task, declared};

/// How a probe or a hook reaches a port.
pub(super) const CALLS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// What may call the server's ports.
pub(super) const CALLERS: [&str; 5] = [
    "/startupProbe",
    "/livenessProbe",
    "/readinessProbe",
    "/lifecycle/postStart",
    "/lifecycle/preStop",
];

/// How the sidecar asks whether the server is ready, in the words of `--upstream-ready`.
pub(super) fn hand_over(task: &mut Task, names: &[(String, u16)], routes: &[Route]) -> String {
    follow(task, names, routes);
    let probe = task.in_server("/readinessProbe").clone();
    // The sidecar asks its first route, which is the one that the probe asks, if any is.
    let is_route = |call: &Value| {
        let first = routes.first().map(|route| route.upstream.into());
        first.is_some() && call["port"].as_u64() == first
    };
    let http = &probe["httpGet"];
    let ready = if is_route(http) && is_plain(http) {
        let path = http["path"].as_str().unwrap_or("/");
        Some(format!("http:{path}"))
    } else if is_route(&probe["tcpSocket"]) {
        Some("tcp".to_owned())
    } else {
        None
    };
    let Some(ready) = ready else {
        if !probe.is_null() {
            task.note(
                "the server keeps its readiness probe, which the sidecar cannot ask in its place, and is asked by the sidecar \
                 whether it takes connections",
            );
        }
        return "tcp".to_owned();
    };
    let at = task.server("/readinessProbe");
    let edited = task.edits.remove(&at);
    task.check(edited);
    ready
}

/// The port of `numbers` whose answer makes the pod ready: that which readiness asks, else startup, else liveness.
pub(super) fn asked(server: &Value, numbers: &[u16]) -> Option<u16> {
    let mut calls = ["readinessProbe", "startupProbe", "livenessProbe"]
        .iter()
        .flat_map(|probe| CALLS.iter().map(|call| &server[*probe][*call]["port"]));
    calls.find_map(|port| {
        let named = port.as_str().and_then(|wanted| {
            let mut ports = declared(server);
            ports.find(|(name, _)| *name == Some(wanted))
        });
        let number = named.map(|(_, number)| number);
        let number = number.or_else(|| u16::try_from(port.as_u64()?).ok());
        number.filter(|number| numbers.contains(number))
    })
}

/// Lets what called a port of the server by a name or a number that the sidecar has now call the server still.
fn follow(task: &mut Task, names: &[(String, u16)], routes: &[Route]) {
    for caller in CALLERS {
        for call in CALLS {
            let at = task.server(&format!("{caller}/{call}/port"));
            let number = match task.edits.get(&at) {
                Some(Value::String(name)) => names
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|&(_, number)| number),
                Some(Value::Number(number)) => number
                    .as_u64()
                    .and_then(|number| u16::try_from(number).ok()),
                _ => None,
            };
            let route = routes.iter().find(|route| Some(route.was) == number);
            if let Some(route) = route {
                let edited = task.edits.set(&at, json!(route.upstream));
                task.check(edited);
            }
        }
    }
}

/// Whether it asks for nothing that the sidecar's own question could not.
fn is_plain(http: &Value) -> bool {
    let path = http["path"].as_str().unwrap_or("/");
    let headers = http["httpHeaders"].as_array();
    path.starts_with('/')
        && !path.starts_with("//")
        && path.parse::<http::Uri>().is_ok()
        && headers.is_none_or(Vec::is_empty)
        && http.get("host").is_none()
}
