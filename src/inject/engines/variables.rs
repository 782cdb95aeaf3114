//! Variables that say a port: found, followed through references, and changed.
//!
//! A variable may say more than where its server listens: another machine's address, or, by a reference, what the pod tells
//! others about itself. So looking and changing are two steps.

use serde_json::{Value, json};

use super::command::{Command, replaced};
use super::value::{Ending, ending, is_host, references};
use super::{Port, Said};
use crate::inject::edits::escape;
use crate::inject::task::Task;

/// How far references to variables in variables are followed.
const DEPTH: u8 = 4;

/// The machine of an address that says all of the pod's own.
const EVERYWHERE: [&str; 6] = ["", "0.0.0.0", "*", "::", "[::]", "+"];
const ITSELF: [&str; 4] = ["localhost", "127.0.0.1", "::1", "[::1]"];

/// How sure it is that a flag or a variable says where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It does: the server's own flag, or one that an annotation names.
    Sure,
    /// The variable of a known server, which its clients have, too: `OLLAMA_HOST`.
    Known,
    /// A word like `PORT`, whoever the server is.
    Guess,
}

/// What a variable says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The port that moves. The last of the names is the variable to change, the others refer to it.
    Here {
        names: Vec<String>,
        new: String,
    },
    Other(String),
    Unknown,
    Nothing,
}

/// Changes a variable that says `port`.
pub(super) fn in_variable(task: &mut Task, name: &str, port: Port, trust: Trust) -> Said {
    match find(task, name, port, trust) {
        Found::Here { names, new } => {
            refuse_what_others_are_told(task, &names);
            let last = names.last().map_or(name, String::as_str);
            set_variable(task, last, &new);
            Said::Moved
        }
        Found::Other(other) => Said::Other(other),
        Found::Unknown => Said::Unknown,
        Found::Nothing => Said::Nothing,
    }
}

/// What a variable says, with what it refers to.
pub(super) fn find(task: &Task, name: &str, port: Port, trust: Trust) -> Found {
    let mut names = vec![name.to_owned()];
    loop {
        let name = names.last().map_or("", String::as_str);
        let there = variable(task, name);
        let Some(text) = there.get("value").and_then(Value::as_str) else {
            let is_there = names.len() > 1 || !there["valueFrom"].is_null();
            return if is_there {
                Found::Unknown
            } else {
                Found::Nothing
            };
        };
        if !is_trusted(task, text, trust) {
            return Found::Other(text.to_owned());
        }
        let new = port.to.to_string();
        match ending(text, false) {
            Ending::Number(number) if number == port.from => {
                let new = replaced(text, &number.to_string(), &new);
                return Found::Here { names, new };
            }
            Ending::Reference { name: other, .. }
                if names.len() <= usize::from(DEPTH) && names.iter().all(|name| name != other) =>
            {
                names.push(other.to_owned());
            }
            // An address without a port has the server's own, but where its scheme has one.
            Ending::None if default_of(name).contains(&port.from) && is_bare(text, trust) => {
                let new = format!("{}:{new}", text.trim_end_matches('/'));
                return Found::Here { names, new };
            }
            Ending::Number(_) | Ending::Reference { .. } | Ending::None => {
                return Found::Other(text.to_owned());
            }
        }
    }
}

/// What an address variable of a known server leaves out.
fn default_of(variable: &str) -> &'static [u16] {
    match variable {
        "OLLAMA_HOST" => &[11_434],
        _ => &[],
    }
}

/// A host without a port. A name alone (`OLLAMA_HOST=ollama`) is another machine's.
fn is_bare(text: &str, trust: Trust) -> bool {
    let is_here = EVERYWHERE.contains(&text) || trust != Trust::Guess && ITSELF.contains(&text);
    is_here || trust == Trust::Sure && is_host(text)
}

/// Whether a server may listen at `value`: a number, or an address that is no other machine's.
pub(super) fn is_trusted(task: &Task, value: &str, trust: Trust) -> bool {
    let host = host_of(value).map(|host| resolved(task, host));
    match (trust, host) {
        (Trust::Sure, _) | (_, None) => true,
        (Trust::Known, Some(host)) => {
            EVERYWHERE.contains(&host.as_str()) || ITSELF.contains(&host.as_str())
        }
        (Trust::Guess, Some(host)) => EVERYWHERE.contains(&host.as_str()),
    }
}

/// Whether a value is the name or the address of another machine; what only the cluster knows is not.
pub(super) fn is_another(task: &Task, value: &str) -> bool {
    let address = value.split_once("://").map_or(value, |(_, rest)| rest);
    let host = host_of(value).unwrap_or_else(|| address.split('/').next().unwrap_or_default());
    let host = resolved(task, host);
    !host.contains('$') && !EVERYWHERE.contains(&host.as_str()) && !ITSELF.contains(&host.as_str())
}

/// The machine in `machine:port` and in `http://machine:port/path`; `None`: no port is said.
fn host_of(value: &str) -> Option<&str> {
    let address = value.split_once("://").map_or(value, |(_, rest)| rest);
    let address = address.split('/').next().unwrap_or_default();
    if let Some(at) = address.rfind(":$") {
        return Some(&address[..at]);
    }
    let (host, port) = address.rsplit_once(':')?;
    let is_number = !port.is_empty() && port.chars().all(|sign| sign.is_ascii_digit());
    // `::1` is a machine and no port.
    let is_port = is_number && (!host.ends_with(':') || host.ends_with("::"));
    is_port.then_some(host)
}

/// A machine that a variable names, as far as the manifest says it.
fn resolved(task: &Task, host: &str) -> String {
    if let Ending::Reference { text, name, .. } = ending(host, true)
        && text == host
        && let Some(value) = variable(task, name)["value"].as_str()
    {
        return value.to_owned();
    }
    host.to_owned()
}

