//! `sidescale run` and `sidescale gpu`.

use std::io::Write as _;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tracing::{info, warn};

use super::words::Signals;
use super::{Failure, entropy};
use crate::app::{Connector, Sidecar, check_policy};
use crate::cgroup::{self, CpuGroup};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Given};
use crate::gpu;
use crate::lifecycle::Tasks;
use crate::memory;
use crate::proxy::TrafficThread;

/// The sidecar.
#[derive(Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    given: Given,

    /// Checks flags and policy (with --no-cluster there is none), prints what was understood, and ends
    #[arg(long)]
    check: bool,
}

/// What NVML shows here.
#[derive(Args, Debug)]
pub(super) struct Gpu {
    /// GPUs by index or UUID, comma-separated; default: all that are visible
    #[arg(
        long,
        env = "SIDESCALE_GPU_DEVICES",
        value_name = "LIST",
        value_delimiter = ','
    )]
    devices: Vec<String>,
}

// === impl Run ===

impl Run {
    pub(super) fn start(self) -> Result<(), Failure> {
        let config = self.given.into_config().map_err(|wrong| refused(&wrong))?;
        let runtime = super::control_runtime()?;
        if self.check {
            return runtime.block_on(check(&config));
        }
        info!(?config, "sidescale {}", env!("CARGO_PKG_VERSION"));
        if let Some(cores) = CpuGroup::of_this_process().and_then(|group| group.limit()) {
            warn!(
                "this container has a CPU limit of {cores} cores: whenever it is used up the kernel stops all of sidescale, \
                 the requests it carries included, for up to a tenth of a second; set a CPU request and no limit, as \
                 sidecar.yaml does, and watch sidescale_cpu_throttled_seconds_total"
            );
        }
        if let Some(limit) = config.memory_limit.or_else(cgroup::memory_limit) {
            memory::heed(limit);
            info!(
                mib = limit >> 20,
                "this container has a memory limit: near it, clients that make sidescale hold much are cut off"
            );
        }
        // The traffic half has a thread of its own: whatever the control half does, requests do not wait for it.
        let traffic = TrafficThread::start()
            .context("cannot start the traffic thread")
            .map_err(Failure::Other)?;
        runtime.block_on(until_told(config, traffic.tasks().clone()))
    }
}

/// Everything that is wrong with what was typed, below each other.
pub(super) fn refused(wrong: &[ConfigError]) -> Failure {
    let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    Failure::Input(anyhow!("{}", lines.join("\n           ")))
}

/// Runs until a signal, and then for as long as the drain takes. What it carries, it carries in `traffic`.
pub(super) async fn until_told(config: Config, traffic: Tasks) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let sidecar = Sidecar {
        accounts: None,
        connector: config.cluster.clone().map(Connector::Configured),
        config,
        clock: Clock::real(),
        seed: entropy()?,
        traffic,
        control: tokio::runtime::Handle::current(),
    };
    let running = sidecar
        .start()
        .map_err(|error| Failure::Input(error.into()))?;
    info!(listen = ?running.routes(), admin = %running.admin(), "running");
    signals.heard().await;
    info!("asked to end: draining");
    tokio::select! {
        () = running.drain() => info!("drained"),
        // Whoever asks twice means it.
        () = signals.heard() => {}
    }
    Ok(())
}

async fn check(config: &Config) -> Result<(), Failure> {
    let flags = format!("# flags and variables\n# {config:?}\n");
    // Where `run` reads none, a missing or a wrong one stops nothing.
    if config.cluster.is_none() {
        return print(&format!("{flags}# no policy is read with --no-cluster"));
    }
    let policy = check_policy(&config.policy)
        .await
        .map_err(|error| Failure::Input(error.into()))?;
    print(&format!(
        "{flags}# policy {}\n{}",
        config.policy.display(),
        policy.to_yaml()
    ))
}

// === impl Gpu ===

impl Gpu {
    pub(super) fn start(self) -> Result<(), Failure> {
        let devices = self.devices.iter().map(|name| name.parse());
        let devices: Vec<gpu::Selector> = devices
            .collect::<Result<_, gpu::NotADevice>>()
            .map_err(|error| Failure::Input(error.into()))?;
        let settings = gpu::Settings {
            devices: (!devices.is_empty()).then_some(devices),
            ..gpu::Settings::default()
        };
        let listing = gpu::describe(&settings).map_err(|error| Failure::Other(error.into()))?;
        print(&listing.to_string())
    }
}

/// Prints the answer of a command.
fn print(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}").map_err(|error| Failure::Other(error.into()))
}
