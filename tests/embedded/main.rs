//! The embedded cluster as a client meets it, through the real `kube::Client`.
//!
//! `conversation`, `workloads` and `fleet` know nothing of which server they speak to: they run on the embedded one here,
//! and on the real one in `tests/cluster`, so that the one cannot drift from the other. One binary, one link step.

mod containers;
mod conversation;
mod faults;
mod fleet;
mod place;
mod socket;
mod workloads;

use sidescale::clock::{Clock, Timestamp};
use sidescale::local::{Cluster, Settings};

use crate::place::Place;

/// Makes a test of each scenario.
#[macro_export]
macro_rules! on_its_server {
    ($($scenario:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                $crate::on_embedded(super::$scenario).await;
            })*
        }
    };
}

/// Runs a scenario on a cluster of its own in this process, at twenty times life.
async fn on_embedded(scenario: impl AsyncFnOnce(&Place)) {
    let clock = Clock::scaled(Timestamp::from_secs(1_800_000_000), 20.0);
    let cluster = Cluster::start(Settings::new(clock.clone(), 1));
    scenario(&Place {
        client: cluster.client("test/1"),
        namespace: "default".to_owned(),
        clock,
    })
    .await;
}
