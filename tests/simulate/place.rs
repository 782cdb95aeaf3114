//! A folder of this test's own, the program, and traces.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder that is empty at first.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulate-{name}"));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).expect("the test's folder can be made");
        Self(folder)
    }

    /// The path of a file, whether it is there or not.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0
            .join(name)
            .to_str()
            .expect("a path of text")
            .to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).expect("the test's folder can be written");
        self.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("the program wrote it")
    }

    /// The names of the files that are there.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the test's folder can be read");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidescale"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn sidescale(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program starts")
}

/// Runs it to a good end and gives what it printed.
pub(crate) fn done(arguments: &[&str]) -> String {
    let output = sidescale(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// Ends with 64 and says every one of `words`.
pub(crate) fn refused(arguments: &[&str], words: &[&str]) {
    let output = sidescale(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
    for word in words {
        assert!(
            said.contains(word),
            "{arguments:?} says nothing of `{word}`: {said}"
        );
    }
}

/// Bins of one second: calm, a ramp, a burst, calm again.
pub(crate) fn burst(seconds: u32) -> String {
    let lines: Vec<String> = (0..seconds)
        .map(|second| {
            let count = match second % 600 {
                0..200 => 12 + second % 5,
                200..350 => 12 + (second % 600 - 200) / 4,
                350..400 => 80,
                _ => 9 + second % 3,
            };
            format!("{second},{count}\n")
        })
        .collect();
    format!("offset_seconds,requests\n{}", lines.concat())
}

/// The world of these tests.
pub(crate) const WORLD: [&str; 8] = [
    "--pod-rps",
    "5",
    "--cold-start",
    "60s",
    "--min",
    "1",
    "--max",
    "20",
];

/// `simulate` or `explain` on `trace` in that world.
pub(crate) fn in_world<'a>(command: &'a str, trace: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "--trace", trace], &WORLD[..], more].concat()
}
