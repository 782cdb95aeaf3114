//! What a process is to the election.

/// What a process is to the election. In the order in which they should lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `sidescale lead`: preferred, because no scale-down ever takes it.
    Lead,
    /// A sidecar: leads where no lead does.
    #[default]
    Sidecar,
    /// A sidecar that never leads (`--follow`): it obeys whom the Lease names, and needs no right to write.
    Follower,
}

// === impl Part ===

impl Part {
    /// Whether it may hold the Lease.
    pub const fn may_lead(self) -> bool {
        match self {
            Self::Lead | Self::Sidecar => true,
            Self::Follower => false,
        }
    }
}
