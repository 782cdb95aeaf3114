//! What a Lease says, free of Kubernetes' types.

use std::time::Duration;

use crate::clock::Timestamp;

/// The content of a Lease as far as the election reads and writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The holder identity; empty: the Lease is free.
    pub holder: String,
    /// For how long a candidate has to see the Lease unchanged before it may take it. Zero: not written; a candidate
    /// takes its own setting.
    pub lease_duration: Duration,
    /// How often the holder changed. Kept at a release.
    pub transitions: u64,
    /// When the holder took it, by the holder's wall clock. For people: no rule reads it.
    pub acquired: Timestamp,
    /// When the holder last renewed it, by the holder's wall clock. For people: no rule reads it.
    pub renewed: Timestamp,
    /// SHA-256 (hex) of the token of the holder's reign; empty where none was written.
    pub token_sha256: String,
    /// The last term that a leader reported; zero where none was written.
    pub term: u64,
}

// === impl Record ===

impl Record {
    /// Whether nobody holds the Lease.
    pub fn is_free(&self) -> bool {
        self.holder.is_empty()
    }

    /// The highest term that this Lease knows of.
    ///
    /// The annotation outlives a Deployment whose stamp was lost; `leaseTransitions` outlives an annotation that another
    /// tool removed. Terms must only grow, so the higher one counts.
    pub fn highest_term(&self) -> u64 {
        self.transitions.max(self.term)
    }
}
