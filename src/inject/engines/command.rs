//! What a container runs: its words, also where a shell stands before one simple command.
//!
//! A word knows where it stands, so a port in it can be changed in place, and the rest of a script stays letter by letter
//! what it was.

use std::ops::Range;

use serde_json::{Value, json};

use crate::inject::task::Task;

/// The words of one program, with those of its wrappers.
#[derive(Debug)]
pub(super) struct Command {
    words: Vec<Word>,
    /// `/command` and `/args`, as they stand.
    lists: [(&'static str, Vec<String>); 2],
    shell: Shell,
}

#[derive(Debug)]
pub(super) struct Word {
    /// Without the quotes of a shell.
    pub(super) text: String,
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    /// An element of one of the lists.
    Item(usize, usize),
    /// Letters of the script.
    Script(Range<usize>),
}

/// Whether a shell reads the words, and where its script stands.
#[derive(Debug)]
enum Shell {
    None,
    /// One simple command.
    Simple(usize, usize),
    /// More than that.
    Script(usize, usize),
}

/// What starts another program and hands its words on.
const WRAPPERS: [&str; 13] = [
    "exec",
    "env",
    "nohup",
    "tini",
    "dumb-init",
    "catatonit",
    "nvidia_entrypoint.sh",
    "numactl",
    "opentelemetry-instrument",
    "ddtrace-run",
    "trtllm-llmapi-launch",
    "uv",
    "poetry",
];

// === impl Command ===

impl Command {
    /// What the server runs, as far as the manifest says it.
    pub(super) fn of(task: &Task) -> Self {
        let lists = ["/command", "/args"].map(|key| (key, strings(task.in_server(key))));
        let mut words = Vec::new();
        for (list, (_, texts)) in lists.iter().enumerate() {
            words.extend(texts.iter().enumerate().map(|(index, text)| Word {
                text: text.clone(),
                at: At::Item(list, index),
            }));
        }
        let mut command = Self {
            words,
            lists,
            shell: Shell::None,
        };
        if let Some((list, index)) = command.script_place() {
            let is_variable = |name: &str| {
                let at = format!("/env/name={}", crate::inject::edits::escape(name));
                !task.in_server(&at).is_null() || task.in_server("/envFrom").is_array()
            };
            let script = &command.lists[list].1[index];
            (command.words, command.shell) = match simple(script, &is_variable) {
                Some(words) => (words, Shell::Simple(list, index)),
                None => (Vec::new(), Shell::Script(list, index)),
            };
        }
        command
    }

    /// Whether the manifest names the program, and does not leave it to the image.
    pub(super) fn is_named(&self) -> bool {
        !self.lists[0].1.is_empty() || !matches!(self.shell, Shell::None)
    }

    pub(super) fn is_simple(&self) -> bool {
        matches!(self.shell, Shell::Simple(..))
    }

    /// A script of more than one simple command.
    pub(super) fn script(&self) -> Option<&str> {
        match self.shell {
            Shell::Script(list, index) => Some(&self.lists[list].1[index]),
            Shell::None | Shell::Simple(..) => None,
        }
    }

    pub(super) fn words(&self) -> &[Word] {
        &self.words
    }

    /// The words of the program itself, wrappers and interpreters left out: `["vllm", "serve", ..]`,
    /// `["-m", "sglang.launch_server", ..]`.
    pub(super) fn program(&self) -> Vec<&str> {
        let mut words = self.words.iter().map(|word| word.text.as_str()).peekable();
        while let Some(word) = words.peek() {
            let name = base(word);
            let is_assignment = assignment(word).is_some();
            if WRAPPERS.contains(&name) || is_assignment {
                words.next();
                // Their own options and subcommand.
                while words
                    .next_if(|word| {
                        word.starts_with('-') || matches!(name, "uv" | "poetry") && *word == "run"
                    })
                    .is_some()
                {}
            } else if name.starts_with("python") {
                words.next();
                while words
                    .next_if(|word| word.starts_with('-') && *word != "-m")
                    .is_some()
                {}
                break;
            } else {
                break;
            }
        }
        let mut words: Vec<&str> = words.collect();
        if let Some(first) = words.first_mut() {
            *first = base(first);
        }
        words
    }

    /// Puts `new` where `old` stands last in a word.
    pub(super) fn replace(&self, task: &mut Task, index: usize, old: &str, new: &str) {
        let (list, item, changed) = match &self.words[index].at {
            At::Item(list, item) => (
                *list,
                *item,
                replaced(&self.lists[*list].1[*item], old, new),
            ),
            At::Script(range) => {
                let (Shell::Simple(list, item) | Shell::Script(list, item)) = self.shell else {
                    return;
                };
                let script = &self.lists[list].1[item];
                let word = replaced(&script[range.clone()], old, new);
                let changed = format!("{}{word}{}", &script[..range.start], &script[range.end..]);
                (list, item, changed)
            }
        };
        let (key, texts) = &self.lists[list];
        let mut texts = texts.clone();
        texts[item] = changed;
        set(task, key, &texts);
    }

    /// Adds words behind all others.
    pub(super) fn append(&self, task: &mut Task, words: &[String]) {
        if let Shell::Simple(list, item) = self.shell {
            let (key, texts) = &self.lists[list];
            let mut texts = texts.clone();
            let end = self.words.last().map_or(0, |word| match &word.at {
                At::Script(range) => range.end,
                At::Item(..) => 0,
            });
            texts[item].insert_str(end, &format!(" {}", words.join(" ")));
            set(task, key, &texts);
            return;
        }
        let (key, texts) = &self.lists[1];
        let mut texts = texts.clone();
        texts.extend_from_slice(words);
        set(task, key, &texts);
    }

    /// Where the script stands that a shell is given, in its list.
    fn script_place(&self) -> Option<(usize, usize)> {
        let text = |word: &Word| word.text.clone();
        let mut words = self.words.iter().peekable();
        while words
            .next_if(|word| WRAPPERS.contains(&base(&word.text)) || word.text == "--")
            .is_some()
        {}
        let first = words.peek().map(|word| text(word))?;
        let is_shell = matches!(base(&first), "sh" | "bash" | "ash" | "dash" | "zsh");
        let names_nothing = self.lists[0].1.is_empty();
        // An image whose entry point is a shell gets its options, or with `sh -c` as the entry point the script alone.
        if names_nothing && self.words.len() == 1 && first.contains(char::is_whitespace) {
            return self.place(0);
        }
        // `-c` is the context's size of llama.cpp.
        let is_option = names_nothing
            && is_script_option(&first)
            && (self.words.get(1)).is_some_and(|next| next.text.contains(char::is_whitespace));
        if !(is_shell || is_option) {
            return None;
        }
        if is_shell {
            words.next();
        }
        while let Some(word) = words.next() {
            if is_script_option(&word.text) {
                words.next_if(|word| word.text == "--");
                let script = words.next()?;
                return match script.at {
                    At::Item(list, index) => Some((list, index)),
                    At::Script(_) => None,
                };
            }
            if word.text == "-o" {
                words.next();
            } else if !word.text.starts_with('-') {
                break;
            }
        }
        None
    }

    fn place(&self, index: usize) -> Option<(usize, usize)> {
        match self.words.get(index)?.at {
            At::Item(list, index) => Some((list, index)),
            At::Script(_) => None,
        }
    }
}

/// `-c`, `-lc`, `-euxc`: what follows is a script. The `-c` of a program that is no shell is something else.
fn is_script_option(word: &str) -> bool {
    let letters = word.strip_prefix('-').unwrap_or_default();
    letters.ends_with('c') && letters.chars().all(|letter| "euxlivc".contains(letter))
}

/// The name of a program in a path.
fn base(word: &str) -> &str {
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

/// `text` with `new` where `old` stands last.
pub(super) fn replaced(text: &str, old: &str, new: &str) -> String {
    match text.rfind(old) {
        Some(at) => format!("{}{new}{}", &text[..at], &text[at + old.len()..]),
        None => text.to_owned(),
    }
}

/// The words of a script that is one simple command; `None`: it is more, or what it runs is not in it.
fn simple(script: &str, is_variable: &dyn Fn(&str) -> bool) -> Option<Vec<Word>> {
    let mut words: Vec<Word> = Vec::new();
    let mut signs = script.char_indices().peekable();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut ended = false;
    while let Some((at, sign)) = signs.next() {
        let next = script[at + sign.len_utf8()..].chars().next();
        let blank = quote.is_none() && sign.is_whitespace();
        if blank || (quote.is_none() && sign == '\\' && next == Some('\n')) {
            words.extend(word.take());
            if sign == '\\' {
                signs.next();
            }
            // A line that ends begins another command, if anything follows.
            ended |= sign == '\n' && !words.is_empty();
            continue;
        }
        if ended {
            return None;
        }
        let is_new = word.is_none();
        let here = word.get_or_insert_with(|| Word {
            text: String::new(),
            at: At::Script(at..at),
        });
        let mut end = at + sign.len_utf8();
        match (quote, sign) {
            (Some(open), _) if sign == open => quote = None,
            (None, '\'' | '"') => quote = Some(sign),
            (None, '#') if is_new => return None,
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')') | (Some('"') | None, '`') => {
                return None;
            }
            (Some('"') | None, '$') if next == Some('(') => {
                // Kubernetes puts a variable of the container here before the shell sees it.
                let rest = &script[at + 2..];
                let (name, _) = rest.split_once(')')?;
                if !is_variable(name) {
                    return None;
                }
                here.text.push_str(&script[at..at + 3 + name.len()]);
                end = at + 3 + name.len();
                while signs.next_if(|(at, _)| *at < end).is_some() {}
            }
            (Some('"') | None, '\\') => {
                let (at, escaped) = signs.next()?;
                end = at + escaped.len_utf8();
                if escaped != '\n' {
                    here.text.push(escaped);
                }
            }
            (_, sign) => here.text.push(sign),
        }
        if let At::Script(range) = &mut here.at {
            range.end = end;
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|word| {
        word.as_str()
            .map_or_else(|| word.to_string(), str::to_owned)
    })
    .collect()
}

fn set(task: &mut Task, key: &str, texts: &[String]) {
    let at = task.server(key);
    let edited = task.edits.set(&at, json!(texts));
    task.check(edited);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> Option<Vec<String>> {
        let words = simple(script, &|name| name == "PORT")?;
        Some(words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn a_script_of_one_simple_command_is_its_words_and_every_other_is_none() {
        let words = ["exec", "vllm", "serve", "a b", "--port", "8000"];
        for script in [
            "exec vllm serve 'a b' --port 8000",
            "\n  exec vllm serve \"a b\" \\\n    --port 8000\n",
            "exec vllm serve a\\ b --port \"8000\"\n\n",
        ] {
            assert_eq!(read(script).unwrap_or_default(), words, "{script}");
        }
        for script in [
            "pip install x && vllm serve M",
            "vllm serve M | tee log",
            "vllm serve M > log",
            "vllm serve M &",
            "vllm serve M; sleep 1",
            "sleep 1\nvllm serve M",
            "vllm serve $(cat model)",
            "vllm serve \"$(cat model)\"",
            "vllm serve `cat model`",
            "(vllm serve M)",
            "# vllm\nvllm serve M",
            "vllm serve 'M",
            "",
            " \n",
        ] {
            assert_eq!(read(script), None, "{script}");
        }
        // Single quotes keep all of it, and Kubernetes has put the variable there before.
        assert_eq!(
            read("echo '$(x) | `y`;'").unwrap_or_default(),
            ["echo", "$(x) | `y`;"]
        );
        assert_eq!(
            read("serve --port=$(PORT)").unwrap_or_default(),
            ["serve", "--port=$(PORT)"]
        );
        assert_eq!(
            read("serve ${PORT:-8000}").unwrap_or_default(),
            ["serve", "${PORT:-8000}"]
        );
    }
}
