//! One candidate's world: its pods, its queue and what they cost.
//!
//! As [`crate::baseline`]'s world, first in, first out and perfectly balanced, in steps of ten seconds: a request waits too
//! long while the queue is longer than what the ready pods serve in [`SLO_SECS`].

use std::collections::VecDeque;

use super::backlog::{Line, backlog};
use super::queue::late_share;
use super::{Arrivals, Candidate, Facts, SLOT_SECS};
use crate::units::pods;

/// The longest that a request may wait to be started, as for the baselines.
const SLO_SECS: f64 = 2.0;

/// A world in which one candidate decides.
#[derive(Clone, Debug)]
pub(super) struct Life {
    ready: u32,
    /// Pods asked for and not ready: in which step they were asked for, and how many; oldest first.
    starting: VecDeque<(u32, u32)>,
    step: u32,
    queue: f64,
    /// What was asked for in which step, falling, for as long as it is held.
    asked: VecDeque<(u32, u32)>,
    /// Pod-seconds paid for, counted down with age.
    pub(super) pod_secs: f64,
    /// Requests that waited too long, counted down with age.
    pub(super) late: f64,
    /// Pod-seconds that are held against it from before it was known.
    pub(super) doubt: f64,
}

// === impl Life ===

impl Life {
    /// Begins with as many ready pods as `need` wants.
    pub(super) fn new(need: f64, facts: &Facts) -> Self {
        Self {
            ready: bounded(need, facts),
            starting: VecDeque::new(),
            step: 0,
            queue: 0.0,
            asked: VecDeque::new(),
            pod_secs: 0.0,
            late: 0.0,
            doubt: 0.0,
        }
    }

    /// A step of `arrivals`; what was before counts `decay` of what it did.
    pub(super) fn pass(&mut self, arrivals: Arrivals, facts: &Facts, decay: f64) {
        let Arrivals { rate, busiest } = arrivals;
        self.step = self.step.wrapping_add(1);
        let cold_start = steps(facts.cold_start.as_secs_f64());
        while let Some((asked, count)) = self.starting.front().copied()
            && self.step.wrapping_sub(asked) >= cold_start
        {
            self.starting.pop_front();
            self.ready += count;
        }
        let served = f64::from(self.ready) * facts.pod_rps;
        let before = self.queue;
        let after = (before + (rate - served) * SLOT_SECS).max(0.0);
        self.queue = after;
        let longest = SLO_SECS * served;
        let (low, high) = (before.min(after), before.max(after));
        let late = if high <= longest {
            0.0
        } else if low >= longest {
            1.0
        } else {
            (high - longest) / (high - low)
        };
        let late = match facts.slots {
            Some(slots) => late.max(late_share(
                rate,
                served,
                f64::from(self.ready) * slots,
                SLO_SECS,
            )),
            None => late,
        };
        // What comes in one second is served in that second and within the SLO after it, behind what waited before.
        let of_burst = (before + busiest - (1.0 + SLO_SECS) * served).clamp(0.0, busiest);
        self.pod_secs = self.pod_secs * decay + f64::from(self.pods()) * SLOT_SECS;
        self.late = self.late * decay + of_burst.max(late * rate * SLOT_SECS);
        self.doubt *= decay;
    }

    /// The candidate decides: pods for the rate that it sees, and for what will wait of `level` arrivals a second when they come.
    pub(super) fn ask(&mut self, need: f64, level: f64, candidate: &Candidate, facts: &Facts) {
        let backlog =
            self.will_wait(level, facts) / (facts.pod_rps * candidate.drain.as_secs_f64());
        let mut wanted = bounded(need + backlog, facts);
        // Help on its way is not sent back while it is waited for.
        if self.queue > SLO_SECS * f64::from(self.ready) * facts.pod_rps {
            wanted = wanted.max(self.pods());
        }
        while self.asked.back().is_some_and(|(_, least)| *least <= wanted) {
            self.asked.pop_back();
        }
        self.asked.push_back((self.step, wanted));
        let hold = steps(candidate.hold.as_secs_f64());
        while let Some((asked, most)) = self.asked.front().copied() {
            if self.step.wrapping_sub(asked) <= hold {
                self.scale(most);
                break;
            }
            self.asked.pop_front();
        }
    }

    /// What waits one cold start later, of those that wait now and those that come until then.
    fn will_wait(&self, level: f64, facts: &Facts) -> f64 {
        if self.queue <= 0.0 {
            return 0.0;
        }
        let cold_start = steps(facts.cold_start.as_secs_f64());
        let comes = |asked: u32| {
            let age = self.step.wrapping_sub(asked);
            f64::from(cold_start.saturating_sub(age)) * SLOT_SECS
        };
        let starting = { self.starting.iter() }.map(|(asked, count)| (comes(*asked), *count));
        backlog(Line {
            waiting: self.queue,
            arrivals: level,
            pod_rps: facts.pod_rps,
            ready: self.ready,
            starting,
            after: f64::from(cold_start) * SLOT_SECS,
        })
    }

    fn pods(&self) -> u32 {
        self.ready + self.starting.iter().map(|(_, count)| count).sum::<u32>()
    }

    fn scale(&mut self, desired: u32) {
        let pods = self.pods();
        if desired > pods {
            self.starting.push_back((self.step, desired - pods));
        }
        let mut surplus = pods.saturating_sub(desired);
        // A ReplicaSet gives up pods that are not ready first, the youngest before the others.
        while surplus > 0 {
            let Some((_, count)) = self.starting.back_mut() else {
                self.ready -= surplus;
                return;
            };
            let gone = surplus.min(*count);
            *count -= gone;
            surplus -= gone;
            if *count == 0 {
                self.starting.pop_back();
            }
        }
    }
}

fn bounded(need: f64, facts: &Facts) -> u32 {
    let (min, max) = facts.bounds;
    pods(need).clamp(min, max.max(min))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u32; NaN becomes 0"
)]
fn steps(secs: f64) -> u32 {
    (secs / SLOT_SECS).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}
