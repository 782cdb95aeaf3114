//! Waiting for a condition, never for a time.

use std::io::{self, Write as _};
use std::time::Duration;

use sidescale::clock::Clock;

use crate::cluster::Cluster;

/// How often a condition is looked at: often enough that a measured time is good to a few hundredths of a second,
/// seldom enough that a dozen waiting tests leave the two cores to those they wait for.
const LOOK: Duration = Duration::from_millis(20);

/// Asks `probe` until it has an answer, at most `within`. What it said last is the failure's message.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let clock = Clock::real();
    loop {
        match probe().await {
            Ok(answer) => return answer,
            Err(last) => assert!(
                clock.instant().offset() < within,
                "not within {within:?}: {what}; at last: {last}"
            ),
        }
        clock.sleep(LOOK).await;
    }
}

/// Asks `probe` for the whole of `span`, and fails at the first answer that is not `Ok`.
pub(crate) async fn throughout(
    what: &str,
    span: Duration,
    mut probe: impl AsyncFnMut() -> Result<(), String>,
) {
    let clock = Clock::real();
    while clock.instant().offset() < span {
        if let Err(wrong) = probe().await {
            panic!(
                "{what}: it did not hold for {span:?}: {wrong} after {:?}",
                clock.instant().offset()
            );
        }
        clock.sleep(LOOK).await;
    }
}

/// Prints a measured time where a person who runs the tests sees it.
pub(crate) fn measured(cluster: &Cluster, what: &str, took: Duration) {
    counted(cluster, &format!("{what}: {:.3} s", took.as_secs_f64()));
}

/// Prints a figure where a person who runs the tests sees it; the harness captures the usual ways.
pub(crate) fn counted(cluster: &Cluster, figure: &str) {
    // A closed stderr is no reason to fail.
    writeln!(
        io::stderr(),
        "measured in {}: {figure}",
        cluster.namespace()
    )
    .ok();
}
