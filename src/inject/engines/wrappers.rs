//! What stands before a server on its line: programs that start another one, assignments, interpreters and shells.
//!
//! One walk finds both the server and the shell before it. Options differ in whether their value is the next word, so what
//! is not in the table is not walked through: the walk ends there, at a program that nobody knows.

/// What starts another program and hands its words on.
struct Wrapper {
    names: &'static [&'static str],
    /// Its options whose value is the next word.
    valued: &'static [&'static str],
    /// How many words of its own stand between its options and the program.
    own: u8,
    /// It does so by its command `run` alone.
    runs: bool,
    /// `-m` names a module of Python, which is a program.
    modules: bool,
}

const fn wrapper(names: &'static [&'static str], valued: &'static [&'static str]) -> Wrapper {
    Wrapper {
        names,
        valued,
        own: 0,
        runs: false,
        modules: false,
    }
}

const fn with_a_word(names: &'static [&'static str], valued: &'static [&'static str]) -> Wrapper {
    Wrapper {
        own: 1,
        ..wrapper(names, valued)
    }
}

const fn runner(names: &'static [&'static str], valued: &'static [&'static str]) -> Wrapper {
    Wrapper {
        runs: true,
        ..wrapper(names, valued)
    }
}

const WRAPPERS: &[Wrapper] = &[
    wrapper(
        &[
            "nohup",
            "setsid",
            "time",
            "busybox",
            "command",
            "nvidia_entrypoint.sh",
            "ddtrace-run",
            "trtllm-llmapi-launch",
        ],
        &[],
    ),
    wrapper(&["exec"], &["-a"]),
    wrapper(&["env"], &["-u", "--unset", "-C", "--chdir"]),
    wrapper(&["tini", "tini-static"], &["-p", "-e"]),
    wrapper(&["dumb-init"], &["-r", "--rewrite"]),
    wrapper(&["catatonit"], &[]),
    wrapper(
        &["numactl"],
        &[
            "-N",
            "--cpunodebind",
            "-C",
            "--physcpubind",
            "-m",
            "--membind",
            "-i",
            "--interleave",
            "-p",
            "--preferred",
            "-P",
            "--preferred-many",
            "-w",
            "--weighted-interleave",
        ],
    ),
    wrapper(&["nice"], &["-n", "--adjustment"]),
    wrapper(&["ionice"], &["-c", "--class", "-n", "--classdata"]),
    wrapper(
        &["stdbuf"],
        &["-i", "--input", "-o", "--output", "-e", "--error"],
    ),
    wrapper(
        &["sudo"],
        &["-u", "--user", "-g", "--group", "-C", "-D", "-h", "-p"],
    ),
    wrapper(
        &["setpriv"],
        &[
            "--reuid",
            "--regid",
            "--groups",
            "--inh-caps",
            "--ambient-caps",
            "--bounding-set",
        ],
    ),
    wrapper(
        &["opentelemetry-instrument"],
        &[
            "--traces_exporter",
            "--metrics_exporter",
            "--logs_exporter",
            "--service_name",
            "--exporter_otlp_endpoint",
        ],
    ),
    with_a_word(&["timeout"], &["-s", "--signal", "-k", "--kill-after"]),
    with_a_word(&["gosu", "su-exec"], &[]),
    with_a_word(&["chrt", "taskset"], &[]),
    Wrapper {
        modules: true,
        ..runner(&["uv"], UV)
    },
    wrapper(&["uvx"], UV),
    runner(&["poetry"], &["-C", "--directory", "-P", "--project"]),
    runner(&["pdm"], &["-p", "--project"]),
    runner(&["pipenv", "rye"], &[]),
    runner(
        &["conda", "mamba", "micromamba"],
        &["-n", "--name", "-p", "--prefix", "--cwd"],
    ),
];

const UV: &[&str] = &[
    "--with",
    "--with-editable",
    "--with-requirements",
    "--from",
    "-p",
    "--python",
    "--extra",
    "--no-extra",
    "--group",
    "--no-group",
    "--only-group",
    "--package",
    "--project",
    "--directory",
    "--env-file",
    "--config-file",
    "--cache-dir",
    "--index",
    "--default-index",
    "-i",
    "--index-url",
    "--extra-index-url",
    "--index-strategy",
    "-f",
    "--find-links",
    "--prerelease",
    "--torch-backend",
    "--color",
];

