//! Bounds that follow the clock: what a team writes down when it knows its days, as KEDA's cron
//! trigger does.

use std::time::Duration;

use crate::clock::{Instant, Timestamp};

const DAY_SECS: i64 = 86_400;

/// When which bounds hold; at other times those of the workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The wall clock, in UTC, at the start of the rule's time.
    pub zero: Timestamp,
    /// Where two overlap, the larger bounds hold, as with KEDA's triggers.
    pub windows: Vec<CronWindow>,
}

/// A stretch of the day with bounds of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CronWindow {
    /// On which days it begins, Monday first.
    pub days: [bool; 7],
    /// From this time of the day ...
    pub from: Duration,
    /// ... until before this one; of the next day, if that is not later.
    pub to: Duration,
    /// The fewest replicas.
    pub min: u32,
    /// The most.
    pub max: u32,
}

// === impl Schedule ===

impl Schedule {
    /// The bounds that hold at `now`.
    pub fn bounds(&self, now: Instant, otherwise: (u32, u32)) -> (u32, u32) {
        let now = self.zero + now.offset();
        let open = self.windows.iter().filter(|window| window.is_open(now));
        open.map(|window| (window.min, window.max))
            .reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)))
            .unwrap_or(otherwise)
    }
}

// === impl CronWindow ===

impl CronWindow {
    fn is_open(&self, now: Timestamp) -> bool {
        let secs = now.as_secs();
        let time = Duration::from_secs(secs.rem_euclid(DAY_SECS).unsigned_abs());
        // The epoch was a Thursday.
        let today = (secs.div_euclid(DAY_SECS) + 3).rem_euclid(7);
        let begins = |day: i64| {
            usize::try_from(day.rem_euclid(7)).is_ok_and(|day| self.days.get(day) == Some(&true))
        };
        if self.from < self.to {
            begins(today) && (self.from..self.to).contains(&time)
        } else {
            (begins(today) && time >= self.from) || (begins(today - 1) && time < self.to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday at midnight.
    const MONDAY: Timestamp = Timestamp::from_secs(1_767_571_200);

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3_600)
    }

    fn window(days: [bool; 7], from: u64, to: u64, min: u32, max: u32) -> CronWindow {
        CronWindow {
            days,
            from: hours(from),
            to: hours(to),
            min,
            max,
        }
    }

    #[test]
    fn a_window_holds_on_its_days_from_its_begin_to_before_its_end() {
        let mut working_days = [true; 7];
        working_days[5..].fill(false);
        let mut friday = [false; 7];
        friday[4] = true;
        let schedule = Schedule {
            zero: MONDAY,
            windows: vec![
                window(working_days, 8, 20, 5, 10),
                window(friday, 19, 3, 7, 7),
            ],
        };
        for (day, hour, expected) in [
            (0, 7, (1, 48)),
            (0, 8, (5, 10)),
            (0, 19, (5, 10)),
            (0, 20, (1, 48)),
            (4, 19, (7, 10)),
            (4, 23, (7, 7)),
            (5, 2, (7, 7)),
            (5, 3, (1, 48)),
            (5, 12, (1, 48)),
            (7, 8, (5, 10)),
        ] {
            let now = Instant::from_offset(hours(24 * day + hour));
            let bounds = schedule.bounds(now, (1, 48));
            assert_eq!(bounds, expected, "day {day}, {hour}:00");
        }
    }
}
