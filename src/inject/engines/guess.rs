//! Servers that nobody knows: where just this port stands in a flag or a variable with a usual name, they listen there.
//!
//! A guess is taken only where nothing speaks against it: the number at a second place, or another machine's name beside it.

use super::command::Command;
use super::flags::{flags_that_say, in_flags};
use super::known::{self, FLAGS, VARIABLES};
use super::value::{references, says_number};
use super::variables::{Trust, in_variable, is_anothers, variables};
use super::{Port, REMEDY, Said, Stuck, by_engine, scripted};
use crate::inject::task::Task;

/// Whoever it is: where a flag or a variable of its says just this port, it listens where that says.
pub(super) fn by_what_it_says(task: &mut Task, command: &Command, port: Port) -> Result<(), Stuck> {
    let flags = flags_that_say(task, command, &FLAGS, port, Trust::Guess);
    if flags.len() > 1 {
        return Err((
            format!(
                "which server it is is not known, and {} all say {}",
                flags.join(" and "),
                port.from
            ),
            REMEDY,
        ));
    }
    if in_flags(task, command, &FLAGS, port, Trust::Guess) == Said::Moved {
        return Ok(());
    }
    let mut moved = Vec::new();
    for name in VARIABLES {
        if !is_anothers(task, name) && in_variable(task, name, port, Trust::Guess) == Said::Moved {
            moved.push(name);
        }
    }
    let line = without_defaults(&command.line(), &moved, port);
    if command.script().is_some() {
        return by_a_script(task, command, &line, &moved, port);
    }
    if moved.is_empty() {
        return Err((
            format!(
                "a Service targets the server's port by its number, and how this server is told another one is not known (known: {})",
                known::names()
            ),
            REMEDY,
        ));
    }
    if let Some(place) = also_in(task, &line, &moved, port) {
        return Err((
            format!(
                "which server it is is not known; its variable {} says {}, and so does {place}, so which of them it listens by \
                 is not known, either",
                moved.join(", "),
                port.from
            ),
            REMEDY,
        ));
    }
    note(task, &moved, port);
    Ok(())
}

/// A script of several commands cannot be changed, and goes by the variables that it names.
fn by_a_script(
    task: &mut Task,
    command: &Command,
    line: &str,
    moved: &[&str],
    port: Port,
) -> Result<(), Stuck> {
    let says_it = also_in(task, line, moved, port).is_some();
    // A server that looks into a variable does so in whatever script.
    if let Some(engine) = known::in_a_script(line)
        && !says_it
    {
        let mut variables = engine.variables.iter().map(|one| one.names[0]);
        let is_left_alone = variables.clone().all(|name| !line.contains(name));
        if is_left_alone && moved.is_empty() {
            return by_engine(task, command, engine, port);
        }
        if is_left_alone && variables.any(|name| moved.contains(&name)) {
            return Ok(());
        }
    }
    let is_named = |name: &&str| references(line, name).next().is_some();
    if says_it || !moved.iter().any(is_named) {
        return Err(scripted("its port"));
    }
    note(task, moved, port);
    Ok(())
}

fn note(task: &mut Task, moved: &[&str], port: Port) {
    let moved = moved.join(", ");
    task.note(format!(
        "which server it is is not known; its variable {moved} says {}, and is taken for where it listens",
        port.from
    ));
}

/// `${PORT:-8000}` is what `PORT` says, where it says something.
fn without_defaults(line: &str, moved: &[&str], port: Port) -> String {
    let mut line = line.to_owned();
    for name in moved {
        for sign in [":-", "-"] {
            let default = format!("${{{name}{sign}{}}}", port.from);
            line = line.replace(&default, &format!("${{{name}}}"));
        }
    }
    line
}

/// Where else the number stands that may be where the server listens: on its line, or in a variable with flags.
fn also_in(task: &Task, line: &str, moved: &[&str], port: Port) -> Option<String> {
    if says_number(line, port.from) {
        return Some("a word on its line that is not read".to_owned());
    }
    let has_flags = |value: &str| value.starts_with('-') || value.contains(" -");
    let mut all = variables(task).filter(|(name, _)| !moved.contains(name));
    let found = all.find(|(_, value)| has_flags(value) && says_number(value, port.from));
    found.map(|(name, _)| format!("its variable {name}"))
}
