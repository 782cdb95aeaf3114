//! What keeps the election from the Lease, each with its remedy.

use std::fmt;
use std::time::Duration;

/// Why the Lease could not be read or written. Cheap to clone, so that it can be shown as a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseFault {
    /// The account lacks a right.
    #[error(
        "may not {verb} lease {namespace}/{name} ({answer}); the Role of this service account needs:\n{rule}"
    )]
    Forbidden {
        /// The verb that was refused.
        verb: Verb,
        /// Where the Lease is.
        namespace: String,
        /// Its name.
        name: String,
        /// The API server's words.
        answer: String,
        /// The rule to add, as YAML.
        rule: String,
    },
    /// There is no Lease, and it may not be created.
    #[error(
        "lease {namespace}/{name} does not exist and may not be created (apply the empty Lease that `sidescale inject` \
         prints, or grant `create` on leases)"
    )]
    Missing {
        /// Where the Lease should be.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server does not accept who we are.
    #[error(
        "the API server does not accept this account's token for lease {namespace}/{name} ({answer}); it is void once the pod or the account is deleted"
    )]
    Unauthorized {
        /// Where the Lease is.
        namespace: String,
        /// Its name.
        name: String,
        /// The API server's words.
        answer: String,
    },
    /// No answer came in time.
    #[error("no answer within {limit:?} when trying to {verb} lease {namespace}/{name}")]
    TimedOut {
        /// What was tried.
        verb: Verb,
        /// Where the Lease is.
        namespace: String,
        /// Its name.
        name: String,
        /// The limit, in this process's clock.
        limit: Duration,
    },
    /// Anything else.
    #[error("could not {verb} lease {namespace}/{name}: {answer}")]
    Failed {
        /// What was tried.
        verb: Verb,
        /// Where the Lease is.
        namespace: String,
        /// Its name.
        name: String,
        /// The chain of errors, or the API server's words.
        answer: String,
    },
}

/// What is done to a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read it.
    Get,
    /// Make it.
    Create,
    /// Replace it.
    Update,
    /// Watch it.
    Watch,
}

// === impl Verb ===

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Watch => "watch",
        })
    }
}
