//! What a container runs: its words, also where a shell stands before one simple command.
//!
//! A word knows where it stands, so a port in it can be changed in place, and the rest of a script stays letter by letter
//! what it was.

use std::ops::Range;

use serde_json::{Value, json};

use super::known;
use super::wrappers::{self, Script};
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

/// Whether a shell reads the words.
#[derive(Debug)]
enum Shell {
    None,
    /// One simple command, and where it stands.
    Simple(usize, usize),
    /// More than that: all that is on the line.
    Script(String),
}

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
        command.look_through_a_shell(task);
        if wrappers::hides_a_shell(&command.texts(), &known::is_start) {
            command.shell = Shell::Script(command.line());
        }
        if command.script().is_some() {
            command.words.clear();
        }
        command
    }

    /// Takes the words of a script for those of the line, where the script is one simple command.
    fn look_through_a_shell(&mut self, task: &Task) {
        let is_whole = !self.lists[0].1.is_empty();
        let Some(Script { shell, script }) = wrappers::script(&self.texts(), is_whole) else {
            return;
        };
        let At::Item(list, index) = self.words[script].at else {
            return;
        };
        let text = &self.lists[list].1[index];
        let is_variable = |name: &str| {
            let at = format!("/env/name={}", crate::inject::edits::escape(name));
            !task.in_server(&at).is_null() || task.in_server("/envFrom").is_array()
        };
        // `bash -c 'exec "$@"' bash vllm serve`: what runs stands behind the script.
        let takes_words = self.words.len() > script + 1 && has_positions(text);
        match simple(text, &is_variable).filter(|_| !takes_words) {
            Some(inner) => {
                self.shell = Shell::Simple(list, index);
                // What stands before the shell stays: `env PORT=8000 sh -c`.
                self.words.truncate(shell);
                self.words.extend(inner);
            }
            None => self.shell = Shell::Script(self.line()),
        }
    }

    /// Whether the manifest names the program, and does not leave it to the image.
    pub(super) fn is_named(&self) -> bool {
        !self.lists[0].1.is_empty() || !matches!(self.shell, Shell::None)
    }

    /// Whether a shell reads this word.
    pub(super) fn is_in_a_shell(&self, index: usize) -> bool {
        let word = self.words.get(index);
        word.is_some_and(|word| matches!(word.at, At::Script(_)))
    }

    /// All that is on the line, where a script on it is more than one simple command.
    pub(super) fn script(&self) -> Option<&str> {
        match &self.shell {
            Shell::Script(line) => Some(line),
            Shell::None | Shell::Simple(..) => None,
        }
    }

    /// All that is on the line, letter by letter.
    pub(super) fn line(&self) -> String {
        let words = self.lists.iter().flat_map(|(_, texts)| texts);
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn words(&self) -> &[Word] {
        &self.words
    }

    /// Where the words of the program begin among all.
    pub(super) fn start(&self) -> usize {
        wrappers::start(&self.texts())
    }

    /// The words of the program itself, wrappers and interpreters left out: `["vllm", "serve", ..]`,
    /// `["-m", "sglang.launch_server", ..]`.
    pub(super) fn program(&self) -> Vec<&str> {
        let mut words = self.texts().split_off(self.start());
        if let Some(first) = words.first_mut() {
            *first = wrappers::base(first);
        }
        words
    }

    fn texts(&self) -> Vec<&str> {
        self.words.iter().map(|word| word.text.as_str()).collect()
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
                let Shell::Simple(list, item) = self.shell else {
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
}

/// Whether a script reads the words behind it: `$1`, `"$@"`.
fn has_positions(script: &str) -> bool {
    let mut after = script.split('$').skip(1);
    after.any(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.starts_with(|sign: char| sign.is_ascii_digit() || "@*#".contains(sign))
    })
}

/// `text` with `new` where `old` stands last.
pub(super) fn replaced(text: &str, old: &str, new: &str) -> String {
    match text.rfind(old) {
        Some(at) => format!("{}{new}{}", &text[..at], &text[at + old.len()..]),
        None => text.to_owned(),
    }
}

/// A script without what may end one simple command and changes nothing about its words: `2>&1`, `;`.
fn without_end(script: &str) -> &str {
    let trimmed = script.trim_end();
    if trimmed.ends_with('\\') {
        return script;
    }
    let script = trimmed;
    let ended = script.strip_suffix(';').or_else(|| {
        let ends = ["2>&1", "1>&2", ">&2"].iter();
        let mut cut = ends.filter_map(|end| script.strip_suffix(end));
        cut.find(|before| before.ends_with(char::is_whitespace))
    });
    match ended {
        // `\;` is a word, and `;;` is no end of a command.
        Some(before) if !before.ends_with(['\\', ';', '&', '|']) => without_end(before),
        Some(_) | None => script,
    }
}

/// The words of a script that is one simple command; `None`: it is more, or what it runs is not in it.
fn simple(script: &str, is_variable: &dyn Fn(&str) -> bool) -> Option<Vec<Word>> {
    let script = without_end(script);
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
            "exec vllm serve 'a b' --port 8000 2>&1 ;\n",
            "exec vllm serve 'a b' --port 8000;",
        ] {
            assert_eq!(read(script).unwrap_or_default(), words, "{script}");
        }
        for script in [
            "pip install x && vllm serve M",
            "vllm serve M | tee log",
            "vllm serve M > log",
            "vllm serve M &",
            "vllm serve M & ;",
            "vllm serve M ';",
            "vllm serve M #;",
            "vllm serve M>2>&1",
            "vllm serve M > log 2>&1",
            "sleep 1\nvllm serve M;",
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
        // A sign that is escaped is a word, and ends nothing.
        assert_eq!(read("find \\;").unwrap_or_default(), ["find", ";"]);
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
