//! Several traces and several policies, on as many threads as there are cores.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::contestant::{Contestant, Kind};
use super::leader::Leader;
use super::ledger::{Ledger, Sketch};
use super::play::{Played, Player, play};
use super::score::Score;
use super::timeline::{LONGEST, Timeline};
use super::trace::{Trace, TraceError};
use super::{Settings, clairvoyant};
use crate::baseline::Actor;
use crate::units::Shown;

/// How often somebody who waits hears how far it is.
const SPOKEN: Duration = Duration::from_millis(200);

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

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Traces that are done.
    pub done: usize,
    /// Of so many.
    pub traces: usize,
    /// The share of all seconds that were played, 0 to 1.
    pub share: f64,
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
    #[error("{file}: its {} are over before the --warmup of {} is", Shown(*.length), Shown(*.warmup))]
    Warmup {
        /// The file.
        file: String,
        /// The trace's length.
        length: Duration,
        /// The warm-up.
        warmup: Duration,
    },
}

/// Plays every policy on every trace; nothing is played when any trace is wrong. `speak` is told how far it is, on the
/// caller's thread.
pub fn simulate(
    jobs: &[Job],
    contestants: &[Contestant],
    mut speak: impl FnMut(Progress),
) -> Result<Vec<Outcome>, SimulateError> {
    let timelines = jobs
        .iter()
        .map(Job::timeline)
        .collect::<Result<Vec<_>, _>>()?;
    let seconds: usize = timelines.iter().map(Timeline::len).sum();
    let total = (seconds * contestants.len().max(1)).max(1) as f64;
    let progress = AtomicU64::new(0);
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let timelines: Vec<Mutex<Option<Timeline>>> = timelines
        .into_iter()
        .map(|it| Mutex::new(Some(it)))
        .collect();
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        for _thread in 0..threads.min(jobs.len()) {
            let ended = ended.clone();
            let (next, timelines, outcomes, progress) = (&next, &timelines, &outcomes, &progress);
            scope.spawn(move || {
                // Held until the thread ends, however it ends.
                let _ended = ended;
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(job), Some(timeline)) = (jobs.get(index), timelines.get(index))
                    else {
                        return;
                    };
                    let Some(timeline) = timeline.lock().ok().and_then(|mut it| it.take()) else {
                        return;
                    };
                    let outcome = job.play(timeline, contestants, progress);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push((index, outcome));
                    }
                }
            });
        }
        drop(ended);
        while end.recv_timeout(SPOKEN) == Err(mpsc::RecvTimeoutError::Timeout) {
            speak(Progress {
                done: outcomes.lock().map_or(0, |outcomes| outcomes.len()),
                traces: jobs.len(),
                share: progress.load(Ordering::Relaxed) as f64 / total,
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by_key(|(index, _outcome)| *index);
    Ok(outcomes
        .into_iter()
        .map(|(_index, outcome)| outcome)
        .collect())
}

// === impl Job ===

impl Job {
    /// Reads the trace and draws its seconds.
    pub fn timeline(&self) -> Result<Timeline, SimulateError> {
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
        let mut rng = StdRng::seed_from_u64(self.settings.seed);
        Ok(Timeline::draw(&trace, factor, &mut rng))
    }

    fn play(
        &self,
        timeline: Timeline,
        contestants: &[Contestant],
        progress: &AtomicU64,
    ) -> Outcome {
        let settings = self.settings;
        let trace = self
            .file
            .file_stem()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
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
