//! How inference servers are told to listen elsewhere.
//!
//! A port is said on the line that starts the server, in a variable, in both (`--port $(PORT)`), or nowhere, where the
//! server's own port counts. It is changed where it is said. What says another port than the one that moves is not
//! touched: then something is meant that is not understood here.

mod command;
mod flags;
mod guess;
mod known;
mod value;
mod variables;
mod wrappers;

use self::command::Command;
use self::flags::{in_assignments, in_flags};
use self::guess::by_what_it_says;
use self::known::{Engine, Form, Setting, engine};
pub(super) use self::value::references;
use self::variables::{Found, Trust, find, in_variable, set_variable, told_to_others};
use super::edits::{Edits, undo};
use super::task::{Task, declared};

/// Why a server cannot be told.
type Stuck = (String, &'static str);

/// What to do where the server stays. In one apply the pods that run, whose port has no such name yet, would leave the
/// Service's endpoints at once.
const REMEDY: &str = "give the container's port a name and roll that out, then let the Service target the name, and inject \
                      after that (a name moves without the server); or say how the server is moved (annotation \
                      sidescale.dev/port-flag or sidescale.dev/port-env); or sidescale.dev/data-path: passive";

/// What stands for a value that is in the cluster alone.
const UNKNOWN: &str = "what only the cluster knows";

/// A port that moves.
#[derive(Clone, Copy, Debug)]
struct Port {
    from: u16,
    to: u16,
}

/// What became of a place that says a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// It says the new one now.
    Moved,
    /// It says something else.
    Other(String),
    /// It says what only the cluster knows.
    Unknown,
    Nothing,
}

/// Makes the server listen on `to` where it listens on `from`.
pub(super) fn move_server(task: &mut Task, from: u16, to: u16) {
    let port = Port { from, to };
    let Err(stuck) = tell(task, port) else {
        return;
    };
    let (reason, remedy) = as_it_was(task, port).unwrap_or(stuck);
    let at = task.server_words("");
    task.refuse(&at, reason, remedy);
}

fn tell(task: &mut Task, port: Port) -> Result<(), Stuck> {
    if let Some(variable) = task.settings.port_env.clone() {
        return by_named_variable(task, &variable, port);
    }
    if let Some(flag) = task.settings.port_flag.clone() {
        return by_named_flag(task, &flag, port);
    }
    let command = Command::of(task);
    let image = task.in_server("/image").as_str().unwrap_or_default();
    match engine(&command, image) {
        Some(engine) => by_engine(task, &command, engine, port),
        None => by_what_it_says(task, &command, port),
    }
}

/// Why the server of the manifest cannot be told: where another port has moved before, the manifest has another number than
/// what stands there now.
fn as_it_was(task: &mut Task, port: Port) -> Option<Stuck> {
    let mut document = task.edits.document().clone();
    undo(&mut document, task.edits.before()).ok()?;
    let edits = std::mem::replace(&mut task.edits, Edits::of(document));
    let (notes, refusals) = (task.notes.len(), task.refusals.len());
    let told = tell(task, port);
    task.edits = edits;
    task.notes.truncate(notes);
    task.refusals.truncate(refusals);
    told.err()
}

fn by_named_variable(task: &mut Task, variable: &str, port: Port) -> Result<(), Stuck> {
    match in_variable(task, variable, port, Trust::Sure) {
        Said::Moved => Ok(()),
        Said::Other(value) => Err(says(variable, &value, port)),
        Said::Unknown | Said::Nothing => {
            set_variable(task, variable, &port.to.to_string());
            Ok(())
        }
    }
}

fn by_named_flag(task: &mut Task, flag: &str, port: Port) -> Result<(), Stuck> {
    let command = Command::of(task);
    if command.script().is_some() {
        return Err(scripted(&format!("its {flag}")));
    }
    match in_flags(task, &command, &[flag], port, Trust::Sure) {
        Said::Moved => Ok(()),
        Said::Other(value) => Err(says(flag, &value, port)),
        Said::Unknown => Err(says(flag, UNKNOWN, port)),
        Said::Nothing => {
            command.append(task, &[flag.to_owned(), port.to.to_string()]);
            Ok(())
        }
    }
}

fn by_engine(
    task: &mut Task,
    command: &Command,
    engine: &'static Engine,
    port: Port,
) -> Result<(), Stuck> {
    let mut others: Vec<(&str, String)> = Vec::new();
    for flag in engine.flags {
        match in_flags(task, command, flag.names, port, Trust::Sure) {
            Said::Moved => return Ok(()),
            Said::Other(value) => others.push((flag.names[0], value)),
            Said::Unknown => others.push((flag.names[0], UNKNOWN.to_owned())),
            Said::Nothing => {}
        }
    }
    // A flag wins over a variable, so where there is one it is the one to change.
    let flags: Vec<&Setting> = unsaid(engine.flags, &others);
    if (!flags.is_empty() || engine.flags.is_empty())
        && by_its_variables(task, command, engine, port, &mut others)
    {
        return Ok(());
    }
    let has_others = others.iter().any(|(name, _)| is_variable(engine, name));
    let defaults = |setting: &&Setting| setting.defaults.contains(&port.from);
    if !has_others && let Some(flag) = flags.iter().copied().find(defaults) {
        append(task, command, flag, port);
        return Ok(());
    }
    let variables = unsaid(engine.variables, &others);
    let variables: Vec<&Setting> = variables.into_iter().filter(defaults).collect();
    let is_one = engine.is_one();
    // Where all of them are names of one port, what one says counts for the others.
    if engine.flags.is_empty() && !variables.is_empty() && !(has_others && is_one) {
        for variable in variables {
            set_variable(task, variable.names[0], &value(variable.form, port.to));
        }
        return Ok(());
    }
    if others.is_empty() && is_one && is_from_elsewhere(task, command) && declares(task, port.from)
    {
        // A ConfigMap or a file may say it, and whoever wrote the Service knows what.
        take_over(task, command, engine, port);
        return Ok(());
    }
    if let Some((name, value)) = others.first() {
        return Err(says(name, value, port));
    }
    let settings = engine.flags.iter().chain(engine.variables);
    let names: Vec<_> = settings.map(|setting| setting.names[0]).collect();
    Err((
        format!(
            "the Service targets {}, where neither {} nor its default says that the server listens",
            port.from,
            names.join(" nor ")
        ),
        REMEDY,
    ))
}

