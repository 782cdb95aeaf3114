//! What the leader shows of its work: the last turn, the decisions, and the columns of the page.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::Excluded;
use std::time::Duration;

use crate::admin::{Decision, History, Overview, Replicas, Shadow, ShadowSeries};
use crate::clock::{Now, Timestamp};
use crate::controller::{Controller, Turn};
use crate::fleet::Snapshot;
use crate::forecast::Forecast;
use crate::history::{self, Bucket};
use crate::policy::Policy;
use crate::telemetry::Fleet;

/// Decisions kept: some days of a fleet that follows a daily wave.
const DECISIONS: usize = 200;
/// Length of a row of the page's columns. A person cannot see more in an hour's chart.
const ROW: Duration = Duration::from_secs(10);
/// Rows kept: an hour.
const ROWS: usize = 360;

/// What the leader shows; a new leader starts an empty one.
#[derive(Debug, Default)]
pub(super) struct Board {
    term: u64,
    last: Option<Shown>,
    decisions: VecDeque<Decision>,
    rows: VecDeque<Row>,
    /// Arrivals of the hour before this reign, as far as they are remembered.
    past: Vec<(Timestamp, Option<f64>)>,
    raised: u64,
    lowered: u64,
    pub(super) conflicts: u64,
    pub(super) errors: u64,
}

/// The last turn.
#[derive(Debug)]
struct Shown {
    overview: Overview,
    forecast: Forecast,
    fleet: Fleet,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    at: Timestamp,
    arrivals: Option<f64>,
    /// The upper forecast for one lead time ahead of this row, made in it.
    ahead: Option<(Timestamp, f64)>,
    desired: u32,
    ready: u32,
    shadows: Option<(u32, u32)>,
}

// === impl Board ===

impl Board {
    /// The board of a reign that begins.
    pub(super) fn of(term: u64) -> Self {
        Self {
            term,
            ..Self::default()
        }
    }

    /// A turn was made. `acts`: its plan is carried out.
    pub(super) fn turned(
        &mut self,
        now: Now,
        turn: &Turn,
        snapshot: &Snapshot,
        policy: &Policy,
        controller: &Controller,
        acts: bool,
    ) {
        let rate = controller.arrivals_per_second(now.timestamp);
        let ahead = turn.ahead(now.timestamp);
        self.row(
            now.timestamp,
            turn,
            snapshot,
            rate,
            ahead.map(|point| (point.at, point.upper)),
        );
        let replicas = Replicas {
            min: policy.min_replicas,
            max: policy.max_replicas,
            spec: snapshot.spec_replicas,
            ready: snapshot.ready(),
            starting: snapshot.starting(),
            unknown: snapshot.unknown(),
        };
        let shadows = turn.shadows.iter().flat_map(|shadows| {
            let shadow = |name, seen: crate::controller::ShadowState| Shadow {
                name,
                desired: seen.desired,
                ready: seen.ready,
                slo_violations: seen.slo_violations,
            };
            [shadow("HPA", shadows.hpa), shadow("KPA", shadows.kpa)]
        });
        self.last = Some(Shown {
            overview: Overview {
                now: now.timestamp,
                term: self.term,
                mode: policy.mode.label(),
                acts,
                plan: Some(turn.plan.clone()),
                advice: turn.advice,
                replicas,
                arrivals_per_second: rate.unwrap_or_default(),
                in_flight: snapshot.in_flight,
                lead_time_seconds: Some(turn.lead_time.time.as_secs_f64()),
                shadows: shadows.collect(),
                ..Overview::default()
            },
            forecast: turn.forecast.clone().unwrap_or_default(),
            fleet: Fleet {
                desired: turn.plan.desired,
                spec: replicas.spec,
                ready: replicas.ready,
                starting: replicas.starting,
                unknown: replicas.unknown,
                raised: self.raised,
                lowered: self.lowered,
                arrivals_per_second: rate.unwrap_or_default(),
                in_flight: snapshot.in_flight,
                forecast_point: ahead.map(|point| point.point),
                forecast_upper: ahead.map(|point| point.upper),
                trust: turn.forecast.as_ref().map(|forecast| forecast.trust),
                lead_time_seconds: Some(turn.lead_time.time.as_secs_f64()),
            },
        });
    }

