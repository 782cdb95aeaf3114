//! Which of the server's ports the sidecar carries, and which of them stands for the pod's readiness.

use serde_json::Value;

use super::probes::asked;
use super::services::Service;
use super::speech::Port;
use super::targets::{Asked, found};
use super::task::{Task, declared};

/// The server's ports that the sidecar carries, and first the one whose answer makes the pod ready: another one may be closed
/// for ever.
pub(super) fn carried(task: &mut Task, services: &[Service]) -> Vec<(u16, Asked)> {
    let mut found = found(task, services);
    let server = task.in_server("").clone();
    let names: Vec<(String, u16)> = declared(&server)
        .filter_map(|(name, number)| Some((name?.to_owned(), number)))
        .collect();
    let mine: Vec<&Service> = { services.iter() }
        .filter(|service| service.selects(&task.workload))
        .collect();
    for text in without_tcp(&server) {
        task.note(format!(
            "port {text} gets no proxy: the sidecar carries HTTP, which is on TCP"
        ));
    }
    // Who names a port knows it.
    if task.settings.ports.is_empty() {
        let had = found.len();
        let numbers: Vec<u16> = found.keys().copied().collect();
        for number in numbers {
            let port = Port {
                number,
                names: &names,
                services: &mine,
            };
            let Some(why) = port.is_no_http(&server) else {
                continue;
            };
            found.remove(&number);
            task.note(format!(
                "port {number} gets no proxy, and its requests are not counted: {why}, which is no HTTP; if it is, name all that are in \
                 the annotation sidescale.dev/ports"
            ));
        }
        if had > 0 && found.is_empty() {
            let at = task.server_words(".ports");
            task.refuse(
                &at,
                "none of its ports carries HTTP, as far as names and protocols tell",
                "name those that do in the annotation sidescale.dev/ports; or leave it out, if it serves nobody by HTTP: \
                 sidescale.dev/inject: \"false\"",
            );
        }
    }
    let numbers: Vec<u16> = found.keys().copied().collect();
    let first = asked(&server, &numbers);
    let mut found: Vec<_> = found.into_iter().collect();
    let is_grpc = |asked: &Asked| asked.names.iter().any(|name| name.contains("grpc"));
    // Where nobody asks, HTTP is on more surely than the gRPC beside it.
    found.sort_by_key(|(number, asked)| (first != Some(*number), is_grpc(asked), *number));
    found
}

/// Ports of other protocols, in words.
fn without_tcp(server: &Value) -> Vec<String> {
    let ports = server["ports"].as_array().into_iter().flatten();
    let others = ports.filter_map(|port| {
        let protocol = port["protocol"].as_str().filter(|it| *it != "TCP")?;
        Some(format!("{}/{protocol}", port["containerPort"]))
    });
    others.collect()
}
