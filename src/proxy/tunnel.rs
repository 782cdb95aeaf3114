//! Connections that leave HTTP: WebSocket and other upgrades, copied both ways until one side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Shared;
use super::accounts::Outcome;
use super::exchange::Exchange;

/// Joins both sides once both have switched. The request is in flight until the tunnel ends.
pub(super) fn start(
    shared: &Shared,
    from_client: OnUpgrade,
    from_upstream: OnUpgrade,
    mut exchange: Exchange,
) {
    // hyper's connection has ended by then and no longer holds a drain up: the tunnel does so itself.
    let open = shared.open.token();
    shared.tasks.spawn(async move {
        let _open = open;
        let (client, upstream) = match tokio::try_join!(from_client, from_upstream) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade was not followed through");
                return;
            }
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        match tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            Ok((_up, down)) => {
                exchange
                    .in_flight
                    .sent(usize::try_from(down).unwrap_or(usize::MAX));
                exchange.in_flight.will_end(Outcome::Completed);
            }
            Err(error) => tracing::debug!(%error, "a tunnel broke off"),
        }
    });
}
