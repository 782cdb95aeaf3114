//! Holds the sources to what the crate docs say: floors, purity, the single clock, file headers and sizes.
//!
//! It reads `src` as text and needs no build of its own to run in milliseconds. The tables it checks against are parsed
//! from `src/lib.rs`, so that the map a newcomer reads and the rule that is held cannot differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// More lines of code than this, tests not counted, and a file is two files.
const MOST_LINES: usize = 400;

/// What a pure stage may not name: runtimes, sockets, clocks, entropy, files and the environment.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "kube::",
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "std::io",
    "std::time::Instant",
    "SystemTime",
    "rand::rng",
    "rand::random",
    "OsRng",
    "SysRng",
    "clock::Clock",
    "Clock::",
];

/// Readings of a clock and waits on one: only clock.rs has them.
const CLOCKS: &[&str] = &[
    "Instant::now(",
    "SystemTime::now(",
    "Timestamp::now(",
    "Zoned::now(",
    "Utc::now(",
    "tokio::time::",
    "thread::sleep(",
];

struct Source {
    path: PathBuf,
    /// The names from the crate's root to this file: `["proxy", "pool"]`.
    module: Vec<String>,
    /// The file up to its inline tests, without comments.
    code: String,
    text: String,
}

#[test]
fn every_module_stands_on_a_floor_and_imports_only_from_below() {
    let floors = floors();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(module) = source.module.first() else {
            continue;
        };
        let Some(floor) = floors.get(module) else {
            wrong.push(format!(
                "{}: `{module}` stands on no floor of src/lib.rs",
                source.path.display()
            ));
            continue;
        };
        for (line, imported) in imports(&source.code) {
            let below = floors.get(&imported).is_some_and(|other| other < floor);
            if imported != *module && !below {
                wrong.push(format!(
                    "{}:{line}: `{module}` (floor {floor}) imports `{imported}` ({:?})",
                    source.path.display(),
                    floors.get(&imported)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against the floors:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_floor_has_a_module_that_lives_on_it() {
    let present: BTreeSet<String> = sources()
        .into_iter()
        .filter_map(|source| source.module.first().cloned())
        .collect();
    let missing: Vec<String> = floors()
        .into_keys()
        .filter(|module| !present.contains(module))
        .collect();
    assert!(
        missing.is_empty(),
        "src/lib.rs names modules that do not exist: {missing:?}"
    );
}

#[test]
fn pure_stages_name_no_runtime_socket_clock_or_entropy() {
    let pure = block("pure");
    let pure: Vec<Vec<&str>> = pure
        .split_whitespace()
        .map(|path| path.split("::").collect())
        .collect();
    assert!(!pure.is_empty());
    let mut seen = 0;
    let mut wrong = Vec::new();
    for source in sources() {
        if !pure.iter().any(|path| {
            source
                .module
                .iter()
                .map(String::as_str)
                .take(path.len())
                .eq(path.iter().copied())
        }) {
            continue;
        }
        seen += 1;
        for (number, line) in source.code.lines().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!(
                    "{}:{}: names `{word}`",
                    source.path.display(),
                    number + 1
                ));
            }
        }
    }
    assert!(
        seen >= pure.len(),
        "only {seen} files were found for {} pure paths",
        pure.len()
    );
    assert!(
        wrong.is_empty(),
        "pure stages must be given what they use:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_the_clock_reads_a_clock() {
    let mut wrong = Vec::new();
    for source in sources()
        .into_iter()
        .filter(|source| source.module != ["clock"])
    {
        for (number, line) in source.code.lines().enumerate() {
            for word in CLOCKS.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!(
                    "{}:{}: `{word}`",
                    source.path.display(),
                    number + 1
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "take `now` or a `Clock`:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_file_says_what_it_is_and_stays_small() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{}: has no `//!` header", source.path.display()));
        }
        let lines = source
            .code
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        if lines > MOST_LINES {
            wrong.push(format!(
                "{}: {lines} lines of code (at most {MOST_LINES})",
                source.path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    let code = "use crate::clock::Now;\nuse crate::{plan, fleet::{Pod, view}, lifecycle::Tasks};\nlet x = crate::units::f();";
    let found: Vec<(usize, String)> = imports(code);
    let expected = [
        (1, "clock"),
        (2, "plan"),
        (2, "fleet"),
        (2, "lifecycle"),
        (3, "units"),
    ];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
    assert_eq!(
        code_of("a\n// crate::demo\nb // tokio\n#[cfg(test)]\nmod tests {\n}\n"),
        "a\n\nb \n"
    );
    assert_eq!(code_of("a\n#[cfg(test)]\nmod tests;\nb\n"), "a\nb\n");
}

/// The floor of each module, from the crate docs.
fn floors() -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for line in block("floors").lines() {
        let mut words = line.split_whitespace();
        let floor = words
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a floor starts with its number");
        for module in words {
            assert!(
                floors.insert(module.to_owned(), floor).is_none(),
                "`{module}` stands on two floors"
            );
        }
    }
    assert!(!floors.is_empty());
    floors
}

/// The text of the fenced block `name` in the crate docs.
fn block(name: &str) -> String {
    let docs = fs::read_to_string(root().join("lib.rs")).expect("src/lib.rs can be read");
    let lines = docs
        .lines()
        .map(|line| line.trim_start_matches("//!").trim());
    let fence = format!("```{name}");
    let inside: Vec<&str> = lines
        .skip_while(|line| *line != fence)
        .skip(1)
        .take_while(|line| *line != "```")
        .collect();
    assert!(!inside.is_empty(), "src/lib.rs has no ```{name} block");
    inside.join("\n")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.extend(source(path));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 5, "only {} sources found", sources.len());
    sources
}

/// `None` for the crate's root, the program and files of tests.
fn source(path: PathBuf) -> Option<Source> {
    let relative = path
        .strip_prefix(root())
        .expect("below src")
        .with_extension("");
    let module: Vec<String> = relative
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module == ["lib"] || module == ["main"] || module.last().is_some_and(|last| last == "tests")
    {
        return None;
    }
    let text = fs::read_to_string(&path).expect("sources are text");
    Some(Source {
        module,
        code: code_of(&text),
        text,
        path,
    })
}

/// The file without comments and without its inline tests; lines keep their numbers up to the tests.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            match lines.peek().map(|next| next.trim()) {
                // The inline tests stand last.
                Some(next) if next.starts_with("mod tests {") => break,
                _ => {
                    lines.next();
                    continue;
                }
            }
        }
        let kept = line.find("//").map_or(line, |comment| &line[..comment]);
        code.push_str(kept);
        code.push('\n');
    }
    code
}

/// Top-level modules of this crate that the code names, with their lines: after `crate::`, also inside `{..}`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].lines().count().max(1) + usize::from(code[..at].ends_with('\n'));
        let rest = &code[at + "crate::".len()..];
        for name in names(rest) {
            found.push((line, name));
        }
    }
    found
}

/// The first names of a path or of each path of a group.
fn names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![first_name(rest)];
    };
    let (mut depth, mut start, mut names) = (0_u32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(path: &str) -> String {
    path.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}
