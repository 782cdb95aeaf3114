//! What the present load needs: a proposal of each metric, the largest wins.
//!
//! A reactive rule on concurrency alone has a flaw that grows with the cold start: while pods load, requests queue, the
//! queue is concurrency, and `ceil(queue / target)` asks for the whole cluster just when help is on its way. So the load
//! that stays (arrivals times work) is told from the backlog that goes, and a backlog asks for the pods that clear it in
//! [`DRAIN`], not for a slot for each of its requests.

use std::fmt::Write as _;
use std::time::Duration;

use super::{FAST_WINDOW, Inputs, SLOW_WINDOW, Window, Work};
use crate::clock::Instant;
use crate::fleet::{Member, Pod, PodPhase, Snapshot};
use crate::policy::Metric;

/// The time in which a backlog is to be gone once there are pods for it. Doubled, those who wait do so half a minute
/// longer; halved, a burst that is over buys twice the pods, each for at least the scale-down stabilisation.
const DRAIN: Duration = Duration::from_secs(30);

/// Standard deviations that count as noise in the fast window. At one, a steady Poisson stream moves the plan every
/// minute; at four, a burst is acted on some seconds later.
const NOISE: f64 = 2.0;

/// The same for a single look at what is in flight, which is taken every second instead of every ten.
const NOISE_OF_A_LOOK: f64 = 3.0;

/// What the present needs.
#[derive(Debug)]
pub(super) struct Present {
    /// Pods that would carry it; `None`: no load is known.
    pub(super) need: Option<f64>,
    /// Pods that would carry what arrives, without what waits; `None` likewise.
    pub(super) steady: Option<f64>,
    /// Requests beyond what the ready pods hold at their targets.
    pub(super) waiting: f64,
    /// Arrivals a second.
    pub(super) arrivals: f64,
    /// Whether the ready pods are above their targets: more than a ratio near 1 says.
    pub(super) is_over: bool,
    /// Whether they are, and none is on its way.
    pub(super) is_overrun: bool,
    /// Why.
    pub(super) text: String,
}

/// The load of the whole fleet, members that are silent now included.
#[derive(Clone, Copy, Debug)]
struct Demand {
    arrivals: f64,
    in_flight: f64,
    gpu_utilization: Option<f64>,
    /// The pods whose mean that is: those of its window, and not those that are ready by now. A fleet that has just become
    /// smaller would else look as if it needed as much less again.
    gpu_pods: f64,
    /// The higher of the two windows' utilisations, 0 where there is none.
    gpu_peak: f64,
    ready: f64,
    service_seconds: Option<f64>,
}

/// What one pod carries at its target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Requests a second; `None`: the work of a request is not known.
    pub(super) rate: Option<f64>,
    /// Requests in flight; `None` likewise.
    pub(super) held: Option<f64>,
}

/// What the present load needs. `held`: in flight on the ready pods right now, and for longer than a moment.
pub(super) fn present(inputs: &Inputs<'_>, held: f64) -> Present {
    let Some(mut demand) = demand(inputs) else {
        return Present::unknown(inputs, "no ready pod reports its load");
    };
    let at_once = least_mean(held);
    let is_burst = at_once > demand.in_flight;
    demand.in_flight = demand.in_flight.max(at_once);
    let mut need: Option<f64> = None;
    let mut steady: Option<f64> = None;
    let mut waiting = 0.0_f64;
    let mut is_over = false;
    let mut text = String::new();
    for metric in &inputs.policy.metrics {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let share = Share::of(metric, inputs.work);
        if let Some((without, backlog)) = demand.propose(metric, share, &mut text) {
            let largest =
                |so_far: Option<f64>, new: f64| Some(so_far.map_or(new, |it| it.max(new)));
            need = largest(need, without + backlog);
            steady = largest(steady, without);
        }
        if let Some(held) = share.held {
            waiting = waiting.max(demand.in_flight - held * demand.ready);
        }
        let tolerated = demand.ready * (1.0 + inputs.policy.behavior.scale_up.tolerance);
        is_over |= (share.held).is_some_and(|held| demand.in_flight > held * tolerated);
    }
    if need.is_none() {
        return Present::unknown(inputs, &text);
    }
    if is_burst {
        note(
            &mut text,
            format_args!("; {held:.0} are in flight right now, more than noise above {at_once:.1}"),
        );
    }
    Present {
        need,
        steady,
        waiting,
        arrivals: demand.arrivals,
        is_over,
        is_overrun: is_over && !is_help_coming(inputs.snapshot),
        text,
    }
}

