//! The way out: unready, then deaf, then drained.
//!
//! Whoever wants the proxy drained (the preStop hook of the server's container, SIGTERM, the leader) moves the
//! [`Lifecycle`] to [`Phase::Draining`] and waits for [`Phase::Drained`]. One task does
//! the work, whoever asked and however often, and goes on when the one who asked has left.
//!
//! 1. At once: unready, and every response of HTTP/1 says `Connection: close`. The listener stays open, since kube-proxies and
//!    ingresses learn only in a while that the endpoint is gone, and until then send requests here.
//! 2. After [`Settings::propagation`](super::Settings::propagation): nothing more is accepted, idle connections are
//!    closed, those of HTTP/2 are sent GOAWAY.
//! 3. When every connection and tunnel has ended, or at the latest [`Settings::grace`](super::Settings::grace) after
//!    it was asked for: drained.

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
    // In this order: nobody may see the tracker empty before the door is closed.
    shared.closing.cancel();
    shared.open.close();
    let left = deadline.since(clock.instant());
    match clock.timeout(left, shared.open.wait()).await {
        Ok(()) => tracing::info!("drained"),
        Err(_elapsed) => tracing::error!(
            in_flight = shared.accounts.in_flight(),
            "the grace period is over with requests in flight (raise terminationGracePeriodSeconds and the grace of \
             the sidecar above the longest stream)"
        ),
    }
    lifecycle.advance(Phase::Drained);
}
