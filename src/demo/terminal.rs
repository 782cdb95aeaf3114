//! The demo's lines in the terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::clock::Timestamp;

/// Writes a line that replaces itself on a terminal, and one every few seconds elsewhere.
#[derive(Debug)]
pub(super) struct Terminal {
    replaces: bool,
    /// Seconds of life between two lines that stay.
    every: u32,
    passed: u32,
}

/// What a progress line shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Since the start, time of life.
    pub(super) life: Duration,
    /// The demo's wall clock.
    pub(super) now: Timestamp,
    pub(super) arrivals_per_second: f64,
    pub(super) expected: Option<f64>,
    pub(super) desired: u32,
    pub(super) ready: u32,
    pub(super) hpa: Option<u32>,
    pub(super) kpa: Option<u32>,
    pub(super) leader: Option<String>,
    pub(super) late: u64,
    pub(super) late_hpa: u64,
    pub(super) late_kpa: u64,
}

// === impl Terminal ===

impl Terminal {
    pub(super) fn new() -> Self {
        Self {
            replaces: std::io::stderr().is_terminal(),
            every: 5,
            passed: 0,
        }
    }

    /// Something that stays.
    pub(super) fn say(&self, text: &str) {
        let clear = if self.replaces { "\r\x1b[2K" } else { "" };
        write(&format!("{clear}{text}\n"));
    }

    /// A second of life has passed.
    pub(super) fn progress(&mut self, progress: &Progress) {
        self.passed += 1;
        if self.replaces {
            write(&format!("\r\x1b[2K{progress}"));
        } else if self.passed % self.every == 1 {
            write(&format!("{progress}\n"));
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let second = self.now.as_secs().rem_euclid(86_400);
        let expected = self
            .expected
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        let shadow = |replicas: Option<u32>| {
            replicas.map_or_else(|| "-".to_owned(), |replicas| replicas.to_string())
        };
        write!(
            f,
            "{:>3} s  {:02}:{:02}  load {:>3.0}/s (expected {expected:>3})  pods {:>2} ready of {:>2} asked (HPA {}, KPA {})  \
             leader {}  late {} (HPA {}, KPA {})",
            self.life.as_secs(),
            second / 3_600,
            second / 60 % 60,
            self.arrivals_per_second,
            self.ready,
            self.desired,
            shadow(self.hpa),
            shadow(self.kpa),
            self.leader.as_deref().unwrap_or("none"),
            self.late,
            self.late_hpa,
            self.late_kpa,
        )
    }
}

fn write(text: &str) {
    // Nothing is left to do when the terminal has gone.
    let mut out = std::io::stderr().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
