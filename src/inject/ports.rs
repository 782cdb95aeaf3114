//! The hand-over of the ports that carry requests: for each pod at once, and without a word to its Services.
//!
//! A name moves alone: its entry in the server's list of ports gets the sidecar's number, and the server goes on where it
//! listens. (Entries say who is called what in a *pod*, whoever listens there. The sidecar's own list would be the tidier
//! place, but before 1.32 Kubernetes does not look for names in native sidecars, so the Service would lose its endpoints;
//! meshes and network policies learnt it later still.) A number cannot move: there the sidecar takes it and the server
//! is told another one. Pods with the sidecar and pods without it stand behind the same Service meanwhile.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::carried::carried;
use super::engines::move_server;
use super::free::{self, Free};
use super::services::{Service, Target, is_metrics};
use super::task::{Container, Task, containers, declared};
use super::workload::Kind;

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
    name: Option<String>,
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
    for (number, (name, by_number)) in found {
        let by_number = by_number && !passive;
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
            name,
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

/// The server's ports that carry requests: number, name, and whether somebody knows the number.
pub(super) fn found(
    task: &mut Task,
    services: &[Service],
) -> BTreeMap<u16, (Option<String>, bool)> {
    let server = task.in_server("").clone();
    let container = Container {
        name: &task.server.clone(),
        value: &server,
        stays: true,
    };
    let mine: Vec<&Service> = services
        .iter()
        .filter(|service| service.selects(&task.workload))
        .collect();
    for service in mine.iter().filter(|service| service.is_headless()) {
        task.note(format!(
            "clients of the headless Service {} who connect to the pods by the server's own port number pass sidescale by",
            service.name
        ));
    }
    let mut targets: Vec<Target> = Vec::new();
    if task.settings.ports.is_empty() {
        let behind = mine.iter().filter(|service| !service.is_headless());
        let mut asked: Vec<Target> = behind
            .flat_map(|service| service.targets(&container))
            .cloned()
            .collect();
        // A number that another container declares is that one's.
        let others = others(task);
        asked.retain(|target| {
            let is_anothers = others.iter().any(|(name, value)| {
                let stays = true;
                target.is_of(&Container { name, value, stays })
            });
            target.is_of(&container) || !is_anothers
        });
        targets.extend(asked);
    } else {
        let given = task.settings.ports.iter();
        targets.extend(given.map(|port| match port.parse() {
            Ok(number) => Target::Number(number),
            Err(_name) => Target::Name(port.clone()),
        }));
    }
    if targets.is_empty() {
        targets = declared_targets(task, &container);
    }
    let mut found = BTreeMap::new();
    for target in targets {
        let port = declared(&server).find(|(name, number)| match &target {
            Target::Name(wanted) => name.is_some_and(|name| name == wanted),
            Target::Number(wanted) => number == wanted,
        });
        let number = match (&target, port) {
            (_, Some((_, number))) => number,
            // Ports need not be declared.
            (Target::Number(number), None) => *number,
            (Target::Name(name), None) => {
                let at = task.server_words(".ports");
                task.refuse(
                    &at,
                    format!("no port is called {name:?}"),
                    "declare it, or mend the annotation sidescale.dev/ports",
                );
                continue;
            }
        };
        let name = port.and_then(|(name, _)| name).map(str::to_owned);
        let entry = found.entry(number).or_insert((name, false));
        entry.1 |= matches!(target, Target::Number(_));
    }
    let doors = mine.iter().filter(|service| service.door.is_some());
    for door in doors.copied() {
        say_who_else_calls(task, door, &container, &found);
    }
    found
}

/// The containers beside the server.
fn others(task: &Task) -> Vec<(String, Value)> {
    let beside = containers(task.in_pod("")).filter(|one| one.stays && one.name != task.server);
    beside
        .map(|one| (one.name.to_owned(), one.value.clone()))
        .collect()
}

/// No Service stands between: whoever knows the pods' number keeps it only if the sidecar takes the number.
fn say_who_else_calls(
    task: &mut Task,
    door: &Service,
    server: &Container<'_>,
    found: &BTreeMap<u16, (Option<String>, bool)>,
) {
    let numbers = door.targets(server).filter_map(|target| match target {
        Target::Number(number) => Some(*number),
        Target::Name(_) => None,
    });
    let numbers: Vec<u16> = numbers.collect();
    let is_taken = |number: &u16| found.get(number).is_some_and(|(_, by_number)| *by_number);
    let shown: Vec<_> = numbers.iter().map(u16::to_string).collect();
    let (name, shown) = (&door.name, shown.join(","));
    task.note(if numbers.is_empty() {
        format!(
            "{name} finds the pods itself and sends requests to a number that is not said here: write it into the annotation \
             sidescale.dev/ports, or they pass sidescale by"
        )
    } else if task.settings.passive {
        format!("{name} finds the pods itself, and goes on asking the server at {shown}")
    } else if numbers.iter().all(is_taken) {
        format!(
            "{name} finds the pods itself and sends requests to {shown} by its number, which the sidecar takes (as with the \
             annotation sidescale.dev/ports: \"{shown}\")"
        )
    } else {
        format!(
            "{name} finds the pods itself, and its requests to {shown} pass sidescale by: add {shown} to the annotation \
             sidescale.dev/ports"
        )
    });
}

/// Without a Service to ask: each named port but the metrics'.
fn declared_targets(task: &mut Task, server: &Container<'_>) -> Vec<Target> {
    let traffic: Vec<_> = declared(server.value)
        .filter(|(name, _)| !is_metrics(*name))
        .collect();
    let named: Vec<Target> = traffic
        .iter()
        .filter_map(|(name, number)| match name {
            Some(name) => Some(Target::Name((*name).to_owned())),
            None if task.settings.passive => Some(Target::Number(*number)),
            None => None,
        })
        .collect();
    if let (true, [(None, number)]) = (task.workload.kind != Kind::Admitted, traffic.as_slice()) {
        if !task.settings.passive {
            task.note(format!(
                "no Service in the input sends requests here, so port {number} is taken for the one that does, by its number, \
                 as it has no name"
            ));
        }
        return vec![Target::Number(*number)];
    }
    if named.is_empty() {
        let at = task.server_words(".ports");
        let (reason, remedy) = if task.workload.kind == Kind::Admitted {
            (
                "no port has a name, and at admission only a name can move",
                "give the port a name and roll that out, then let the Service target the name",
            )
        } else {
            (
                "no Service in the input sends requests here, and no port has a name",
                "give its Service along, or say which port in the annotation sidescale.dev/ports",
            )
        };
        task.refuse(&at, reason, remedy);
    } else if !task.settings.passive {
        task.note(
            "no Service in the input sends requests here, so every named port is taken for one that does; a Service that \
             targets a number goes on past sidescale: give it along",
        );
    }
    named
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
        } else if let Some(name) = &route.name {
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
