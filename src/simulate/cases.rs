//! Reads a file of cases: many worlds to play, one a line.
//!
//! Tab-separated, with a header whose columns are found by name, so that a table which somebody else's tool wrote serves as
//! it stands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::misplaced::Misplaced;

const DAY_SECS: f64 = 86_400.0;
/// More than ten years are a typing error, of a cold start as of a warm-up.
const LONGEST_SECS: f64 = 3_650.0 * DAY_SECS;

/// One world to play.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The trace's file.
    pub trace: PathBuf,
    /// Requests that a pod serves a second.
    pub pod_rps: f64,
    /// From asking for a pod to its first request.
    pub cold_start: Duration,
    /// Played and not scored, from the trace's start.
    pub warmup: Duration,
    /// Somebody else's regret there, to compare with.
    pub best_regret: Option<f64>,
}

/// What is wrong with a file of cases.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// The file cannot be read, or is no text.
    #[error("cannot read the cases `{file}`")]
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
}

/// Reads the file; the traces that it names are looked for beside it.
pub fn read(path: &Path) -> Result<Vec<Case>, CasesError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| CasesError::Read {
        file: file.clone(),
        source,
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&file, &text, &|name| {
        let exact = folder.join(name);
        let ending = folder.join(format!("{name}.csv"));
        [exact, ending].into_iter().find(|path| path.is_file())
    })
}

/// `find` gives the file of a trace that is called so.
fn parse(
    file: &str,
    text: &str,
    find: &impl Fn(&str) -> Option<PathBuf>,
) -> Result<Vec<Case>, CasesError> {
    let mut lines = text.lines().zip(1..);
    let header = Row::new(file, 1, lines.next().map_or("", |(header, _)| header));
    let place = |name: &str| header.cells().position(|cell| cell == name);
    let required = |name: &str| {
        place(name).ok_or_else(|| header.wrong(0, &format!("a header with the column {name}")))
    };
    let (trace, pod_rps) = (required("trace")?, required("pod_rps")?);
    let (cold, warm) = (required("cold_s")?, required("warm_days")?);
    let best = place("best_regret");
    let mut cases = Vec::new();
    for (text, line) in lines.filter(|(text, _)| !text.trim().is_empty()) {
        let row = Row::new(file, line, text);
        let named = Some(row.cell(trace)).filter(|name| !name.is_empty());
        cases.push(Case {
            trace: named.and_then(find).ok_or_else(|| {
                row.wrong(
                    trace,
                    "a trace's file beside this one (.csv may be left out)",
                )
            })?,
            pod_rps: row
                .number(pod_rps)
                .filter(|rate| *rate > 0.0 && *rate <= 1e9)
                .ok_or_else(|| row.wrong(pod_rps, "requests a second, above 0 and at most 1e9"))?,
            cold_start: row
                .time(cold, 1.0)
                .ok_or_else(|| row.wrong(cold, "a cold start in seconds"))?,
            warmup: row
                .time(warm, DAY_SECS)
                .ok_or_else(|| row.wrong(warm, "a warm-up in days"))?,
            best_regret: match best {
                Some(best) if !row.cell(best).is_empty() => Some(
                    row.number(best)
                        .ok_or_else(|| row.wrong(best, "a regret, or nothing"))?,
                ),
                Some(_) | None => None,
            },
        });
    }
    if cases.is_empty() {
        return Err(Row::new(file, text.lines().count() + 1, "")
            .wrong(0, "a case")
            .into());
    }
    Ok(cases)
}

/// One line and where it stands.
struct Row<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
}

// === impl Row ===

impl<'a> Row<'a> {
    fn new(file: &'a str, line: usize, text: &'a str) -> Self {
        Self { file, line, text }
    }

    fn cells(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.split('\t').map(str::trim)
    }

    /// A cell; empty where the line is too short.
    fn cell(&self, index: usize) -> &'a str {
        self.cells().nth(index).unwrap_or("")
    }

    fn number(&self, index: usize) -> Option<f64> {
        let number: f64 = self.cell(index).parse().ok()?;
        number.is_finite().then_some(number)
    }

    fn time(&self, index: usize, unit_secs: f64) -> Option<Duration> {
        let secs = self.number(index)? * unit_secs;
        (0.0..=LONGEST_SECS)
            .contains(&secs)
            .then(|| Duration::from_secs_f64(secs))
    }

    fn wrong(&self, index: usize, expected: &str) -> Misplaced {
        let before = self.text.split('\t').take(index);
        Misplaced {
            file: self.file.to_owned(),
            line: self.line,
            column: 1 + before.map(|cell| cell.chars().count() + 1).sum::<usize>(),
            expected: expected.to_owned(),
            found: self.cell(index).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Case>, CasesError> {
        parse("c.tsv", text, &|name| {
            (name != "gone").then(|| PathBuf::from(format!("/t/{name}.csv")))
        })
    }

    #[test]
    fn columns_are_found_by_name_and_others_are_ignored() {
        let text = "cold_s\tnote\ttrace\twarm_days\tpod_rps\tbest_regret\n\
                    120\tx\tone\t0.5\t2.5\t0.1\n\n\
                    300\t\ttwo\t7\t1\t\n600\t\tone\t0\t1";
        let cases = read(text).expect("good cases");
        let seen: Vec<_> = cases
            .iter()
            .map(|case| {
                (
                    case.trace.to_str(),
                    case.cold_start.as_secs(),
                    case.warmup.as_secs(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Some("/t/one.csv"), 120, 43_200),
                (Some("/t/two.csv"), 300, 604_800),
                (Some("/t/one.csv"), 600, 0),
            ]
        );
        assert!((cases[0].pod_rps - 2.5).abs() < 1e-12);
        assert!((cases[0].best_regret.expect("given") - 0.1).abs() < 1e-12);
        assert_eq!((cases[1].best_regret, cases[2].best_regret), (None, None));
        let without = read("trace\tpod_rps\tcold_s\twarm_days\none\t1\t60\t0\n");
        assert_eq!(without.expect("good cases")[0].best_regret, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_belongs_there() {
        const HEADER: &str = "trace\tpod_rps\tcold_s\twarm_days\tbest_regret\n";
        for (text, words) in [
            (
                "trace\tpod_rps\tcold_s\none\t1\t60\n".to_owned(),
                "c.tsv:1:1: expected a header with the column warm_days, found `trace`",
            ),
            (
                String::new(),
                "c.tsv:1:1: expected a header with the column trace, found ``",
            ),
            (HEADER.to_owned(), "c.tsv:2:1: expected a case, found ``"),
            (
                format!("{HEADER}gone\t1\t60\t0\t0\n"),
                "c.tsv:2:1: expected a trace's file beside this one (.csv may be left out), found `gone`",
            ),
            (
                format!("{HEADER}one\t1\t60\t0\t0\none\t0\t60\t0\t0\n"),
                "c.tsv:3:5: expected requests a second, above 0 and at most 1e9, found `0`",
            ),
            (
                format!("{HEADER}é\t1.5\t-60\t0\t0\n"),
                "c.tsv:2:7: expected a cold start in seconds, found `-60`",
            ),
            (
                format!("{HEADER}one\t1\t60\n"),
                "c.tsv:2:10: expected a warm-up in days, found ``",
            ),
            (
                format!("{HEADER}one\t1\t60\t0\tNaN\n"),
                "c.tsv:2:12: expected a regret, or nothing, found `NaN`",
            ),
        ] {
            let error = read(&text).expect_err(words);
            assert_eq!(error.to_string(), words);
        }
    }
}
