//! Keeps the score: what became of every request, and of the fleet in every demo second.

use std::net::SocketAddr;
use std::time::Duration;

use super::load::Outcome;
use super::summary::Summary;
use super::waves::{leads, median};
use crate::clock::Instant;
use crate::controller::{ShadowStates, Shadows};

/// The longest that a request may wait to be started, in demo time.
pub(super) const SLO: Duration = Duration::from_secs(2);
/// A leader with the demo's timing goes on for 10 s without a good renewal and renews every 2 s, so a standstill of 8 s may
/// cost it the lead, as it would a pod whose node stood still. One that began right after a second was noticed shows as one
/// second less.
const STALL: Duration = Duration::from_secs(7);
/// Load is looked at over this many seconds: single seconds of a Poisson stream are mostly noise.
const SMOOTH: usize = 10;

/// The score of one demo.
#[derive(Debug)]
pub(super) struct Score {
    /// The latest first byte that is no violation, from the moment a request was due.
    patience: Duration,
    arrivals: Vec<u32>,
    ready: Vec<u32>,
    desired: Vec<u32>,
    shadows: Option<Shadows>,
    shadow_states: Vec<Option<ShadowStates>>,
    kill: Option<Kill>,
    /// Requests that ended badly, until it is clear which of them were on the killed pod.
    bad: Vec<Outcome>,
    exposed: u64,
    pub(super) requests: u64,
    pub(super) violations: u64,
    /// Requests that were sent and had no end when the demo had one.
    unfinished: u64,
    stalls: u32,
    longest_stall: Duration,
    /// The first term, and the changes since with their moments.
    terms: Vec<(u64, Instant)>,
    pod_seconds: f64,
}

/// The leader's sidecar was killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    at: Instant,
    address: SocketAddr,
    /// What the sidecar itself had in flight.
    in_flight: u64,
    /// When no client was given its address any more; `None`: it still is.
    gone: Option<Instant>,
}

// === impl Score ===

impl Score {
    /// `first_token`: how long a request that waits for nothing takes to its first byte.
    pub(super) fn new(first_token: Duration) -> Self {
        Self {
            patience: SLO + first_token,
            arrivals: Vec::new(),
            ready: Vec::new(),
            desired: Vec::new(),
            shadows: None,
            shadow_states: Vec::new(),
            kill: None,
            bad: Vec::new(),
            exposed: 0,
            requests: 0,
            violations: 0,
            unfinished: 0,
            stalls: 0,
            longest_stall: Duration::ZERO,
            terms: Vec::new(),
            pod_seconds: 0.0,
        }
    }

    /// The shadows live in the same world from now on.
    pub(super) fn shadow(&mut self, shadows: Shadows) {
        self.shadows = Some(shadows);
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.requests += 1;
        let late = outcome
            .first_byte
            .is_none_or(|first_byte| first_byte > self.patience);
        self.violations += u64::from(late || !outcome.result.is_ok());
        if self.is_exposed(&outcome) {
            self.exposed += 1;
        }
        if !outcome.result.is_ok() {
            tracing::info!(?outcome, "a request failed");
            self.bad.push(outcome);
        }
    }

    /// Requests that still had no end when the demo stopped waiting for it: their clients would not have waited either.
    pub(super) fn unfinished(&mut self, count: u64) {
        self.requests += count;
        self.violations += count;
        self.unfinished += count;
    }

    /// A demo second was noticed `late`, because everything that decides stood still.
    pub(super) fn noticed(&mut self, late: Duration) {
        self.longest_stall = self.longest_stall.max(late);
        self.stalls += u32::from(late >= STALL);
    }

    /// A demo second has passed. `arrived`: requests that were due in it.
    pub(super) fn passed(
        &mut self,
        now: Instant,
        ready: u32,
        desired: u32,
        pods: u32,
        arrived: u32,
    ) {
        self.desired.push(desired);
        self.ready.push(ready);
        self.arrivals.push(arrived);
        self.pod_seconds += f64::from(pods);
        let states = self.shadows.as_mut().map(|shadows| {
            shadows.advance(now, f64::from(arrived));
            shadows.read()
        });
        self.shadow_states.push(states);
    }

    /// A term was stamped on the Deployment.
    pub(super) fn stamped(&mut self, term: u64, at: Instant) {
        if self.terms.last().is_none_or(|(last, _)| term > *last) {
            self.terms.push((term, at));
        }
    }

    /// The leader's sidecar was killed with so many requests `in_flight`; its clients know it by `address`.
    pub(super) fn killed(&mut self, at: Instant, address: SocketAddr, in_flight: u64) {
        self.kill = Some(Kill {
            at,
            address,
            in_flight,
            gone: None,
        });
    }

    /// Clients have these endpoints from now on.
    pub(super) fn endpoints(&mut self, at: Instant, endpoints: &[SocketAddr]) {
        if let Some(kill) = &mut self.kill
            && kill.gone.is_none()
            && !endpoints.contains(&kill.address)
        {
            kill.gone = Some(at);
        }
    }

    /// The shadows, now.
    pub(super) fn shadows(&self) -> Option<ShadowStates> {
        self.shadow_states.last().copied().flatten()
    }

    /// The shadows of demo second `second`.
    pub(super) fn shadows_at(&self, second: usize) -> Option<ShadowStates> {
        self.shadow_states.get(second).copied().flatten()
    }

