//! Knative's pod autoscaler (KPA): a stable and a panic window over the total concurrency, a decision every 2 s.

use std::collections::VecDeque;
use std::time::Duration;

use super::pods;
use crate::clock::Instant;

/// What a revision's annotations and the autoscaler's configuration say. The defaults are Knative's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KpaSettings {
    /// Concurrency a pod should carry, utilisation included.
    pub target: f64,
    /// The longer window.
    pub stable_window: Duration,
    /// The shorter window.
    pub panic_window: Duration,
    /// Panic when the panic window wants this many times the ready pods.
    pub panic_threshold: f64,
    /// At most this many times the ready pods in one tick.
    pub max_scale_up_rate: f64,
    /// At least the ready pods divided by this in one tick.
    pub max_scale_down_rate: f64,
    /// Never lower than the highest wish of this window.
    pub scale_down_delay: Duration,
    /// The fewest pods while there is any load.
    pub activation_scale: u32,
    /// Whether a route leads to the revision; without one it may fall to nothing in one tick.
    pub is_reachable: bool,
}

/// One revision's decider and its memory.
#[derive(Clone, Debug)]
pub struct Kpa {
    settings: KpaSettings,
    stable: Buckets,
    panic: Buckets,
    panic_since: Option<Instant>,
    panic_most: u32,
    wishes: VecDeque<(Instant, u32)>,
}

/// One-second buckets of a total, averaged over a window.
#[derive(Clone, Debug)]
struct Buckets {
    sums: Vec<f64>,
    /// Seconds of the first and the last write since the window was last empty.
    written: Option<(u64, u64)>,
}

// === impl KpaSettings ===

impl KpaSettings {
    /// Knative's defaults with this target.
    pub const fn with_target(target: f64) -> Self {
        Self {
            target,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            panic_threshold: 2.0,
            max_scale_up_rate: 1_000.0,
            max_scale_down_rate: 2.0,
            scale_down_delay: Duration::ZERO,
            activation_scale: 1,
            is_reachable: true,
        }
    }
}

// === impl Kpa ===

impl Kpa {
    /// A decider that starts at `now`. With more than one ready pod it starts in panic, holding what there is: its
    /// history was lost, and the panic keeps it from lowering on the first seconds of a new one.
    pub fn new(settings: KpaSettings, now: Instant, ready: u32) -> Self {
        let panics = ready > 1;
        Self {
            settings,
            stable: Buckets::new(settings.stable_window),
            panic: Buckets::new(settings.panic_window),
            panic_since: panics.then_some(now),
            panic_most: if panics { ready } else { 0 },
            wishes: VecDeque::new(),
        }
    }

    /// Records the total concurrency of one second.
    pub fn record(&mut self, now: Instant, concurrency: f64) {
        self.stable.add(now, concurrency);
        self.panic.add(now, concurrency);
    }

    /// One tick: the replicas wanted, before `min-scale` and `max-scale`; `None`: no data for a whole window, so
    /// nothing changes.
    pub fn tick(&mut self, now: Instant, ready: u32) -> Option<u32> {
        let stable = self.stable.average(now)?;
        let panic = self.panic.average(now)?;
        Some(self.decide(now, ready, stable, panic))
    }

    /// Whether it panics.
    pub fn is_panicking(&self) -> bool {
        self.panic_since.is_some()
    }

    /// Requests the ready pods could still take in a burst of `target_burst` (`None`: unlimited); below zero the
    /// activator stays in the path.
    pub fn excess_burst_capacity(
        ready: u32,
        capacity_per_pod: f64,
        target_burst: Option<f64>,
        panic_average: f64,
    ) -> f64 {
        match target_burst {
            Some(0.0) => 0.0,
            Some(burst) => (f64::from(ready) * capacity_per_pod - burst - panic_average).floor(),
            None => -1.0,
        }
    }

