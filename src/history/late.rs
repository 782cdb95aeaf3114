//! A checkpoint that comes after its reader has begun to record: an API server that did not answer at the takeover.

use super::{History, STARTS_KEPT};
use crate::clock::Timestamp;

impl History {
    /// Takes in an `earlier` history, of a leader whose reign ended before this one's own records began at `begun`.
    ///
    /// Of a minute before `begun` that both know, the one that saw more of it stands: members were asked for that time
    /// when the checkpoint could not be had, and what they sent is the same load. The minute of `begun` itself is
    /// joined, since each saw another part of it, and what came after is this history's own. A checkpoint has no finer
    /// tiers than minutes.
    pub fn merge_earlier(&mut self, earlier: &Self, begun: Timestamp) {
        let shared = self.minutes.slot_of(begun.as_millis());
        for slot in earlier.minutes.slots() {
            let Some(theirs) = earlier.minutes.get(slot).filter(|_| slot <= shared) else {
                continue;
            };
            let Some(mine) = self.minutes.open(slot) else {
                continue;
            };
            if slot == shared {
                mine.join(theirs);
            } else if theirs.load.pod_seconds > mine.load.pod_seconds {
                *mine = *theirs;
            }
        }
        let mut starts = earlier.starts.clone();
        starts.extend(&self.starts);
        starts.drain(..starts.len().saturating_sub(STARTS_KEPT));
        self.starts = starts;
        self.revision += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::{Load, Past};

    /// The start of a minute.
    const START: i64 = 1_700_000_040;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    fn second(rate: f64) -> Load {
        Load {
            pod_seconds: 2.0,
            arrivals: rate,
            ..Load::default()
        }
    }

    fn recorded(secs: std::ops::RangeInclusive<i64>, rate: f64) -> History {
        let mut history = History::new(Duration::from_secs(86_400));
        for sec in secs {
            history.record(at(sec), &second(rate));
        }
        history
    }

    /// Arrivals of each minute in order; `None`: nobody saw it.
    fn minutes(history: &History, count: i64) -> Vec<Option<f64>> {
        let range = at(0)..at(count * 60);
        let arrivals = |bucket: super::super::Bucket| bucket.load.arrivals.round();
        history
            .minutes(range)
            .map(|(_start, bucket)| bucket.map(arrivals))
            .collect()
    }

    #[test]
    fn a_late_checkpoint_is_joined_with_what_was_recorded_since_and_nothing_counts_twice() {
        let mut earlier = recorded(1..=150, 4.0);
        earlier.record_start(Duration::from_secs(100));
        // This leader begins in the middle of the third minute, after ten seconds that nobody led.
        let mut own = recorded(161..=240, 6.0);
        own.record_start(Duration::from_secs(50));
        let begun = at(160);
        // Asked for all they have, the members sent the second minute again, of one pod alone.
        let half = Past {
            start_millis: at(60).as_millis(),
            step_seconds: 60,
            slots: vec![second(2.0).scaled(30.0)],
        };
        own.merge_past(&half, at(0)..begun);
        own.merge_earlier(&earlier, begun);
        let third = 30.0 * 4.0 + 20.0 * 6.0;
        let expected = [Some(240.0), Some(240.0), Some(third), Some(360.0)];
        assert_eq!(minutes(&own, 4), expected);
        let starts: Vec<u64> = own.starts().map(|start| start.as_secs()).collect();
        assert_eq!(starts, [100, 50], "the oldest first");
        assert!(own.recent(at(240), Duration::from_secs(10)).is_some());
    }

    #[test]
    fn what_members_saw_more_of_stands_and_minutes_after_the_begin_are_this_leaders_own() {
        let earlier = recorded(1..=200, 4.0);
        let mut own = History::new(Duration::from_secs(86_400));
        let begun = at(125);
        let more = Past {
            start_millis: at(0).as_millis(),
            step_seconds: 60,
            slots: vec![second(5.0).scaled(90.0)],
        };
        own.merge_past(&more, at(0)..begun);
        own.merge_earlier(&earlier, begun);
        // The last minute of the other history is after `begun`: no leader before this one can have seen it.
        assert_eq!(minutes(&own, 4)[..2], [Some(450.0), Some(240.0)]);
        assert_eq!(minutes(&own, 4)[3], None);
    }

    #[test]
    fn into_an_empty_history_all_comes_back() {
        let mut own = History::new(Duration::from_secs(86_400));
        own.merge_earlier(&recorded(1..=120, 4.0), at(500));
        assert_eq!(minutes(&own, 2), [Some(240.0), Some(240.0)]);
    }
}
