//! What the commands that measure have in common: words of the command line, and what they write.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::units::parse_duration;

/// SIGTERM and SIGINT, which both ask a process to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Signals ===

impl Signals {
    /// From now on they are heard here and end nothing by themselves.
    pub(super) fn new() -> Result<Self, Failure> {
        let other = |error: std::io::Error| Failure::Other(error.into());
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(other)?,
            interrupt: signal(SignalKind::interrupt()).map_err(other)?,
        })
    }

    /// The next one of either.
    pub(super) async fn heard(&mut self) {
        tokio::select! {
            _signal = self.terminate.recv() => {}
            _signal = self.interrupt.recv() => {}
        }
    }
}

/// Writes a file as a whole or not at all.
pub(super) fn write_whole(flag: &str, path: &Path, text: &str) -> Result<(), Failure> {
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

pub(super) fn print(text: &str) -> Result<(), Failure> {
    write!(std::io::stdout(), "{text}").map_err(|error| Failure::Other(error.into()))
}

pub(super) fn input<T>(text: &str) -> Result<T, Failure> {
    Err(Failure::Input(anyhow!("{text}")))
}

/// What is given for all traces, or for each.
pub(super) fn each(flag: &str, count: usize, traces: usize) -> Result<(), Failure> {
    if count == 1 || count == traces {
        return Ok(());
    }
    input(&format!(
        "{flag} is given {count} times for {traces} traces; give it once, or once for each"
    ))
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("not a number of requests a second, above 0 and at most 1e9".to_owned()),
    }
}

pub(super) fn whole_seconds(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.subsec_nanos() == 0 && !time.is_zero() => Ok(time),
        Ok(_) => Err("not a whole number of seconds above 0".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
