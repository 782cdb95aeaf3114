//! One policy in its world, from the first second of a trace to the last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Settings;
use super::foresight::Foresight;
use super::leader::{Leader, Observed};
use super::ledger::Ledger;
use super::timeline::Timeline;
use crate::baseline::{Actor, Seen, World};
use crate::clock::Instant;

/// It starts with this many times the pods that the trace's first minute needs.
const FIRST_PODS: f64 = 1.3;

/// So many seconds are played between two words about it.
const SPOKEN: u64 = 8_192;

/// Who decides.
#[derive(Debug)]
pub(super) enum Player {
    /// A published rule.
    Rule(Box<Actor>),
    /// Somebody whose forecast is always right.
    Foresight(Foresight),
    /// The production turn.
    Sidescale(Box<Leader>),
}

/// What it came to.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) ledger: Ledger,
    /// The offset of each change of what was asked for, and the replicas; what was asked for first is a change.
    pub(super) decisions: Vec<(u64, u32)>,
}

/// Plays `timeline`, adding the seconds that were played to `progress`.
///
/// While nobody looks the world goes on, without arrivals: its queue is served and its pods become ready. Nobody decides
/// then, and nothing is scored. A policy that would be shown zeros there would be measured on what the trace does not say.
pub(super) fn play(
    timeline: &Timeline,
    settings: &Settings,
    player: &mut Player,
    progress: &AtomicU64,
) -> Played {
    let ready = first_pods(timeline.first_rate(), settings);
    let mut world = World::new(ready, settings.pod_rps, settings.cold_start, settings.slo);
    let length = timeline.len() as u64;
    let mut ledger = Ledger::new(settings.warmup.as_secs(), length);
    let mut decisions: Vec<(u64, u32)> = Vec::new();
    for (second, (offset, arrivals)) in (0..).zip(timeline.seconds()) {
        let now = Instant::from_offset(Duration::from_secs(offset));
        let served = world.pass(now, arrivals.unwrap_or(0.0), &mut ledger);
        if second % SPOKEN == 0 {
            progress.fetch_add(SPOKEN.min(length - second), Ordering::Relaxed);
        }
        let Some(arrivals) = arrivals else {
            player.blind();
            continue;
        };
        ledger.second(second, arrivals, world.replicas());
        let Some(desired) = player.decide(&world, offset, now, arrivals, served) else {
            continue;
        };
        if second % ledger.sketch.step == 0
            && let Some((at, point)) = player.ahead()
        {
            ledger
                .sketch
                .foresee(at.saturating_sub(timeline.start()), Some(point));
        }
        if decisions.last().is_none_or(|last| last.1 != desired) {
            let is_first = decisions.is_empty() && desired == world.replicas();
            ledger.changes += u64::from(ledger.is_scored(second) && !is_first);
            decisions.push((offset, desired));
        }
        world.scale(now, desired);
    }
    ledger.close(&world, length);
    Played { ledger, decisions }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the bounds"
)]
fn first_pods(rate: f64, settings: &Settings) -> u32 {
    let (min, max) = settings.bounds;
    let pods = (FIRST_PODS * rate / settings.pod_rps).ceil();
    pods.clamp(f64::from(min), f64::from(max)) as u32
}

// === impl Player ===

impl Player {
    fn decide(
        &mut self,
        world: &World,
        offset: u64,
        now: Instant,
        arrivals: f64,
        served: f64,
    ) -> Option<u32> {
        match self {
            Self::Rule(actor) => actor.second(Seen::of(now, world, served)),
            Self::Foresight(foresight) => Some(foresight.decide(offset, world)),
            Self::Sidescale(leader) => Some(leader.second(Observed {
                offset,
                arrivals,
                waiting: world.waiting(),
                served,
                ready: world.ready(),
                starting: world.starting(),
            })),
        }
    }

    fn blind(&mut self) {
        match self {
            Self::Rule(actor) => actor.blind(),
            // A leader that is shown nothing takes no turn; its history finds the gap by the clock.
            Self::Sidescale(_) | Self::Foresight(_) => {}
        }
    }

    fn ahead(&self) -> Option<(u64, crate::forecast::ForecastPoint)> {
        match self {
            Self::Rule(_) | Self::Foresight(_) => None,
            Self::Sidescale(leader) => leader.ahead(),
        }
    }
}