    /// How often the lead has changed.
    pub(super) fn leader_changes(&self) -> u32 {
        u32::try_from(self.terms.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Replicas ready and asked for in each demo second.
    pub(super) fn replicas(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let ready = self.ready.iter().copied();
        ready.zip(self.desired.iter().copied())
    }

    /// What it all came to. `pod_rps`: what a pod serves at most.
    pub(super) fn summary(&self, pod_rps: f64) -> Summary {
        let lost = self
            .bad
            .iter()
            .filter(|outcome| self.is_exposed(outcome))
            .count() as u64;
        let leads = leads(&self.arrivals, &self.ready, pod_rps);
        let grown = self.desired.windows(2).filter(|pair| pair[1] > pair[0]);
        let shadows = self.shadows();
        let takeover = self.kill.and_then(|kill| {
            let next = self.terms.iter().find(|(_, at)| *at > kill.at)?;
            Some(next.1.since(kill.at).as_secs_f64())
        });
        Summary {
            requests: self.requests,
            failed: self.bad.len() as u64 - lost + self.unfinished,
            unfinished: self.unfinished,
            lost_with_killed_pod: lost,
            exposed_to_killed_pod: self.exposed,
            in_flight_on_killed_pod: self.kill.map_or(0, |kill| kill.in_flight),
            killed_pod_gone_seconds: self
                .kill
                .and_then(|kill| Some(kill.gone?.since(kill.at).as_secs_f64())),
            slo_violations: self.violations,
            replicas_min: self.desired.iter().copied().min().unwrap_or_default(),
            replicas_max: self.desired.iter().copied().max().unwrap_or_default(),
            leader_changes: self.leader_changes(),
            takeover_seconds: takeover,
            scale_ups: u32::try_from(grown.count()).unwrap_or(u32::MAX),
            least_lead_seconds: leads.iter().copied().min_by(f64::total_cmp),
            median_lead_seconds: median(leads),
            shadow_hpa_slo_violations: shadows.map_or(0, |shadows| shadows.hpa.slo_violations),
            shadow_kpa_slo_violations: shadows.map_or(0, |shadows| shadows.kpa.slo_violations),
            pod_seconds: self.pod_seconds,
            shadow_hpa_pod_seconds: shadows.map_or(0.0, |shadows| shadows.hpa.pod_seconds as f64),
            shadow_kpa_pod_seconds: shadows.map_or(0.0, |shadows| shadows.kpa.pod_seconds as f64),
            stalls: self.stalls,
            longest_stall_seconds: self.longest_stall.as_secs_f64(),
            pod_rps,
            ..Summary::default()
        }
    }

    /// On the killed pod when it was killed, or sent there before its address was gone.
    fn is_exposed(&self, outcome: &Outcome) -> bool {
        self.kill.is_some_and(|kill| {
            outcome.endpoint == Some(kill.address)
                && outcome.due + outcome.total >= kill.at
                && kill.gone.is_none_or(|gone| outcome.sent_at <= gone)
        })
    }

    /// Arrivals a second in each demo second, over the last [`SMOOTH`].
    pub(super) fn loads(&self) -> Vec<f64> {
        let load = |end: usize| {
            let from = (end + 1).saturating_sub(SMOOTH);
            let sum: u32 = self.arrivals.iter().take(end + 1).skip(from).sum();
            f64::from(sum) / SMOOTH as f64
        };
        (0..self.arrivals.len()).map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Ending;
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_offset(Duration::from_millis(millis))
    }

    fn address(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 8080).into()
    }

    /// Sent to `address` at `sent`, ended at `end`.
    fn outcome(to: u8, sent: u64, end: u64, result: Ending) -> Outcome {
        Outcome {
            due: at(sent),
            sent_at: at(sent),
            endpoint: Some(address(to)),
            first_byte: Some(Duration::ZERO),
            total: Duration::from_millis(end - sent),
            queued: None,
            result,
        }
    }

    #[test]
    fn a_killed_pod_excuses_what_was_on_it_or_sent_before_clients_knew_and_nothing_else() {
        let mut score = Score::new(Duration::ZERO);
        score.killed(at(10_000), address(1), 2);
        score.endpoints(at(11_000), &[address(2)]);
        for excused in [
            outcome(1, 9_000, 10_001, Ending::Reset),
            outcome(1, 11_000, 11_001, Ending::Refused),
        ] {
            score.ended(excused);
        }
        score.ended(outcome(1, 9_000, 12_000, Ending::Ok));
        for failed in [
            outcome(1, 9_000, 9_999, Ending::Reset),
            outcome(1, 11_001, 11_002, Ending::Refused),
            outcome(2, 10_500, 10_501, Ending::Status(503)),
        ] {
            score.ended(failed);
        }
        let summary = score.summary(4.0);
        assert_eq!(
            (
                summary.failed,
                summary.lost_with_killed_pod,
                summary.exposed_to_killed_pod
            ),
            (3, 2, 3)
        );
        assert_eq!(
            (
                summary.in_flight_on_killed_pod,
                summary.killed_pod_gone_seconds
            ),
            (2, Some(1.0))
        );
    }

    #[test]
    fn what_has_no_end_has_failed_and_was_late() {
        let mut score = Score::new(Duration::ZERO);
        score.ended(outcome(1, 0, 1, Ending::Ok));
        score.unfinished(3);
        let summary = score.summary(4.0);
        assert_eq!(
            (summary.requests, summary.failed, summary.slo_violations),
            (4, 3, 3)
        );
    }

    #[test]
    fn a_standstill_counts_when_a_lease_may_have_run_out_in_it() {
        let mut score = Score::new(Duration::ZERO);
        for late in [0, 6_999, 7_000, 12_500, 1] {
            score.noticed(Duration::from_millis(late));
        }
        let summary = score.summary(4.0);
        assert_eq!((summary.stalls, summary.longest_stall_seconds), (2, 12.5));
    }
}
