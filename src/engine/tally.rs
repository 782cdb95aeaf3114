//! Samples of a server, turned into sums that only grow. Pure.
//!
//! Between two samples the server was observed, unless they lie too far apart or its counters fell back: then it is another
//! process, or nobody looked, and what happened meanwhile is missing. It is not zero, and what the counters show for it is
//! not put into one second.
//!
//! What arrived is what ended plus what there is more on the server. Gauges and counters of one text are not of one moment:
//! a request that has ended in the counter may be running in the gauge for some seconds more (`SGLang` sets its gauges every
//! 40 steps, and 30 s after it became idle). It was counted as an arrival when it came into the gauge and would be once more
//! when it ended; when it leaves the gauge, one less is on the server, and the sum would be negative. That debt is paid by
//! later arrivals.

use std::time::Duration;

use super::Sample;
use crate::clock::Instant;

/// Samples further apart than this have an unobserved time between them. They are taken once a second: halved, one slow answer
/// tears a hole into the load of a busy server, which is the one that answers slowly; doubled, what happened in ten seconds
/// is spread evenly over them.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A sample older than this says nothing of the present; two were missed.
const FRESH: Duration = Duration::from_secs(3);

/// A debt of arrivals older than this will not be paid: its requests have left the server without an end that it counts (TGI's
/// and an older vLLM's clients that gave up). Twice what `SGLang` needs to be even again; a longer one hides the arrivals of a
/// service that gets few.
const DEBT: Duration = Duration::from_secs(60);

/// What is known of a server's load since this process began to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    last: Option<(Instant, Sample)>,
    is_missed: bool,
    in_flight: f64,
    sums: Sums,
    /// Arrivals counted too early, and since when.
    debt: f64,
    owed_since: Instant,
}

/// What was observed; all of it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Seconds between samples that follow each other.
    pub observed_seconds: f64,
    /// Requests that arrived.
    pub arrivals: f64,
    /// Requests that got their whole answer.
    pub completions: f64,
    /// Requests that ended otherwise.
    pub failures: f64,
    /// Integral of requests in flight over the time observed, waiting ones included.
    pub busy_seconds: f64,
    /// Sum of the times from arrival to end.
    pub service_seconds: f64,
}

/// A [`Tally`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// What was observed so far.
    pub sums: Sums,
    /// Requests on the server by the last sample, waiting ones included.
    pub in_flight: f64,
    /// Whether that sample is of now.
    pub is_fresh: bool,
}

// === impl Tally ===

impl Tally {
    /// Takes what the server said at `now`.
    pub fn take(&mut self, now: Instant, sample: Sample) {
        self.is_missed = false;
        let before = self.last.replace((now, sample));
        self.in_flight = sample.in_flight();
        let Some((at, earlier)) = before else { return };
        let gap = now.since(at);
        if gap > LONGEST_GAP || is_another(&earlier, &sample) {
            self.debt = 0.0;
            return;
        }
        self.observe(gap.as_secs_f64(), now, &earlier, &sample);
    }

    /// The server could not be asked, or said nothing that is understood.
    pub fn miss(&mut self) {
        self.is_missed = true;
    }

    /// The last sample, if it is of now.
    pub fn sample(&self, now: Instant) -> Option<Sample> {
        let (at, sample) = self.last?;
        (!self.is_missed && now.since(at) <= FRESH).then_some(sample)
    }

    /// All that is known at `now`.
    pub fn counts(&self, now: Instant) -> Counts {
        Counts {
            sums: self.sums,
            in_flight: self.in_flight,
            is_fresh: self.sample(now).is_some(),
        }
    }

    fn observe(&mut self, seconds: f64, now: Instant, earlier: &Sample, later: &Sample) {
        let completions = later.completed - earlier.completed;
        let failures = later.failed - earlier.failed;
        let more = later.in_flight() - earlier.in_flight();
        let told = later.request_seconds.zip(earlier.request_seconds);
        let service = told.map(|(later, earlier)| later - earlier);
        let seen = f64::midpoint(earlier.in_flight(), later.in_flight()) * seconds;
        // Who does not tell what runs tells how long it took when it has ended: in the mean over a while the same.
        let unseen = service.filter(|_| later.running.is_none());
        let busy = unseen.map_or(seen, |service| seen.max(service));
        if let Some(service) = unseen.filter(|_| seconds > 0.0) {
            self.in_flight = self.in_flight.max(service / seconds);
        }
        let arrived = self.settled(completions + failures + more, now);
        let sums = &mut self.sums;
        sums.observed_seconds += seconds;
        sums.arrivals += arrived;
        sums.completions += completions;
        sums.failures += failures;
        sums.busy_seconds += busy;
        // By Little's law the two are the same in the mean.
        sums.service_seconds += service.unwrap_or(busy);
    }

    /// What is left of `arrived` when the debt is paid.
    fn settled(&mut self, arrived: f64, now: Instant) -> f64 {
        if now.since(self.owed_since) > DEBT {
            self.debt = 0.0;
        }
        let left = arrived - self.debt;
        if left >= 0.0 {
            self.debt = 0.0;
            return left;
        }
        if self.debt <= 0.0 {
            self.owed_since = now;
        }
        self.debt = -left;
        0.0
    }
}

/// Whether a counter fell back: the server was started again, or a model's series are gone.
fn is_another(earlier: &Sample, later: &Sample) -> bool {
    let seconds = |sample: &Sample| sample.request_seconds.unwrap_or(0.0);
    later.engine != earlier.engine
        || later.completed < earlier.completed
        || later.failed < earlier.failed
        || seconds(later) < seconds(earlier)
}

// === impl Sums ===

impl Sums {
    /// What came between `earlier` and these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            observed_seconds: self.observed_seconds - earlier.observed_seconds,
            arrivals: self.arrivals - earlier.arrivals,
            completions: self.completions - earlier.completions,
            failures: self.failures - earlier.failures,
            busy_seconds: self.busy_seconds - earlier.busy_seconds,
            service_seconds: self.service_seconds - earlier.service_seconds,
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Whether nothing is on the server now.
    pub fn is_idle(&self) -> bool {
        self.is_fresh && self.in_flight <= 0.0
    }
}

#[cfg(test)]
mod tests;
