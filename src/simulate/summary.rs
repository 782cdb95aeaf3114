//! What many cases came to, for a program, for a person and for a document.

mod picture;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::LEAST_REGRET;
use super::cases::Case;
use super::columns::aligned;
use super::score::Score;
use crate::units::Shown;

/// A case is lost when its regret is this many times the one it is compared with.
const LOST: f64 = 2.0;
/// The policy that is looked at case by case, where it was played.
const SUBJECT: &str = "sidescale";

/// One case, played.
#[derive(Clone, Debug)]
pub struct Scored {
    /// The world.
    pub case: Case,
    /// Each policy, in the order they were given.
    pub scores: Vec<Score>,
}

/// All cases.
#[derive(Clone, Debug)]
pub struct Summary {
    cases: Vec<Scored>,
}

/// A score and the case it belongs to.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    score: &'a Score,
    cold_seconds: f64,
    best_regret: Option<f64>,
}

// === impl Summary ===

impl Summary {
    /// Sums them up.
    pub fn new(cases: Vec<Scored>) -> Self {
        Self { cases }
    }

    /// All scores, each with its case, as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        let lines = self.cases.iter().flat_map(|scored| {
            scored.scores.iter().map(|score| Line {
                score,
                cold_seconds: scored.case.cold_start.as_secs_f64(),
                best_regret: scored.case.best_regret,
            })
        });
        serde_json::to_string_pretty(&lines.collect::<Vec<_>>())
    }

    /// A line for each case, then what all came to.
    pub fn text(&self) -> String {
        let head = [
            "trace",
            "cold start",
            "regret",
            "late %",
            "x best",
            "best regret",
            "ratio",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for scored in &self.cases {
            let Some(score) = scored.subject() else {
                continue;
            };
            let mut row = vec![
                score.trace.clone(),
                Shown(scored.case.cold_start).to_string(),
                format!("{:.3}", score.regret),
                format!("{:.3}", score.late_percent()),
                format!("{:.3}", score.times_best()),
            ];
            if let (Some(best), Some(ratio)) = (scored.case.best_regret, scored.ratio()) {
                row.extend([format!("{best:.3}"), format!("{ratio:.2}")]);
            }
            rows.push(row);
        }
        format!("{}\n{}", aligned(&rows, 1), self.means())
    }

    /// Traces as rows, cold starts as columns, regrets in the cells, as Markdown.
    pub fn markdown(&self) -> String {
        let columns: BTreeSet<Duration> = self
            .cases
            .iter()
            .map(|scored| scored.case.cold_start)
            .collect();
        let mut traces: Vec<&str> = Vec::new();
        for scored in &self.cases {
            if !traces.contains(&scored.trace()) {
                traces.push(scored.trace());
            }
        }
        let heads = columns.iter().map(|cold| format!(" {} |", Shown(*cold)));
        let mut text = format!(
            "| trace (regret: {} / best) |{}\n|---|{}\n",
            self.subject_name(),
            heads.collect::<String>(),
            "---:|".repeat(columns.len())
        );
        let row = |name: &str, cell: &dyn Fn(Duration) -> String| {
            let cells = columns.iter().map(|cold| format!(" {} |", cell(*cold)));
            format!("| {name} |{}\n", cells.collect::<String>())
        };
        for trace in traces {
            text.push_str(&row(trace, &|cold| {
                let here = self.cases.iter();
                let here = here.filter(|it| it.trace() == trace && it.case.cold_start == cold);
                here.filter_map(Scored::cell).collect::<Vec<_>>().join(", ")
            }));
        }
        text.push_str(&row("geometric mean", &|cold| {
            let here = || self.cases.iter().filter(|it| it.case.cold_start == cold);
            let ours = here().filter_map(|it| Some(it.subject()?.regret));
            let best = here().filter_map(|it| it.case.best_regret);
            pair(geometric_mean(ours), geometric_mean(best))
        }));
        format!("{text}\n{}", self.means())
    }

    /// The cases that have something to be compared with, as points of an SVG.
    #[expect(
        clippy::missing_panics_doc,
        reason = "a string can always be written to"
    )]
    pub fn picture(&self) -> String {
        picture::picture(self).expect("writing to a string cannot fail")
    }

    /// The geometric means over all cases, and how many were lost.
    fn means(&self) -> String {
        let mut rows = vec![vec!["geometric mean of".to_owned(), "regret".to_owned()]];
        let mut row = |name: &str, mean: Option<f64>| {
            if let Some(mean) = mean {
                rows.push(vec![name.to_owned(), format!("{mean:.3}")]);
            }
        };
        for policy in self.policies() {
            let scores = self.cases.iter().flat_map(|it| &it.scores);
            let regrets = scores.filter(|it| it.policy == policy).map(|it| it.regret);
            row(policy, geometric_mean(regrets));
        }
        let best = self.cases.iter().filter_map(|it| it.case.best_regret);
        row("best_regret", geometric_mean(best));
        let mut text = aligned(&rows, 1);
        let ratios: Vec<f64> = self.cases.iter().filter_map(Scored::ratio).collect();
        if !ratios.is_empty() {
            let lost = ratios.iter().filter(|ratio| **ratio > LOST).count();
            let written = writeln!(
                text,
                "\n{lost} of {} cases are above {LOST} x best_regret (below {LEAST_REGRET}, a regret counts as {LEAST_REGRET})",
                ratios.len()
            );
            written.expect("writing to a string cannot fail");
        }
        text
    }

    fn policies(&self) -> impl Iterator<Item = &str> {
        let scores = self.cases.first().map_or(&[][..], |it| &it.scores);
        scores.iter().map(|score| score.policy.as_str())
    }

    fn subject_name(&self) -> &str {
        let subject = self.cases.first().and_then(Scored::subject);
        subject.map_or(SUBJECT, |score| score.policy.as_str())
    }
}