/// Changes the variables that say `port`; `others` gets what they say else.
fn by_its_variables(
    task: &mut Task,
    command: &Command,
    engine: &'static Engine,
    port: Port,
    others: &mut Vec<(&'static str, String)>,
) -> bool {
    let has_flags = !engine.flags.is_empty();
    let mut has_moved = false;
    for variable in engine.variables {
        let name = variable.names[0];
        let on_the_line = in_assignments(task, command, name, port);
        let hides = on_the_line.is_some();
        if !hides && has_flags && is_better_left(task, command, name, port) {
            take_over(task, command, engine, port);
            return true;
        }
        match on_the_line.unwrap_or_else(|| in_variable(task, name, port, Trust::Known)) {
            Said::Moved if has_flags => return true,
            // Different versions look into different ones.
            Said::Moved => has_moved = true,
            Said::Unknown if !hides && engine.is_one() => {
                take_over(task, command, engine, port);
                return true;
            }
            Said::Unknown => others.push((name, UNKNOWN.to_owned())),
            Said::Other(value) => others.push((name, value)),
            Said::Nothing => {
                if has_moved && variable.defaults.contains(&port.from) {
                    set_variable(task, name, &value(variable.form, port.to));
                }
            }
        }
    }
    has_moved
}

/// Whether the flag must say it, and the variable stay as it is: others are told the number by the variable, or a file may
/// say another one and wins.
fn is_better_left(task: &Task, command: &Command, name: &str, port: Port) -> bool {
    match find(task, name, port, Trust::Known) {
        Found::Here { names, .. } => {
            told_to_others(task, &names).is_some() || has_a_file(task, command)
        }
        Found::Other(_) | Found::Unknown | Found::Nothing => false,
    }
}

/// Says the port where it is found first, whatever was said before.
fn take_over(task: &mut Task, command: &Command, engine: &'static Engine, port: Port) {
    if let Some(flag) = engine.flags.first() {
        append(task, command, flag, port);
        return;
    }
    for variable in engine.variables {
        set_variable(task, variable.names[0], &value(variable.form, port.to));
    }
}

fn append(task: &mut Task, command: &Command, flag: &Setting, port: Port) {
    let (name, value) = (flag.names[0], value(flag.form, port.to));
    let words = if flag.form == Form::Joined {
        vec![format!("{name}={value}")]
    } else {
        vec![name.to_owned(), value]
    };
    command.append(task, &words);
}

fn value(form: Form, port: u16) -> String {
    match form {
        Form::Address => format!("0.0.0.0:{port}"),
        Form::Apart | Form::Joined => port.to_string(),
    }
}

/// Settings that nothing is said about.
fn unsaid(settings: &'static [Setting], said: &[(&str, String)]) -> Vec<&'static Setting> {
    let is_unsaid = |setting: &&Setting| said.iter().all(|(name, _)| *name != setting.names[0]);
    settings.iter().filter(is_unsaid).collect()
}

fn is_variable(engine: &Engine, name: &str) -> bool {
    engine
        .variables
        .iter()
        .any(|variable| variable.names[0] == name)
}

/// Whether what is neither on the line nor in a variable of the manifest may still be said.
fn is_from_elsewhere(task: &Task, command: &Command) -> bool {
    let sources = task.in_server("/envFrom").as_array();
    sources.is_some_and(|all| !all.is_empty()) || has_a_file(task, command)
}

/// Whether a file may say it, or a variable with flags in it.
fn has_a_file(task: &Task, command: &Command) -> bool {
    let words = &command.words()[command.start()..];
    let mut words = words.iter().map(|word| word.text.as_str()).peekable();
    let mut is_file = false;
    while let Some(word) = words.next() {
        is_file |= match word.split('=').next().unwrap_or_default() {
            "--config" | "--config-file" => true,
            // A number is the context's size of llama.cpp.
            "-c" => words
                .peek()
                .is_some_and(|next| next.parse::<u32>().is_err()),
            _ => false,
        };
    }
    is_file || !task.in_server("/env/name=GUNICORN_CMD_ARGS").is_null()
}

fn declares(task: &Task, port: u16) -> bool {
    declared(task.in_server("")).any(|(_, number)| number == port)
}

fn says(name: &str, value: &str, port: Port) -> Stuck {
    let text = format!(
        "its {name} is {value:?} and the Service targets {}",
        port.from
    );
    (text, REMEDY)
}

fn scripted(what: &str) -> Stuck {
    let text = format!(
        "a shell starts the server with more than one simple command, or behind what is not known here, so {what} cannot be set"
    );
    (text, REMEDY)
}
