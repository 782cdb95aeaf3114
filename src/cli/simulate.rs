//! `sidescale simulate` and `sidescale explain`.

use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::Failure;
use crate::simulate::{
    self, DriveError, Job, MOST_PODS, Outcome, Progress, Score, Settings, read_contestants,
};
use crate::units::parse_duration;

/// What is simulated where nobody said: the two that people use, beside sidescale and the best there could be.
const POLICIES: &str = "sidescale,hpa:70,kpa:70,clairvoyant";

/// What may stand in the list; its brackets would be links in a doc comment.
const POLICIES_HELP: &str = "Who acts: sidescale, hpa:PERCENT, kpa:PERCENT, keda:PERCENT[:polling=TIME][:cooldown=TIME][:min=N][:cached], \
     cron:[DAYS@]HHMM-HHMM=MIN[..MAX][+...][:hpa=PERCENT], fixed:N, clairvoyant";

/// Replays traces through the production turn and the baselines.
#[derive(Args, Debug)]
pub(super) struct Simulate {
    #[command(flatten)]
    world: World,

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
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    cold_start: Duration,

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
}

// === impl Simulate ===

impl Simulate {
    pub(super) fn start(self) -> Result<(), Failure> {
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
        let settings = &jobs[0].settings;
        let contestants = read_contestants(&self.policies, settings.bounds, settings.zero)
            .context("--policies")
            .map_err(Failure::Input)?;
        if self.decisions.is_some() && !contestants.iter().any(|it| it.name == "sidescale") {
            return input("--decisions writes sidescale's decisions; add sidescale to --policies");
        }
        let mut bar = Bar::new();
        let played = simulate::simulate(&jobs, &contestants, |progress| bar.show(progress));
        bar.clear();
        let outcomes = played.map_err(|error| Failure::Input(error.into()))?;
        self.write(&outcomes)
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
        if self.min > self.max {
            return input(&format!("--min {} is above --max {}", self.min, self.max));
        }
        let each = |flag: &str, count: usize| {
            if count == 1 || count == self.trace.len() {
                return Ok(());
            }
            let traces = self.trace.len();
            input(&format!(
                "{flag} is given {count} times for {traces} traces; give it once, or once for each"
            ))
        };
        each("--pod-rps", self.pod_rps.len())?;
        each("--warmup", self.warmup.len())?;
        let jobs = self.trace.iter().zip(self.pod_rps.iter().cycle());
        let jobs = jobs.zip(self.warmup.iter().cycle());
        Ok(jobs
            .map(|((file, &pod_rps), &warmup)| Job {
                file: file.clone(),
                bin: self.bin,
                settings: Settings {
                    pod_rps,
                    cold_start: self.cold_start,
                    slo: self.slo,
                    bounds: (self.min, self.max),
                    warmup,
                    mean_rps: self.mean_rps,
                    seed: self.seed,
                    ..Settings::default()
                },
            })
            .collect())
    }
}

/// How far it is, in one line of a terminal; nothing where nobody looks.
#[derive(Debug)]
struct Bar {
    is_shown: bool,
    width: usize,
}

// === impl Bar ===

impl Bar {
    fn new() -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
            width: 0,
        }
    }

    fn show(&mut self, progress: Progress) {
        const CELLS: usize = 30;
        let Progress {
            done,
            traces,
            share,
        } = progress;
        let percent = (100.0 * share).min(100.0);
        let filled = (0..CELLS)
            .filter(|cell| (*cell as f64) < share * CELLS as f64)
            .count();
        let bar = "#".repeat(filled) + &".".repeat(CELLS - filled);
        self.draw(&format!(
            "[{bar}] {percent:3.0} %, {done} of {traces} traces"
        ));
    }

    fn clear(&mut self) {
        let blank = " ".repeat(self.width);
        self.draw(&blank);
        self.draw("");
    }

    fn draw(&mut self, line: &str) {
        if self.is_shown {
            self.width = line.len();
            let mut stderr = std::io::stderr();
            // A bar that cannot be drawn is not worth failing for.
            drop(write!(stderr, "\r{line}\r").and_then(|()| stderr.flush()));
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

/// Writes a file as a whole or not at all.
fn write_whole(flag: &str, path: &Path, text: &str) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // What is half-written must not stay; that it cannot be removed either is not the news.
        drop(std::fs::remove_file(&beside));
    }
    written
        .with_context(|| format!("cannot write {flag} {}", path.display()))
        .map_err(Failure::Other)
}

fn print(text: &str) -> Result<(), Failure> {
    write!(std::io::stdout(), "{text}").map_err(|error| Failure::Other(error.into()))
}

fn input<T>(text: &str) -> Result<T, Failure> {
    Err(Failure::Input(anyhow!("{text}")))
}

fn pods() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MOST_PODS))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("not a number of requests a second, above 0 and at most 1e9".to_owned()),
    }
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.subsec_nanos() == 0 && !time.is_zero() => Ok(time),
        Ok(_) => Err("not a whole number of seconds above 0".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
