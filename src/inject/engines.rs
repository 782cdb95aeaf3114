//! How inference servers are told to listen elsewhere.
//!
//! A port is said on the line that starts the server, in a variable, in both (`--port $(PORT)`), or nowhere, where the
//! server's own port counts. It is changed where it is said. What says another port than the one that moves is not
//! touched: then something is meant that is not understood here.

mod command;
mod known;
mod value;

use serde_json::{Value, json};

use self::command::{Command, assignment, replaced};
use self::known::{Engine, FLAGS, Form, Setting, VARIABLES, engine};
use self::value::{Ending, ending, is_host, is_listening};
use super::edits::escape;
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

/// How far references to variables in variables are followed.
const DEPTH: u8 = 4;

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
    let moved = if let Some(variable) = task.settings.port_env.clone() {
        by_named_variable(task, &variable, port)
    } else if let Some(flag) = task.settings.port_flag.clone() {
        by_named_flag(task, &flag, port)
    } else {
        let command = Command::of(task);
        let image = task.in_server("/image").as_str().unwrap_or_default();
        match engine(&command, image) {
            Some(engine) => by_engine(task, &command, engine, port),
            None => by_what_it_says(task, &command, port),
        }
    };
    if let Err((reason, remedy)) = moved {
        let at = task.server_words("");
        task.refuse(&at, reason, remedy);
    }
}

