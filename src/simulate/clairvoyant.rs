//! The fewest pods that somebody who knew everything would have paid for.
//!
//! Per block of half a minute, the fewest pods with which nobody waits too long, the queue of the block before carried
//! over; if not even the most suffice, the most. A pod that a later block needs again is kept or bought again, whichever
//! is cheaper. Seconds that nobody saw need nothing and cost nothing, as they cost nobody anything.

use std::time::Duration;

use super::Settings;
use super::ledger::Ledger;
use super::timeline::Timeline;
use crate::baseline::World;
use crate::clock::Instant;

const BLOCK_SECS: usize = 30;

/// What the waiting of a block may exceed its limit by and still be dust.
const DUST: f64 = 1e-9;

/// What the clairvoyant paid, and what became of the requests.
pub(super) fn play(timeline: &Timeline, settings: &Settings) -> Ledger {
    let counts: Vec<Option<f64>> = timeline.seconds().map(|(_offset, count)| count).collect();
    let needs = needs(&counts, settings);
    let cold_start = usize::try_from(settings.cold_start.as_secs()).unwrap_or(usize::MAX);
    let from = settings.warmup.as_secs();
    let mut ledger = Ledger::new(from, counts.len() as u64);
    let paid = paid(&counts, &needs, cold_start, settings.bounds.0);
    // Pods that are kept may help, too; they are not needed for anybody to be served in time.
    let mut world = World::new(0, settings.pod_rps, Duration::ZERO, settings.slo);
    let mut before = None;
    for (second, (count, paid)) in (0_u64..).zip(counts.iter().zip(paid)) {
        let now = Instant::from_offset(Duration::from_secs(second));
        let block = usize::try_from(second).unwrap_or(usize::MAX) / BLOCK_SECS;
        world.scale(now, needs.get(block).copied().unwrap_or(settings.bounds.0));
        world.pass(now, count.unwrap_or(0.0), &mut ledger);
        if let Some(arrivals) = count {
            ledger.second(second, *arrivals, paid);
            let is_changed = before.replace(paid).is_some_and(|before| before != paid);
            ledger.changes += u64::from(is_changed && ledger.is_scored(second));
        }
    }
    ledger.close(&world, counts.len() as u64);
    ledger
}

/// The pods of each block.
fn needs(counts: &[Option<f64>], settings: &Settings) -> Vec<u32> {
    let (min, max) = settings.bounds;
    let limit = usize::try_from(settings.slo.as_secs()).unwrap_or(usize::MAX);
    // In front of the first block nothing came.
    let mut waiting = 0.0;
    let blocks = counts.len().div_ceil(BLOCK_SECS);
    (0..blocks)
        .map(|block| {
            let from = block * BLOCK_SECS;
            let block = from..(from + BLOCK_SECS).min(counts.len());
            let wait = |pods: u32| {
                let capacity = f64::from(pods) * settings.pod_rps;
                waits(counts, block.clone(), waiting, capacity, limit)
            };
            // More pods never make anybody wait longer.
            let (mut least, mut most) = (min, max);
            while least < most {
                let pods = u32::midpoint(least, most);
                if wait(pods).is_in_time {
                    most = pods;
                } else {
                    least = pods + 1;
                }
            }
            waiting = wait(least).waiting;
            least
        })
        .collect()
}

struct Waits {
    is_in_time: bool,
    waiting: f64,
}

/// A block with that capacity a second. First in, first out: nobody waits longer than `limit` seconds as long as no more
/// wait than came in the last `limit` seconds.
fn waits(
    counts: &[Option<f64>],
    block: std::ops::Range<usize>,
    mut waiting: f64,
    capacity: f64,
    limit: usize,
) -> Waits {
    let mut is_in_time = true;
    for second in block {
        let arrivals = counts[second].unwrap_or(0.0);
        waiting = (waiting + arrivals - capacity).max(0.0);
        if is_in_time && waiting > 0.0 {
            let first = (second + 1).saturating_sub(limit);
            let young: f64 = counts[first..=second].iter().flatten().sum();
            is_in_time = waiting <= young + DUST;
        }
    }
    Waits {
        is_in_time,
        waiting,
    }
}

