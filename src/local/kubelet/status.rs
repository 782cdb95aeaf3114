//! The status of a pod, from the states of its containers.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::state::{Exit, Role, Stage, State, containers};
use crate::clock::Timestamp;
use crate::local::json::{copy, elements, set, text};
use crate::local::rfc3339;

/// Writes the status. `before` is the last one written, or what the API server has: what did not change keeps its times.
pub(super) fn status(
    pod: &Pod,
    states: &[State],
    ip: Ipv4Addr,
    before: &Value,
    now: Timestamp,
) -> Value {
    let parts: Vec<(Role, &str, &State)> = containers(pod)
        .zip(states)
        .map(|((role, container), state)| (role, container.name.as_str(), state))
        .collect();
    let initialized = parts.iter().all(|(role, _name, state)| match role {
        Role::Init => state.ended().is_some_and(|exit| exit.code == 0),
        Role::Sidecar => state.started || state.restarts > 0 || state.ended().is_some(),
        Role::Main => true,
    });
    let unready: Vec<&str> = parts
        .iter()
        .filter(|(role, _name, state)| *role != Role::Init && !state.ready)
        .map(|(_role, name, _state)| *name)
        .collect();
    let of = |wanted: fn(Role) -> bool| -> Vec<Value> {
        parts
            .iter()
            .filter(|(role, _name, _state)| wanted(*role))
            .map(|(_role, name, state)| container_status(name, state))
            .collect()
    };
    let conditions = [
        condition("PodScheduled", true, ""),
        condition("Initialized", initialized, "ContainersNotInitialized"),
        readiness("ContainersReady", &unready),
        readiness("Ready", &unready),
    ]
    .map(|condition| dated(condition, before, now));
    let mut written = json!({
        "phase": phase(&parts, initialized),
        "conditions": conditions,
        "hostIP": Ipv4Addr::LOCALHOST.to_string(),
        "podIP": ip.to_string(),
        "podIPs": [{"ip": ip.to_string()}],
        "containerStatuses": of(|role| role == Role::Main),
    });
    let init = of(|role| role != Role::Main);
    if !init.is_empty() {
        written["initContainerStatuses"] = init.into();
    }
    copy(&mut written, before, &["startTime"]);
    if text(&written, "/startTime").is_empty() {
        written["startTime"] = rfc3339(now).into();
    }
    written
}

fn phase(parts: &[(Role, &str, &State)], initialized: bool) -> &'static str {
    let mains = || {
        parts
            .iter()
            .filter(|(role, _name, _state)| *role == Role::Main)
    };
    let exits: Option<Vec<Exit>> = mains().map(|(_role, _name, state)| state.ended()).collect();
    let begun = mains().any(|(_role, _name, state)| {
        state.restarts > 0 || matches!(state.stage, Stage::Running(_) | Stage::Ended(_))
    });
    match exits {
        Some(exits) if exits.iter().all(|exit| exit.code == 0) => "Succeeded",
        Some(_) => "Failed",
        None if initialized && begun => "Running",
        None => "Pending",
    }
}

fn condition(name: &str, holds: bool, reason: &str) -> Value {
    if holds {
        json!({"type": name, "status": "True"})
    } else {
        json!({"type": name, "status": "False", "reason": reason})
    }
}

fn readiness(name: &str, unready: &[&str]) -> Value {
    let mut condition = condition(name, unready.is_empty(), "ContainersNotReady");
    if !unready.is_empty() {
        let names = unready.join(" ");
        condition["message"] = format!("containers with unready status: [{names}]").into();
    }
    condition
}

fn dated(mut condition: Value, before: &Value, now: Timestamp) -> Value {
    let kept = elements(before, "/conditions")
        .iter()
        .find(|was| was["type"] == condition["type"] && was["status"] == condition["status"])
        .map(|was| was["lastTransitionTime"].clone())
        .filter(Value::is_string);
    condition["lastTransitionTime"] = kept.unwrap_or_else(|| rfc3339(now).into());
    condition
}

fn container_status(name: &str, state: &State) -> Value {
    let current = match state.stage {
        Stage::Waiting(reason) => json!({"waiting": {"reason": reason}}),
        Stage::Running(since) => json!({"running": {"startedAt": rfc3339(since)}}),
        Stage::Ended(exit) => json!({"terminated": terminated(exit)}),
    };
    let mut status = json!({
        "name": name,
        "state": current,
        "ready": state.ready,
        "started": state.started,
        "restartCount": state.restarts,
        "image": state.image,
        "imageID": "",
    });
    if let Some(exit) = state.last {
        set(&mut status, &["lastState", "terminated"], terminated(exit));
    }
    status
}

fn terminated(exit: Exit) -> Value {
    json!({
        "exitCode": exit.code,
        "reason": if exit.code == 0 { "Completed" } else { "Error" },
        "startedAt": rfc3339(exit.started),
        "finishedAt": rfc3339(exit.finished),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "sidescale", "restartPolicy": "Always"}],
            "containers": [{"name": "server"}],
        }}))
        .expect("the pod is well-formed")
    }

    fn state(stage: Stage, ready: bool) -> State {
        State {
            stage,
            started: ready,
            ready,
            ..State::new("image")
        }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_pod_is_ready_when_its_server_and_its_sidecar_are() {
        let running = Stage::Running(at(0));
        let ip = Ipv4Addr::new(127, 1, 2, 3);
        let both = |sidecar: bool, server: bool, before: &Value, now| {
            let states = [state(running, sidecar), state(running, server)];
            status(&pod(), &states, ip, before, at(now))
        };
        let starting = both(true, false, &Value::Null, 5);
        assert_eq!(text(&starting, "/phase"), "Running");
        let ready = |status: &Value| elements(status, "/conditions")[3].clone();
        assert_eq!(ready(&starting)["status"], "False");
        assert_eq!(
            ready(&starting)["message"],
            "containers with unready status: [server]"
        );
        let serving = both(true, true, &starting, 9);
        assert_eq!(ready(&serving)["status"], "True");
        assert_eq!(ready(&serving)["lastTransitionTime"], rfc3339(at(9)));
        let later = both(true, true, &serving, 12);
        assert_eq!(later, serving, "nothing changed, and no time moved");
        assert_eq!(ready(&both(false, true, &later, 15))["status"], "False");
    }

    #[test]
    fn the_phase_follows_the_main_containers() {
        let exit = |code| {
            Stage::Ended(Exit {
                code,
                started: at(0),
                finished: at(1),
            })
        };
        let check = |sidecar: State, server: Stage, phase: &str| {
            let states = [sidecar, state(server, false)];
            let written = status(&pod(), &states, Ipv4Addr::LOCALHOST, &Value::Null, at(2));
            assert_eq!(text(&written, "/phase"), phase);
        };
        let running = Stage::Running(at(0));
        let waiting = Stage::Waiting("PodInitializing");
        check(State::new("image"), waiting, "Pending");
        check(state(running, true), waiting, "Pending");
        check(state(running, true), running, "Running");
        check(state(exit(0), true), exit(0), "Succeeded");
        check(state(running, true), exit(1), "Failed");
    }
}
