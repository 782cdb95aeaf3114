//! The planner: the steps of a plan, in their order.

mod learnt;

use std::time::Duration;

use super::memory::{Memory, UNREADY_GRACE};
use super::present::{Present, present};
use super::{Inputs, Plan, Reason, Step, pods};
use crate::behavior::is_within_tolerance;
use crate::clock::{Instant, Now};
use crate::policy::{Behavior, Mode, Policy};
use crate::units::Shown;

/// With a silent member, one pod may go in this time: long enough that a load which hides behind the silence shows up
/// on those that still report before the next one goes.
const BLIND_PERIOD: Duration = Duration::from_secs(600);

/// At most this share of the need is replaced for unready pods: a probe that fails everywhere, as under overload, is not
/// cured by twice the pods.
const REPLACED_SHARE: f64 = 0.25;

/// Makes plans, one a turn, and remembers what their pace needs.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    memory: Option<Memory>,
}

/// A plan in the making.
#[derive(Debug)]
struct Draft<'a> {
    inputs: &'a Inputs<'a>,
    memory: &'a mut Memory,
    /// What was last asked for.
    current: u32,
    /// What stays if nothing may be lowered: `current`, within the bounds.
    hold: u32,
    plan: Plan,
}

/// The need after the steps that know load only, and whether it may act in spite of tolerance.
#[derive(Clone, Copy, Debug)]
struct Need {
    pods: f64,
    is_overrun: bool,
}

// === impl Planner ===

impl Planner {
    /// A planner without a past. It takes what it first sees as asked for, and so does not lower before the time has
    /// passed for which a pod is kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plan for this turn.
    pub fn plan(&mut self, inputs: &Inputs<'_>) -> Plan {
        let current = inputs.snapshot.spec_replicas;
        let now = inputs.now;
        let memory = self
            .memory
            .get_or_insert_with(|| Memory::new(now.instant, current));
        memory.observe(now.instant, inputs.snapshot);
        let Policy {
            min_replicas: min,
            max_replicas: max,
            ..
        } = *inputs.policy;
        let mut draft = Draft {
            inputs,
            memory,
            current,
            hold: current.clamp(min, max.max(min)),
            plan: Plan {
                made: now.timestamp,
                ..Plan::default()
            },
        };
        let need = draft.need();
        let need = draft.replace_lost(need);
        let bounded = draft.bound(need);
        let bounded = draft.keep(bounded);
        let paced = draft.pace(need, bounded);
        let known = draft.hold_if_unknown(paced);
        draft.plan.desired = draft.give_back(known);
        draft.say_if_paused();
        draft.plan
    }
}

// === impl Draft ===

