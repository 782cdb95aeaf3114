//! The end of a pod: the server's SIGTERM waits until the sidecar has drained.
//!
//! The kubelet runs all preStop hooks at the deletion, and sends a container its SIGTERM when its own hook has answered.
//! A native sidecar gets its SIGTERM after all others have ended, when it is too late: so the server's hook asks the
//! sidecar, which answers when the last request has ended.

use std::time::Duration;

use serde_json::{Value, json};

use super::edits::escape;
use super::server::has_accelerator;
use super::services::is_metrics;
use super::settings::LEAST_GRACE;
use super::task::{Task, declared};

/// For the server's own end after the drain, and the sidecar's after it.
const MARGIN: Duration = Duration::from_secs(10);
/// Kubernetes' own, where a pod says nothing.
const KUBERNETES_GRACE: u64 = 30;
/// `sidescale run`'s own.
pub(super) const PROPAGATION: u64 = 5;

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// The longest a drain waits, in seconds.
    pub(super) grace: u64,
    /// How long requests may still arrive at a pod that has begun to end, in seconds.
    pub(super) propagation: u64,
}

/// The hook that answers when the pod has drained.
pub(super) fn drained(admin_port: u16) -> Value {
    json!({"httpGet": {"path": "/api/v1/drained", "port": admin_port}})
}

/// Gives the server its hook and the pod its time.
pub(super) fn prepare(task: &mut Task) -> Ending {
    let propagation = hook(task);
    keep_neighbours(task);
    let written = task.in_pod("/terminationGracePeriodSeconds").as_u64();
    let has = written.unwrap_or(KUBERNETES_GRACE);
    let least = LEAST_GRACE.as_secs();
    let grace = match task.settings.grace {
        Some(grace) => grace.as_secs(),
        None => has.saturating_sub(MARGIN.as_secs()).max(least),
    };
    let needs = grace + MARGIN.as_secs();
    if has < needs {
        let at = task.pod("/terminationGracePeriodSeconds");
        let edited = task.edits.set(&at, json!(needs));
        task.check(edited);
        task.note(format!(
            "terminationGracePeriodSeconds is raised from {has} to {needs}, so that a drain has {grace} s: write \
             sidescale.dev/grace for more, if your longest stream takes longer"
        ));
    }
    if propagation >= grace {
        task.refuse(
            "annotation sidescale.dev/grace",
            format!(
                "{grace} s leave nothing after the {propagation} s in which requests still arrive"
            ),
            "give the drain more",
        );
    }
    Ending { grace, propagation }
}

/// Sets the server's preStop hook; returns for how long requests may still arrive.
fn hook(task: &mut Task) -> u64 {
    let there = task.in_server("/lifecycle/preStop").clone();
    let slept = slept(&there);
    if task.settings.hook_is_composed {
        if there.is_null() {
            let at = task.server_words(".lifecycle.preStop");
            task.refuse(
                &at,
                "sidescale.dev/prestop-composed says that a hook waits for the drain, and there is none",
                "take the annotation away",
            );
        }
        return PROPAGATION;
    }
    if !there.is_null() && slept.is_none() {
        let port = task.settings.admin_port;
        let at = task.server_words(".lifecycle.preStop");
        task.refuse(
            &at,
            "there is a hook already, and a container has one",
            format!(
                "let it wait for an answer of http://127.0.0.1:{port}/api/v1/drained before it does what it does, and say so with \
                 the annotation sidescale.dev/prestop-composed: \"true\""
            ),
        );
        return PROPAGATION;
    }
    if let Some(slept) = slept {
        task.note(format!(
            "the server's preStop hook slept {slept} s for the endpoints to propagate: the drain does that now, as long"
        ));
    }
    let at = task.server("/lifecycle/preStop");
    let drained = drained(task.settings.admin_port);
    let edited = task.edits.set(&at, drained);
    task.check(edited);
    slept.unwrap_or(0).max(PROPAGATION)
}

/// Gives the hook to those who may work for the server's requests: a model behind a proxy that is taken for the server would
/// get its SIGTERM while requests still come.
fn keep_neighbours(task: &mut Task) {
    let beside = task.in_pod("/containers").as_array();
    let mut others: Vec<(String, bool)> = Vec::new();
    for container in beside.into_iter().flatten() {
        let Some(name) = container["name"]
            .as_str()
            .filter(|name| *name != task.server)
        else {
            continue;
        };
        let serves = declared(container).any(|(name, _)| !is_metrics(name));
        if serves || has_accelerator(container) {
            let has_hook = !container["lifecycle"]["preStop"].is_null();
            others.push((name.to_owned(), has_hook));
        }
    }
    for (name, has_hook) in others {
        if has_hook {
            task.note(format!(
                "the container {name} has a preStop hook of its own: where the server needs it until the last request has ended, let \
                 it wait for an answer of http://127.0.0.1:{}/api/v1/drained",
                task.settings.admin_port
            ));
            continue;
        }
        let at = task.pod(&format!(
            "/containers/name={}/lifecycle/preStop",
            escape(&name)
        ));
        let edited = task.edits.set(&at, drained(task.settings.admin_port));
        task.check(edited);
    }
}

/// For how many seconds a hook sleeps that does nothing else.
fn slept(hook: &Value) -> Option<u64> {
    if let Some(seconds) = hook["sleep"]["seconds"].as_u64() {
        return Some(seconds);
    }
    let words: Vec<&str> = hook["exec"]["command"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let words = match words.as_slice() {
        [shell, "-c", script]
            if shell
                .rsplit('/')
                .next()
                .is_some_and(|name| name.ends_with("sh")) =>
        {
            script.split_whitespace().collect()
        }
        _ => words,
    };
    match words.as_slice() {
        [sleep, seconds] if sleep.rsplit('/').next() == Some("sleep") => {
            seconds.strip_suffix('s').unwrap_or(seconds).parse().ok()
        }
        _ => None,
    }
}
