//! Under a CPU limit, the control half's long computations yield to requests.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::pace::Pace;

/// From this limit on, in cores, both halves have a whole core and none can stop the other.
const PLENTY: f64 = 2.0;
/// The part of a limit that a long computation takes at most. Halved, a new leader has no forecast for twice as long (three
/// seconds at 0.2 cores); doubled, the other half of the limit may be less than requests need.
const SHARE: f64 = 0.25;
/// At a stretch, so much is computed: a delay that no stream of tokens shows.
const STRETCH: Duration = Duration::from_millis(1);

/// How long computations rest under a CPU limit of so many cores; `None`: there is none.
pub fn pace_under(limit: Option<f64>) -> Pace {
    let Some(rest) = limit.and_then(rest_after) else {
        return Pace::default();
    };
    // Life's own time, also in a demo that runs faster: so does the kernel's.
    let clock = Clock::real();
    let since = Mutex::new(clock.instant());
    Pace::new(move || {
        let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.instant().since(*since) >= STRETCH {
            clock.block(rest);
            *since = clock.instant();
        }
    })
}

/// How long a stretch of computing is followed by none.
fn rest_after(cores: f64) -> Option<Duration> {
    (cores < PLENTY).then(|| STRETCH.mul_f64(1.0 / (SHARE * cores) - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computation_takes_a_quarter_of_the_limit() {
        for cores in [0.05, 0.2, 1.0, 1.9] {
            let rest = rest_after(cores).expect("it is scarce");
            let share = STRETCH.as_secs_f64() / (STRETCH + rest).as_secs_f64();
            assert!((share - cores / 4.0).abs() < 1e-6, "{share} of {cores}");
        }
        assert_eq!(rest_after(0.2), Some(Duration::from_millis(19)));
        assert_eq!(rest_after(2.0), None);
    }

    #[test]
    fn without_a_limit_nothing_rests() {
        assert_eq!(format!("{:?}", pace_under(None)), "does not rest");
        assert_eq!(format!("{:?}", pace_under(Some(4.0))), "does not rest");
        assert_eq!(format!("{:?}", pace_under(Some(0.2))), "rests");
    }
}
