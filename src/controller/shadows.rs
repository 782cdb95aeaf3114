//! HPA and KPA in the same world: what they would have asked for, and what it would have cost the requests.

use std::time::Duration;

use serde::Serialize;

use super::ShadowStates;
use crate::baseline::{Rule, Shadow};
use crate::clock::Instant;

/// The share of what a pod can carry that the shadows aim at: what HPA's users set, and KPA's default.
const TARGET: f64 = 0.7;
/// The longest that a request may wait to be started.
const SLO: Duration = Duration::from_secs(2);
/// The step of the shadows' world.
const STEP: Duration = Duration::from_secs(1);
/// A leader that was stopped for longer does not make its shadows live through the time it missed.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// Both shadows, fed second by second.
#[derive(Debug)]
pub struct Shadows {
    hpa: Shadow,
    kpa: Shadow,
    /// The end of the last second that was lived through; `None` before the first.
    until: Option<Instant>,
    /// Arrivals since then.
    arrivals: f64,
}

/// One shadow at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowState {
    /// Replicas it asks for.
    pub desired: u32,
    /// Replicas it has ready.
    pub ready: u32,
    /// Requests that waited longer than two seconds.
    pub slo_violations: u64,
    /// Pod-seconds it paid for.
    pub pod_seconds: u64,
}

// === impl Shadows ===

impl Shadows {
    /// Both begin with `ready` pods that serve. `pod_rps`: what a pod serves at most, requests a second.
    pub fn new(ready: u32, bounds: (u32, u32), pod_rps: f64, cold_start: Duration) -> Self {
        let ready = ready.clamp(bounds.0, bounds.1);
        let shadow = |rule| Shadow::new(rule, ready, bounds, pod_rps, cold_start, SLO);
        Self {
            hpa: shadow(Rule::Hpa { target: TARGET }),
            kpa: shadow(Rule::Kpa { target: TARGET }),
            until: None,
            arrivals: 0.0,
        }
    }

    /// What a pod serves and how long it takes to start, as far as it was measured by now.
    pub fn measured(&mut self, pod_rps: f64, cold_start: Duration) {
        for shadow in [&mut self.hpa, &mut self.kpa] {
            shadow.set_pod_rps(pod_rps);
            shadow.set_cold_start(cold_start);
        }
    }

    /// So many requests came since the last call. Turns are no exact seconds, the world's steps are: arrivals are spread
    /// over the whole seconds that have passed.
    pub fn advance(&mut self, now: Instant, arrivals: f64) {
        let Some(mut until) = self.until else {
            // These came before the shadows' world began.
            self.until = Some(now);
            return;
        };
        self.arrivals += arrivals;
        let passed = now.since(until).min(LONGEST_GAP).as_secs();
        if passed == 0 {
            return;
        }
        until = until.max(now - LONGEST_GAP);
        let each = std::mem::take(&mut self.arrivals) / passed as f64;
        for _second in 0..passed {
            until = until + STEP;
            self.hpa.second(until, each);
            self.kpa.second(until, each);
        }
        self.until = Some(until);
    }

    /// Both, now.
    pub fn read(&self) -> ShadowStates {
        ShadowStates {
            hpa: state(&self.hpa),
            kpa: state(&self.kpa),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sums that only grow from zero; a fraction of a request is none"
)]
fn state(shadow: &Shadow) -> ShadowState {
    ShadowState {
        desired: shadow.desired(),
        ready: shadow.ready(),
        slo_violations: shadow.violations() as u64,
        pod_seconds: shadow.pod_seconds() as u64,
    }
}
