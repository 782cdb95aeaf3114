//! `sidescale simulate` and `sidescale explain`.

mod cases;

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::Failure;
use super::bar::Bar;
use super::words::{each, input, print, rate, whole_seconds, write_whole};
use crate::ablation::Parts;
use crate::simulate::{
    self, Contestant, DriveError, Job, MOST_PODS, Outcome, Score, Settings, read_contestants,
};
use crate::units::parse_duration;

/// What is simulated where nobody said: the two that people use, beside sidescale and the best there could be.
const POLICIES: &str = "sidescale,hpa:70,kpa:70,clairvoyant";

/// What may stand in the list; its brackets would be links in a doc comment.
const POLICIES_HELP: &str = "Who acts: sidescale, hpa:PERCENT, kpa:PERCENT, keda:PERCENT[:polling=TIME][:cooldown=TIME][:min=N][:cached], \
     cron:[DAYS@]HHMM-HHMM=MIN[..MAX][+...][:hpa=PERCENT], fixed:N, foresight:PERCENT (knows the next minutes), \
     clairvoyant";

/// Replays traces through the production turn and the baselines.
#[derive(Args, Debug)]
pub(super) struct Simulate {
    #[command(flatten)]
    world: World,

    /// Many worlds: tab-separated with a header, each line a `trace` (beside this file), `pod_rps`, `cold_s`, `warm_days`
    /// and, to compare with, `best_regret`
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["trace", "bin", "pod_rps", "cold_start", "warmup", "decisions", "html"]
    )]
    cases: Option<PathBuf>,

    /// Writes the regrets of the cases as a Markdown table
    #[arg(long, value_name = "FILE", requires = "cases")]
    table: Option<PathBuf>,

    /// Writes the regrets of the cases over those they are compared with as an SVG
    #[arg(long, value_name = "FILE", requires = "cases")]
    picture: Option<PathBuf>,

    /// Who acts, with [`POLICIES_HELP`] for its help.
    #[arg(long, value_name = "LIST", default_value = POLICIES, help = POLICIES_HELP)]
    policies: String,

    /// Writes `offset_seconds,desired` at every change of sidescale's desired replicas; with `--trace -`: -, answers line
    /// by line
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,

    /// Writes the scores as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Writes a page with load, forecast, replicas, violations and regret
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Explains one simulated decision.
#[derive(Args, Debug)]
pub(super) struct Explain {
    #[command(flatten)]
    world: World,

    /// The second whose decision is explained, as an offset in the trace: 93600, or 1d2h
    #[arg(long, value_name = "OFFSET", value_parser = parse_duration)]
    at: Duration,
}

/// The world that everybody acts in.
#[derive(Args, Debug)]
struct World {
    /// `offset_seconds,requests`, measured; may be given several times. -: driven from outside, one line a second of
    /// `offset_seconds,arrivals,waiting,served,pods_ready,pods_starting`
    #[arg(long, value_name = "FILE", required = true)]
    trace: Vec<PathBuf>,

    /// Width of a bin; default: the commonest distance of two lines
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    bin: Option<Duration>,

    /// Scales each trace to this mean over all observed bins, requests a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    mean_rps: Option<f64>,

    /// Requests that a pod serves a second; once, or once for each trace
    #[arg(long, value_name = "RATE", required = true, value_parser = rate)]
    pod_rps: Vec<f64>,

    /// From asking for a pod to its first request
    #[arg(long, value_name = "TIME", required = true, value_parser = parse_duration)]
    cold_start: Option<Duration>,

    /// The longest that a request may wait to be started
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    slo: Duration,

    /// The fewest pods
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = pods())]
    min: u32,

    /// The most pods
    #[arg(long, value_name = "NUMBER", value_parser = pods())]
    max: u32,

    /// Played and not scored, from the trace's start; once, or once for each trace
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    warmup: Vec<Duration>,

    /// Repeats the arrivals that are drawn for bins longer than a second
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Takes parts of sidescale away, to see what each earns
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    without: Vec<Part>,
}

/// What may be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every way to look ahead
    Forecast,
    /// Days, weeks and other periods
    Seasons,
    /// The forecaster's quantiles
    Quantiles,
    /// Their correction by their own record
    Calibration,
    /// Following what would have cost least
    Tuning,
}

// === impl Simulate ===

