//! Lines of the log about requests that failed, each kind now and then and not for every request.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Instant};

/// The least time between two lines of a kind. Six a minute do not fill a log, and a fault that comes once is told once.
const PERIOD: Duration = Duration::from_secs(10);
/// How many kinds are told apart; all beyond count as one. A kind is the text of its reason, of which a client can choose parts
/// (the number in a reset).
const KINDS: usize = 64;

/// What was said, and when.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<Vec<Kind>>);

#[derive(Debug)]
struct Kind {
    /// `None`: all that came when there were enough.
    what: Option<String>,
    said: Instant,
    unsaid: u64,
}

// === impl Notices ===

impl Notices {
    /// Logs what happened to a request of `client`, unless the same was said a moment ago.
    pub(super) fn say(&self, clock: &Clock, client: &dyn Display, what: &str) {
        if let Some(unsaid) = self.due(clock.instant(), what) {
            tracing::info!(%client, reason = what, more_since_the_last_line = unsaid, "a request was not served");
        }
    }

    /// How often it was not said since the last time, if it is to be said now.
    fn due(&self, now: Instant, what: &str) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = kinds.len() >= KINDS;
        let known = kinds.iter_mut().find(|kind| match &kind.what {
            Some(known) => known == what,
            None => is_full,
        });
        let Some(kind) = known else {
            let what = (kinds.len() + 1 < KINDS).then(|| what.to_owned());
            kinds.push(Kind {
                what,
                said: now,
                unsaid: 0,
            });
            return Some(0);
        };
        if now.since(kind.said) < PERIOD {
            kind.unsaid += 1;
            return None;
        }
        kind.said = now;
        Some(std::mem::take(&mut kind.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(seconds))
    }

    #[test]
    fn a_kind_is_said_once_in_a_period_and_then_with_its_number() {
        let notices = Notices::default();
        assert_eq!(notices.due(at(0), "gone"), Some(0));
        assert_eq!(notices.due(at(1), "gone"), None);
        assert_eq!(notices.due(at(9), "gone"), None);
        assert_eq!(notices.due(at(10), "gone"), Some(2));
        assert_eq!(notices.due(at(20), "gone"), Some(0));
    }

    #[test]
    fn one_kind_does_not_hide_another() {
        let notices = Notices::default();
        assert_eq!(notices.due(at(0), "gone"), Some(0));
        assert_eq!(notices.due(at(0), "broken"), Some(0));
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_clients_make_up() {
        let notices = Notices::default();
        let said = (0..1_000).filter(|n| notices.due(at(0), &n.to_string()).is_some());
        assert_eq!(said.count(), KINDS);
        assert_eq!(notices.due(at(0), "0"), None);
    }
}