/// Whether a variable of that name belongs to another machine: `API_PORT`, where `API_HOST` is `backend`.
pub(super) fn is_anothers(task: &Task, name: &str) -> bool {
    let Some(begin) = name.strip_suffix("PORT") else {
        return false;
    };
    let ends: &[&str] = if begin.is_empty() {
        &["HOST"]
    } else {
        &[
            "HOST", "HOSTNAME", "URL", "BASE_URL", "ADDR", "ADDRESS", "ENDPOINT",
        ]
    };
    ends.iter().any(|end| {
        let there = variable(task, &format!("{begin}{end}"));
        let source = &there["valueFrom"];
        // The pod's own address is where it listens; who a ConfigMap names is not known.
        let is_own = !source["fieldRef"].is_null() || begin.is_empty();
        (!source.is_null() && !is_own)
            || there["value"]
                .as_str()
                .is_some_and(|value| is_another(task, value))
    })
}

/// Whether other words or variables than the word at `place` refer to one of the variables, too.
pub(super) fn is_shared(task: &Task, command: &Command, place: usize, names: &[String]) -> bool {
    let refers = |text: &str| {
        names
            .iter()
            .any(|name| references(text, name).next().is_some())
    };
    let words = command.words().iter().enumerate();
    let mut others = words.filter(|(index, _)| *index != place);
    others.any(|(_, word)| refers(&word.text))
        || variables(task).any(|(name, value)| !is_one_of(name, names) && refers(value))
}

/// Whether others are told an address with the port of one of the variables: `http://$(POD_IP):$(PORT)`.
pub(super) fn told_to_others(task: &Task, names: &[String]) -> Option<String> {
    let tells = |text: &str| names.iter().any(|name| is_told(task, text, name));
    let line = Command::of(task).line();
    if tells(&line) {
        return Some("on its line".to_owned());
    }
    let mut others = variables(task).filter(|(name, _)| !is_one_of(name, names));
    let found = others.find(|(_, value)| tells(value));
    found.map(|(name, _)| format!("in its variable {name}"))
}

fn is_told(task: &Task, text: &str, name: &str) -> bool {
    references(text, name).any(|at| {
        let Some(before) = text[..at].strip_suffix(':') else {
            return false;
        };
        let ends = |sign: char| sign.is_whitespace() || "/\"'=@,;&|".contains(sign);
        let host = before.rsplit(ends).next().unwrap_or_default();
        let host = resolved(task, host.strip_prefix("-b").unwrap_or(host));
        !EVERYWHERE.contains(&host.as_str()) && !ITSELF.contains(&host.as_str())
    })
}

/// Requests that go where the pod says it listens must find the sidecar there.
fn refuse_what_others_are_told(task: &mut Task, names: &[String]) {
    let Some(place) = told_to_others(task, names) else {
        return;
    };
    let at = task.server_words("/env");
    let name = names.first().map_or("", String::as_str);
    task.refuse(
        &at,
        format!(
            "its variable {name} says where the server listens, and {place} others are told the same port: they would pass \
             the sidecar by"
        ),
        "write the number itself where others are told it, or name the flag that the server takes for its port (annotation \
         sidescale.dev/port-flag)",
    );
}

fn is_one_of(name: &str, names: &[String]) -> bool {
    names.iter().any(|one| one == name)
}

/// The variables of the server that have a value, in their order.
pub(super) fn variables(task: &Task) -> impl Iterator<Item = (&str, &str)> {
    let all = task.in_server("/env").as_array().into_iter().flatten();
    all.filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)))
}

/// A variable as the server gets it: Kubernetes takes the last one of a name.
fn variable<'a>(task: &'a Task, name: &str) -> &'a Value {
    let all = entries(task, name);
    all.last().unwrap_or(&Value::Null)
}

fn entries<'a>(task: &'a Task, name: &str) -> impl Iterator<Item = &'a Value> {
    let all = task.in_server("/env").as_array().into_iter().flatten();
    all.filter(move |one| one["name"] == *name)
}

pub(super) fn set_variable(task: &mut Task, name: &str, value: &str) {
    if entries(task, name).count() > 1 {
        // An edit finds the first one, and the last one counts.
        let at = task.server_words("/env");
        task.refuse(
            &at,
            format!("the variable {name}, which must change, is there more than once"),
            "leave one of them: Kubernetes takes the last one",
        );
        return;
    }
    let at = format!("/env/name={}", escape(name));
    let there = task.in_server(&at);
    let variable = json!({"name": name, "value": value});
    let edited = if there.is_null() {
        let list = task.server("/env");
        task.edits.insert(&list, false, variable)
    } else if there["valueFrom"].is_null() {
        let at = task.server(&format!("{at}/value"));
        task.edits.set(&at, json!(value))
    } else {
        let at = task.server(&format!("{at}/valueFrom"));
        let removed = task.edits.remove(&at);
        task.check(removed);
        let at = task.server(&format!("/env/name={}/value", escape(name)));
        task.edits.set(&at, json!(value))
    };
    task.check(edited);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_from_a_port() {
        for (value, host) in [
            ("8000", None),
            ("0.0.0.0", None),
            ("::", None),
            ("::1", None),
            (":8000", Some("")),
            (":::8000", Some("::")),
            ("[::]", None),
            ("[::]:8000", Some("[::]")),
            ("x:${A:-8000}", Some("x")),
            ("http://ollama:8080/v1", Some("ollama")),
            ("http://ollama", None),
            ("$(A):$(B)", Some("$(A)")),
        ] {
            assert_eq!(host_of(value), host, "{value}");
        }
    }
}
