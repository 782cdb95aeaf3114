//! The command line: what was typed becomes a call, an error becomes a message and an exit code.

mod backtest;
mod bar;
mod demo;
mod inject;
mod lead;
mod place;
mod run;
mod simulate;
mod upgrade;
mod webhook;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry;

/// Bad input on the command line or in a file it names (`EX_USAGE` of sysexits).
const BAD_INPUT: u8 = 64;

/// A forecasting sidecar that scales GPU inference Deployments ahead of their load
#[derive(Parser, Debug)]
#[command(name = "sidescale", version, max_term_width = 110)]
struct Line {
    #[command(subcommand)]
    command: Command,

    /// What to log: a level, or filters such as sidescale=debug,kube=warn [default: info; of the demo: warn]
    #[arg(long, global = true, env = "SIDESCALE_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The sidecar: carries requests, measures, elects, forecasts and scales
    Run(Box<run::Run>),
    /// The same without a server, on CPU: leads the sidecars, and no scale-down ever takes it
    Lead(Box<lead::Lead>),
    /// A whole fleet on this machine: real proxies, election and scaling against an embedded cluster
    Demo(demo::Demo),
    /// The demo's model server: imitates a GPU server with continuous batching and a cold start
    Model(demo::Model),
    /// The demo's client: plays a trace against an address
    Load(demo::Load),
    /// Adds the sidecar to manifests
    Inject(inject::Inject),
    /// Takes it out again
    Uninject(inject::Uninject),
    /// Gives running pods a new sidecar, and their model servers go on
    Upgrade(upgrade::Upgrade),
    /// Adds the sidecar to pods at their admission
    Webhook(webhook::Webhook),
    /// Replays traces in simulated time through the production turn and the baselines
    Simulate(simulate::Simulate),
    /// The reasons of one simulated decision
    Explain(simulate::Explain),
    /// How good the forecast is on measured traces, beside simpler ones
    Backtest(backtest::Backtest),
    /// Shows what NVML shows here
    Gpu(run::Gpu),
}

/// What ends a command early.
#[derive(Debug)]
enum Failure {
    /// Bad input: exit code 64.
    Input(anyhow::Error),
    /// Anything else: exit code 1.
    Other(anyhow::Error),
}

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let code = if error.use_stderr() {
                ExitCode::from(BAD_INPUT)
            } else {
                ExitCode::SUCCESS
            };
            // Nothing is left to do when the terminal has gone.
            drop(error.print());
            return code;
        }
    };
    let done = init(&line).and_then(|()| match line.command {
        Command::Run(run) => run.start(),
        Command::Lead(lead) => lead.start(),
        Command::Demo(demo) => demo.start(),
        Command::Model(model) => model.start(),
        Command::Load(load) => load.start(),
        Command::Inject(inject) => inject.start(),
        Command::Uninject(uninject) => uninject.start(),
        Command::Upgrade(upgrade) => upgrade.start(),
        Command::Webhook(webhook) => webhook.start(),
        Command::Simulate(simulate) => simulate.start(),
        Command::Explain(explain) => explain.start(),
        Command::Backtest(backtest) => backtest.start(),
        Command::Gpu(gpu) => gpu.start(),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => report(&error, BAD_INPUT),
        Err(Failure::Other(error)) => report(&error, 1),
    }
}

fn init(line: &Line) -> Result<(), Failure> {
    // kube and rustls would otherwise have to guess which provider was meant.
    drop(rustls::crypto::ring::default_provider().install_default());
    // A whole fleet in one process would write over the command's own lines.
    let quiet = matches!(
        line.command,
        Command::Demo(_) | Command::Simulate(_) | Command::Explain(_) | Command::Backtest(_)
    );
    let default = if quiet { "warn" } else { "info" };
    telemetry::init_logs(line.log.as_deref().unwrap_or(default))
        .map_err(|error| Failure::Input(anyhow::Error::new(error).context("--log")))
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where an error meets its reader"
)]
fn report(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("sidescale: {error:#}");
    ExitCode::from(code)
}

/// A seed that nobody can guess, for tokens and identities.
fn entropy() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(
        |_unspecified| Failure::Other(anyhow::anyhow!("the system gives no random numbers")),
    )?;
    Ok(u64::from_le_bytes(bytes))
}

/// The runtime of a command, and of the control half: one thread is enough for both.
fn control_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::Other(anyhow::Error::new(error).context("cannot start a runtime"))
        })
}
