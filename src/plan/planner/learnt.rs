//! What was learnt, in a plan: the way to decide that would have cost least says what is needed ahead, and for how long a pod
//! is kept.

use std::time::Duration;

use super::{Draft, whole_secs};
use crate::plan::{Step, pods};
use crate::policy::{Behavior, Mode};
use crate::tuning::{Advice, Candidate};
use crate::units::Shown;

// === impl Draft ===

impl Draft<'_> {
    /// The steps ahead, trust and mode. `present`: pods that are needed whatever was learnt.
    pub(super) fn follow(&mut self, advice: &Advice, present: f64, waiting: f64) -> f64 {
        let Candidate {
            sight,
            headroom,
            drain,
            ..
        } = advice.candidate;
        let backlog = waiting / (advice.pod_rps * drain.as_secs_f64());
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
            format!("{text}, and {backlog:.1} for {waiting:.0} that wait, to be gone in {drain}")
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
        acting
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