/// Pods paid for in each second.
fn paid(counts: &[Option<f64>], needs: &[u32], cold_start: usize, min: u32) -> Vec<u32> {
    let length = counts.len();
    // How many observed seconds lie before each: what was not observed is not paid for.
    let mut observed = Vec::with_capacity(length + 1);
    let mut sum = 0_usize;
    observed.push(sum);
    for count in counts {
        sum += usize::from(count.is_some());
        observed.push(sum);
    }
    let mut steps = vec![0_i64; length + 1];
    let mut pay = |from: usize, to: usize| {
        steps[from] += 1;
        steps[to] -= 1;
    };
    for pod in 1..=needs.iter().copied().max().unwrap_or(min) {
        // The end of its last need; before the first it is part of the fleet that is there at the start.
        let mut free = Some(0);
        for (block, need) in needs.iter().enumerate() {
            if *need < pod {
                continue;
            }
            let from = block * BLOCK_SECS;
            let to = (from + BLOCK_SECS).min(length);
            let asked = from.saturating_sub(cold_start);
            let since = free.replace(to).unwrap_or(0);
            let is_kept = asked <= since
                || observed[from] - observed[since] <= observed[from] - observed[asked];
            pay(if is_kept { since } else { asked }, to);
        }
    }
    let mut paid = 0_i64;
    steps
        .iter()
        .take(length)
        .map(|step| {
            paid += step;
            u32::try_from(paid).unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            pod_rps: 10.0,
            cold_start: Duration::from_secs(60),
            bounds: (1, 20),
            ..Settings::default()
        }
    }

    fn counts(rates: &[(usize, f64)]) -> Vec<Option<f64>> {
        let seconds = rates
            .iter()
            .flat_map(|(seconds, rate)| std::iter::repeat_n(Some(*rate), *seconds));
        seconds.collect()
    }

    #[test]
    fn a_block_needs_the_fewest_pods_with_which_nobody_waits_too_long() {
        let check = |rates: &[(usize, f64)], expected: &[u32]| {
            assert_eq!(needs(&counts(rates), &settings()), expected, "{rates:?}");
        };
        check(&[(30, 10.0), (30, 10.1), (30, 0.0)], &[1, 1, 1]);
        check(&[(30, 40.0)], &[4]);
        // 60 at once: 20 a second are three seconds, the last of them two seconds after they came.
        check(&[(1, 60.0), (29, 0.0)], &[2]);
        check(&[(1, 61.0), (29, 0.0)], &[3]);
        // The last second's burst is carried over.
        check(&[(29, 0.0), (1, 30.0), (30, 0.0)], &[1, 1]);
        check(&[(29, 0.0), (1, 60.0), (30, 0.0)], &[1, 3]);
        // Not even the most are enough.
        check(&[(30, 500.0)], &[20]);
    }

    #[test]
    fn a_pod_is_kept_or_bought_again_whichever_is_cheaper() {
        let sum = |gap: usize| -> u32 {
            let counts = counts(&[(30, 40.0), (gap, 0.0), (30, 40.0)]);
            let needs = needs(&counts, &settings());
            paid(&counts, &needs, 60, 1).iter().sum()
        };
        // Four pods for 60 s, one for the gap, and three for a gap of at most the cold start.
        assert_eq!(sum(30), 240 + 30 + 90);
        assert_eq!(sum(60), 240 + 60 + 180);
        assert_eq!(sum(300), 240 + 300 + 180);
    }

    #[test]
    fn keeping_pods_while_nobody_looks_costs_nothing() {
        let mut counts = counts(&[(30, 40.0), (600, 0.0), (30, 40.0)]);
        counts[30..630].fill(None);
        let needs = needs(&counts, &settings());
        let paid = paid(&counts, &needs, 60, 1);
        let seen = paid
            .iter()
            .zip(&counts)
            .filter(|(_, count)| count.is_some());
        assert_eq!(seen.map(|(paid, _)| paid).sum::<u32>(), 240);
    }

    #[test]
    fn nobody_violates_and_the_warm_up_is_not_scored() {
        let lines: Vec<String> = (0..600)
            .map(|second| format!("{second},{}\n", 5 + second / 10 % 7 * 10))
            .collect();
        let trace = super::super::Trace::parse(
            "t.csv",
            &format!("offset_seconds,requests\n{}", lines.concat()),
        );
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let timeline = Timeline::draw(&trace.expect("a good trace"), 1.0, &mut rng);
        let settings = Settings {
            warmup: Duration::from_secs(300),
            ..settings()
        };
        let ledger = play(&timeline, &settings);
        assert!(ledger.violations.abs() < 1e-9, "{ledger:?}");
        assert!(ledger.wait(1.0) <= 2);
        let pods = ledger.pod_seconds / 300.0;
        assert!((4.0..7.0).contains(&pods), "{pods}");
    }
}
