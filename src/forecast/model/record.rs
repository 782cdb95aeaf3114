//! The errors of the past that are like the one to come.

use super::{Model, SCALE_FLOOR, count};
use crate::forecast::mixture::Record;

/// Distances in time, in minutes, at which the errors of late are looked up: dense first, two hours in all.
const RECENT: [i64; 18] = [
    0, 1, 2, 3, 4, 6, 8, 11, 14, 18, 23, 29, 36, 45, 56, 70, 90, 120,
];
/// An error of so many minutes ago counts half.
const RECENT_HALF: f64 = 45.0;
/// Distances from the same phase, in minutes: a jump may come some minutes earlier or later than yesterday.
const AROUND: [i64; 9] = [-8, -4, -2, -1, 0, 1, 2, 4, 8];
/// How many errors are looked up at any time, and how far they lie apart: two days, at no minute of the hour twice.
const ANYTIME: usize = 48;
const ANYTIME_APART: i64 = 61;
/// A cycle that lies so many cycles before the last counts half of it.
const CYCLE_HALF: f64 = 3.0;

// === impl Model ===

impl Model {
    /// One expert's errors at this lead under like circumstances, known at `origin`, carried over to the level that it
    /// now speaks of.
    pub(super) fn record(
        &self,
        expert: usize,
        lead: usize,
        origin: i64,
        target: i64,
        said: f64,
        typical: f64,
    ) -> Record {
        let errors = &self.errors[lead];
        let floor = (SCALE_FLOOR * typical).max(1e-9);
        let error_at = |minute: i64, weight: f64| {
            let index = self.index(minute).filter(|_| minute <= origin)?;
            let error = f64::from(errors[index][expert]);
            let said_then = f64::from(self.values[index]) - error;
            // Noise grows like the square root of a load that is counted, and faster when requests come in swarms.
            let growth = ((said + floor) / (said_then + floor))
                .clamp(0.25, 4.0)
                .sqrt();
            error.is_finite().then_some((error * growth, weight))
        };
        let recent = RECENT.iter().filter_map(|age| {
            let weight = RECENT_HALF / (RECENT_HALF + *age as f64);
            error_at(origin - age, weight)
        });
        let phase = self.periods.phases().flat_map(|(period, cycles)| {
            (1..=cycles).flat_map(move |cycle| {
                let fade = CYCLE_HALF / (CYCLE_HALF + cycle as f64 - 1.0);
                AROUND
                    .iter()
                    .map(move |offset| (target - count(period * cycle) + offset, fade))
            })
        });
        let mut record = Record {
            recent: Vec::with_capacity(RECENT.len()),
            phase: Vec::with_capacity(8 * AROUND.len()),
            anytime: Vec::with_capacity(ANYTIME),
        };
        record.recent.extend(recent);
        record
            .phase
            .extend(phase.filter_map(|(minute, weight)| error_at(minute, weight)));
        let oldest = RECENT[RECENT.len() - 1];
        let anytime = (1..=ANYTIME).map(|step| origin - oldest - count(step) * ANYTIME_APART);
        record
            .anytime
            .extend(anytime.filter_map(|minute| error_at(minute, 1.0)));
        record
    }
}