/// What reads a script.
const SHELLS: [&str; 10] = [
    "sh", "bash", "ash", "dash", "zsh", "ksh", "mksh", "rbash", "su", "runuser",
];

/// The letters of a shell's usual options, where it is not named: the `-cb` of llama.cpp is none.
const LETTERS: &str = "euxlivco";

/// Where the words of the program itself begin, wrappers and interpreters left out.
pub(super) fn start(words: &[&str]) -> usize {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let name = base(word);
        if assignment(word).is_some() || *word == "--" {
            at += 1;
        } else if let Some(wrapper) = WRAPPERS.iter().find(|one| one.names.contains(&name)) {
            at = behind(wrapper, words, at + 1);
        } else if name.starts_with("python") {
            at = behind_python(words, at + 1);
            break;
        } else {
            break;
        }
    }
    // The last option may lack its value.
    at.min(words.len())
}

/// The first word that is not the wrapper's own, whose options begin at `at`.
fn behind(wrapper: &Wrapper, words: &[&str], mut at: usize) -> usize {
    let (mut own, mut runs) = (wrapper.own, wrapper.runs);
    let mut has_options = true;
    while let Some(word) = words.get(at) {
        if runs && *word == "run" {
            runs = false;
        } else if has_options && *word == "--" {
            has_options = false;
        } else if has_options && word.starts_with('-') && !(wrapper.modules && *word == "-m") {
            at += usize::from(wrapper.valued.contains(word));
        } else if own > 0 {
            own -= 1;
        } else {
            break;
        }
        at += 1;
    }
    at
}

fn behind_python(words: &[&str], mut at: usize) -> usize {
    while let Some(word) = words.get(at) {
        if !word.starts_with('-') || matches!(*word, "-m" | "-c") {
            break;
        }
        at += 1 + usize::from(matches!(*word, "-X" | "-W"));
    }
    at
}

/// A shell on a line: where its own words begin, and its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) shell: usize,
    pub(super) script: usize,
}

/// The script that a shell is given. `is_whole`: the line names its program, and does not leave it to the image.
pub(super) fn script(words: &[&str], is_whole: bool) -> Option<Script> {
    let shell = start(words);
    let first = words.get(shell)?;
    if is_shell(first) {
        let script = shell + 1 + script_in(&words[shell + 1..])?;
        return Some(Script { shell, script });
    }
    if is_whole {
        return None;
    }
    // An image whose entry point is a shell gets its options, or with `sh -c` as the entry point the script alone.
    if words.len() == 1 && is_blank(first) {
        let script = 0;
        return Some(Script { shell: 0, script });
    }
    let script = script_in(words)?;
    // `-c` is the context's size of llama.cpp.
    (is_usual_option(words[0]) && is_blank(words[script])).then_some(Script { shell: 0, script })
}

/// Where the script stands among the words of a shell, which begin with its options.
fn script_in(words: &[&str]) -> Option<usize> {
    let (mut at, mut is_there) = (0, false);
    while let Some(word) = words.get(at) {
        let is_long = word.starts_with("--");
        if !(word.starts_with(['-', '+'])) {
            break;
        }
        at += 1;
        if *word == "--" || *word == "-" {
            break;
        }
        if is_long {
            at += usize::from(matches!(*word, "--rcfile" | "--init-file"));
            continue;
        }
        is_there |= is_script_option(word);
        // `-o pipefail`, `-euo pipefail`: an option by its name.
        at += word.matches(['o', 'O']).count();
    }
    (is_there && at < words.len()).then_some(at)
}

/// Whether a shell stands somewhere in the words, or the script of one, and is not seen through: what it runs is not known.
/// `known`: the program is a server, whose words are its own.
pub(super) fn hides_a_shell(words: &[&str], known: &dyn Fn(&[&str]) -> bool) -> bool {
    let at = start(words);
    let Some(program) = words.get(at) else {
        return false;
    };
    if known(&words[at..]) {
        return false;
    }
    let rest = &words[at + 1..];
    if is_shell(program) && script_in(rest).is_some() {
        return true;
    }
    let has_script =
        |pair: &[&str]| is_script_option(pair[0]) && is_usual_option(pair[0]) && is_blank(pair[1]);
    rest.iter().any(|word| is_shell(word))
        // The `-c` of Python is no shell's.
        || (*program != "-c" && rest.windows(2).any(has_script))
}

