//! A fleet that does not exist: waves of load, replicas asked for ahead of them and shadows that come late. It moves with
//! the clock, so that the page has something to show.

use std::time::Duration;

use crate::admin::{Condition, Decision, History, Overview, Replicas, Shadow, ShadowSeries};
use crate::clock::{Clock, Timestamp};
use crate::forecast::{ExpertWeight, Forecast, ForecastPoint, Season};
use crate::plan::{Plan, Reason, Step};
use crate::tuning::{Advice, Candidate, Sight};

const LEAD: f64 = 120.0;
const STEP_SECS: u32 = 5;
const ROWS: u32 = 400;
const PER_POD: f64 = 9.0;

/// The fleet at whatever time its clock shows.
pub(super) struct MadeUp {
    clock: Clock,
}

// === impl MadeUp ===

impl MadeUp {
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
        }
    }

    pub(super) fn overview(&self) -> Overview {
        let now = self.clock.now().timestamp;
        let secs = seconds(now);
        let (spec, ready) = (desired(secs), ready(secs));
        Overview {
            now,
            speed: self.clock.speed(),
            version: env!("CARGO_PKG_VERSION"),
            workload: "inference/bert-intent-detection".to_owned(),
            leader: Some("bert-intent-detection-7d9c6b5f4-x2x9k".to_owned()),
            term: 4,
            leader_changes: 1,
            mode: "auto",
            acts: true,
            plan: Some(Plan {
                made: now,
                desired: spec,
                needed_now: pods(arrivals(secs)),
                needed_ahead: Some(spec),
                reasons: reasons(secs),
                until: None,
            }),
            advice: Some(Advice {
                candidate: Candidate {
                    sight: Sight::Season,
                    headroom: 1.37,
                    hold: Duration::from_secs(600),
                    drain: Duration::from_secs(60),
                },
                rate: wave(secs + LEAD),
                need: f64::from(spec),
                pod_rps: PER_POD,
                pod_hours: 812.4,
                late: 14.0,
                compared: 323,
            }),
            replicas: Replicas {
                min: 2,
                max: 40,
                spec,
                ready: usize::try_from(ready).unwrap_or(0),
                starting: usize::try_from(spec.saturating_sub(ready)).unwrap_or(0),
                unknown: 0,
            },
            arrivals_per_second: arrivals(secs),
            in_flight: arrivals(secs) * 0.8,
            lead_time_seconds: Some(LEAD),
            requests: Some(1_284_112),
            slo_violations: Some(14),
            shadows: vec![
                shadow("HPA", late(secs, 90.0), 18_412),
                shadow("KPA", late(secs, 30.0), 9_275),
            ],
            conditions: vec![Condition {
                kind: "checkpoint_forbidden",
                since: now,
                text:
                    "The history is not saved: configmaps \"sidescale-bert-history\" is forbidden"
                        .to_owned(),
                remedy: Some(
                    "Grant `update` on it to this ServiceAccount; the Role is in sidecar.yaml."
                        .to_owned(),
                ),
            }],
        }
    }

    pub(super) fn history(&self) -> History {
        let now = self.clock.now().timestamp;
        let step = Duration::from_secs(u64::from(STEP_SECS));
        let at: Vec<Timestamp> = (0..ROWS).rev().map(|row| now - step * row).collect();
        let column = |read: fn(f64) -> u32| at.iter().map(|at| Some(read(seconds(*at)))).collect();
        History {
            step_seconds: STEP_SECS,
            arrivals: at
                .iter()
                .enumerate()
                // A stretch that nobody saw.
                .map(|(row, at)| (!(260..268).contains(&row)).then(|| arrivals(seconds(*at))))
                .collect(),
            expected: at
                .iter()
                .map(|at| Some(wave(seconds(*at)) * 1.15))
                .collect(),
            desired: column(desired),
            ready: column(ready),
            shadows: vec![
                ShadowSeries {
                    name: "HPA",
                    desired: column(|secs| late(secs, 90.0)),
                },
                ShadowSeries {
                    name: "KPA",
                    desired: column(|secs| late(secs, 30.0)),
                },
            ],
            at,
        }
    }

    pub(super) fn forecast(&self) -> Forecast {
        let made = self.clock.now().timestamp;
        let points = (0..60)
            .map(|step| {
                let ahead = f64::from(step) * 10.0;
                let at = made + Duration::from_secs_f64(ahead);
                let point = wave(seconds(at));
                let spread = 0.06 + ahead / 4_000.0;
                ForecastPoint {
                    at,
                    point,
                    lower: point * (1.0 - spread),
                    upper: point * (1.0 + spread),
                }
            })
            .collect();
        Forecast {
            made,
            points,
            seasons: vec![Season {
                period: Duration::from_secs(86_400),
                strength: 0.82,
            }],
            trust: 0.93,
            experts: vec![ExpertWeight {
                name: "season",
                weight: 1.0,
                loss: 3.1,
            }],
        }
    }

    pub(super) fn decisions(&self) -> Vec<Decision> {
        let now = self.clock.now().timestamp;
        let mut decisions = Vec::new();
        let mut before = None;
        for row in (0..ROWS).rev() {
            let at = Timestamp::from_secs(now.as_secs() / 5 * 5)
                - Duration::from_secs(u64::from(STEP_SECS * row));
            let to = desired(seconds(at));
            if let Some(from) = before
                && from != to
            {
                decisions.push(Decision {
                    at,
                    term: 4,
                    from,
                    to,
                    acted: true,
                    reasons: reasons(seconds(at)),
                });
            }
            before = Some(to);
        }
        decisions
    }
}