    fn decide(&mut self, now: Instant, ready: u32, stable: f64, panic: f64) -> u32 {
        let settings = self.settings;
        let ready = f64::from(ready.max(1));
        let highest = pods(settings.max_scale_up_rate * ready);
        let lowest = if settings.is_reachable {
            pods((ready / settings.max_scale_down_rate).floor())
        } else {
            0
        };
        let by_panic = pods(panic / settings.target);
        let within = |wanted: u32| {
            let activated = if wanted > 0 {
                settings.activation_scale.max(1)
            } else {
                0
            };
            wanted.clamp(lowest, highest).max(activated)
        };
        let wanted = within(pods(stable / settings.target));
        let is_over = f64::from(by_panic) / ready >= settings.panic_threshold;
        self.note_panic(now, is_over);
        let wanted = if self.is_panicking() {
            self.panic_most = self.panic_most.max(wanted).max(within(by_panic));
            self.panic_most
        } else {
            wanted
        };
        self.delay(now, wanted)
    }

    fn note_panic(&mut self, now: Instant, is_over: bool) {
        if is_over {
            self.panic_since = Some(now);
        } else if let Some(since) = self.panic_since
            && since + self.settings.stable_window < now
        {
            self.panic_since = None;
            self.panic_most = 0;
        }
    }

    fn delay(&mut self, now: Instant, wanted: u32) -> u32 {
        let delay = self.settings.scale_down_delay;
        if delay.is_zero() {
            return wanted;
        }
        while (self.wishes.front()).is_some_and(|(at, _wish)| now.since(*at) >= delay) {
            self.wishes.pop_front();
        }
        self.wishes.push_back((now, wanted));
        let wishes = self.wishes.iter().map(|(_at, wish)| *wish);
        wishes.max().unwrap_or(wanted)
    }
}

// === impl Buckets ===

impl Buckets {
    fn new(window: Duration) -> Self {
        let seconds = usize::try_from(window.as_secs().max(1)).unwrap_or(1);
        Self {
            sums: vec![0.0; seconds],
            written: None,
        }
    }

    fn add(&mut self, now: Instant, value: f64) {
        let second = now.offset().as_secs();
        let first = match self.written {
            Some((_, last)) if second < last => return,
            Some((first, last)) if second - last < self.sums.len() as u64 => {
                // Seconds without a write count as zero.
                for hole in last + 1..=second {
                    *self.bucket(hole) = 0.0;
                }
                first
            }
            _ => {
                self.sums.fill(0.0);
                second
            }
        };
        *self.bucket(second) += value;
        self.written = Some((first, second));
    }

    /// The sum of the window's buckets over their number: fewer while the window fills or when the newest is old.
    fn average(&self, now: Instant) -> Option<f64> {
        let (first, last) = self.written?;
        let length = self.sums.len() as u64;
        let now = now.offset().as_secs().max(last);
        let stale = now - last;
        if stale >= length {
            return None;
        }
        let count = (last - first + 1).min(length - stale);
        let sum: f64 = (0..count)
            .map(|age| self.sums[self.index(last - age)])
            .sum();
        // Sixty times 0.7 over sixty is a little more than 0.7, and would ask for one pod too many.
        Some((sum / count as f64 * 1e6).round() / 1e6)
    }

