//! Why a request has no response of the upstream.

use super::broken::Broken;
use super::headers::Refusal;
use super::lease::Lease;
use super::limits::Excess;
use super::pool::ConnectError;
use super::request::RequestBody;

/// Why there is no response of the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// No connection: nothing was sent.
    #[error("no connection to the upstream")]
    Connect(#[source] ConnectError),
    /// The connection broke before a response.
    #[error("the upstream broke off before its response")]
    Upstream(#[source] hyper::Error),
    /// The stream or its connection broke before a response.
    #[error("the upstream broke the request off before its response")]
    Stream(#[source] h2::Error),
    /// Its head is larger than what is passed on.
    #[error("the upstream's response {0}")]
    Excess(Excess),
    /// The request's own body broke.
    #[error("the request's body broke off")]
    Request(#[source] Broken),
    /// The upstream's protocol has no such request.
    #[error(transparent)]
    Refused(Refusal),
    /// The upstream was heard to speak HTTP/2, and does not. Nothing of the request was sent.
    #[error("no stream to the upstream")]
    Misheard {
        source: ConnectError,
        unsent: RequestBody,
    },
}

// === impl Failed ===

impl Failed {
    /// Why the response that was awaited on this connection did not come.
    pub(super) fn awaiting(lease: Lease, error: hyper::Error) -> Self {
        if !error.is_parse_too_large() {
            return Self::sending(error);
        }
        let unread = lease.into_parts().map(|parts| parts.read_buf);
        Self::Excess(Excess::of_unread(&unread.unwrap_or_default()))
    }

    pub(super) fn sending(error: hyper::Error) -> Self {
        if error.is_user() {
            Self::Request(Broken::Hyper(error))
        } else {
            Self::Upstream(error)
        }
    }
}
