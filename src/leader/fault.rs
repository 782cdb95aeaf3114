//! What keeps the election from the Lease, each with its remedy.

use crate::api::Fault;

/// Why the Lease could not be read or written. Cheap to clone, so that it can be shown as a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseFault {
    /// There is no Lease, and it may not be created.
    #[error(
        "lease {lease} does not exist and may not be created (apply the empty Lease that `sidescale inject` prints, or \
         grant `create` on leases)"
    )]
    Missing {
        /// The Lease, as `namespace/name`.
        lease: String,
    },
    /// A request came to nothing.
    #[error(transparent)]
    Api(#[from] Fault),
}
