//! What will wait when pods come that are asked for now.
//!
//! At a jump of the load nothing waits yet, and a cold start later there is a queue of what the ready pods could not serve
//! meanwhile. Who asks for pods by what waits so far asks for ten in the first seconds, thirty after four minutes, and each time a
//! cold start late.

/// A queue and those who serve it.
pub(crate) struct Line<I> {
    /// Requests that wait now.
    pub(crate) waiting: f64,
    /// Arrivals a second.
    pub(crate) arrivals: f64,
    /// What a pod serves a second.
    pub(crate) pod_rps: f64,
    /// Pods that serve.
    pub(crate) ready: u32,
    /// Those on their way: in how many seconds they come, and how many; soonest first.
    pub(crate) starting: I,
    /// In how many seconds the pods come that are asked for now.
    pub(crate) after: f64,
}

/// Requests that wait then, if the arrivals stay as they are.
pub(crate) fn backlog(line: Line<impl Iterator<Item = (f64, u32)>>) -> f64 {
    let Line {
        mut waiting,
        arrivals,
        pod_rps,
        mut ready,
        starting,
        after,
    } = line;
    let mut passed = 0.0_f64;
    let mut pass = |until: f64, ready: u32| {
        let secs = (until.min(after) - passed).max(0.0);
        passed += secs;
        waiting = (waiting + (arrivals - f64::from(ready) * pod_rps) * secs).max(0.0);
        waiting
    };
    for (comes, count) in starting {
        pass(comes, ready);
        ready = ready.saturating_add(count);
    }
    pass(after, ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(waiting: f64, arrivals: f64, ready: u32, starting: &[(f64, u32)]) -> f64 {
        let line = Line {
            waiting,
            arrivals,
            pod_rps: 5.0,
            ready,
            starting: starting.iter().copied(),
            after: 100.0,
        };
        backlog(line)
    }

    #[test]
    fn what_comes_until_then_waits_beside_what_waits_now() {
        let is = |seen: f64, expected: f64| {
            assert!((seen - expected).abs() < 1e-9, "{seen} for {expected}");
        };
        is(waits(10.0, 20.0, 1, &[]), 10.0 + 15.0 * 100.0);
        is(waits(10.0, 5.0, 1, &[]), 10.0);
        is(waits(10.0, 4.0, 1, &[]), 0.0);
        // Three come half way, and serve from then on.
        is(waits(10.0, 20.0, 1, &[(50.0, 3)]), 10.0 + 15.0 * 50.0);
        is(
            waits(10.0, 20.0, 1, &[(50.0, 13)]),
            10.0 + 15.0 * 50.0 - 50.0 * 50.0 + 1740.0,
        );
        // Who is late already comes now; who comes later than that does not help.
        is(waits(10.0, 20.0, 1, &[(0.0, 3), (200.0, 9)]), 10.0);
    }
}
