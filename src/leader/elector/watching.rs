//! The watch on the Lease, which a standby keeps: opened, broken, opened again.

use std::pin::Pin;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};

use crate::clock::{Clock, Instant};
use crate::leader::LeaseFault;
use crate::leader::lease::Shown;

pub(super) type Watching = BoxStream<'static, Result<Shown, LeaseFault>>;

/// The watch: absent, being opened, open, or resting after it broke.
pub(super) enum Watch {
    Off,
    Opening(BoxFuture<'static, Result<Watching, LeaseFault>>),
    Open(Watching),
    Resting(Instant),
}

pub(super) enum Watched {
    Opened(Watching),
    Shown(Shown),
    Broken(Option<LeaseFault>),
}

pub(super) async fn next(watch: &mut Watch, clock: &Clock) -> Watched {
    match watch {
        Watch::Off => std::future::pending().await,
        Watch::Opening(opening) => match Pin::new(opening).await {
            Ok(stream) => Watched::Opened(stream),
            Err(fault) => Watched::Broken(Some(fault)),
        },
        Watch::Open(stream) => match stream.next().await {
            Some(Ok(shown)) => Watched::Shown(shown),
            Some(Err(fault)) => Watched::Broken(Some(fault)),
            None => Watched::Broken(None),
        },
        Watch::Resting(until) => {
            clock.sleep_until(*until).await;
            Watched::Broken(None)
        }
    }
}