// === impl Present ===

impl Present {
    fn unknown(inputs: &Inputs<'_>, why: &str) -> Self {
        let replicas = inputs.snapshot.spec_replicas;
        Self {
            need: None,
            steady: None,
            waiting: 0.0,
            arrivals: 0.0,
            is_over: false,
            is_overrun: false,
            text: format!("{why}: the {replicas} replicas asked for stay"),
        }
    }
}

// === impl Share ===

impl Share {
    /// What one pod carries at `metric`'s target.
    pub(super) fn of(metric: &Metric, work: Option<Work>) -> Self {
        let positive = |value: f64| (value > 0.0 && value.is_finite()).then_some(value);
        let seconds = work.and_then(|work| positive(work.service_seconds));
        match *metric {
            Metric::Concurrency { average_value } => Self {
                rate: seconds.map(|seconds| average_value / seconds),
                held: Some(average_value),
            },
            Metric::RequestRate { per_second } => Self {
                rate: Some(per_second),
                held: seconds.map(|seconds| per_second * seconds),
            },
            Metric::Gpu {
                average_utilization,
            } => {
                let gpu_seconds = work.and_then(|work| work.gpu_seconds).and_then(positive);
                let rate = gpu_seconds.map(|busy| average_utilization / 100.0 / busy);
                Self {
                    rate,
                    held: rate.zip(seconds).map(|(rate, seconds)| rate * seconds),
                }
            }
        }
    }
}

// === impl Demand ===

impl Demand {
    /// The pods one metric asks for, for what arrives and for the backlog, and why; `None`: the metric has no signal.
    fn propose(&self, metric: &Metric, share: Share, text: &mut String) -> Option<(f64, f64)> {
        let by_rate = share.rate.map_or(0.0, |rate| self.arrivals / rate);
        let steady = match *metric {
            Metric::Concurrency { average_value } => {
                // What the ready pods hold beyond their targets is backlog, not load.
                let in_slots = (self.in_flight / average_value).min(self.ready);
                note(
                    text,
                    format_args!(
                        "concurrency: {:.1} in flight, {:.1} arrive a second, at {average_value} in flight a pod",
                        self.in_flight, self.arrivals
                    ),
                );
                in_slots.max(by_rate)
            }
            Metric::RequestRate { per_second } => {
                note(
                    text,
                    format_args!(
                        "requestRate: {:.1} arrive a second at {per_second} a pod",
                        self.arrivals
                    ),
                );
                by_rate
            }
            Metric::Gpu {
                average_utilization: target,
            } => {
                let Some(used) = self.gpu_utilization else {
                    note(text, format_args!("gpu: no pod reports a GPU"));
                    return None;
                };
                note(
                    text,
                    format_args!(
                        "gpu: {:.0}% of {} pods at {target}% a pod",
                        used * 100.0,
                        self.gpu_pods
                    ),
                );
                let target = target / 100.0;
                let by_use = used * self.gpu_pods / target;
                // A full GPU cannot show how much more is asked of it; the arrivals can.
                if self.gpu_peak >= target {
                    by_use.max(by_rate)
                } else {
                    by_use
                }
            }
        };
        let backlog = self.backlog(steady, share.held);
        note(text, format_args!(" need {steady:.1} pods"));
        if backlog >= 0.05 {
            note(text, format_args!(" and {backlog:.1} for the backlog"));
        }
        Some((steady, backlog))
    }

    /// Pods that clear, within [`DRAIN`], what is in flight beyond what the ready and the wanted pods hold.
    fn backlog(&self, steady: f64, held: Option<f64>) -> f64 {
        let Some(held) = held else {
            return 0.0;
        };
        let excess = self.in_flight / held - steady.max(self.ready);
        // Without a service time each waiting request gets its slot: nothing says that slots become free soon.
        let seconds = self.service_seconds.unwrap_or(f64::INFINITY);
        excess.max(0.0) * (seconds / DRAIN.as_secs_f64()).min(1.0)
    }
}

