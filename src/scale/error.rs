//! Why the Deployment was not read or written.

use super::BadDeployment;
use super::fence::Refusal;
use crate::api::Fault;

/// Why the Deployment was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// The fence. [`Refusal::Deposed`] means: step down.
    #[error("deployment {name} is left alone")]
    Refused {
        /// The Deployment.
        name: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// The Deployment changed since it was read. Make a new turn; never send the old decision with a new version.
    #[error("deployment {name} changed since version {resource_version} was read (decide again)")]
    Conflict {
        /// The Deployment.
        name: String,
        /// The version that was decided on.
        resource_version: String,
    },
    /// It is not there.
    #[error("deployment {deployment} does not exist (`--target` and `--namespace` name it)")]
    Missing {
        /// The Deployment, as `namespace/name`.
        deployment: String,
    },
    /// It cannot be worked with.
    #[error("deployment {name} cannot be used")]
    Bad {
        /// The Deployment.
        name: String,
        /// Why.
        #[source]
        source: BadDeployment,
    },
    /// A request came to nothing. A write may or may not have been done: read before the next.
    #[error(transparent)]
    Api(Fault),
}

// === impl ScaleError ===

impl ScaleError {
    /// Whether a newer leader has stamped: tell the election ([`crate::leader::Candidacy::deposed`]).
    pub fn is_deposed(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                source: Refusal::Deposed { .. },
                ..
            }
        )
    }

    /// Whether the Deployment does not carry this leader's term: it was made anew, or somebody removed the annotation.
    /// Stamp again.
    pub fn is_unstamped(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                source: Refusal::Unstamped { .. },
                ..
            }
        )
    }

    /// Whether the account lacks a right.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(fault) if fault.is_forbidden())
    }

    /// A stable word for metrics and Events.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Conflict { .. } => "conflict",
            Self::Missing { .. } => "missing",
            Self::Bad { .. } => "bad",
            Self::Api(fault) => fault.kind.label(),
        }
    }
}
