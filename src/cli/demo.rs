//! `sidescale demo`, and the demo's server and client as commands of their own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::words::Signals;
use super::{Failure, control_runtime};
use crate::clock::{Clock, Timestamp};
use crate::demo::arrivals::{Trace, servegen};
use crate::demo::{self, load, model};
use crate::policy;
use crate::units::parse_duration;

/// A whole fleet on this machine.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// How many seconds of the demo pass in one of life
    #[arg(long, value_name = "TIMES", default_value_t = 20.0, value_parser = speed)]
    speed: f64,

    /// How long it goes on, in time of life; default: until it is interrupted, headless 90s
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    length: Option<Duration>,

    /// No page
    #[arg(long)]
    headless: bool,

    /// Writes what it came to as JSON
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,

    /// Opens the page in the browser
    #[arg(long, conflicts_with = "headless")]
    open: bool,

    /// Where the page is; port 0 is a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    page: SocketAddr,

    /// Who may act, as in the policy
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,

    /// A trace of your own: `offset_seconds,requests`, several days long
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Where in the trace the demo begins; what is before it is history
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    from: Option<Duration>,

    /// Repeats a run's arrivals, names and lengths
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Observe,
    Auto,
    #[value(name = "scaleUpOnly")]
    ScaleUpOnly,
    Proactive,
    Reactive,
}

/// A model server that imitates a GPU server.
#[derive(Args, Debug)]
pub(super) struct Model {
    /// Where it listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,

    /// Sequences that run together
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,

    /// From its start until it listens
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_duration)]
    cold_start: Duration,

    /// For each token after the first, of a sequence that runs alone
    #[arg(long, value_name = "TIME", default_value = "23ms", value_parser = parse_duration)]
    time_per_token: Duration,

    /// Writes that a streamed answer is sent in: each costs a timer
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pieces: u32,
}

/// Plays a trace against an address.
#[derive(Args, Debug)]
pub(super) struct Load {
    /// Where the requests go: host:port
    #[arg(long, value_name = "TARGET")]
    to: String,

    /// `offset_seconds,requests`; default: the built-in trace
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Where in the trace to begin
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    from: Duration,

    /// How many seconds of the trace pass in one of life; requests a second stay the trace's
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = speed)]
    speed: f64,

    /// The highest rate, requests a second: the trace is scaled to it
    #[arg(long, value_name = "RATE", default_value_t = 30.0, value_parser = speed)]
    peak_rps: f64,

    /// Repeats a run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

// === impl Demo ===

impl Demo {
    pub(super) fn start(self) -> Result<(), Failure> {
        let trace = self.trace.as_deref().map(read_trace).transpose()?;
        let length = self.length.or(self.headless.then_some(demo::HEADLESS));
        let settings = demo::Settings {
            speed: self.speed,
            length,
            page: (!self.headless).then_some(self.page),
            open: self.open,
            mode: self.mode.into(),
            begin: self.from.unwrap_or(match trace {
                // Three quarters of it as history, the rest to play.
                Some(ref trace) => trace.end().mul_f64(0.75),
                None => demo::BEGIN,
            }),
            trace: trace.unwrap_or_else(servegen),
            seed: self.seed,
        };
        let summary = demo::run(settings).map_err(|error| match error {
            demo::Error::Input(_) => Failure::Input(error.into()),
            demo::Error::Failed { .. } => Failure::Other(error.into()),
        })?;
        writeln!(std::io::stdout(), "{summary}").map_err(|error| Failure::Other(error.into()))?;
        if let Some(path) = self.summary {
            let json = serde_json::to_vec_pretty(&summary)
                .map_err(|error| Failure::Other(error.into()))?;
            std::fs::write(&path, json)
                .with_context(|| format!("cannot write --summary {}", path.display()))
                .map_err(Failure::Other)?;
        }
        Ok(())
    }
}

impl From<Mode> for policy::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Observe => Self::Observe,
            Mode::Auto => Self::Auto,
            Mode::ScaleUpOnly => Self::ScaleUpOnly,
            Mode::Proactive => Self::Proactive,
            Mode::Reactive => Self::Reactive,
        }
    }
}

// === impl Model ===

impl Model {
    pub(super) fn start(self) -> Result<(), Failure> {
        control_runtime()?.block_on(async {
            let settings = model::Settings {
                slots: usize::from(self.slots),
                cold_start: self.cold_start,
                time_per_token: self.time_per_token,
                pieces: self.pieces,
                ..model::Settings::default()
            };
            let server = model::ModelServer::bind(self.listen, settings, Clock::real());
            let server = server.map_err(|error| Failure::Input(error.into()))?;
            tracing::info!(address = %server.address(), "loading");
            let stopped = server.run_until(asked_to_stop()).await;
            stopped.map_err(|error| Failure::Other(error.into()))
        })
    }
}

// === impl Load ===

impl Load {
    pub(super) fn start(self) -> Result<(), Failure> {
        let trace = self.trace.as_deref().map(read_trace).transpose()?;
        let trace = trace.unwrap_or_else(servegen);
        let replay = load::Replay {
            target: self.to,
            from: self.from,
            to: trace.end(),
            // A faster clock brings as many times more requests in a second of life: taken back here.
            factor: self.peak_rps / trace.peak_rate() / self.speed,
            trace,
            settings: load::Settings {
                seed: self.seed,
                ..load::Settings::default()
            },
        };
        control_runtime()?.block_on(async {
            let clock = Clock::scaled(Timestamp::default(), self.speed);
            let summary = replay.run(clock, asked_to_stop()).await;
            let summary = summary.map_err(|error| Failure::Input(error.into()))?;
            writeln!(std::io::stdout(), "{summary}").map_err(|error| Failure::Other(error.into()))
        })
    }
}

fn read_trace(path: &std::path::Path) -> Result<Trace, Failure> {
    Trace::load(path).map_err(|error| Failure::Input(error.into()))
}

async fn asked_to_stop() {
    match Signals::new() {
        Ok(mut signals) => signals.heard().await,
        Err(_none) => std::future::pending().await,
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 10_000.0 => Ok(number),
        _ => Err("not a number above 0 and at most 10000".to_owned()),
    }
}
