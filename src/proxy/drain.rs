//! The way out: unready, then deaf, then drained.
//!
//! Whoever wants the proxy drained (the preStop hook of the server's container, SIGTERM, the leader) moves the
//! [`Lifecycle`] to [`Phase::Draining`] and waits for [`Phase::Drained`]. One task does
//! the work, whoever asked and however often, and goes on when the one who asked has left.
//!
//! 1. At once: unready, and every response of HTTP/1 says `Connection: close`. The listener stays open, since kube-proxies and
//!    ingresses learn only in a while that the endpoint is gone, and until then send requests here.
//! 2. After [`Settings::propagation`](super::Settings::propagation): idle connections are closed, those of HTTP/2 are
//!    sent GOAWAY. The listener stays open as long as some stream has yet to end: it costs nothing, and on a busy node a
//!    kube-proxy that is late still sends requests here.
//! 3. When every connection and tunnel that was here before has ended: nothing more is accepted, and what came late is
//!    seen to its end.
//! 4. Then, or at the latest [`Settings::grace`](super::Settings::grace) after it was asked for: drained.

use std::sync::Arc;

use super::Shared;
use crate::lifecycle::{Lifecycle, Phase};

/// Waits for a drain to be asked for, and sees it through.
pub(super) async fn run(shared: Arc<Shared>, lifecycle: Lifecycle) {
    lifecycle.reached(Phase::Draining).await;
    let clock = &shared.clock;
    let deadline = clock.instant() + shared.settings.grace;
    shared.start_draining();
    tracing::info!(
        in_flight = shared.accounts.in_flight(),
        "draining: unready, and accepting until endpoints have propagated"
    );
    let propagation = shared.settings.propagation.min(shared.settings.grace);
    clock.sleep(propagation).await;
    shared.closing.cancel();
    for tracker in [&shared.open, &shared.late, &shared.doors] {
        tracker.close();
    }
    let left = deadline.since(clock.instant());
    let over = async {
        shared.open.wait().await;
        shared.deaf.cancel();
        // In this order: the last ones are counted before the door is closed, and a tunnel before its connection ends.
        shared.doors.wait().await;
        shared.late.wait().await;
        shared.open.wait().await;
    };
    let ended = clock.timeout(left, over).await;
    shared.deaf.cancel();
    match ended {
        Ok(()) => tracing::info!("drained"),
        Err(_elapsed) => tracing::error!(
            in_flight = shared.accounts.in_flight(),
            "the grace period is over with requests in flight (raise terminationGracePeriodSeconds and the grace of \
             the sidecar above the longest stream)"
        ),
    }
    lifecycle.advance(Phase::Drained);
}