impl Simulate {
    pub(super) fn start(self) -> Result<(), Failure> {
        if let Some(cases) = &self.cases {
            return self.play_cases(cases);
        }
        let jobs = self.world.jobs()?;
        let is_dash = |path: &Path| path == Path::new("-");
        let answers = self.decisions.as_deref().is_some_and(is_dash);
        match &jobs[..] {
            [job]
                if is_dash(&job.file) && answers && self.json.is_none() && self.html.is_none() =>
            {
                return drive(&job.settings);
            }
            jobs if answers || jobs.iter().any(|job| is_dash(&job.file)) => {
                return input(
                    "`--trace -` and `--decisions -` go together, with no other trace and neither --json nor --html",
                );
            }
            jobs if self.decisions.is_some() && jobs.len() > 1 => {
                return input("--decisions holds the decisions on one trace; give one --trace");
            }
            _ => {}
        }
        let contestants = self.contestants()?;
        if self.decisions.is_some() && !contestants.iter().any(|it| it.name == "sidescale") {
            return input("--decisions writes sidescale's decisions; add sidescale to --policies");
        }
        let mut bar = Bar::new();
        let speak = |progress| bar.show(progress);
        let played = simulate::simulate(&jobs, &contestants, std::convert::identity, speak);
        bar.clear();
        let outcomes = played.map_err(|error| Failure::Input(error.into()))?;
        self.write(&outcomes)
    }

    fn contestants(&self) -> Result<Vec<Contestant>, Failure> {
        let bounds = (self.world.min, self.world.max);
        read_contestants(&self.policies, bounds, Settings::default().zero)
            .context("--policies")
            .map_err(Failure::Input)
    }

    fn write(&self, outcomes: &[Outcome]) -> Result<(), Failure> {
        let scores: Vec<Score> = outcomes.iter().flat_map(|it| it.scores.clone()).collect();
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(&scores)
                .map_err(|error| Failure::Other(error.into()))?;
            write_whole("--json", path, &(json + "\n"))?;
        }
        if let (Some(path), [outcome]) = (&self.decisions, outcomes) {
            let lines = outcome.decisions.iter();
            let lines: Vec<String> = lines
                .map(|(at, desired)| format!("{at},{desired}\n"))
                .collect();
            let text = format!("offset_seconds,desired\n{}", lines.concat());
            write_whole("--decisions", path, &text)?;
        }
        if let Some(path) = &self.html {
            write_whole("--html", path, &simulate::page(outcomes))?;
        }
        print(&simulate::table(&scores))
    }
}

// === impl Explain ===

impl Explain {
    pub(super) fn start(self) -> Result<(), Failure> {
        let jobs = self.world.jobs()?;
        let [job] = &jobs[..] else {
            return input("explain looks at one decision; give one --trace");
        };
        let job = Job {
            // Nothing is scored here.
            settings: Settings {
                warmup: Duration::ZERO,
                ..job.settings
            },
            ..job.clone()
        };
        let explained = simulate::explain(&job, self.at.as_secs());
        match explained.map_err(|error| Failure::Input(error.into()))? {
            Some(explanation) => print(&explanation.to_string()),
            None => input(&format!(
                "--at {}: {} has no observed second there",
                self.at.as_secs(),
                job.file.display()
            )),
        }
    }
}

// === impl World ===

impl World {
    fn jobs(&self) -> Result<Vec<Job>, Failure> {
        self.check_bounds()?;
        each("--pod-rps", self.pod_rps.len(), self.trace.len())?;
        each("--warmup", self.warmup.len(), self.trace.len())?;
        let cold_start = self.cold_start.unwrap_or_default();
        let jobs = self.trace.iter().zip(self.pod_rps.iter().cycle());
        let jobs = jobs.zip(self.warmup.iter().cycle());
        Ok(jobs
            .map(|((file, &pod_rps), &warmup)| Job {
                file: file.clone(),
                bin: self.bin,
                settings: self.settings(pod_rps, cold_start, warmup),
            })
            .collect())
    }

    fn check_bounds(&self) -> Result<(), Failure> {
        if self.min > self.max {
            return input(&format!("--min {} is above --max {}", self.min, self.max));
        }
        Ok(())
    }

    fn parts(&self) -> Parts {
        let has = |part| !self.without.contains(&part);
        Parts {
            forecast: has(Part::Forecast),
            seasons: has(Part::Seasons),
            quantiles: has(Part::Quantiles),
            calibration: has(Part::Calibration),
            tuning: has(Part::Tuning),
        }
    }

    fn settings(&self, pod_rps: f64, cold_start: Duration, warmup: Duration) -> Settings {
        Settings {
            pod_rps,
            cold_start,
            slo: self.slo,
            bounds: (self.min, self.max),
            warmup,
            mean_rps: self.mean_rps,
            seed: self.seed,
            parts: self.parts(),
            ..Settings::default()
        }
    }
}

fn drive(settings: &Settings) -> Result<(), Failure> {
    let output = BufWriter::new(std::io::stdout().lock());
    simulate::drive(std::io::stdin().lock(), output, settings).map_err(|error| match error {
        DriveError::Line { .. } => Failure::Input(error.into()),
        DriveError::Read(_) | DriveError::Write(_) => Failure::Other(error.into()),
    })
}

fn pods() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MOST_PODS))
}
