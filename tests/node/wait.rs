//! Waiting for a condition, and wishes of the person who runs the tests.

use std::time::Duration;

use sidescale::clock::Clock;

/// How often a condition is looked at: each look is a request to an API server.
const LOOK: Duration = Duration::from_millis(200);

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

/// A number that a person may wish for.
#[expect(clippy::disallowed_methods, reason = "a person's wish, at the edge")]
pub(crate) fn wish(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |given| {
        given
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}