fn is_shell(word: &str) -> bool {
    SHELLS.contains(&base(word))
}

/// `-c`, `-lc`, `-ce`, `-euxc`: a script follows. The `-c` of a program that is no shell is something else.
fn is_script_option(word: &str) -> bool {
    let letters = word.strip_prefix('-').unwrap_or_default();
    letters.contains('c') && letters.chars().all(|letter| letter.is_ascii_alphabetic())
}

/// Options of a shell as they are usually written; the `-desc` of another program is none.
fn is_usual_option(word: &str) -> bool {
    let letters = word.strip_prefix('-');
    letters.is_some_and(|letters| letters.chars().all(|letter| LETTERS.contains(letter)))
}

fn is_blank(word: &str) -> bool {
    word.contains(char::is_whitespace)
}

/// The name of a program in a path.
pub(super) fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// `NAME=value`, before a command.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    is_name(name).then_some((name, value))
}

fn is_name(name: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    !name.is_empty()
        && name.chars().all(letter)
        && !name.starts_with(|sign: char| sign.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<&str> {
        line.split('|').collect()
    }

    #[test]
    fn a_program_is_found_behind_what_starts_it() {
        for (line, program) in [
            ("vllm|serve", "vllm"),
            ("tini|-g|--|vllm", "vllm"),
            ("/sbin/tini|-p|SIGTERM|-s|--|vllm", "vllm"),
            ("env|-u|B|A=1|vllm", "vllm"),
            ("numactl|-N|0|-m|0|vllm", "vllm"),
            ("numactl|--membind=0|vllm", "vllm"),
            ("timeout|-k|5|1h|vllm", "vllm"),
            ("gosu|user|vllm", "vllm"),
            ("taskset|-c|0-3|vllm", "vllm"),
            ("uv|run|--with|vllm|vllm|serve", "vllm"),
            ("uv|run|--with|vllm|-m|vllm", "-m"),
            ("uv|run|python|-m|vllm", "-m"),
            ("conda|run|-n|x|--no-capture-output|vllm", "vllm"),
            ("python3|-X|dev|-u|-m|vllm", "-m"),
            ("python3|-c|import x", "-c"),
            ("python3|app.py", "app.py"),
            ("mpirun|-n|2|vllm", "mpirun"),
        ] {
            let words = split(line);
            assert_eq!(words.get(start(&words)), Some(&program), "{line}");
        }
        for line in ["timeout|-k", "python3|-X", "env", "tini|--"] {
            let words = split(line);
            assert_eq!(start(&words), words.len(), "{line}");
        }
    }

    #[test]
    fn a_script_is_found_behind_a_shells_options_in_any_order() {
        for line in [
            "sh|-c|a script",
            "bash|-euo|pipefail|-c|a script",
            "bash|-euxo|pipefail|-O|extglob|-c|a script",
            "bash|-o|errexit|-ce|a script",
            "bash|-c|-e|a script",
            "bash|-euoc|pipefail|a script",
            "bash|--norc|--rcfile|x|+e|-c|--|a script|sh|1",
            "tini|-v|--|busybox|sh|-c|a script",
            "timeout|1h|sh|-c|a script",
            "conda|run|-n|x|bash|-c|a script",
            "a script",
            "-euo|pipefail|-c|a script",
        ] {
            let words = split(line);
            let found = script(&words, false).map(|found| words[found.script]);
            assert_eq!(found, Some("a script"), "{line}");
        }
        for line in [
            "bash|start.sh|-c|a script",
            "bash|-c",
            "-c|4096",
            "-cb|--chat-template|a script",
            "-m|model|-c|a script",
        ] {
            assert_eq!(script(&split(line), false), None, "{line}");
        }
    }

    #[test]
    fn a_shell_that_is_not_seen_through_is_seen() {
        let known = |words: &[&str]| words.starts_with(&["gunicorn"]);
        for (line, expected) in [
            ("mpirun|-n|2|bash|-c|a script", true),
            ("su|user|-c|a script", true),
            ("/start|-lc|a script", true),
            ("exec|bash|-c|script", true),
            ("bash|start.sh", false),
            ("python|-c|a script", false),
            ("gunicorn|-c|a script", false),
            ("./server|-c|4096", false),
            ("./server|-desc|a script", false),
        ] {
            assert_eq!(hides_a_shell(&split(line), &known), expected, "{line}");
        }
    }
}
