//! How inference servers are told to listen elsewhere.

use serde_json::{Value, json};

use super::task::Task;

/// What one server takes for its port.
struct Engine {
    name: &'static str,
    /// Found in the image's name, or in a word of command or args.
    signs: &'static [&'static str],
    /// Flags that set a port, and the port without them.
    flags: &'static [(&'static str, u16)],
}

/// From the servers' own references. An image whose entry point is the server takes flags as args; a flag on the line wins
/// over variables in all of them.
const ENGINES: [Engine; 6] = [
    Engine {
        name: "vLLM",
        signs: &["vllm"],
        flags: &[("--port", 8000)],
    },
    Engine {
        name: "SGLang",
        signs: &["sglang"],
        flags: &[("--port", 30_000)],
    },
    Engine {
        name: "Triton",
        signs: &["tritonserver"],
        flags: &[("--http-port", 8000), ("--grpc-port", 8001)],
    },
    Engine {
        name: "TGI",
        signs: &["text-generation-inference", "text-generation-launcher"],
        // The image sets PORT=80.
        flags: &[("--port", 80)],
    },
    Engine {
        name: "llama.cpp",
        signs: &["llama.cpp", "llama-server"],
        flags: &[("--port", 8080)],
    },
    Engine {
        name: "uvicorn",
        signs: &["uvicorn"],
        flags: &[("--port", 8000)],
    },
];

/// Why a server cannot be told.
type Stuck = (String, &'static str);

/// What to do where the server stays.
const REMEDY: &str = "let the Service target the port by a name, which moves without the server; or say how the server is moved \
                      (annotation sidescale.dev/port-flag or sidescale.dev/port-env); or sidescale.dev/data-path: passive";

/// Makes the server listen on `to` where it listens on `from`.
pub(super) fn move_server(task: &mut Task, from: u16, to: u16) {
    let moved = if let Some(variable) = task.settings.port_env.clone() {
        by_variable(task, &variable, from, to)
    } else {
        by_flag(task, from, to)
    };
    if let Err((reason, remedy)) = moved {
        let at = task.server_words("");
        task.refuse(&at, reason, remedy);
    }
}

fn by_variable(task: &mut Task, variable: &str, from: u16, to: u16) -> Result<(), Stuck> {
    let at = format!("/env/name={}", super::edits::escape(variable));
    let value = json!(to.to_string());
    let there = task.in_server(&at);
    let edited = if there.is_null() {
        let variable = json!({"name": variable, "value": value});
        let list = task.server("/env");
        task.edits.insert(&list, false, variable)
    } else if there["value"] == from.to_string().as_str() {
        let at = task.server(&format!("{at}/value"));
        task.edits.set(&at, value)
    } else {
        let shown = there.get("value").unwrap_or(there);
        let text = format!("{variable} is {shown} and the Service targets {from}");
        return Err((text, REMEDY));
    };
    task.check(edited);
    Ok(())
}

fn by_flag(task: &mut Task, from: u16, to: u16) -> Result<(), Stuck> {
    let (command, args) = (
        words(task.in_server("/command")),
        words(task.in_server("/args")),
    );
    let through_a_shell = [&command, &args].iter().any(|words| runs_a_shell(words));
    let flags: Vec<(String, Option<u16>)> = match &task.settings.port_flag {
        Some(flag) => vec![(flag.clone(), None)],
        None => known_flags(task, &command, &args)?,
    };
    if through_a_shell {
        return Err((
            format!(
                "a shell starts the server, so its {} cannot be set",
                flags[0].0
            ),
            REMEDY,
        ));
    }
    for (key, list) in [("/args", &args), ("/command", &command)] {
        if let Some(changed) = replaced(list, &flags, from, to)? {
            let at = task.server(key);
            let edited = task.edits.set(&at, json!(changed));
            task.check(edited);
            return Ok(());
        }
    }
    let Some((flag, _)) = flags
        .iter()
        .find(|(_, port)| port.is_none_or(|port| port == from))
    else {
        let shown: Vec<_> = flags.iter().map(|(flag, _)| flag.as_str()).collect();
        return Err((
            format!(
                "the Service targets {from}, where neither {} nor its default says that the server listens",
                shown.join(" nor ")
            ),
            REMEDY,
        ));
    };
    let mut list = args;
    list.extend([flag.clone(), to.to_string()]);
    let at = task.server("/args");
    let edited = task.edits.set(&at, json!(list));
    task.check(edited);
    Ok(())
}

fn known_flags(
    task: &Task,
    command: &[String],
    args: &[String],
) -> Result<Vec<(String, Option<u16>)>, Stuck> {
    let image = task.in_server("/image").as_str().unwrap_or_default();
    let is_it = |engine: &&Engine| {
        // What is started says more than the image: TGI's image can start vLLM.
        let said = |text: &str| engine.signs.iter().any(|sign| text.contains(sign));
        command.iter().chain(args).take(6).any(|word| said(word)) || said(image)
    };
    let Some(engine) = ENGINES.iter().find(is_it) else {
        let known: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
        return Err((
            format!(
                "a Service targets the server's port by its number, and how this server is told another one is not known \
                 (known: {})",
                known.join(", ")
            ),
            REMEDY,
        ));
    };
    let flags = engine.flags.iter();
    Ok(flags
        .map(|&(flag, port)| (flag.to_owned(), Some(port)))
        .collect())
}

/// `list` with the value of the flag that is `from` set to `to`; `None`: none of the flags is in it.
fn replaced(
    list: &[String],
    flags: &[(String, Option<u16>)],
    from: u16,
    to: u16,
) -> Result<Option<Vec<String>>, Stuck> {
    let mut other = None;
    for (index, word) in list.iter().enumerate() {
        for (flag, _) in flags {
            let (place, value, text) = if word == flag {
                let next = list.get(index + 1).map_or("", String::as_str);
                (index + 1, next, to.to_string())
            } else if let Some(value) = word.strip_prefix(&format!("{flag}=")) {
                (index, value, format!("{flag}={to}"))
            } else {
                continue;
            };
            if value == from.to_string() {
                let mut list = list.to_vec();
                if let Some(word) = list.get_mut(place) {
                    *word = text;
                }
                return Ok(Some(list));
            }
            // Triton: one of the flags may be the other port's.
            other = Some((flag, value.to_owned()));
        }
    }
    match other {
        Some((flag, value)) if flags.len() == 1 => Err((
            format!("its {flag} is {value:?} and the Service targets {from}"),
            REMEDY,
        )),
        _ => Ok(None),
    }
}

fn runs_a_shell(words: &[String]) -> bool {
    let shell = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or_default();
        matches!(name, "sh" | "bash" | "ash" | "dash" | "zsh")
    };
    words.first().is_some_and(shell) || words.iter().any(|word| word == "-c" || word == "-lc")
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|word| {
        word.as_str()
            .map_or_else(|| word.to_string(), str::to_owned)
    })
    .collect()
}
