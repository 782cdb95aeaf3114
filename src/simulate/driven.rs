//! Somebody else's world asks the turn, line by line; nothing of the future can leak.

use std::io::{BufRead, Write};

use super::leader::{Leader, Observed};
use super::{MOST_PODS, Settings};

const HEADER: &str = "offset_seconds,arrivals,waiting,served,pods_ready,pods_starting";

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A line is not what it must be.
    #[error("standard input:{line}: expected {expected}, found `{found}`")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The input cannot be read.
    #[error("cannot read standard input")]
    Read(#[source] std::io::Error),
    /// The answer cannot be written.
    #[error("cannot write the decisions")]
    Write(#[source] std::io::Error),
}

/// Reads a line a second (`offset_seconds,arrivals,waiting,served,pods_ready,pods_starting`; that header may stand first)
/// and answers each with `offset_seconds,desired`, flushed before the next is read. An offset that jumps leaves a gap that
/// nobody observed.
pub fn drive(
    mut input: impl BufRead,
    mut output: impl Write,
    settings: &Settings,
) -> Result<(), DriveError> {
    let mut leader = Leader::new(settings);
    let mut last: Option<u64> = None;
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if input.read_line(&mut text).map_err(DriveError::Read)? == 0 {
            break;
        }
        let given = text.trim_end_matches(['\n', '\r']);
        if line == 1 && given.trim() == HEADER {
            continue;
        }
        let seen = read(given, last).map_err(|(expected, found)| DriveError::Line {
            line,
            expected,
            found,
        })?;
        last = Some(seen.offset);
        let desired = leader.second(seen);
        writeln!(output, "{},{desired}", seen.offset)
            .and_then(|()| output.flush())
            .map_err(DriveError::Write)?;
    }
    Ok(())
}

/// The line, or what was expected and what was found.
fn read(text: &str, last: Option<u64>) -> Result<Observed, (String, String)> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let [offset_text, arrivals, waiting, served, ready, starting] = fields[..] else {
        return Err((format!("six fields, {HEADER}"), text.to_owned()));
    };
    let offset: u64 = offset_text.parse().map_err(|_not_a_number| {
        wrong("a whole number of seconds", "offset_seconds", offset_text)
    })?;
    if let Some(last) = last
        && offset <= last
    {
        return Err((format!("an offset after {last}"), offset_text.to_owned()));
    }
    // Far beyond any clock, time could not be counted in milliseconds any more.
    if offset > MOST_SECS {
        return Err((
            format!("an offset of at most {MOST_SECS}"),
            offset_text.to_owned(),
        ));
    }
    Ok(Observed {
        offset,
        arrivals: count(arrivals, "arrivals")?,
        waiting: count(waiting, "waiting")?,
        served: count(served, "served")?,
        ready: pods(ready, "pods_ready")?,
        starting: pods(starting, "pods_starting")?,
    })
}

/// A thousand years.
const MOST_SECS: u64 = 31_556_952_000;

fn count(text: &str, name: &str) -> Result<f64, (String, String)> {
    let count: Option<f64> = text.parse().ok();
    count
        .filter(|count| count.is_finite() && *count >= 0.0)
        .ok_or_else(|| wrong("a count of requests, 0 or more,", name, text))
}

fn pods(text: &str, name: &str) -> Result<u32, (String, String)> {
    let count: Option<u32> = text.parse().ok();
    count
        .filter(|count| *count <= MOST_PODS)
        .ok_or_else(|| wrong(&format!("a number of pods up to {MOST_PODS}"), name, text))
}

fn wrong(expected: &str, name: &str, found: &str) -> (String, String) {
    (format!("{expected} as {name}"), found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driven(input: &str) -> (String, Result<(), DriveError>) {
        let mut output = Vec::new();
        let done = drive(input.as_bytes(), &mut output, &Settings::default());
        (String::from_utf8(output).expect("text"), done)
    }

    #[test]
    fn each_line_is_answered_with_its_offset() {
        let (answers, done) = driven(&format!(
            "{HEADER}\n0,3,0,3,4,0\n1,3.5,0,3.5,4,0\n90,0,0,0,4,0\n"
        ));
        assert!(done.is_ok(), "{done:?}");
        let offsets: Vec<&str> = answers
            .lines()
            .filter_map(|line| Some(line.split_once(',')?.0))
            .collect();
        assert_eq!(offsets, ["0", "1", "90"]);
    }

    #[test]
    fn a_bad_line_is_named_after_the_good_ones_were_answered() {
        for (input, message) in [
            (
                "0,1,0,1,1,0\n\n",
                "standard input:2: expected six fields, offset_seconds,arrivals,waiting,served,pods_ready,pods_starting, found ``",
            ),
            ("0,1,0,1,1\n", "standard input:1: expected six fields"),
            (
                "0,1,0,1,1,0\n0,1,0,1,1,0\n",
                "standard input:2: expected an offset after 0, found `0`",
            ),
            (
                "x,1,0,1,1,0\n",
                "expected a whole number of seconds as offset_seconds, found `x`",
            ),
            (
                "0,NaN,0,1,1,0\n",
                "expected a count of requests, 0 or more, as arrivals, found `NaN`",
            ),
            ("0,1,-1,1,1,0\n", "as waiting, found `-1`"),
            (
                "0,1,0,1,1.5,0\n",
                "expected a number of pods up to 100000 as pods_ready, found `1.5`",
            ),
            (
                "0,1,0,1,1,4000000000\n",
                "as pods_starting, found `4000000000`",
            ),
            (
                "99999999999999,1,0,1,1,1\n",
                "expected an offset of at most",
            ),
        ] {
            let (answers, done) = driven(input);
            let error = done.expect_err(input).to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(answers.lines().count(), input.lines().count() - 1);
        }
    }
}
