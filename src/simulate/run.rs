//! Several traces and several policies.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::contestant::{Contestant, Kind};
use super::cores::{Progress, on_all_cores};
use super::foresight::Foresight;
use super::leader::Leader;
use super::ledger::{Ledger, Sketch};
use super::play::{Played, Player, play};
use super::score::Score;
use super::timeline::{LONGEST, Timeline};
use super::trace::{Trace, TraceError};
use super::{Settings, clairvoyant};
use crate::baseline::Actor;
use crate::units::Shown;

/// A trace to be played.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its file.
    pub file: PathBuf,
    /// How wide its bins are, where somebody said so.
    pub bin: Option<Duration>,
    /// The world it is played in.
    pub settings: Settings,
}

/// One trace, played.
#[derive(Debug)]
pub struct Outcome {
    /// The file's name without its ending.
    pub trace: String,
    /// Each policy, in the order they were given.
    pub scores: Vec<Score>,
    /// The offsets at which sidescale asked for another number of replicas, and the number; the first is one.
    pub decisions: Vec<(u64, u32)>,
    pub(super) settings: Settings,
    pub(super) timeline: Timeline,
    /// Each policy's picture, in the order of the scores.
    pub(super) sketches: Vec<Sketch>,
}

/// A trace that was read and found good.
#[derive(Clone, Debug)]
pub struct Scaled {
    trace: Trace,
    factor: f64,
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A trace is wrong.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// There is nothing to scale.
    #[error("{file}: all bins are zero, so they cannot be scaled to --mean-rps (leave it out)")]
    Empty {
        /// The file.
        file: String,
    },
    /// An offset is far off.
    #[error(
        "{file}: from offset {from} s to {to} s are more than {} (is an offset mistyped?)",
        Shown(LONGEST)
    )]
    Long {
        /// The file.
        file: String,
        /// The first bin's start.
        from: u64,
        /// The last bin's end.
        to: u64,
    },
    /// Nothing is left to score.
    #[error("{file}: its {} are over before its warm-up of {} is", Shown(*.length), Shown(*.warmup))]
    Warmup {
        /// The file.
        file: String,
        /// The trace's length.
        length: Duration,
        /// The warm-up.
        warmup: Duration,
    },
}

/// Plays every policy on every trace; nothing is played when any trace is wrong. `keep` takes what is wanted of an
/// outcome, on the thread that played it: a timeline is tens of megabytes. `speak` is told how far it is, on the caller's
/// thread.
pub fn simulate<T: Send>(
    jobs: &[Job],
    contestants: &[Contestant],
    keep: impl Fn(Outcome) -> T + Sync,
    speak: impl FnMut(Progress),
) -> Result<Vec<T>, SimulateError> {
    let read = jobs.iter().map(Job::read).collect::<Result<Vec<_>, _>>()?;
    let seconds: u64 = read.iter().map(Scaled::seconds).sum();
    let total = seconds * contestants.len() as u64;
    let work = |index: usize, progress: &AtomicU64| {
        let (job, scaled): (&Job, &Scaled) = (&jobs[index], &read[index]);
        keep(job.play(scaled.draw(job.settings.seed), contestants, progress))
    };
    Ok(on_all_cores(jobs.len(), total, work, speak))
}

// === impl Job ===

impl Job {
    /// Reads the trace and draws its seconds.
    pub fn timeline(&self) -> Result<Timeline, SimulateError> {
        Ok(self.read()?.draw(self.settings.seed))
    }

    /// The trace's name: its file's, without the ending.
    pub fn trace(&self) -> String {
        let name = self.file.file_stem();
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Reads the trace, and finds it long enough for its warm-up.
    pub fn read(&self) -> Result<Scaled, SimulateError> {
        let file = || self.file.display().to_string();
        let trace = Trace::load_with_bin(&self.file, self.bin)?;
        let length = trace.end().saturating_sub(trace.start());
        if length > LONGEST {
            return Err(SimulateError::Long {
                file: file(),
                from: trace.start().as_secs(),
                to: trace.end().as_secs(),
            });
        }
        if length <= self.settings.warmup {
            return Err(SimulateError::Warmup {
                file: file(),
                length,
                warmup: self.settings.warmup,
            });
        }
        let factor = match self.settings.mean_rps {
            None => 1.0,
            Some(wanted) => {
                let factor = wanted / trace.mean_rate();
                if !factor.is_finite() {
                    return Err(SimulateError::Empty { file: file() });
                }
                factor
            }
        };
        Ok(Scaled { trace, factor })
    }

    fn play(
        &self,
        timeline: Timeline,
        contestants: &[Contestant],
        progress: &AtomicU64,
    ) -> Outcome {
        let settings = self.settings;
        let trace = self.trace();
        let best = clairvoyant::play(&timeline, &settings);
        let mut decisions = Vec::new();
        let mut scores = Vec::new();
        let mut sketches = Vec::new();
        let mut score = |name: &str, ledger: Ledger| {
            scores.push(Score::new(&trace, name, &ledger, &best));
            sketches.push(ledger.sketch);
        };
        for contestant in contestants {
            let mut player = match &contestant.kind {
                Kind::Clairvoyant => {
                    progress.fetch_add(timeline.len() as u64, Ordering::Relaxed);
                    score(&contestant.name, best.clone());
                    continue;
                }
                Kind::Sidescale => Player::Sidescale(Box::new(Leader::new(&settings))),
                Kind::Foresight(target) => {
                    Player::Foresight(Foresight::new(&timeline, &settings, *target))
                }
                Kind::Rule(rule) => {
                    Player::Rule(Box::new(Actor::new(rule.clone(), settings.bounds)))
                }
            };
            let Played {
                ledger,
                decisions: taken,
            } = play(&timeline, &settings, &mut player, progress);
            if contestant.kind == Kind::Sidescale {
                decisions = taken;
            }
            score(&contestant.name, ledger);
        }
        Outcome {
            trace,
            scores,
            decisions,
            settings,
            timeline,
            sketches,
        }
    }
}

// === impl Scaled ===

impl Scaled {
    /// How long it is, in seconds.
    pub fn seconds(&self) -> u64 {
        self.trace
            .end()
            .saturating_sub(self.trace.start())
            .as_secs()
    }

    /// Draws its seconds.
    pub fn draw(&self, seed: u64) -> Timeline {
        Timeline::draw(&self.trace, self.factor, &mut StdRng::seed_from_u64(seed))
    }
}
