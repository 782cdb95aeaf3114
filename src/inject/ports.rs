//! The hand-over of the ports that carry requests: for each pod at once, and without a word to its Services.
//!
//! A name moves alone: its entry in the server's list of ports gets the sidecar's number, and the server goes on where it
//! listens. (Entries say who is called what in a *pod*, whoever listens there. The sidecar's own list would be the tidier
//! place, but before 1.32 Kubernetes does not look for names in native sidecars, so the Service would lose its endpoints;
//! meshes and network policies learnt it later still.) A number cannot move: there the sidecar takes it and the server
//! is told another one. Pods with the sidecar and pods without it stand behind the same Service meanwhile.

use std::collections::BTreeMap;

use serde_json::json;

use super::carried::carried;
use super::engines::move_server;
use super::free::{self, Free};
use super::services::Service;
use super::task::{Task, containers, declared};

/// Below it, only root may listen where the node says nothing else.
const PRIVILEGED: u16 = 1024;
/// The setting of a pod's network that lets everybody; one of those that every cluster allows.
const UNPRIVILEGED: &str = "net.ipv4.ip_unprivileged_port_start";

/// How far away a server goes that gives its number to the sidecar.
const AWAY: u16 = 10_000;
/// From it on, the node takes ports for connections of its own, and a server that comes back may find its own taken.
const EPHEMERAL: u16 = 32_768;

/// One port that carries requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The sidecar's.
    pub(super) listen: u16,
    /// The server's.
    pub(super) upstream: u16,
    /// What the server's was before.
    pub(super) was: u16,
    /// What it is asked for by.
    names: Vec<String>,
    /// The sidecar has taken the server's number.
    by_number: bool,
}

/// Decides which ports carry requests and who listens where, and writes it.
pub(super) fn hand_over(task: &mut Task, services: &[Service]) -> Vec<Route> {
    let found = carried(task, services);
    let passive = task.settings.passive;
    let mut free = Free::beside(task, found.iter().map(|(number, _)| *number));
    free::settle_own(task, &mut free);
    let mut routes = Vec::new();
    let mut next = task.settings.listen_port;
    let mut is_written = task.settings.is_written("listen-port");
    for (number, asked) in found {
        let by_number = asked.by_number && !passive;
        let (listen, upstream) = if by_number {
            let given = task.settings.server_port;
            (number, given.unwrap_or_else(|| free.take(away(number))))
        } else {
            // The first one is where somebody wrote that it is, and refused where that is taken.
            let listen = if std::mem::take(&mut is_written) {
                next
            } else {
                free.take(next)
            };
            next = listen.checked_add(1).unwrap_or(task.settings.listen_port);
            (listen, number)
        };
        routes.push(Route {
            listen,
            upstream,
            was: number,
            names: asked.names,
            by_number,
        });
        if passive {
            break;
        }
    }
    refuse_collisions(task, &routes);
    refuse_numbers(task, &routes);
    if task.refusals.is_empty() && !passive {
        write(task, &routes);
        let_listen(task, &routes);
    }
    routes
}

/// Where a server goes that gives `number` up.
fn away(number: u16) -> u16 {
    match number.checked_add(AWAY) {
        Some(above) if above < EPHEMERAL => above,
        _ => {
            let mut below = number - AWAY;
            while below >= EPHEMERAL {
                below -= AWAY;
            }
            below
        }
    }
}

/// A number belongs to whoever listens there, so its sidecar and its server have to come and go together: at admission,
/// where a pod may get none, only a name can be handed over.
fn refuse_numbers(task: &mut Task, routes: &[Route]) {
    let moved = routes.iter().find(|route| route.upstream != route.was);
    if let (true, Some(route)) = (task.workload.kind.is_at_admission(), moved) {
        let at = task.server_words(".ports");
        task.refuse(
            &at,
            format!("requests come to {} by its number, and at admission only a name can move", route.was),
            "give the port a name and roll that out, then let the Service target the name, and inject after that; or use \
             `sidescale inject` on the manifests",
        );
    }
}

/// The sidecar is not root, and containerd before 2.0 keeps ports like 80 for root.
fn let_listen(task: &mut Task, routes: &[Route]) {
    let Some(route) = routes.iter().find(|route| route.listen < PRIVILEGED) else {
        return;
    };
    let at = task.pod("/securityContext/sysctls");
    let there = task.in_pod(&format!("/securityContext/sysctls/name={UNPRIVILEGED}"));
    if let Some(first) = there["value"].as_str() {
        if first.parse().is_ok_and(|first: u16| first <= route.listen) {
            return;
        }
        let text = format!(
            "{UNPRIVILEGED} is {first}, and the sidecar takes {} without being root",
            route.listen
        );
        task.refuse("securityContext.sysctls", text, "set it to \"0\"");
        return;
    }
    let setting = json!({"name": UNPRIVILEGED, "value": "0"});
    let edited = task.edits.insert(&at, false, setting);
    task.check(edited);
}

/// Two who listen on one port of the pod: the second one would not start.
fn refuse_collisions(task: &mut Task, routes: &[Route]) {
    let mut wanted: Vec<(u16, String)> = Vec::new();
    for route in routes {
        // Where the number stays, the server gives it up.
        if route.by_number {
            wanted.push((route.upstream, "sidescale.dev/server-port".to_owned()));
        } else {
            wanted.push((route.listen, "sidescale.dev/listen-port".to_owned()));
        }
    }
    wanted.push((
        task.settings.admin_port,
        "sidescale.dev/admin-port".to_owned(),
    ));
    wanted.push((
        task.settings.member_port,
        "sidescale.dev/member-port".to_owned(),
    ));
    task.taken = wanted.iter().map(|(port, _)| *port).collect();
    let pod = task.in_pod("");
    let mut taken: BTreeMap<u16, String> = BTreeMap::new();
    for container in containers(pod).filter(|container| container.stays) {
        for (_, number) in declared(container.value) {
            taken
                .entry(number)
                .or_insert_with(|| format!("containers[{}]", container.name));
        }
    }
    for route in routes {
        taken
            .entry(route.was)
            .or_insert_with(|| format!("containers[{}]", task.server));
    }
    let mut collisions = Vec::new();
    for (port, setting) in wanted {
        if let Some(holder) = taken.get(&port) {
            collisions.push((holder.clone(), port, setting.clone()));
        }
        taken.entry(port).or_insert(setting);
    }
    for (holder, port, setting) in collisions {
        let whose = if setting.ends_with("server-port") {
            "server"
        } else {
            "sidecar"
        };
        task.refuse(
            "ports",
            format!("{port} is taken by {holder} and wanted for the {whose}"),
            format!("set another one with the annotation {setting}"),
        );
    }
}

fn write(task: &mut Task, routes: &[Route]) {
    for route in routes {
        if route.upstream != route.was {
            move_server(task, route.was, route.upstream);
            task.note(format!(
                "requests come to port {} by its number: the sidecar takes it, and the server is told to listen on {}",
                route.was, route.upstream
            ));
            continue;
        }
        for name in &route.names {
            let at = format!("/ports/name={}/containerPort", super::edits::escape(name));
            let at = task.server(&at);
            let edited = task.edits.set(&at, json!(route.listen));
            task.check(edited);
            task.note(format!(
                "port {name}: the name goes to the sidecar's {}, the server stays on {}",
                route.listen, route.was
            ));
        }
    }
}
