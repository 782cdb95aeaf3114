//! Who leads: an election on a Kubernetes Lease, by client-go's rules.
//!
//! A candidate judges a Lease only by how long it has itself seen it unchanged, never by another machine's clock, so
//! skewed clocks cannot make two leaders. [`machine`] holds the rules and does no input or output; [`Elector`] drives it
//! against an API server; [`Candidacy`] is what the rest of the sidecar holds. Leadership is a value in a watch channel,
//! read at the moment of writing: whoever wants to write asks [`Claim::is_valid`] then, not earlier. [`preference`] says who
//! should lead where several could.
//!
//! A Lease does not fence: a write sent under a claim may arrive after the claim has lapsed. The Deployment's own
//! version and the term stamped on it do that; see the header of `scale`.

mod client;
mod elector;
mod fault;
mod lease;
pub mod machine;
mod part;
pub mod preference;
mod record;
mod timings;
mod token;

pub use client::{USER_AGENT, without_retries};
pub use elector::{Candidacy, Elector};
pub use fault::LeaseFault;
pub use lease::{ANNOTATION_TERM, ANNOTATION_TOKEN, LeaseApi, Read};
pub use part::Part;
pub use record::Record;
pub use timings::{BadTimings, Timings};
pub use token::{Token, sha256_hex};

use crate::clock::Instant;

/// What this process knows of the leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Nobody is known to lead: at the start, after a lapse, or when the leader has been silent for a lease duration.
    #[default]
    Unknown,
    /// Another process leads.
    Following(Leader),
    /// This process leads, as long as the claim is valid.
    Leading(Claim),
}

/// Another process that leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// Its holder identity.
    pub holder: String,
    /// Its term, once it is known.
    pub term: Option<u64>,
    /// SHA-256 (hex) of its term's token, where the Lease was read since it leads.
    pub token_sha256: Option<String>,
}

/// My proof of leadership, now: one unbroken reign of this process.
///
/// A claim that has lapsed never comes back: the same process wins again with another token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// My holder identity.
    pub holder: String,
    /// The random secret of this reign, told to members only; its hash stands in the Lease.
    pub token: Token,
    /// The highest term that the Lease knows of: `leaseTransitions`, or the term its annotation names if that is higher.
    /// My term is above it, and above the stamp on the Deployment.
    pub after_term: u64,
    /// The Lease's resourceVersion after the last good renewal.
    pub renewed: String,
    /// The claim is worth nothing from then on. Counted from before the last good renewal was sent.
    pub valid_until: Instant,
}

// === impl Leadership ===

impl Leadership {
    /// The claim, where this process leads; it may have lapsed since.
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Leading(claim) => Some(claim),
            Self::Unknown | Self::Following(_) => None,
        }
    }

    /// The claim, where it is valid at `now`.
    pub fn valid_claim(&self, now: Instant) -> Option<&Claim> {
        self.claim().filter(|claim| claim.is_valid(now))
    }

    /// The leader's holder identity, be it this process or another.
    pub fn holder(&self) -> Option<&str> {
        match self {
            Self::Unknown => None,
            Self::Following(leader) => Some(&leader.holder),
            Self::Leading(claim) => Some(&claim.holder),
        }
    }
}

// === impl Claim ===

impl Claim {
    /// Whether this process may act as the leader at `now`.
    pub fn is_valid(&self, now: Instant) -> bool {
        now < self.valid_until
    }

    /// Whether `other` belongs to the same reign: it may only be longer.
    pub fn is_same_reign(&self, other: &Self) -> bool {
        self.token == other.token
    }
}
