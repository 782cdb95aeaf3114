//! Flags on a server's line that say a port.

use super::command::Command;
use super::value::{Ending, ending};
use super::variables::{Found, Trust, find, is_another, is_shared, is_trusted, set_variable};
use super::wrappers::assignment;
use super::{Port, Said, declares};
use crate::inject::task::Task;

/// Flags of addresses, each of which opens one more: the server listens at all of them.
const REPEATED: [&str; 3] = ["--bind", "-b", "--listen"];

/// A flag's value: where it stands, and what it is.
#[derive(Debug)]
struct Value {
    flag: String,
    place: usize,
    text: String,
}

/// Changes the last of the flags that says `port`, and each of those that open one more address.
pub(super) fn in_flags(
    task: &mut Task,
    command: &Command,
    names: &[&str],
    port: Port,
    trust: Trust,
) -> Said {
    let mut said = Said::Nothing;
    for value in values(task, command, names, trust) {
        let is_repeated = REPEATED.contains(&value.flag.as_str());
        if said == Said::Moved && !is_repeated {
            continue;
        }
        // What was changed before stands on the line now.
        let command = Command::of(task);
        let now = in_word(task, &command, value.place, &value.text, port, trust);
        match now {
            Said::Moved if !is_repeated => return Said::Moved,
            Said::Moved => said = Said::Moved,
            Said::Other(_) | Said::Unknown if said == Said::Nothing => said = now,
            Said::Other(_) | Said::Unknown | Said::Nothing => {}
        }
    }
    said
}

/// Which different flags say `port`, each once; those that open one more address are one.
pub(super) fn flags_that_say(
    task: &Task,
    command: &Command,
    names: &[&str],
    port: Port,
    trust: Trust,
) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for value in values(task, command, names, trust) {
        let says = match ending(&value.text, command.is_in_a_shell(value.place)) {
            Ending::Number(number) => number == port.from,
            Ending::Reference { name, default, .. } => match find(task, name, port, trust) {
                Found::Here { .. } => true,
                Found::Nothing => default == Some(port.from.to_string().as_str()),
                Found::Other(_) | Found::Unknown => false,
            },
            Ending::None => false,
        };
        let is_repeated = |flag: &String| REPEATED.contains(&flag.as_str());
        let is_there =
            |flag: &String| *flag == value.flag || is_repeated(flag) && is_repeated(&value.flag);
        if says && !found.iter().any(is_there) {
            found.push(value.flag);
        }
    }
    found
}

/// The values of the flags, the last one first.
fn values(task: &Task, command: &Command, names: &[&str], trust: Trust) -> Vec<Value> {
    let words = command.words();
    let mut found = Vec::new();
    for index in (command.start()..words.len()).rev() {
        for name in names {
            let Some((place, start)) = value_of(&words[index].text, name, index) else {
                continue;
            };
            let Some(word) = words.get(place) else {
                continue;
            };
            let text = word.text[start..].to_owned();
            // The `-b` of a server that is not known is an address, or the size of a batch.
            let is_meant = *name != "-b" || text.contains(':');
            let is_guessed = is_meant && !is_anothers(task, command, name);
            if is_trusted(task, &text, trust) && (trust != Trust::Guess || is_guessed) {
                let flag = (*name).to_owned();
                found.push(Value { flag, place, text });
            }
        }
    }
    found
}

/// Whether a flag belongs to another machine: `--api-port`, where `--api-host` is `backend`.
fn is_anothers(task: &Task, command: &Command, flag: &str) -> bool {
    let Some(begin) = flag.strip_suffix("port") else {
        return false;
    };
    let host = format!("{begin}host");
    let words = command.words();
    (0..words.len()).any(|index| {
        let place = value_of(&words[index].text, &host, index);
        let value = place.and_then(|(place, start)| words.get(place)?.text.get(start..));
        value.is_some_and(|value| is_another(task, value))
    })
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

/// Changes a value that ends in the word at `place`, where it says `port`.
pub(super) fn in_word(
    task: &mut Task,
    command: &Command,
    place: usize,
    value: &str,
    port: Port,
    trust: Trust,
) -> Said {
    let new = port.to.to_string();
    if value.contains([',', ' ']) {
        // More than one address, of which one would move.
        return Said::Other(value.to_owned());
    }
    match ending(value, command.is_in_a_shell(place)) {
        Ending::Number(number) if number == port.from => {
            command.replace(task, place, &number.to_string(), &new);
            Said::Moved
        }
        Ending::Reference {
            text,
            name,
            default,
        } => {
            if let Some(said) = on_the_line(command, name, port) {
                return match said {
                    Said::Moved => {
                        command.replace(task, place, text, &new);
                        Said::Moved
                    }
                    said @ (Said::Other(_) | Said::Unknown | Said::Nothing) => said,
                };
            }
            match find(task, name, port, trust) {
                Found::Here { names, new: value } => {
                    if is_shared(task, command, place, &names) {
                        // Others go by the variable, too: what it says to them stays.
                        command.replace(task, place, text, &new);
                    } else if let Some(last) = names.last() {
                        set_variable(task, last, &value);
                    }
                    Said::Moved
                }
                Found::Nothing if default == Some(port.from.to_string().as_str()) => {
                    command.replace(task, place, text, &new);
                    Said::Moved
                }
                Found::Nothing | Found::Unknown if declares(task, port.from) => {
                    // What the cluster says there is the port that the Service knows.
                    command.replace(task, place, text, &new);
                    Said::Moved
                }
                Found::Other(other) => Said::Other(format!("{text}, which is {other}")),
                Found::Nothing | Found::Unknown => Said::Unknown,
            }
        }
        Ending::Number(_) | Ending::None => Said::Other(value.to_owned()),
    }
}

/// What the line itself says of a variable, which hides the container's own: `env PORT=8000 sh -c`.
fn on_the_line(command: &Command, name: &str, port: Port) -> Option<Said> {
    let words = &command.words()[..command.start()];
    let mut all = words.iter().filter_map(|word| assignment(&word.text));
    let (_, value) = all.rfind(|(known, _)| *known == name)?;
    Some(match ending(value, false) {
        Ending::Number(number) if number == port.from => Said::Moved,
        Ending::Number(_) | Ending::Reference { .. } | Ending::None => Said::Unknown,
    })
}

/// Changes what is said before the command, `PORT=8000 serve`, which hides the container's own variable.
pub(super) fn in_assignments(
    task: &mut Task,
    command: &Command,
    name: &str,
    port: Port,
) -> Option<Said> {
    let words = &command.words()[..command.start()];
    let mut all = words.iter().enumerate();
    let (place, value) = all
        .rfind(|(_, word)| assignment(&word.text).is_some_and(|(known, _)| known == name))
        .map(|(place, word)| (place, word.text[name.len() + 1..].to_owned()))?;
    let is_trusted = is_trusted(task, &value, Trust::Known);
    Some(if is_trusted {
        in_word(task, command, place, &value, port, Trust::Known)
    } else {
        Said::Other(value)
    })
}
