//! What was learnt, in a plan: the way to decide that would have cost least says what is needed ahead, and for how long a pod
//! is kept.

use std::time::Duration;

use super::{Draft, whole_secs};
use crate::fleet::{Pod, PodPhase};
use crate::plan::{Step, pods};
use crate::policy::{Behavior, Mode};
use crate::tuning::backlog::{Line, backlog};
use crate::tuning::{Advice, Candidate};
use crate::units::Shown;

/// The longest that a request may wait to be started, as in the candidates' worlds.
const SLO_SECS: f64 = 2.0;

// === impl Draft ===

impl Draft<'_> {
    /// The steps ahead, trust and mode. `present`: pods that are needed whatever was learnt; `line`: what waits, and arrivals a
    /// second.
    pub(super) fn follow(&mut self, advice: &Advice, present: f64, line: (f64, f64)) -> f64 {
        let Candidate {
            sight,
            headroom,
            drain,
            ..
        } = advice.candidate;
        let (waiting, arrivals) = line;
        let will_wait = self.will_wait(waiting, arrivals, advice.pod_rps);
        let backlog = will_wait / (advice.pod_rps * drain.as_secs_f64());
        let text = format!(
            "by {}, {:.1} arrivals a second at most while a new pod takes {}; at {:.1} a pod and {headroom:.2} times as much in hand they need {:.1} pods",
            sight.words(),
            advice.rate,
            Shown(whole_secs(self.inputs.lead_time)),
            advice.pod_rps,
            advice.need,
        );
        let text = if backlog >= 0.05 {
            let drain = Shown(drain);
            format!(
                "{text}, and {backlog:.1} for {will_wait:.0} that will wait by then ({waiting:.0} do now), to be gone in {drain}"
            )
        } else {
            text
        };
        let mode = self.inputs.policy.mode;
        let (need, cut) = match mode {
            Mode::Reactive => (advice.need + backlog, String::new()),
            Mode::Observe | Mode::Auto | Mode::ScaleUpOnly | Mode::Proactive => {
                self.cut(advice.need + backlog)
            }
        };
        self.say(Step::Ahead, text + &cut);
        self.plan.needed_ahead = Some(pods(need));
        self.say(
            Step::Trust,
            format!(
                "of {} ways to decide this one would have cost least of late: {:.1} pod-hours, {:.0} requests late",
                advice.compared, advice.pod_hours, advice.late
            ),
        );
        let (acting, text) = match mode {
            Mode::Observe | Mode::Auto | Mode::ScaleUpOnly => {
                (need.max(present), "the larger of now and ahead counts")
            }
            Mode::Proactive => (need, "what is ahead counts alone"),
            Mode::Reactive => (
                need.max(present),
                "only ways that look at the present were compared",
            ),
        };
        self.say(Step::Mode, format!("{}: {text}", mode.label()));
        let served = self.inputs.snapshot.ready() as f64 * advice.pod_rps;
        let current = f64::from(self.current);
        if waiting > SLO_SECS * served && acting < current {
            self.say(
                Step::Starting,
                format!(
                    "{waiting:.0} wait, more than is served in {SLO_SECS} s: none of the {current} asked for is sent back"
                ),
            );
            return current;
        }
        acting
    }

    /// What waits when pods come that are asked for now.
    fn will_wait(&self, waiting: f64, arrivals: f64, pod_rps: f64) -> f64 {
        if waiting <= 0.0 {
            return 0.0;
        }
        let snapshot = self.inputs.snapshot;
        let (now, lead_time) = (self.inputs.now.instant, self.inputs.lead_time);
        let is_starting = |pod: &&Pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Starting);
        let mut starting: Vec<f64> = { snapshot.pods.iter() }
            .filter(is_starting)
            .map(|pod| {
                lead_time
                    .saturating_sub(now.since(pod.created))
                    .as_secs_f64()
            })
            .collect();
        starting.sort_unstable_by(f64::total_cmp);
        backlog(Line {
            waiting,
            arrivals,
            pod_rps,
            ready: u32::try_from(snapshot.ready()).unwrap_or(u32::MAX),
            starting: starting.into_iter().map(|comes| (comes, 1)),
            after: lead_time.as_secs_f64(),
        })
    }

    /// What was once asked for is kept for as long as it has paid to keep it, or as the user wrote.
    pub(super) fn keep(&mut self, bounded: u32) -> u32 {
        let now = self.inputs.now.instant;
        self.memory.ask(now, bounded);
        let Some(hold) = self.learnt_hold() else {
            return bounded;
        };
        let most = self.memory.most_asked(now, hold);
        let Some((at, kept)) = most.map(|(at, asked)| (at, self.clamp(asked))) else {
            return bounded;
        };
        if kept > bounded {
            let text = format!(
                "{bounded} would do; {kept} were asked for within the last {} and stay",
                Shown(hold)
            );
            self.say(Step::Behavior, text);
            self.holds_until(Some(at + hold));
        }
        kept
    }

    /// For how long a pod is kept, where that was learnt and `behavior` is as it is by default: a user who wrote windows,
    /// rates or a tolerance is taken at their word.
    pub(super) fn learnt_hold(&self) -> Option<Duration> {
        let is_default = self.inputs.policy.behavior == Behavior::default();
        let advice = self.inputs.advice.ok().filter(|_| is_default);
        advice.map(|advice| advice.candidate.hold)
    }
}
