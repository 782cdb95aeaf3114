//! One page that needs nothing else: load with the forecast for it, replicas, who made whom wait, and regret.

mod chart;

use std::fmt::{self, Write as _};

use self::chart::{Chart, Strip};
use super::run::Outcome;
use super::score::Score;
use crate::units::Shown;

/// Told apart also by those who do not see red and green; sidescale's is the page's accent.
const ACCENT: &str = "#2563eb";
const CLAIRVOYANT: &str = "#8b949e";
const OTHERS: [&str; 6] = [
    "#d97706", "#be185d", "#0d9488", "#7c3aed", "#65a30d", "#b45309",
];

/// The page of these outcomes.
#[expect(
    clippy::missing_panics_doc,
    reason = "a string can always be written to"
)]
pub fn page(outcomes: &[Outcome]) -> String {
    let mut page = String::new();
    write(&mut page, outcomes).expect("writing to a string cannot fail");
    page
}

fn write(page: &mut String, outcomes: &[Outcome]) -> fmt::Result {
    let style = include_str!("page/style.css");
    writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>sidescale simulate</title>\n<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{style}</style></head><body>\n<h1>sidescale simulate</h1>"
    )?;
    writeln!(
        page,
        "<p>Regret: pod-seconds over those of somebody who knew everything, less 1, plus 50 times the share of requests that waited longer than the SLO.</p>"
    )?;
    for outcome in outcomes {
        section(page, outcome)?;
    }
    writeln!(page, "</body></html>")
}

fn section(page: &mut String, outcome: &Outcome) -> fmt::Result {
    let settings = &outcome.settings;
    writeln!(page, "<h2>{}</h2>", escaped(&outcome.trace))?;
    writeln!(
        page,
        "<p>A pod serves {} requests a second and takes {} to start; {} to {} pods; SLO {}; seed {}. The first {} (shaded) are played and not scored.</p>",
        settings.pod_rps,
        Shown(settings.cold_start),
        settings.bounds.0,
        settings.bounds.1,
        Shown(settings.slo),
        settings.seed,
        Shown(settings.warmup)
    )?;
    scores(page, &outcome.scores)?;
    let Some(first) = outcome.sketches.first() else {
        return Ok(());
    };
    let columns = Columns::of(outcome, first.step);
    let chart = |most: f64| Chart {
        step_secs: first.step,
        start_secs: outcome.timeline.start(),
        columns: columns.load.len(),
        warm_secs: settings.warmup.as_secs(),
        most,
    };
    load(page, outcome, &columns, chart)?;
    let pods: Vec<Vec<Option<f64>>> = (outcome.sketches.iter())
        .map(|sketch| columns.mean(&sketch.paid))
        .collect();
    let most = pods.iter().flatten().flatten().copied().fold(1.0, f64::max);
    writeln!(page, "<h3>Replicas paid for</h3>")?;
    let replicas = chart(most);
    replicas.open(page, "pods")?;
    // The first policy is drawn last, on top.
    for (index, pods) in pods.iter().enumerate().rev() {
        let colour = colour(&outcome.scores, index);
        replicas.line(page, "pods", Some(colour), pods)?;
    }
    replicas.close(page)?;
    writeln!(
        page,
        "<h3>Requests that waited too long, by the time they came (darker: more of them)</h3>"
    )?;
    let strips: Vec<Strip<'_>> = (outcome.scores.iter().zip(&outcome.sketches).enumerate())
        .map(|(index, (score, sketch))| Strip {
            name: escaped(&score.policy),
            colour: colour(&outcome.scores, index),
            shares: columns.shares(&sketch.late),
        })
        .collect();
    chart(1.0).strips(page, &strips)
}

