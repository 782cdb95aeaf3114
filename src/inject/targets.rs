//! Which of the server's ports are asked, by name or by number, and who asks past the sidecar.

use std::collections::BTreeMap;

use serde_json::Value;

use super::services::{Service, Target, is_metrics};
use super::task::{Container, Task, containers, declared};
use super::workload::Kind;

/// How one of the server's ports is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// By these of its names: a number may have several.
    pub(super) names: Vec<String>,
    /// Somebody knows the number.
    pub(super) by_number: bool,
}

/// Another container of the pod.
struct Neighbour {
    name: String,
    value: Value,
}

/// What those who select the pod ask for.
#[derive(Default)]
struct Wanted {
    targets: Vec<Target>,
    /// A Service and the container that it asks instead of the server.
    before: Option<(String, String)>,
}

// === impl Neighbour ===

impl Neighbour {
    fn container(&self) -> Container<'_> {
        Container {
            name: &self.name,
            value: &self.value,
            stays: true,
        }
    }

    fn is_asked(&self, target: &Target) -> bool {
        target.is_of(&self.container())
    }

    /// Whether it takes requests there, and does not show its metrics.
    fn serves(&self, target: &Target) -> bool {
        let port = target.declared(&self.container());
        port.is_some_and(|(name, _)| !is_metrics(name))
    }
}

/// The server's ports that carry requests.
pub(super) fn found(task: &mut Task, services: &[Service]) -> BTreeMap<u16, Asked> {
    let server = task.in_server("").clone();
    let container = Container {
        name: &task.server.clone(),
        value: &server,
        stays: true,
    };
    let mine: Vec<&Service> = { services.iter() }
        .filter(|service| service.selects(&task.workload))
        .collect();
    let others = others(task);
    let wanted = wanted(&mine, &container, &others);
    say_what_is_not_there(task, &mine, &container, &others);
    let mut targets = if task.settings.ports.is_empty() {
        wanted.targets.clone()
    } else {
        let given = task.settings.ports.iter();
        let target = |port: &String| match port.parse() {
            Ok(number) => Target::Number(number),
            Err(_name) => Target::Name(port.clone()),
        };
        given.map(target).collect()
    };
    if targets.is_empty() {
        targets = match &wanted.before {
            Some((service, front)) if !task.settings.passive => {
                behind(task, &container, service, front)
            }
            _ => declared_targets(task, &container, &mine),
        };
    }
    let found = by_port(task, &server, targets);
    let doors = mine.iter().filter(|service| service.door.is_some());
    for door in doors.copied() {
        say_who_else_calls(task, door, &container, &others, &found);
    }
    say_what_passes_by(task, &mine, &wanted, &server, &found);
    found
}

/// The ports that are meant, and how each is asked for.
fn by_port(task: &mut Task, server: &Value, targets: Vec<Target>) -> BTreeMap<u16, Asked> {
    let mut found: BTreeMap<u16, Asked> = BTreeMap::new();
    for target in targets {
        let Some(number) = number_of(&target, server) else {
            let Target::Name(name) = target else { continue };
            let at = task.server_words(".ports");
            task.refuse(
                &at,
                format!("no port is called {name:?}"),
                "declare it, or mend the annotation sidescale.dev/ports",
            );
            continue;
        };
        let asked = found.entry(number).or_default();
        match target {
            Target::Number(_) => asked.by_number = true,
            Target::Name(name) if !asked.names.contains(&name) => asked.names.push(name),
            Target::Name(_) => {}
        }
    }
    found
}

/// Ports need not be declared, names must be.
fn number_of(target: &Target, server: &Value) -> Option<u16> {
    match target {
        Target::Number(number) => Some(*number),
        Target::Name(wanted) => declared(server)
            .find(|(name, _)| name.is_some_and(|name| name == wanted))
            .map(|(_, number)| number),
    }
}

/// What Services and other doors ask the server for. A number that another container declares is that one's.
fn wanted(mine: &[&Service], server: &Container<'_>, others: &[Neighbour]) -> Wanted {
    let mut wanted = Wanted::default();
    for service in mine.iter().filter(|service| !service.is_headless()) {
        for target in service.all_targets() {
            let front = others.iter().find(|other| other.serves(target));
            if target.is_of(server) || front.is_none() {
                continue;
            }
            let front = front.map(|front| (service.name.clone(), front.name.clone()));
            wanted.before = wanted.before.or(front);
        }
        for target in service.targets(server) {
            let is_anothers = others.iter().any(|other| other.is_asked(target));
            if target.is_of(server) || !is_anothers {
                wanted.targets.push(target.clone());
            }
        }
    }
    wanted
}

/// The containers beside the server.
fn others(task: &Task) -> Vec<Neighbour> {
    let beside = containers(task.in_pod("")).filter(|one| one.stays && one.name != task.server);
    beside
        .map(|one| Neighbour {
            name: one.name.to_owned(),
            value: one.value.clone(),
        })
        .collect()
}

