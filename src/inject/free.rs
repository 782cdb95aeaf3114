//! Numbers of the pod that nobody has, for the sidecar's own ports and for a server that moves.
//!
//! A number that a person wrote into an annotation is taken at its word, and refused where somebody has it. The defaults are
//! nobody's wish: `TorchServe` listens on the sidecar's 8080, and a sidecar beside it takes the next free one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::probes::{CALLERS, CALLS};
use super::task::{Task, containers, declared};

/// Ports that a server takes beside the one for requests, whether or not its manifest declares them.
const BESIDE: [(&[&str], &[u16]); 2] = [
    (&["torchserve"], &[8081, 8082, 7070, 7071]),
    (&["tritonserver"], &[8000, 8001, 8002]),
];
/// Below it, only root may listen.
const UNPRIVILEGED: u16 = 1024;

/// The numbers that somebody has.
#[derive(Debug)]
pub(super) struct Free {
    taken: BTreeSet<u16>,
}

// === impl Free ===

impl Free {
    /// Beside the pod's containers, the server's ports for requests, and what a person wrote.
    pub(super) fn beside(task: &Task, requests: impl IntoIterator<Item = u16>) -> Self {
        let mut taken: BTreeSet<u16> = requests.into_iter().collect();
        for container in containers(task.in_pod("")).filter(|container| container.stays) {
            taken.extend(declared(container.value).map(|(_, number)| number));
            taken.extend(probed(container.value));
            let words = words(container.value);
            taken.extend(words.iter().filter_map(|word| mentioned(word)));
            let image = container.value["image"].as_str().unwrap_or_default();
            for (signs, ports) in BESIDE {
                let is_it = |text: &str| signs.iter().any(|sign| text.contains(sign));
                if is_it(image) || words.iter().any(|word| is_it(word)) {
                    taken.extend(ports);
                }
            }
        }
        let settings = &task.settings;
        let written = [
            ("listen-port", Some(settings.listen_port)),
            ("admin-port", Some(settings.admin_port)),
            ("member-port", Some(settings.member_port)),
            ("server-port", settings.server_port),
        ];
        let written = written
            .into_iter()
            .filter(|(name, _)| settings.is_written(name));
        taken.extend(written.filter_map(|(_, port)| port));
        Self { taken }
    }

    /// The first from `wanted` on that nobody has, which is the caller's now.
    pub(super) fn take(&mut self, wanted: u16) -> u16 {
        let numbers = (wanted..=u16::MAX).chain(UNPRIVILEGED..wanted);
        let free = |number: &u16| !self.taken.contains(number);
        // No manifest has sixty thousand ports; one that had would be refused for the collision.
        let number = { numbers }.find(free).unwrap_or(wanted);
        self.taken.insert(number);
        number
    }
}

/// Moves the sidecar's ports for others than clients to where nobody listens.
pub(super) fn settle_own(task: &mut Task, free: &mut Free) {
    let moved = |task: &mut Task, what: &str, from: u16, to: u16| {
        if to != from {
            task.note(format!(
                "{from} is taken in the pod, so the sidecar's {what} port is {to}: annotation sidescale.dev/{what}-port for another one"
            ));
        }
    };
    // A hook that somebody composed asks the admin port that it was told of.
    if !task.settings.is_written("admin-port") && !task.settings.hook_is_composed {
        let from = task.settings.admin_port;
        task.settings.admin_port = free.take(from);
        moved(task, "admin", from, task.settings.admin_port);
    }
    if !task.settings.is_written("member-port") {
        let from = task.settings.member_port;
        task.settings.member_port = free.take(from);
        moved(task, "member", from, task.settings.member_port);
    }
}

/// The numbers at which a container is asked.
fn probed(container: &Value) -> impl Iterator<Item = u16> {
    let calls = CALLERS.iter().flat_map(|caller| {
        let caller = container.pointer(caller).unwrap_or(&Value::Null);
        CALLS.iter().map(|call| &caller[*call]["port"])
    });
    calls.filter_map(|port| u16::try_from(port.as_u64()?).ok())
}

/// Command, args and the values of variables, word by word.
pub(super) fn words(container: &Value) -> Vec<String> {
    let list = |key: &str| container[key].as_array().into_iter().flatten();
    let variables = list("env").map(|variable| &variable["value"]);
    let texts = list("command").chain(list("args")).chain(variables);
    let texts = texts.filter_map(|text| match text {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    });
    texts
        .flat_map(|text| {
            let words = text.split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>()
        })
        .collect()
}

/// The number of a port that a word ends with: `8080`, `--port=8080`, `0.0.0.0:8080`. Whether it is one cannot be told, and to
/// pass over a number costs nothing.
fn mentioned(word: &str) -> Option<u16> {
    // Who waits for the sidecar's drain does not listen there.
    if word.contains("/api/v1/drained") {
        return None;
    }
    let word = word.trim_matches(['"', '\'', '/', ',', ';']);
    let last = word.rsplit([':', '=']).next().unwrap_or(word);
    last.parse().ok()
}
