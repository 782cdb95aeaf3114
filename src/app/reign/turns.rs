//! When the leader's next turn is: once a second, sooner with news, later after a refusal.

use std::time::Duration;

use crate::clock::Instant;

/// Between two turns without news. The forecast moves by the minute; a second keeps the reaction to what it did not
/// foresee well under the time a pod takes to start.
const CALM: Duration = Duration::from_secs(1);
/// Between two turns with news: overruns of many pods at once are one. Halved, a burst that lasts costs twice the turns
/// for as long as its pods load; doubled, a burst reaches the plan up to a fifth of a second later, as it takes three.
const SOONEST: Duration = Duration::from_millis(100);
/// Between two tries of what the API server refused or did not answer.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// The times of a reign's turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    last: Instant,
    next: Instant,
    /// Before this no news bring the next turn about: neither a burst nor a refusal during one makes the leader spin.
    soonest: Instant,
}

// === impl Turns ===

impl Turns {
    /// The first is now.
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            last: now,
            next: now,
            soonest: now,
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self {
            last: now,
            next: now + CALM,
            soonest: now + SOONEST,
        };
    }

    /// There is news that should not wait.
    pub(super) fn news(&mut self) {
        self.next = self.next.min(self.soonest);
    }

    /// What the last turn wanted can wait; a burst meanwhile cannot.
    pub(super) fn rest(&mut self) {
        self.next = self.last + AGAIN;
    }

    /// What the last turn wanted was refused or not answered.
    pub(super) fn failed(&mut self) {
        self.rest();
        self.soonest = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_offset(Duration::from_millis(millis))
    }

    /// Turns of which the last began at second ten.
    fn turns() -> Turns {
        let mut turns = Turns::starting(at(0));
        turns.begin(at(10_000));
        turns
    }

    #[test]
    fn without_news_a_turn_comes_once_a_second() {
        assert_eq!(Turns::starting(at(7)).next(), at(7));
        assert_eq!(turns().next(), at(11_000));
    }

    #[test]
    fn news_bring_the_next_turn_forward_and_not_below_the_floor() {
        let mut turns = turns();
        turns.news();
        assert_eq!(turns.next(), at(10_100));
        turns.news();
        assert_eq!(turns.next(), at(10_100), "a burst of news is one");
        turns.begin(at(10_100));
        assert_eq!(turns.next(), at(11_100), "and calm again after it");
    }

    #[test]
    fn news_do_not_wait_for_what_can() {
        let mut turns = turns();
        turns.rest();
        assert_eq!(turns.next(), at(12_000));
        turns.news();
        assert_eq!(turns.next(), at(10_100));
    }

    #[test]
    fn news_do_not_hurry_what_the_api_server_has_just_refused() {
        let mut turns = turns();
        turns.failed();
        turns.news();
        assert_eq!(turns.next(), at(12_000));
        turns.begin(at(12_000));
        turns.news();
        assert_eq!(turns.next(), at(12_100));
    }
}
