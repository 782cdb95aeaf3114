//! How many requests are in flight and for how long, in one atomic word.
//!
//! The integral of the number in flight over time, up to `t`, is the sum over ended requests of `end - arrival` plus
//! the sum over the others of `t - arrival`. Gathered by terms that is
//!
//! ```text
//! integral(t) = t * in_flight + sum(ends) - sum(arrivals)
//! ```
//!
//! so no event needs to know what the others did: an arrival at `a` adds `1` to the count and subtracts `a`, an end at
//! `e` subtracts `1` and adds `e`. With two words for the two sums a reader between two writes would be off by the
//! whole age of the process, for one request that is in one sum and not yet in the other. So both live in one word,
//! `(ends - arrivals) * 2^20 + in_flight` modulo 2^64: one `fetch_add` per event, one load per reading, and every
//! reading is the exact state between two events. The count never reaches 2^20 (a process has fewer sockets than
//! that), so it never carries into the sum.
//!
//! What is left for the sum, 44 bits of microseconds, wraps every 17 million request-seconds; [`Unwrapped`] turns
//! readings that are closer together than that into a total that does not.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the word that hold the count.
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Bits that are left for the microseconds.
const MICROS_BITS: u32 = 64 - COUNT_BITS;
const MICROS_MASK: u64 = (1 << MICROS_BITS) - 1;

/// The word. Times are microseconds of any clock that does not go back.
#[derive(Debug, Default)]
pub(super) struct Flight(AtomicU64);

/// The total of a wrapping integral, kept by whoever reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unwrapped {
    last: u64,
    total_micros: u64,
}

// === impl Flight ===

impl Flight {
    /// One more since `micros`. Returns how many are in flight now.
    pub(super) fn arrive(&self, micros: u64) -> u64 {
        let step = 1_u64.wrapping_sub(micros << COUNT_BITS);
        let before = self.0.fetch_add(step, Ordering::AcqRel);
        (before & COUNT_MASK) + 1
    }

    /// One less since `micros`.
    pub(super) fn end(&self, micros: u64) {
        let step = (micros << COUNT_BITS).wrapping_sub(1);
        self.0.fetch_add(step, Ordering::AcqRel);
    }

    /// How many are in flight.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire) & COUNT_MASK
    }

    /// How many are in flight, and the integral up to `micros` in request-microseconds.
    pub(super) fn read(&self, micros: u64, unwrapped: &mut Unwrapped) -> (u64, u64) {
        let word = self.0.load(Ordering::Acquire);
        let count = word & COUNT_MASK;
        let integral = count.wrapping_mul(micros).wrapping_add(word >> COUNT_BITS) & MICROS_MASK;
        (count, unwrapped.advance(integral))
    }
}

// === impl Unwrapped ===

impl Unwrapped {
    fn advance(&mut self, integral: u64) -> u64 {
        let step = integral.wrapping_sub(self.last) & MICROS_MASK;
        // A step of more than half the range is a small step back: the reader's `now` was taken a moment before a
        // request that is already counted, or before another reader's. The next reading makes up for it.
        if step < 1 << (MICROS_BITS - 1) {
            self.last = integral;
            self.total_micros += step;
        }
        self.total_micros
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_request_of_two_seconds_is_two_request_seconds() {
        let (flight, mut unwrapped) = (Flight::default(), Unwrapped::default());
        assert_eq!(flight.arrive(5_000_000), 1);
        assert_eq!(flight.read(6_000_000, &mut unwrapped), (1, 1_000_000));
        flight.end(7_000_000);
        assert_eq!(flight.read(9_000_000, &mut unwrapped), (0, 2_000_000));
    }

    #[test]
    fn the_total_outlives_the_wrap_of_the_word() {
        let (flight, mut unwrapped) = (Flight::default(), Unwrapped::default());
        let mut now = MICROS_MASK - 10;
        flight.arrive(now);
        let mut expected = 0;
        for _hour in 0..10_000_u64 {
            now += 3_600_000_000;
            expected += 3_600_000_000;
            assert_eq!(flight.read(now, &mut unwrapped), (1, expected));
        }
        assert!(expected > MICROS_MASK);
    }

    #[test]
    fn a_reading_of_an_earlier_moment_takes_nothing_away() {
        let (flight, mut unwrapped) = (Flight::default(), Unwrapped::default());
        flight.arrive(100);
        assert_eq!(flight.read(200, &mut unwrapped), (1, 100));
        assert_eq!(flight.read(150, &mut unwrapped), (1, 100));
        assert_eq!(flight.read(300, &mut unwrapped), (1, 200));
    }

    proptest! {
        /// Against the plain sum over all requests, at every step of any history.
        #[test]
        fn the_word_equals_the_plain_sum(steps in prop::collection::vec((0_u64..5_000_000, any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let (flight, mut unwrapped) = (Flight::default(), Unwrapped::default());
            let (mut open, mut ended, mut now) = (Vec::new(), 0_u64, 1_u64);
            for (wait, arrives, which) in steps {
                now += wait;
                if arrives || open.is_empty() {
                    open.push(now);
                    prop_assert_eq!(flight.arrive(now), open.len() as u64);
                } else {
                    let arrived = open.swap_remove(which.index(open.len()));
                    flight.end(now);
                    ended += now - arrived;
                }
                let plain = ended + open.iter().map(|arrived| now - arrived).sum::<u64>();
                prop_assert_eq!(flight.read(now, &mut unwrapped), (open.len() as u64, plain));
            }
        }
    }
}
