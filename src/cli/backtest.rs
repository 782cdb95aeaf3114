//! `sidescale backtest`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::bar::Bar;
use super::words::{each, print, rate, whole_seconds, write_whole};
use crate::backtest::{self, Report, table};
use crate::simulate::{Job, Settings};
use crate::units::parse_duration;

/// How good the forecast is on measured traces.
#[derive(Args, Debug)]
pub(super) struct Backtest {
    /// `offset_seconds,requests`, measured; may be given several times
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    trace: Vec<PathBuf>,

    /// Width of a bin; default: the commonest distance of two lines
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    bin: Option<Duration>,

    /// Scales each trace to this mean over all observed bins, requests a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    mean_rps: Option<f64>,

    /// Learnt from and not scored, from the trace's start; once, or once for each trace
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    warmup: Vec<Duration>,

    /// How long before its end each minute is forecast; whole minutes up to an hour
    #[arg(
        long,
        value_name = "LIST",
        default_value = "2m,5m,10m",
        value_delimiter = ',',
        value_parser = minutes
    )]
    horizon: Vec<usize>,

    /// Repeats the arrivals that are drawn for bins longer than a second
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Writes the one-minute means that were forecast as `trace,offset_seconds,rate`, for other tools to forecast
    #[arg(long, value_name = "FILE")]
    minutes: Option<PathBuf>,
}

// === impl Backtest ===

impl Backtest {
    pub(super) fn start(self) -> Result<(), Failure> {
        each("--warmup", self.warmup.len(), self.trace.len())?;
        let traces = self.trace.iter().zip(self.warmup.iter().cycle());
        let jobs: Vec<Job> = traces
            .map(|(file, &warmup)| Job {
                file: file.clone(),
                bin: self.bin,
                settings: Settings {
                    warmup,
                    mean_rps: self.mean_rps,
                    seed: self.seed,
                    ..Settings::default()
                },
            })
            .collect();
        let mut bar = Bar::new();
        let played = backtest::backtest(&jobs, &self.horizon, |progress| bar.show(progress));
        bar.clear();
        let played = played.map_err(|error| Failure::Input(error.into()))?;
        let reports: Vec<Report> = played.iter().flat_map(|it| it.reports.clone()).collect();
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(&reports)
                .map_err(|error| Failure::Other(error.into()))?;
            write_whole("--json", path, &(json + "\n"))?;
        }
        if let Some(path) = &self.minutes {
            let traces = jobs.iter().map(Job::trace).zip(&played);
            let lines = traces.flat_map(|(trace, it)| {
                let lines = it.minutes.iter();
                lines.map(move |(offset, rate)| format!("{trace},{offset},{rate}\n"))
            });
            let text = format!("trace,offset_seconds,rate\n{}", lines.collect::<String>());
            write_whole("--minutes", path, &text)?;
        }
        print(&table(&reports))
    }
}

fn minutes(text: &str) -> Result<usize, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    let whole = time.subsec_nanos() == 0 && time.as_secs().is_multiple_of(60);
    usize::try_from(time.as_secs() / 60)
        .ok()
        .filter(|minutes| whole && (1..=60).contains(minutes))
        .ok_or_else(|| "not a whole number of minutes from 1m to 1h".to_owned())
}
