//! Bodies that end before their end, whichever way they go.

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("its connection or its framing broke")]
    Hyper(#[source] hyper::Error),
    #[error("its stream broke")]
    Stream(#[source] h2::Error),
    #[error("its sender took it back")]
    Abandoned,
}

// === impl Broken ===

impl Broken {
    /// Whether the stream was reset here, since the client's half of it had broken.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Stream(error) if error.is_reset() && !error.is_remote() && !error.is_library())
    }
}