    fn bucket(&mut self, second: u64) -> &mut f64 {
        let index = self.index(second);
        &mut self.sums[index]
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "smaller than the window's length, which is a usize"
    )]
    fn index(&self, second: u64) -> usize {
        (second % self.sums.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_offset(Duration::from_secs(secs))
    }

    fn calm(target: f64) -> Kpa {
        Kpa::new(KpaSettings::with_target(target), at(0), 1)
    }

    #[test]
    fn a_panic_is_held_until_a_stable_window_after_the_last_tick_over_the_threshold() {
        let mut kpa = calm(70.0);
        assert_eq!(kpa.decide(at(0), 2, 150.0, 300.0), 5);
        assert!(kpa.is_panicking());
        // 5 ready: 300 / 70 is no longer twice as many, the panic lasts from second 0.
        assert_eq!(kpa.decide(at(30), 5, 30.0, 30.0), 5);
        assert_eq!(kpa.decide(at(60), 5, 30.0, 30.0), 5);
        assert_eq!(kpa.decide(at(62), 5, 30.0, 30.0), 2);
        assert!(!kpa.is_panicking());
    }

    #[test]
    fn a_panic_is_extended_by_each_tick_over_the_threshold_and_never_lowers() {
        let mut kpa = calm(70.0);
        assert_eq!(kpa.decide(at(0), 2, 150.0, 600.0), 9);
        assert_eq!(kpa.decide(at(40), 2, 150.0, 300.0), 9);
        assert_eq!(kpa.decide(at(100), 9, 100.0, 100.0), 9);
        assert_eq!(kpa.decide(at(102), 9, 100.0, 100.0), 4);
    }

    #[test]
    fn a_calm_tick_lowers_to_half_at_most() {
        assert_eq!(calm(70.0).decide(at(0), 5, 30.0, 30.0), 2);
        let mut unreachable = KpaSettings::with_target(70.0);
        unreachable.is_reachable = false;
        let mut kpa = Kpa::new(unreachable, at(0), 1);
        assert_eq!(kpa.decide(at(0), 5, 30.0, 30.0), 1);
        assert_eq!(kpa.decide(at(2), 5, 0.0, 0.0), 0);
    }

    #[test]
    fn the_up_rate_rounds_up() {
        let mut settings = KpaSettings::with_target(1.0);
        settings.max_scale_up_rate = 1.1;
        let mut kpa = Kpa::new(settings, at(0), 1);
        assert_eq!(kpa.decide(at(0), 2, 3.0, 3.0), 3);
        assert_eq!(kpa.decide(at(2), 2, 9.0, 3.0), 3);
    }

    #[test]
    fn a_restart_with_several_pods_holds_them_in_panic() {
        let mut kpa = Kpa::new(KpaSettings::with_target(70.0), at(100), 6);
        assert!(kpa.is_panicking());
        assert_eq!(kpa.decide(at(102), 6, 10.0, 10.0), 6);
        assert_eq!(kpa.decide(at(162), 6, 10.0, 10.0), 3);
        assert!(!Kpa::new(KpaSettings::with_target(70.0), at(100), 1).is_panicking());
    }

    #[test]
    fn activation_scale_and_scale_down_delay_keep_pods_up() {
        let mut settings = KpaSettings::with_target(70.0);
        settings.activation_scale = 3;
        let mut kpa = Kpa::new(settings, at(0), 1);
        assert_eq!(kpa.decide(at(0), 1, 10.0, 10.0), 3);
        assert_eq!(kpa.decide(at(2), 1, 0.0, 0.0), 0);
        let mut settings = KpaSettings::with_target(70.0);
        settings.scale_down_delay = Duration::from_secs(30);
        let mut kpa = Kpa::new(settings, at(0), 1);
        assert_eq!(kpa.decide(at(0), 4, 280.0, 280.0), 4);
        assert_eq!(kpa.decide(at(28), 4, 140.0, 140.0), 4);
        assert_eq!(kpa.decide(at(30), 4, 140.0, 140.0), 2);
    }

    #[test]
    fn excess_burst_capacity_decides_on_the_activator() {
        let ebc = Kpa::excess_burst_capacity;
        assert!(ebc(5, 100.0, Some(200.0), 300.0).abs() < 1e-9);
        assert!((ebc(4, 100.0, Some(200.0), 300.0) + 100.0).abs() < 1e-9);
        assert!(ebc(4, 100.0, Some(0.0), 300.0).abs() < 1e-9);
        assert!((ebc(4, 100.0, None, 300.0) + 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_window_divides_by_what_was_written_and_counts_holes_as_zero() {
        let mut buckets = Buckets::new(Duration::from_secs(6));
        let check = |buckets: &Buckets, secs, expected: Option<f64>| {
            assert_eq!(buckets.average(at(secs)), expected, "at {secs} s");
        };
        check(&buckets, 0, None);
        buckets.add(at(10), 6.0);
        check(&buckets, 10, Some(6.0));
        // The newest write is old: the window shrinks instead of counting silence as zero.
        check(&buckets, 13, Some(6.0));
        buckets.add(at(12), 3.0);
        check(&buckets, 12, Some(3.0));
        for second in 13..=20 {
            buckets.add(at(second), 2.0);
        }
        check(&buckets, 20, Some(2.0));
        check(&buckets, 25, Some(2.0));
        check(&buckets, 26, None);
        // After a whole window of silence it starts anew.
        buckets.add(at(40), 9.0);
        check(&buckets, 40, Some(9.0));
    }

    #[test]
    fn without_data_nothing_is_decided() {
        let mut kpa = calm(70.0);
        assert_eq!(kpa.tick(at(0), 1), None);
        kpa.record(at(1), 100.0);
        assert_eq!(kpa.tick(at(2), 1), Some(2));
        // The panic window is empty after 6 s.
        assert_eq!(kpa.tick(at(8), 1), None);
    }
}
