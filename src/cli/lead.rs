//! `sidescale lead`.

use clap::Args;
use tracing::info;

use super::Failure;
use super::run::{refused, until_told};
use crate::config::GivenLead;
use crate::lifecycle::Tasks;

/// A sidecar without a server.
#[derive(Args, Debug)]
pub(super) struct Lead {
    #[command(flatten)]
    given: GivenLead,
}

// === impl Lead ===

impl Lead {
    pub(super) fn start(self) -> Result<(), Failure> {
        let config = self.given.into_config().map_err(|wrong| refused(&wrong))?;
        info!(?config, "sidescale {}", env!("CARGO_PKG_VERSION"));
        super::control_runtime()?.block_on(async {
            // It carries nothing, so one thread is enough.
            until_told(config, Tasks::here()).await
        })
    }
}
