//! Reads `offset_seconds,requests`, and says exactly where a file is wrong.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Bin, Trace};
use crate::simulate::misplaced::Misplaced;

const HEADER: &str = "offset_seconds,requests";

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read, or is no text.
    #[error("cannot read the trace `{file}`")]
    Read {
        /// The file.
        file: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A line is not what it must be.
    #[error(transparent)]
    Line(#[from] Misplaced),
    /// Fewer than two bins, and nobody said how wide they are.
    #[error("{file}: expected at least two bins of `{HEADER}`, found {found}")]
    Short {
        /// The file.
        file: String,
        /// Bins in it.
        found: usize,
    },
}

/// A bin and where it stands.
struct Row {
    line: usize,
    bin: Bin,
}

/// `bin`: how wide the bins are, where somebody said so.
pub(super) fn parse(file: &str, text: &str, bin: Option<Duration>) -> Result<Trace, TraceError> {
    let rows = rows(file, text)?;
    let width_secs = bin
        .map(|bin| bin.as_secs().max(1))
        .or_else(|| commonest_gap(&rows))
        .filter(|_width| !rows.is_empty());
    let Some(width_secs) = width_secs else {
        return Err(TraceError::Short {
            file: file.to_owned(),
            found: rows.len(),
        });
    };
    for pair in rows.windows(2) {
        if !gap(&pair[0], &pair[1]).is_multiple_of(width_secs) {
            return Err(Misplaced {
                file: file.to_owned(),
                line: pair[1].line,
                column: 1,
                expected: format!(
                    "an offset a multiple of the bins' {width_secs} s after {}",
                    pair[0].bin.offset_secs
                ),
                found: pair[1].bin.offset_secs.to_string(),
            }
            .into());
        }
    }
    Ok(Trace {
        width_secs,
        bins: rows.into_iter().map(|row| row.bin).collect(),
    })
}

/// The commonest, not the smallest: one mistyped offset would turn bins of a minute into bins of a second.
fn commonest_gap(rows: &[Row]) -> Option<u64> {
    let mut gaps = BTreeMap::<u64, usize>::new();
    for pair in rows.windows(2) {
        *gaps.entry(gap(&pair[0], &pair[1])).or_default() += 1;
    }
    gaps.into_iter()
        .max_by_key(|(gap, count)| (*count, Reverse(*gap)))
        .map(|(gap, _count)| gap)
}

fn gap(earlier: &Row, later: &Row) -> u64 {
    later.bin.offset_secs - earlier.bin.offset_secs
}

/// The rows, whose offsets rise.
fn rows(file: &str, text: &str) -> Result<Vec<Row>, Misplaced> {
    let wrong = |line: usize, column: usize, expected: String, found: &str| Misplaced {
        file: file.to_owned(),
        line,
        column,
        expected,
        found: found.to_owned(),
    };
    let mut lines = text.lines().zip(1..);
    let header = lines.next().map_or("", |(header, _)| header);
    if header.trim() != HEADER {
        return Err(wrong(1, 1, format!("the header `{HEADER}`"), header));
    }
    let mut rows: Vec<Row> = Vec::new();
    for (text, line) in lines.filter(|(text, _)| !text.trim().is_empty()) {
        let Some((offset, requests)) = text.split_once(',') else {
            let column = text.chars().count() + 1;
            return Err(wrong(line, column, "a comma and a count".to_owned(), ""));
        };
        let bin = Bin {
            offset_secs: offset.trim().parse().map_err(|_not_a_number| {
                wrong(line, 1, "a whole number of seconds".to_owned(), offset)
            })?,
            requests: count(requests).ok_or_else(|| {
                let column = offset.chars().count() + 2;
                let expected = "a count of requests, 0 or more".to_owned();
                wrong(line, column, expected, requests)
            })?,
        };
        if let Some(before) = rows.last().map(|row| row.bin.offset_secs)
            && bin.offset_secs <= before
        {
            return Err(wrong(line, 1, format!("an offset after {before}"), offset));
        }
        rows.push(Row { line, bin });
    }
    Ok(rows)
}

fn count(text: &str) -> Option<f64> {
    let count: f64 = text.trim().parse().ok()?;
    (count.is_finite() && count >= 0.0).then_some(count)
}
