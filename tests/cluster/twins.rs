//! The scenarios of `tests/embedded` on the real server: what the embedded one is held to must be what a real one does.

#[path = "../embedded/containers.rs"]
mod containers;
#[path = "../embedded/conversation.rs"]
mod conversation;
#[path = "../embedded/fleet.rs"]
mod fleet;
#[path = "../embedded/place.rs"]
mod place;
#[path = "../embedded/workloads.rs"]
mod workloads;

use self::place::Place;
use crate::cluster::on_real;

/// Makes a test of each scenario.
#[macro_export]
macro_rules! on_its_server {
    ($($scenario:ident)*) => {
        mod real {
            $(#[test]
            fn $scenario() {
                $crate::twins::run(stringify!($scenario), super::$scenario);
            })*
        }
    };
}

/// Runs a scenario in a namespace of its own.
pub(crate) fn run(name: &str, scenario: impl AsyncFnOnce(&Place)) {
    on_real(name, async |cluster| {
        scenario(&Place {
            client: cluster.admin(),
            namespace: cluster.namespace().to_owned(),
            clock: cluster.clock().clone(),
        })
        .await;
    });
}