// === impl Window ===

impl Window {
    /// Itself, if it says anything that can be.
    fn observed(self) -> Option<Self> {
        let is_sane = |value: f64| value.is_finite() && value >= 0.0;
        let gpu = self.gpu_utilization.unwrap_or(0.0);
        let all_sane = [self.arrivals, self.in_flight, gpu]
            .into_iter()
            .all(is_sane);
        (self.pods > 0.0 && all_sane).then_some(self)
    }
}

/// Whether pods were asked for that do not serve yet, those that have no object yet included.
fn is_help_coming(snapshot: &Snapshot) -> bool {
    let remains = |pod: &&Pod| pod.phase != PodPhase::Terminating;
    let existing = snapshot.pods.iter().filter(remains).count();
    snapshot.starting() > 0 || (snapshot.spec_replicas as usize) > existing
}

/// `None` where nothing was observed.
fn demand(inputs: &Inputs<'_>) -> Option<Demand> {
    let slow = inputs.recent.slow.observed()?;
    let fast = inputs.recent.fast.observed().unwrap_or_default();
    let now = inputs.now.instant;
    let slow_factor = silent_factor(inputs.snapshot, now, SLOW_WINDOW)?;
    let fast_factor = silent_factor(inputs.snapshot, now, FAST_WINDOW).unwrap_or(0.0);
    let service_seconds = inputs.work.map(|work| work.service_seconds);
    let window = FAST_WINDOW.as_secs_f64();
    // Arrivals are counts: a mean over the window strays by the root of the count. In flight, each request stays for its
    // service time, so the window holds fewer independent looks at it.
    let looks = (window / (2.0 * service_seconds.unwrap_or(1.0))).max(1.0);
    let arrivals = above_noise(
        slow.arrivals * slow_factor,
        fast.arrivals * fast_factor,
        window,
    );
    let in_flight = above_noise(
        slow.in_flight * slow_factor,
        fast.in_flight * fast_factor,
        looks,
    );
    let gpu_pods = match slow.gpu_utilization {
        Some(_) => slow.pods * slow_factor,
        None => fast.pods * fast_factor,
    };
    Some(Demand {
        arrivals,
        in_flight,
        gpu_utilization: slow.gpu_utilization.or(fast.gpu_utilization),
        gpu_pods,
        gpu_peak: slow
            .gpu_utilization
            .unwrap_or(0.0)
            .max(fast.gpu_utilization.unwrap_or(0.0)),
        ready: inputs.snapshot.ready() as f64,
        service_seconds: service_seconds.filter(|seconds| *seconds > 0.0),
    })
}

/// The slow mean, or what of the fast one is more than noise. Both ways it grows with both: more load never reads as
/// less.
fn above_noise(slow: f64, fast: f64, looks: f64) -> f64 {
    slow.max(fast - NOISE * (fast.max(0.0) / looks).sqrt())
        .max(0.0)
}

/// The highest mean above which `seen` is more than noise in a single look: `mean + NOISE_OF_A_LOOK * sqrt(mean) = seen`.
/// With more load it grows, and it never is more than what is seen.
fn least_mean(seen: f64) -> f64 {
    let half = NOISE_OF_A_LOOK / 2.0;
    let root = (half * half + seen.max(0.0)).sqrt() - half;
    root * root
}

/// By how much the load of a window is more than what was reported in it: a ready pod that is silent carries the mean
/// of the others, but only from when it fell silent; before, its reports are in the window.
fn silent_factor(snapshot: &Snapshot, now: Instant, window: Duration) -> Option<f64> {
    let (mut ready, mut reported) = (0.0, 0.0);
    for pod in snapshot.pods.iter().filter(|pod| pod.is_capacity()) {
        ready += 1.0;
        reported += match &pod.member {
            Member::Reporting(_) => 1.0,
            Member::Unknown => 0.0,
            Member::Silent { since } => 1.0 - (now.since(*since).div_duration_f64(window)).min(1.0),
        };
    }
    if ready == 0.0 {
        // Nobody is ready: what was reported is all there is.
        return Some(1.0);
    }
    (reported > 0.0).then(|| ready / reported)
}

fn note(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words)
        .expect("writing to a string cannot fail");
}
