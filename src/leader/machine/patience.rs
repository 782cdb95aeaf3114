//! How long a candidate waits: before it reads the Lease, and before it takes it.

use std::time::Duration;

use rand::{CryptoRng, RngExt as _};

use super::sight::Content;
use super::{Machine, Standing};
use crate::clock::Instant;
use crate::leader::Part;

/// How far apart two members' looks lie on average when the leader has fallen silent for all of them.
///
/// Fifty members then ask 20 times a second for 2.5 s. Half of it doubles that; double makes small fleets wait.
const SPREAD_PER_MEMBER: Duration = Duration::from_millis(50);

// === impl Machine ===

impl Machine {
    /// How long to leave a free Lease to those who were named or know better.
    pub(super) fn courtesy(&self, first_look: bool, rng: &mut impl CryptoRng) -> Duration {
        let retry = self.timings.retry_period();
        if self.bequeathed_by.is_some() {
            Duration::ZERO
        } else if first_look {
            // A fleet that starts: nobody knows a better one, and one write decides.
            retry.mul_f64(0.1 * rng.random::<f64>())
        } else if self.part == Part::Lead {
            // Before any sidecar that watches, and after who was named.
            retry.mul_f64(0.2 + 0.2 * rng.random::<f64>())
        } else if self.standby {
            // The named successor needs milliseconds.
            self.give_way(rng)
        } else {
            self.spread().mul_f64(rng.random())
        }
    }

    /// How long to leave a Lease that may be taken to one who comes first: within a retry period, as promised.
    pub(super) fn give_way(&self, rng: &mut impl CryptoRng) -> Duration {
        let retry = self.timings.retry_period();
        retry.mul_f64(0.5 + 0.4 * rng.random::<f64>())
    }

    /// The stretch over which the members that do not watch spread their looks; a quarter of a lease duration at most, so
    /// that two lease durations of silence, two such waits and one more lease duration stay below four.
    pub(super) fn spread(&self) -> Duration {
        (SPREAD_PER_MEMBER * self.members).min(self.timings.lease_duration() / 4)
    }

    /// How long to leave an API server alone that refused or did not answer.
    ///
    /// Few members retry as often as a leader does. The more there are the further they back off, up to a lease
    /// duration, so that an API server that comes back is not met by a thousand at once.
    pub(super) fn back_off(&self, rng: &mut impl CryptoRng) -> Duration {
        let retry = self.timings.jittered_retry(rng.random());
        if self.standby {
            return retry;
        }
        let longest = (SPREAD_PER_MEMBER * 4 * self.members).min(self.timings.lease_duration());
        let doublings = self.failures.clamp(1, 8) - 1;
        (retry * (1 << doublings)).min(longest.max(retry))
    }

    /// Until when no news is taken for good news.
    pub(super) fn quiet_until(&self, rng: &mut impl CryptoRng) -> Instant {
        if self.standby {
            // The watch and the beacons should bring a renewal each retry period. A watch that is broken says nothing,
            // so silence is checked rather than trusted.
            self.sight.since() + self.timings.retry_period() * 2
        } else {
            let patience = self.timings.lease_duration() * 2;
            self.sight.since() + patience + self.spread().mul_f64(rng.random())
        }
    }

    /// When to read again after a read.
    pub(super) fn next_look(
        &self,
        changed: bool,
        now: Instant,
        rng: &mut impl CryptoRng,
    ) -> Instant {
        let spread = self.spread().mul_f64(rng.random());
        if self.standby {
            if changed {
                self.quiet_until(rng)
            } else {
                now + self.timings.jittered_retry(rng.random())
            }
        } else if !changed || self.lively_looks % 2 == 1 {
            // Is it still unchanged when it expires?
            self.sight.expiry().max(now) + spread
        } else {
            // Twice it was renewed while no beacon came: the leader lives and only the channel to it is broken.
            now + self.timings.lease_duration() * 2 + spread
        }
    }

    /// When the Lease may be written by this candidate.
    pub(super) fn compete_at(&self) -> Option<Instant> {
        match self.sight.content()? {
            Content::Missing => Some(self.hold_off),
            Content::Lease(record) => {
                let given = record.is_free()
                    || record.holder == self.identity
                    || self.bequeathed_by.as_deref() == Some(&record.holder);
                if given {
                    Some(self.hold_off)
                } else if self.standby || self.found_expired {
                    // Exactly at expiry, not at the next look.
                    Some((self.sight.expiry() + self.deference).max(self.hold_off))
                } else {
                    None
                }
            }
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        if !self.part.may_lead() {
            return None;
        }
        match &self.standing {
            Standing::Leading(reign) => Some(reign.renew_at),
            Standing::Candidate => Some(
                self.compete_at()
                    .map_or(self.look_at, |at| at.min(self.look_at)),
            ),
            Standing::Retired => None,
        }
    }
}