fn load(
    page: &mut String,
    outcome: &Outcome,
    columns: &Columns,
    chart: impl Fn(f64) -> Chart,
) -> fmt::Result {
    let band = outcome.sketches.iter().map(|sketch| &sketch.band);
    let band = band.max_by_key(|band| band.iter().flatten().count());
    let is_foreseen = band.is_some_and(|band| band.iter().any(Option::is_some));
    let title = if is_foreseen {
        "Load, and what was forecast for it one lead time before (line: expected; band: its quantiles)"
    } else {
        "Load"
    };
    writeln!(page, "<h3>{title}</h3>")?;
    // A forecast far off must not press the load flat.
    let most = columns.load.iter().flatten().copied().fold(0.1, f64::max) * 1.4;
    let chart = chart(most);
    chart.open(page, "req/s")?;
    if let Some(band) = band {
        let pick = |pick: fn(&crate::forecast::ForecastPoint) -> f64| -> Vec<Option<f64>> {
            band.iter().map(|point| point.as_ref().map(pick)).collect()
        };
        chart.area(page, &pick(|point| point.lower), &pick(|point| point.upper))?;
        chart.line(page, "point", None, &pick(|point| point.point))?;
    }
    chart.line(page, "load", None, &columns.load)?;
    chart.close(page)
}

fn scores(page: &mut String, scores: &[Score]) -> fmt::Result {
    writeln!(
        page,
        "<table><tr><th>policy<th>regret<th>late<th>pod-hours<th>of the clairvoyant's<th>changes<th>wait p99<th>p99.9</tr>"
    )?;
    for (index, score) in scores.iter().enumerate() {
        let share = 100.0 * score.violations / score.requests.max(f64::MIN_POSITIVE);
        let ratio = score.pod_seconds / score.clairvoyant_pod_seconds.max(f64::MIN_POSITIVE);
        writeln!(
            page,
            "<tr><td><i style=\"background:{}\"></i>{}<td>{:.3}<td>{share:.3} %<td>{:.1}<td>{ratio:.3}<td>{}<td>{} s<td>{} s</tr>",
            colour(scores, index),
            escaped(&score.policy),
            score.regret,
            score.pod_seconds / 3_600.0,
            score.changes,
            score.wait_p99,
            score.wait_p999
        )?;
    }
    writeln!(page, "</table>")
}

/// The trace in the picture's columns.
struct Columns {
    /// Requests a second; `None`: nobody looked.
    load: Vec<Option<f64>>,
    arrivals: Vec<f64>,
    observed: Vec<f64>,
}

// === impl Columns ===

impl Columns {
    fn of(outcome: &Outcome, step: u64) -> Self {
        let timeline = &outcome.timeline;
        let length = usize::try_from(step).unwrap_or(1).max(1);
        let columns = timeline.len().div_ceil(length);
        let (mut arrivals, mut observed) = (vec![0.0; columns], vec![0.0; columns]);
        for (second, (_offset, count)) in timeline.seconds().enumerate() {
            if let Some(count) = count {
                arrivals[second / length] += count;
                observed[second / length] += 1.0;
            }
        }
        let mut columns = Self {
            load: Vec::new(),
            arrivals,
            observed,
        };
        columns.load = columns.mean(&columns.arrivals);
        columns
    }

    /// Sums over the observed seconds of each column.
    fn mean(&self, sums: &[f64]) -> Vec<Option<f64>> {
        let pairs = sums.iter().zip(&self.observed);
        pairs
            .map(|(sum, seconds)| (*seconds > 0.0).then(|| sum / seconds))
            .collect()
    }

    fn shares(&self, late: &[f64]) -> Vec<f64> {
        let pairs = late.iter().zip(&self.arrivals);
        pairs
            .map(|(late, came)| late / came.max(f64::MIN_POSITIVE))
            .collect()
    }
}

fn colour(scores: &[Score], index: usize) -> &'static str {
    let is_other = |score: &Score| score.policy != "sidescale" && score.policy != "clairvoyant";
    match scores.get(index).map(|score| score.policy.as_str()) {
        Some("sidescale") => ACCENT,
        Some("clairvoyant") => CLAIRVOYANT,
        _ => {
            let before = scores
                .iter()
                .take(index)
                .filter(|score| is_other(score))
                .count();
            OTHERS[before % OTHERS.len()]
        }
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
