//! `sidescale upgrade`.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::place::Place;
use crate::clock::Clock;
use crate::units::parse_duration;
use crate::upgrade::{self, Error};

/// Gives running pods a new sidecar without restarting their model servers, one after the other
#[derive(Args, Debug)]
pub(super) struct Upgrade {
    /// Deployment whose pods have a sidecar: `bert`, or as kubectl says it, `deployment/bert`
    #[arg(value_name = "DEPLOYMENT")]
    target: String,

    /// The new sidecar's image
    #[arg(long, value_name = "IMAGE", default_value = super::inject::IMAGE)]
    image: String,

    #[command(flatten)]
    place: Place,

    /// How long a pod may take to drain, and then to be ready again: above your longest stream
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    patience: Duration,

    /// Also a Deployment of one pod, whose requests fail for some seconds
    #[arg(long)]
    alone: bool,
}

// === impl Upgrade ===

impl Upgrade {
    pub(super) fn start(self) -> Result<(), Failure> {
        let connector = self.place.connector();
        let target = self
            .target
            .strip_prefix("deployment/")
            .unwrap_or(&self.target);
        let upgrade = upgrade::Upgrade {
            target: target.to_owned(),
            image: self.image,
            patience: self.patience,
            alone: self.alone,
        };
        super::control_runtime()?.block_on(async {
            let connection = connector.connect().await;
            let connection = connection.map_err(|error| Failure::Input(error.into()))?;
            let say = |line: String| {
                // Nothing is left to do when the terminal has gone.
                drop(writeln!(std::io::stdout(), "{line}"));
            };
            let clock = Clock::real();
            let (client, namespace) = (connection.client, &connection.namespace);
            let done = upgrade.run(client, namespace, &clock, say).await;
            done.map_err(|error| match error {
                Error::Alone(_) | Error::NoSidecar(_) => Failure::Input(error.into()),
                Error::Api { .. }
                | Error::Unsettled { .. }
                | Error::NotReady { .. }
                | Error::NotDrained { .. } => Failure::Other(error.into()),
            })
        })
    }
}