    /// A plan asked for another number; `acted`: it was written.
    pub(super) fn decided(&mut self, turn: &Turn, from: u32, acted: bool) {
        let decision = Decision {
            at: turn.plan.made,
            term: self.term,
            from,
            to: turn.plan.desired,
            acted,
            reasons: turn.plan.reasons.clone(),
        };
        // In `observe` the same wish comes every second: it is one decision.
        if !acted
            && let Some(last) = self.decisions.back()
            && (last.from, last.to) == (decision.from, decision.to)
        {
            return;
        }
        if acted && decision.to > from {
            self.raised += 1;
        } else if acted {
            self.lowered += 1;
        }
        if self.decisions.len() == DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    pub(super) fn overview(&self) -> Option<Overview> {
        self.last.as_ref().map(|shown| shown.overview.clone())
    }

    pub(super) fn forecast(&self) -> Option<Forecast> {
        self.last.as_ref().map(|shown| shown.forecast.clone())
    }

    pub(super) fn fleet(&self) -> Option<Fleet> {
        self.last.as_ref().map(|shown| shown.fleet)
    }

    pub(super) fn decisions(&self) -> Vec<Decision> {
        self.decisions.iter().cloned().collect()
    }

    /// The hour before this reign, by what came back of it: finer where members remember, else by the minute.
    pub(super) fn recall(&mut self, remembered: &history::History, begun: Timestamp) {
        let hour = ROW * u32::try_from(ROWS).unwrap_or(u32::MAX);
        let from = begun - hour;
        let minutes: BTreeMap<Timestamp, f64> = remembered
            .minutes(from..begun)
            .filter_map(|(start, bucket)| Some((start, bucket.filter(Bucket::is_observed)?.rate())))
            .collect();
        let of_its_minute = |at: Timestamp| {
            let (start, rate) = minutes.range(..=at).next_back()?;
            (at.since(*start) < Duration::from_secs(60)).then_some(*rate)
        };
        let tens = remembered.tens(from..begun).map(|(start, bucket)| {
            let fine = bucket
                .filter(Bucket::is_observed)
                .map(|bucket| bucket.rate());
            (start, fine.or_else(|| of_its_minute(start)))
        });
        self.past = tens.collect();
    }

    pub(super) fn history(&self) -> History {
        let begun = self.rows.front().map(|row| row.at);
        let earlier = |(at, _): &&(Timestamp, _)| begun.is_none_or(|begun| *at < begun);
        let kept = ROWS.saturating_sub(self.rows.len());
        let past: Vec<_> = self.past.iter().filter(earlier).collect();
        let past = &past[past.len().saturating_sub(kept)..];
        let forecasts = self.expectations();
        let unknown = |_past: &&(Timestamp, Option<f64>)| None;
        let column = |pick: fn(&Row) -> Option<u32>| {
            let before = past.iter().map(|_row| None);
            before.chain(self.rows.iter().map(pick)).collect()
        };
        History {
            step_seconds: u32::try_from(ROW.as_secs()).unwrap_or(u32::MAX),
            at: past
                .iter()
                .map(|(at, _)| *at + ROW)
                .chain(self.rows.iter().map(|row| row.at))
                .collect(),
            arrivals: past
                .iter()
                .map(|(_, rate)| *rate)
                .chain(self.rows.iter().map(|row| row.arrivals))
                .collect(),
            expected: past
                .iter()
                .map(unknown)
                .chain(self.rows.iter().map(|row| expected(&forecasts, row.at)))
                .collect(),
            desired: column(|row| Some(row.desired)),
            ready: column(|row| Some(row.ready)),
            shadows: vec![
                ShadowSeries {
                    name: "HPA",
                    desired: column(|row| Some(row.shadows?.0)),
                },
                ShadowSeries {
                    name: "KPA",
                    desired: column(|row| Some(row.shadows?.1)),
                },
            ],
        }
    }

    /// What earlier rows had expected, by the time it was expected for; of two for the same time the later.
    fn expectations(&self) -> BTreeMap<Timestamp, (usize, f64)> {
        let forecasts = self.rows.iter().enumerate();
        forecasts
            .filter_map(|(made, row)| row.ahead.map(|(at, upper)| (at, (made, upper))))
            .collect()
    }

    fn row(
        &mut self,
        at: Timestamp,
        turn: &Turn,
        snapshot: &Snapshot,
        arrivals: Option<f64>,
        ahead: Option<(Timestamp, f64)>,
    ) {
        let row = Row {
            at,
            arrivals,
            ahead,
            desired: turn.plan.desired,
            ready: u32::try_from(snapshot.ready()).unwrap_or(u32::MAX),
            shadows: turn
                .shadows
                .map(|shadows| (shadows.hpa.desired, shadows.kpa.desired)),
        };
        let length = i64::try_from(ROW.as_millis()).unwrap_or(i64::MAX);
        let slot = |at: Timestamp| at.as_millis().div_euclid(length);
        match self.rows.back_mut() {
            Some(last) if slot(last.at) == slot(at) => *last = row,
            _ => {
                if self.rows.len() == ROWS {
                    self.rows.pop_front();
                }
                self.rows.push_back(row);
            }
        }
    }
}

/// What was expected for `at` in the latest row that spoke of it.
fn expected(forecasts: &BTreeMap<Timestamp, (usize, f64)>, at: Timestamp) -> Option<f64> {
    let near = forecasts.range((Excluded(at - ROW), Excluded(at + ROW)));
    near.max_by_key(|(_at, (made, _upper))| *made)
        .map(|(_at, (_made, upper))| *upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_expected_for_a_row_is_the_latest_forecast_that_spoke_of_it() {
        let at = |secs| Timestamp::from_secs(1_000 + secs);
        let row = |secs, ahead: Option<(i64, f64)>| Row {
            at: at(secs),
            ahead: ahead.map(|(for_when, upper)| (at(for_when), upper)),
            ..Row::default()
        };
        let mut board = Board::default();
        board.rows.extend([
            row(0, Some((25, 1.0))),
            // The lead time became shorter: this one speaks of an earlier moment, and is the newer of the two near 20.
            row(10, Some((15, 2.0))),
            row(20, None),
            row(30, Some((300, 3.0))),
            row(40, None),
        ]);
        let expected = board.history().expected;
        assert_eq!(expected, [None, Some(2.0), Some(2.0), Some(1.0), None]);
    }
}