// === impl Scored ===

impl Scored {
    /// sidescale; where it was not played, whoever was named first.
    fn subject(&self) -> Option<&Score> {
        let scores = &self.scores;
        let ours = scores.iter().find(|score| score.policy == SUBJECT);
        ours.or(scores.first())
    }

    fn trace(&self) -> &str {
        self.scores.first().map_or("", |score| &score.trace)
    }

    fn ratio(&self) -> Option<f64> {
        let best = self.case.best_regret?;
        Some(self.subject()?.regret.max(LEAST_REGRET) / best.max(LEAST_REGRET))
    }

    fn cell(&self) -> Option<String> {
        Some(pair(Some(self.subject()?.regret), self.case.best_regret))
    }
}

fn pair(ours: Option<f64>, best: Option<f64>) -> String {
    let word = |regret: Option<f64>| regret.map_or("-".to_owned(), |it| format!("{it:.3}"));
    format!("{} / {}", word(ours), word(best))
}

/// Of regrets that differ by factors, the mean that no single trace rules.
fn geometric_mean(regrets: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = regrets.map(|it| it.max(LEAST_REGRET).ln()).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::simulate::ledger::Ledger;

    fn scored(trace: &str, cold_secs: u64, best: Option<f64>, regrets: &[(&str, f64)]) -> Scored {
        let mut ledger = Ledger::new(0, 10);
        ledger.pod_seconds = 100.0;
        let score = |(policy, regret): &(&str, f64)| Score {
            regret: *regret,
            ..Score::new(trace, policy, &ledger, &ledger)
        };
        Scored {
            case: Case {
                trace: PathBuf::from(trace),
                pod_rps: 1.0,
                cold_start: Duration::from_secs(cold_secs),
                warmup: Duration::ZERO,
                best_regret: best,
            },
            scores: regrets.iter().map(score).collect(),
        }
    }

    pub(super) fn summary() -> Summary {
        Summary::new(vec![
            scored("a", 60, Some(0.2), &[("hpa:70", 0.8), ("sidescale", 0.1)]),
            scored(
                "a",
                300,
                Some(0.01),
                &[("hpa:70", 0.2), ("sidescale", 0.09)],
            ),
            scored("b", 60, None, &[("hpa:70", 0.4), ("sidescale", -0.5)]),
        ])
    }

    #[test]
    fn small_regrets_count_as_the_least_in_means_and_ratios() {
        let text = summary().text();
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words[1],
            ["a", "1m", "0.100", "0.000", "1.000", "0.200", "0.50"]
        );
        // 0.09 over 0.03, not over 0.01.
        assert_eq!(
            words[2],
            ["a", "5m", "0.090", "0.000", "1.000", "0.010", "3.00"]
        );
        assert_eq!(words[3], ["b", "1m", "-0.500", "0.000", "1.000"]);
        // (0.8 x 0.2 x 0.4)^(1/3) = 0.4; (0.1 x 0.09 x 0.03)^(1/3) = 0.0646; (0.2 x 0.03)^(1/2) = 0.0775.
        for line in ["hpa:70 0.400", "sidescale 0.065", "best_regret 0.077"] {
            let found = words.iter().any(|words| words.join(" ") == line);
            assert!(found, "no {line} in {text}");
        }
        assert!(
            text.contains("1 of 2 cases are above 2 x best_regret"),
            "{text}"
        );
    }

    #[test]
    fn the_markdown_table_has_traces_as_rows_and_cold_starts_as_columns() {
        let text = summary().markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "| trace (regret: sidescale / best) | 1m | 5m |",
                "|---|---:|---:|",
                "| a | 0.100 / 0.200 | 0.090 / 0.010 |",
                "| b | -0.500 / - |  |",
                "| geometric mean | 0.055 / 0.200 | 0.090 / 0.030 |",
            ]
        );
        assert!(text.contains("sidescale"), "{text}");
    }

    #[test]
    fn without_sidescale_the_first_policy_is_looked_at() {
        let alone = Summary::new(vec![scored("a", 60, None, &[("kpa:70", 0.3)])]);
        let text = alone.text();
        assert!(
            text.lines()
                .nth(1)
                .is_some_and(|line| line.contains("0.300")),
            "{text}"
        );
        assert!(!text.contains("best_regret"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&alone.json().expect("JSON")).expect("JSON");
        assert_eq!(json[0]["policy"], "kpa:70");
        assert_eq!(json[0]["best_regret"], serde_json::Value::Null);
        assert!(json[0]["cold_seconds"].is_number(), "{json}");
    }
}
