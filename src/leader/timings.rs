//! The three durations of an election, and how they hang together.

use std::time::Duration;

use crate::units::Shown;

/// For how long candidates leave a silent leader alone.
///
/// Abrupt takeover takes at most this and a retry period. The difference to the renew deadline is the slack for clocks
/// that run at different rates and for a pause between the last look at the clock and a write: 5 s of 15 s here. Half of it
/// would not cover a stop of the container runtime; double would leave a fleet half a minute without a leader.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a leader acts on its last good renewal.
///
/// Five renewals fit in, so an API server that restarts within ten seconds costs no leadership. Half of it and every
/// rolling restart of the control plane changes the leader; more of it and the slack above is gone.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often a leader renews, and how soon a request that failed is tried again.
///
/// One write every 2 s is what each of Kubernetes' own controllers costs. Half of it doubles that for a takeover that is
/// one second sooner; double leaves only two renewals before the deadline.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A retry is stretched by up to this factor, so that candidates do not keep in step.
const JITTER: f64 = 1.2;

/// The three durations of an election. Valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Why three durations make no election.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTimings {
    /// Kubernetes stores whole seconds.
    #[error("lease duration {} is not in 1s..=1d or not a whole number of seconds (Kubernetes stores seconds)", Shown(*.0))]
    LeaseDuration(Duration),
    /// The leader would still act when others may take over.
    #[error(
        "renew deadline {} is not below the lease duration {}: two would lead (15s, 10s and 2s are the defaults)",
        Shown(*.renew_deadline),
        Shown(*.lease_duration)
    )]
    RenewDeadline {
        /// As given.
        renew_deadline: Duration,
        /// As given.
        lease_duration: Duration,
    },
    /// One failed renewal would end the reign.
    #[error(
        "retry period {} must be above 0s, and 1.2 times it below the renew deadline {} (take a fifth of it)",
        Shown(*.retry_period),
        Shown(*.renew_deadline)
    )]
    RetryPeriod {
        /// As given.
        retry_period: Duration,
        /// As given.
        renew_deadline: Duration,
    },
}

// === impl Timings ===

impl Default for Timings {
    fn default() -> Self {
        Self {
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
        }
    }
}

impl Timings {
    /// Checks `lease duration > renew deadline > 1.2 x retry period`, client-go's rule.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, BadTimings> {
        let day = Duration::from_secs(86_400);
        if lease_duration.is_zero() || lease_duration > day || lease_duration.subsec_nanos() != 0 {
            return Err(BadTimings::LeaseDuration(lease_duration));
        }
        if renew_deadline >= lease_duration {
            return Err(BadTimings::RenewDeadline {
                renew_deadline,
                lease_duration,
            });
        }
        if retry_period.is_zero() || retry_period.mul_f64(JITTER) >= renew_deadline {
            return Err(BadTimings::RetryPeriod {
                retry_period,
                renew_deadline,
            });
        }
        Ok(Self {
            lease_duration,
            renew_deadline,
            retry_period,
        })
    }

    /// How long a candidate must have seen the Lease unchanged.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long a claim counts, from before its last good renewal was sent.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// From one renewal to the next.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// The longest wait for one answer: two attempts fit between a renewal that is due and the deadline.
    pub fn request_timeout(&self) -> Duration {
        self.renew_deadline.saturating_sub(self.retry_period) / 2
    }

    /// A retry period, stretched by `share` (0 to 1) of the jitter.
    pub(super) fn jittered_retry(&self, share: f64) -> Duration {
        self.retry_period
            .mul_f64((JITTER - 1.0).mul_add(share, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_durations_that_keep_one_leader_are_taken() {
        let check = |lease: Duration, renew: Duration, retry: Duration, wrong: Option<&str>| {
            let message = Timings::new(lease, renew, retry)
                .err()
                .map(|error| error.to_string());
            match (message, wrong) {
                (None, None) => {}
                (Some(message), Some(wrong)) if message.starts_with(wrong) => {}
                (message, wrong) => {
                    panic!("{lease:?} {renew:?} {retry:?}: {message:?}, not {wrong:?}")
                }
            }
        };
        check(secs(15), secs(10), secs(2), None);
        check(secs(3), secs(2), secs(1), None);
        check(secs(0), secs(10), secs(2), Some("lease duration 0s"));
        check(
            Duration::from_millis(1_500),
            secs(1),
            Duration::from_millis(200),
            Some("lease duration 1s"),
        );
        check(
            secs(100_000),
            secs(10),
            secs(2),
            Some("lease duration 1d3h46m40s"),
        );
        check(
            secs(10),
            secs(10),
            secs(2),
            Some("renew deadline 10s is not below the lease duration 10s"),
        );
        check(secs(15), secs(10), secs(0), Some("retry period 0s"));
        // 1.2 x 9 s is 10.8 s: the first retry would come after the deadline.
        check(secs(15), secs(10), secs(9), Some("retry period 9s"));
    }

    #[test]
    fn the_defaults_pass_their_own_check_and_leave_time_for_two_attempts() {
        let timings = Timings::default();
        assert_eq!(
            Timings::new(LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD),
            Ok(timings)
        );
        assert_eq!(timings.request_timeout(), secs(4));
        assert!(timings.retry_period() + timings.request_timeout() * 2 <= timings.renew_deadline());
    }
}