impl Draft<'_> {
    fn say(&mut self, step: Step, text: String) {
        self.plan.reasons.push(Reason::new(step, text));
    }

    /// Steps now, ahead, trust and mode.
    fn need(&mut self) -> Need {
        let Present {
            need,
            steady,
            waiting,
            arrivals,
            is_over,
            is_overrun,
            text,
        } = present(self.inputs, self.memory.held(self.inputs.now.instant));
        self.plan.needed_now = need.map_or(self.current, pods);
        self.say(Step::Now, text);
        let pods = match self.inputs.advice {
            Ok(advice) => {
                // A backlog is cleared at the pace that was learnt, which can be the pace of pods that are all full already.
                // While more are needed the help that is on its way is not sent back, and none is asked for on top of it.
                let current = f64::from(self.current);
                let most = if is_overrun { f64::INFINITY } else { current };
                let backed = need.filter(|_| is_over).map_or(0.0, |need| need.min(most));
                let present = steady.unwrap_or(current).max(backed);
                self.follow(&advice, present, (waiting, arrivals))
            }
            Err(why) => {
                let text = format!("nothing was learnt yet, as {}", why.words());
                self.say(Step::Trust, text);
                let mode = self.inputs.policy.mode.label();
                let text = format!("{mode}: what is needed now counts alone");
                self.say(Step::Mode, text);
                need.unwrap_or_else(|| f64::from(self.current))
            }
        };
        Need { pods, is_overrun }
    }

    /// `maxAhead` limits what looking ahead may add.
    fn cut(&self, need: f64) -> (f64, String) {
        let Some(share) = self.inputs.policy.prediction.max_ahead else {
            return (need, String::new());
        };
        let now = f64::from(self.plan.needed_now);
        // Rounded up: half of a single pod would never let anything be added at all.
        let most = now + (share * now.max(1.0)).ceil();
        if need <= most {
            return (need, String::new());
        }
        let percent = share * 100.0;
        (most, format!(", cut to {most} by maxAhead {percent:.0}%"))
    }

    /// Pods on their way count; pods that are lost do not, and are asked for again beside themselves.
    fn replace_lost(&mut self, need: Need) -> Need {
        let snapshot = self.inputs.snapshot;
        let lost = self.memory.lost(self.inputs.now.instant);
        let most = (need.pods * REPLACED_SHARE).ceil();
        let replaced = (lost as f64).min(most);
        let pods = need.pods + replaced;
        let mut parts = Vec::new();
        let starting = snapshot.starting();
        if starting > 0 {
            let current = self.current;
            parts.push(format!(
                "{starting} of the {current} asked for are already starting and count"
            ));
        }
        if lost > 0 {
            let grace = Shown(UNREADY_GRACE);
            parts.push(format!(
                "{lost} unready for more than {grace} carry nothing, {replaced} asked for beside them"
            ));
        }
        if !parts.is_empty() {
            self.say(Step::Starting, parts.join("; "));
        }
        Need { pods, ..need }
    }

    fn bound(&mut self, need: Need) -> u32 {
        let wanted = pods(need.pods);
        let bounded = self.clamp(wanted);
        if bounded < wanted {
            let text = format!("{wanted} are needed and maxReplicas is {bounded}");
            self.say(Step::Bounds, text);
        } else if bounded > wanted {
            let text = format!("{wanted} would do and minReplicas is {bounded}");
            self.say(Step::Bounds, text);
        }
        bounded
    }

    /// Tolerance, stabilisation and rate limits.
    fn pace(&mut self, need: Need, bounded: u32) -> u32 {
        let unlimited = self.learnt_hold().map(|_| Behavior::unlimited());
        let behavior = unlimited.as_ref().unwrap_or(&self.inputs.policy.behavior);
        let now = self.inputs.now;
        let current = self.current;
        let ratio = need.pods / f64::from(current.max(1));
        let is_small = current == self.hold
            && is_within_tolerance(ratio, behavior)
            && !(need.is_overrun && bounded > current);
        let recommended = if is_small { current } else { bounded };
        if recommended != bounded {
            let text = format!("{:.1} pods are within tolerance of {current}", need.pods);
            self.say(Step::Behavior, text);
        }
        let stabilized = (self.memory.pace).stabilize(now.instant, current, recommended, behavior);
        let limited = (self.memory.pace).limit(now.instant, current, stabilized.replicas, behavior);
        let paced = self.clamp(limited);
        if stabilized.replicas > recommended {
            let window = Shown(behavior.scale_down.stabilization_window);
            let kept = stabilized.replicas;
            self.say(
                Step::Behavior,
                format!("{recommended} would do; {kept} were recommended within the last {window} and stay"),
            );
            self.holds_until(stabilized.until);
        } else if stabilized.replicas < recommended {
            let window = Shown(behavior.scale_up.stabilization_window);
            let kept = stabilized.replicas;
            self.say(
                Step::Behavior,
                format!("{recommended} are wanted, but not for all of the last {window}: {kept}"),
            );
        }
        if paced != stabilized.replicas {
            let wanted = stabilized.replicas;
            let text = format!("from {current}, the rate limits allow {paced} of {wanted}");
            self.say(Step::Behavior, text);
        }
        paced
    }

    /// Up is allowed, down is not.
    fn hold_if_unknown(&mut self, paced: u32) -> u32 {
        if paced >= self.hold {
            return paced;
        }
        let snapshot = self.inputs.snapshot;
        let hold = self.hold;
        if snapshot.rollout {
            self.say(Step::Unknown, format!("a rollout runs: {hold} stay"));
            return hold;
        }
        if !self.inputs.history_back {
            self.say(
                Step::Unknown,
                format!("the history is not back yet: {hold} stay"),
            );
            return hold;
        }
        let silent = snapshot.unknown();
        if silent == 0 {
            return paced;
        }
        let next = self.memory.lowered + BLIND_PERIOD;
        let period = Shown(BLIND_PERIOD);
        let said = format!("{silent} ready pods do not report; one pod may go in {period}");
        if self.inputs.now.instant >= next {
            let one_less = self.clamp(self.current.saturating_sub(1));
            self.say(Step::Unknown, format!("{said}: {one_less}"));
            one_less
        } else {
            self.say(Step::Unknown, format!("{said}: {hold} stay"));
            self.holds_until(Some(next));
            hold
        }
    }

    /// Whoever wants no pod to go has the last word.
    fn give_back(&mut self, paced: u32) -> u32 {
        if paced >= self.hold {
            return paced;
        }
        let hold = self.hold;
        let mode = self.inputs.policy.mode;
        if mode == Mode::ScaleUpOnly {
            self.say(Step::Down, format!("{}: {hold} stay", mode.label()));
            return hold;
        }
        self.say(Step::Down, format!("{} of {hold} go back", hold - paced));
        paced
    }

    /// The plan stays what it would be, so that a person sees what the end of the pause will bring.
    fn say_if_paused(&mut self) {
        if self.inputs.snapshot.paused {
            let (desired, current) = (self.plan.desired, self.current);
            self.say(
                Step::Paused,
                format!(
                    "the Deployment is annotated sidescale.dev/paused: {desired} are planned and {current} stay until \
                     the annotation is removed"
                ),
            );
        }
    }

    fn clamp(&self, replicas: u32) -> u32 {
        let Policy {
            min_replicas: min,
            max_replicas: max,
            ..
        } = *self.inputs.policy;
        replicas.clamp(min, max.max(min))
    }

    fn holds_until(&mut self, until: Option<Instant>) {
        let Now { instant, timestamp } = self.inputs.now;
        self.plan.until = until.map(|until| timestamp + until.since(instant));
    }
}

/// A measured duration without its milliseconds, for a sentence.
fn whole_secs(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