/// Another container takes the requests and knows the server's numbers: a name that moves is nothing to it.
fn behind(task: &mut Task, server: &Container<'_>, service: &str, front: &str) -> Vec<Target> {
    let traffic = declared(server.value).filter(|(name, _)| !is_metrics(*name));
    let targets: Vec<Target> = traffic.map(|(_, number)| Target::Number(number)).collect();
    if targets.is_empty() {
        let at = task.server_words(".ports");
        task.refuse(
            &at,
            format!(
                "{service} sends its requests to the container {front}, and which port that asks here is not declared"
            ),
            "say which in the annotation sidescale.dev/ports",
        );
    } else {
        task.note(format!(
            "{service} sends its requests to the container {front}, which stands before the server in the pod and knows its port by \
             the number: the sidecar takes the number"
        ));
    }
    targets
}

/// A name that no container declares: such a Service has no endpoints.
fn say_what_is_not_there(
    task: &mut Task,
    mine: &[&Service],
    server: &Container<'_>,
    others: &[Neighbour],
) {
    for service in mine.iter().filter(|service| !service.is_headless()) {
        for target in service.all_targets() {
            let Target::Name(name) = target else { continue };
            if !target.is_of(server) && !others.iter().any(|other| other.is_asked(target)) {
                task.note(format!(
                    "Service {} targets {name}, which no port of the pod is called: it has no endpoints",
                    service.name
                ));
            }
        }
    }
}

/// Services whose requests the sidecar does not see.
fn say_what_passes_by(
    task: &mut Task,
    mine: &[&Service],
    wanted: &Wanted,
    server: &Value,
    found: &BTreeMap<u16, Asked>,
) {
    if task.settings.passive {
        return;
    }
    let is_carried = |target: &Target| {
        let asked = number_of(target, server).and_then(|number| found.get(&number));
        asked.is_some_and(|asked| match target {
            Target::Number(_) => asked.by_number,
            Target::Name(name) => asked.by_number || asked.names.contains(name),
        })
    };
    for service in mine.iter().filter(|service| service.door.is_none()) {
        let targets = service.all_targets();
        let numbers: Vec<u16> = targets
            .filter_map(|target| number_of(target, server))
            .collect();
        if service.is_headless() {
            let past: Vec<u16> = { numbers.into_iter() }
                .filter(|number| !is_carried(&Target::Number(*number)))
                .collect();
            if !past.is_empty() {
                let (name, past) = (&service.name, list(&past));
                task.note(format!(
                    "clients of the headless Service {name} who connect to the pods by the server's own port number pass sidescale by: \
                     add {past} to the annotation sidescale.dev/ports, where there are any"
                ));
            }
            continue;
        }
        let past = { wanted.targets.iter() }
            .filter(|target| service.all_targets().any(|own| own == *target))
            .filter(|target| !is_carried(target));
        for target in past {
            let port = match target {
                Target::Name(name) => name.clone(),
                Target::Number(number) => number.to_string(),
            };
            task.note(format!(
                "requests of Service {} to {port} pass sidescale by: add {port} to the annotation sidescale.dev/ports, if they are to \
                 be carried",
                service.name
            ));
        }
    }
}

/// No Service stands between: whoever knows the pods' number keeps it only if the sidecar takes the number.
fn say_who_else_calls(
    task: &mut Task,
    door: &Service,
    server: &Container<'_>,
    others: &[Neighbour],
    found: &BTreeMap<u16, Asked>,
) {
    let (mine, anothers): (Vec<&Target>, Vec<&Target>) = door
        .targets(server)
        .partition(|target| target.is_of(server) || !others.iter().any(|one| one.is_asked(target)));
    if mine.is_empty() && !anothers.is_empty() {
        return;
    }
    let numbers: Vec<u16> = { mine.into_iter() }
        .filter_map(|target| match target {
            Target::Number(number) => Some(*number),
            Target::Name(_) => None,
        })
        .collect();
    let is_taken = |number: &u16| found.get(number).is_some_and(|asked| asked.by_number);
    let (name, shown) = (&door.name, list(&numbers));
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

fn list(numbers: &[u16]) -> String {
    let all: Vec<_> = numbers.iter().map(u16::to_string).collect();
    all.join(",")
}

/// Where nobody asks for one of them: each named port but the metrics'.
fn declared_targets(task: &mut Task, server: &Container<'_>, mine: &[&Service]) -> Vec<Target> {
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
    let is_said = !mine.is_empty();
    let who = if is_said {
        "no Service in the input sends requests to a port of it"
    } else {
        "no Service in the input sends requests here"
    };
    if let (true, [(None, number)]) = (task.workload.kind != Kind::Admitted, traffic.as_slice()) {
        if !task.settings.passive {
            task.note(format!(
                "{who}, so port {number} is taken for the one that does, by its number, as it has no name"
            ));
        }
        return vec![Target::Number(*number)];
    }
    if named.is_empty() {
        let at = task.server_words(".ports");
        let (reason, remedy) = if task.workload.kind == Kind::Admitted {
            (
                "no port has a name, and at admission only a name can move".to_owned(),
                "give the port a name and roll that out, then let the Service target the name",
            )
        } else {
            (
                format!("{who}, and no port has a name"),
                "give its Service along, or say which port in the annotation sidescale.dev/ports",
            )
        };
        task.refuse(&at, reason, remedy);
    } else if !task.settings.passive {
        let remedy = if is_said {
            ""
        } else {
            "; a Service that targets a number goes on past sidescale: give it along"
        };
        task.note(format!(
            "{who}, so every named port is taken for one that does{remedy}"
        ));
    }
    named
}