fn shadow(name: &'static str, desired: u32, slo_violations: u64) -> Shadow {
    Shadow {
        name,
        desired,
        ready: desired,
        slo_violations,
    }
}

fn reasons(secs: f64) -> Vec<Reason> {
    let reason = |step, text: String| Reason { step, text };
    let upper = wave(secs + LEAD) * 1.12;
    vec![
        reason(
            Step::Now,
            format!(
                "{:.0} requests/s need {} pods at 9 requests/s each",
                arrivals(secs),
                pods(arrivals(secs))
            ),
        ),
        reason(
            Step::Ahead,
            format!(
                "by the usual course of the day and the trend, {upper:.0} arrivals a second at most while a new pod takes 2m need {} pods",
                desired(secs)
            ),
        ),
        reason(
            Step::Trust,
            "of 323 ways to decide this one would have cost least of late: 812.4 pod-hours, 14 requests late".to_owned(),
        ),
        reason(
            Step::Starting,
            format!(
                "{} pods asked for earlier are still starting and count",
                desired(secs).saturating_sub(ready(secs))
            ),
        ),
        reason(Step::Behavior, "no limit of scaleUp applies".to_owned()),
    ]
}

fn seconds(at: Timestamp) -> f64 {
    f64::from(i32::try_from(at.as_secs() % 86_400).unwrap_or(0))
        + f64::from(i32::try_from(at.as_millis().rem_euclid(1_000)).unwrap_or(0)) / 1_000.0
}

fn wave(secs: f64) -> f64 {
    let slow = (secs / 900.0 * std::f64::consts::TAU).sin();
    let fast = (secs / 210.0 * std::f64::consts::TAU).sin();
    140.0 + 95.0 * slow.powi(3) + 60.0 * slow + 9.0 * fast
}

fn arrivals(secs: f64) -> f64 {
    let noise = (secs * 12.9898).sin() * 43_758.545;
    (wave(secs) * (1.0 + 0.09 * (noise - noise.floor() - 0.5))).max(0.0)
}

fn pods(rate: f64) -> u32 {
    let mut pods = 2;
    while f64::from(pods) * PER_POD < rate {
        pods += 1;
    }
    pods
}

fn desired(secs: f64) -> u32 {
    let until = [0.0, 0.5, 1.0, 1.5].map(|share| wave(secs + LEAD * share) * 1.12);
    until.into_iter().map(pods).max().unwrap_or(2)
}

fn ready(secs: f64) -> u32 {
    desired(secs - LEAD).min(desired(secs))
}

fn late(secs: f64, by: f64) -> u32 {
    let behind = [0.0, 1.0, 2.0].map(|share| arrivals(secs - by * (1.0 + share)));
    behind
        .into_iter()
        .map(|rate| pods(rate * 1.3))
        .max()
        .unwrap_or(2)
}
