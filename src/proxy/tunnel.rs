//! Connections that leave HTTP: WebSocket and other upgrades, copied both ways until one side ends.

use std::io;

use hyper::client::conn::http1::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::Shared;
use super::accounts::Outcome;
use super::dial::Stream;
use super::exchange::Exchange;

/// Joins both sides, of which the upstream has switched, once the client has. The request is in flight until the tunnel
/// ends.
pub(super) fn start(
    shared: &Shared,
    from_client: OnUpgrade,
    upstream: Parts<TokioIo<Stream>>,
    mut exchange: Exchange,
) {
    // hyper's connection has ended by then and no longer holds a drain up: the tunnel does so itself.
    let open = shared.open.token();
    shared.tasks.spawn(async move {
        let _open = open;
        let client = match from_client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                tracing::debug!(%error, "an upgrade was not followed through");
                return;
            }
        };
        match join(client, upstream).await {
            Ok(down) => {
                exchange
                    .in_flight
                    .sent(usize::try_from(down).unwrap_or(usize::MAX));
                exchange.in_flight.will_end(Outcome::Completed);
            }
            Err(error) => tracing::debug!(%error, "a tunnel broke off"),
        }
    });
}

/// How many bytes went to the client.
async fn join(mut client: TokioIo<Upgraded>, upstream: Parts<TokioIo<Stream>>) -> io::Result<u64> {
    // What came right behind the head.
    client.write_all(&upstream.read_buf).await?;
    let mut stream = upstream.io.into_inner();
    let (_up, down) = tokio::io::copy_bidirectional(&mut client, &mut stream).await?;
    Ok(down + upstream.read_buf.len() as u64)
}