fn by_named_variable(task: &mut Task, variable: &str, port: Port) -> Result<(), Stuck> {
    match in_variable(task, variable, port, DEPTH) {
        Said::Moved => Ok(()),
        Said::Other(value) => Err((
            format!(
                "{variable} is {value:?} and the Service targets {}",
                port.from
            ),
            REMEDY,
        )),
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
    match in_flags(task, &command, &[flag], port, None) {
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
        match in_flags(task, command, flag.names, port, None) {
            Said::Moved => return Ok(()),
            Said::Other(value) => others.push((flag.names[0], value)),
            Said::Unknown => others.push((flag.names[0], UNKNOWN.to_owned())),
            Said::Nothing => {}
        }
    }
    // A flag wins over a variable, so where there is one it is the one to change.
    let flags: Vec<&Setting> = unsaid(engine.flags, &others);
    if !flags.is_empty() || engine.flags.is_empty() {
        for variable in engine.variables {
            let name = variable.names[0];
            match in_assignments(task, command, name, port) {
                Said::Moved => return Ok(()),
                Said::Other(value) => others.push((name, value)),
                Said::Unknown => {
                    take_over(task, command, engine, port);
                    return Ok(());
                }
                Said::Nothing => {}
            }
        }
    }
    let has_others = others.iter().any(|(name, _)| is_variable(engine, name));
    let defaults = |setting: &&Setting| setting.defaults.contains(&port.from);
    if !has_others && let Some(flag) = flags.iter().copied().find(defaults) {
        append(task, command, flag, port);
        return Ok(());
    }
    let variables = unsaid(engine.variables, &others);
    let variables: Vec<&Setting> = variables.into_iter().filter(defaults).collect();
    if engine.flags.is_empty() && !variables.is_empty() {
        for variable in variables {
            set_variable(task, variable.names[0], &value(variable.form, port.to));
        }
        return Ok(());
    }
    let is_one = engine.flags.len() + engine.variables.len() <= 2;
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

/// Whoever it is: where a flag or a variable of its says just this port, it listens where that says.
fn by_what_it_says(task: &mut Task, command: &Command, port: Port) -> Result<(), Stuck> {
    if in_flags(task, command, &FLAGS, port, Some(is_listening)) == Said::Moved {
        return Ok(());
    }
    let mut moved = Vec::new();
    for name in VARIABLES {
        if in_variable(task, name, port, DEPTH) == Said::Moved {
            moved.push(name);
        }
    }
    if let Some(script) = command.script().map(str::to_owned) {
        // A server that looks into a variable does so in whatever script.
        let says_it = script.contains(&port.from.to_string());
        if let Some(engine) = known::in_a_script(&script)
            && !says_it
        {
            let mut variables = engine.variables.iter().map(|one| one.names[0]);
            let is_left_alone = variables.clone().all(|name| !script.contains(name));
            if is_left_alone && moved.is_empty() {
                return by_engine(task, command, engine, port);
            }
            if is_left_alone && variables.any(|name| moved.contains(&name)) {
                return Ok(());
            }
        }
        let is_named = |name: &str| {
            script.contains(&format!("${name}")) || script.contains(&format!("${{{name}"))
        };
        if moved.is_empty() || says_it || !moved.iter().any(|name| is_named(name)) {
            return Err(scripted("its port"));
        }
    }
    if !moved.is_empty() {
        let moved = moved.join(", ");
        task.note(format!(
            "which server it is is not known; its variable {moved} says {}, and is taken for where it listens",
            port.from
        ));
        return Ok(());
    }
    Err((
        format!(
            "a Service targets the server's port by its number, and how this server is told another one is not known (known: {})",
            known::names()
        ),
        REMEDY,
    ))
}

/// Changes the last of the flags that says `port`.
fn in_flags(
    task: &mut Task,
    command: &Command,
    names: &[&str],
    port: Port,
    suits: Option<fn(&str) -> bool>,
) -> Said {
    let mut said = Said::Nothing;
    for index in (0..command.words().len()).rev() {
        let word = &command.words()[index].text;
        for name in names {
            let Some((place, start)) = value_of(word, name, index) else {
                continue;
            };
            let Some(value) = command
                .words()
                .get(place)
                .map(|word| word.text[start..].to_owned())
            else {
                continue;
            };
            if suits.is_some_and(|suits| !suits(&value)) {
                continue;
            }
            match in_word(task, command, place, &value, port) {
                Said::Moved => return Said::Moved,
                Said::Nothing => {}
                other if said == Said::Nothing => said = other,
                Said::Other(_) | Said::Unknown => {}
            }
        }
    }
    said
}

/// Where the value of a flag stands: which word, and from where on.
fn value_of(word: &str, flag: &str, index: usize) -> Option<(usize, usize)> {
    let same = |text: &str| text.replace('_', "-") == flag.replace('_', "-");
    if same(word) {
        return Some((index + 1, 0));
    }
    if let Some((name, _)) = word.split_once('=') {
        return same(name).then_some((index, name.len() + 1));
    }
    let is_short = flag.len() == 2 && word.starts_with(flag);
    is_short.then_some((index, flag.len()))
}

fn in_word(task: &mut Task, command: &Command, place: usize, value: &str, port: Port) -> Said {
    let new = port.to.to_string();
    match ending(value, command.is_simple()) {
        Ending::Number(number) if number == port.from => {
            command.replace(task, place, &number.to_string(), &new);
            Said::Moved
        }
        Ending::Reference {
            text,
            name,
            default,
        } => {
            match (in_variable(task, name, port, DEPTH), default) {
                (Said::Nothing, Some(default)) if default == port.from.to_string() => {
                    command.replace(task, place, text, &new);
                    Said::Moved
                }
                (Said::Nothing | Said::Unknown, _) if declares(task, port.from) => {
                    // What the cluster says there is the port that the Service knows.
                    command.replace(task, place, text, &new);
                    Said::Moved
                }
                (Said::Moved, _) => Said::Moved,
                (Said::Other(other), _) => Said::Other(format!("{text}, which is {other}")),
                (Said::Nothing | Said::Unknown, _) => Said::Unknown,
            }
        }
        Ending::Number(_) | Ending::None => Said::Other(value.to_owned()),
    }
}

/// The same in what the shell is told before the command, `PORT=8000 serve`, which hides the container's own variable.
fn in_assignments(task: &mut Task, command: &Command, name: &str, port: Port) -> Said {
    for (place, word) in command.words().iter().enumerate() {
        match assignment(&word.text) {
            Some((known, value)) if known == name => {
                return in_word(task, command, place, value, port);
            }
            Some(_) => {}
            // A command's own words may have the shape of one.
            None if word.text == "exec" || word.text == "env" => {}
            None => break,
        }
    }
    in_variable(task, name, port, DEPTH)
}

fn in_variable(task: &mut Task, name: &str, port: Port, depth: u8) -> Said {
    let at = format!("/env/name={}", escape(name));
    let there = task.in_server(&at).clone();
    let Some(text) = there.get("value").and_then(Value::as_str) else {
        return if there["valueFrom"].is_null() {
            Said::Nothing
        } else {
            Said::Unknown
        };
    };
    match ending(text, false) {
        Ending::Number(number) if number == port.from => {
            let value = replaced(text, &number.to_string(), &port.to.to_string());
            set_variable(task, name, &value);
            Said::Moved
        }
        Ending::Reference { name: other, .. } if depth > 0 && other != name => {
            match in_variable(task, other, port, depth - 1) {
                Said::Nothing => Said::Unknown,
                said @ (Said::Moved | Said::Other(_) | Said::Unknown) => said,
            }
        }
        // An address without a port has the server's own, but where its scheme has one.
        Ending::None if is_host(text) && default_of(name).contains(&port.from) => {
            set_variable(
                task,
                name,
                &format!("{}:{}", text.trim_end_matches('/'), port.to),
            );
            Said::Moved
        }
        Ending::Number(_) | Ending::Reference { .. } | Ending::None => Said::Other(text.to_owned()),
    }
}

/// What an address variable of a known server leaves out.
fn default_of(variable: &str) -> &'static [u16] {
    match variable {
        "OLLAMA_HOST" => &[11_434],
        _ => &[],
    }
}

/// Says the port where it is found first, whatever was said before.
fn take_over(task: &mut Task, command: &Command, engine: &'static Engine, port: Port) {
    match (engine.flags.first(), engine.variables.first()) {
        (Some(flag), _) => append(task, command, flag, port),
        (None, Some(variable)) => {
            set_variable(task, variable.names[0], &value(variable.form, port.to));
        }
        (None, None) => {}
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

fn set_variable(task: &mut Task, name: &str, value: &str) {
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
    let has_a_file = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        matches!(name, "-c" | "--config" | "--config-file")
    };
    sources.is_some_and(|all| !all.is_empty())
        || command.words().iter().any(|word| has_a_file(&word.text))
        || !task.in_server("/env/name=GUNICORN_CMD_ARGS").is_null()
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
        "a shell starts the server with more than one simple command, so {what} cannot be set"
    );
    (text, REMEDY)
}
