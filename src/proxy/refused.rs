//! Heads that never become a request: what was wrong with them is counted, logged, and told to the client where that is possible.
//!
//! hyper answers a head of HTTP/1 that it cannot read by a status without a word. [`Wire`] keeps that answer back, and the one
//! that says why is written instead, when hyper has said it here. In HTTP/2 there are no words for it: a stream is reset
//! (`frames` sees it go), or the connection ends.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Shared;
use super::headers::{Peer, Refusal};
use super::limits::Excess;
use super::wire::Wire;
use crate::memory;

/// How long a client may go on sending what nobody reads, and how much, before its connection is closed. Closed at once, the
/// kernel would answer what still comes by a reset, and that takes the answer away from a client that has not read it yet.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The method is no word.
    Method,
    /// The target is no path, or has bytes that no target may have.
    Target,
    /// The version is not one that is spoken.
    Version,
    /// A field's name or value has bytes that it may not have.
    Field,
    /// Its length or its transfer coding can be read in two ways, or in none.
    Framing,
    /// No Host, or more than one.
    Host,
    /// A method of forward proxies.
    Connect,
    /// More than 100 header fields.
    TooManyFields,
    /// More than 64 KiB.
    TooLarge,
    /// Anything else that is not HTTP/1.
    Malformed,
    /// A stream of HTTP/2 that HTTP/2 does not allow.
    Stream,
    /// More streams of one connection than it may have.
    TooManyStreams,
    /// A connection of HTTP/2 on which something came that breaks it.
    Connection,
    /// A connection of HTTP/2 that asked for too much that is no request.
    Flood,
}

/// How many heads were refused, by reason.
#[derive(Debug, Default)]
pub(super) struct Refusals([AtomicU64; Reason::ALL.len()]);

// === impl Reason ===

impl Reason {
    const ALL: [Self; 14] = [
        Self::Method,
        Self::Target,
        Self::Version,
        Self::Field,
        Self::Framing,
        Self::Host,
        Self::Connect,
        Self::TooManyFields,
        Self::TooLarge,
        Self::Malformed,
        Self::Stream,
        Self::TooManyStreams,
        Self::Connection,
        Self::Flood,
    ];

    /// Its label in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Target => "target",
            Self::Version => "version",
            Self::Field => "field",
            Self::Framing => "framing",
            Self::Host => "host",
            Self::Connect => "connect",
            Self::TooManyFields => "too_many_fields",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Stream => "http2_stream",
            Self::TooManyStreams => "http2_too_many_streams",
            Self::Connection => "http2_connection",
            Self::Flood => "http2_flood",
        }
    }

    /// Why hyper gave up a connection of HTTP/1 of which this was left unread; `None`: not for what came on it.
    fn of_http1(error: &hyper::Error, unread: &[u8]) -> Option<Self> {
        if !error.is_parse() {
            return None;
        }
        if error.is_parse_too_large() {
            return Some(Excess::of_unread(unread).into());
        }
        // hyper tells the kinds apart by their words alone. A word that it changes makes a reason less exact, not wrong.
        let text = error.to_string();
        let kinds = [
            ("method", Self::Method),
            ("URI", Self::Target),
            ("version", Self::Version),
            ("content-length", Self::Framing),
            ("transfer-encoding", Self::Framing),
            ("header", Self::Field),
        ];
        let known = kinds.into_iter().find(|(word, _)| text.contains(word));
        Some(known.map_or(Self::Malformed, |(_, reason)| reason))
    }

    /// Why the h2 crate gave up a connection; `None`: not for what came on it.
    fn of_http2(error: &hyper::Error) -> Option<Self> {
        let source = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
        if source.is_remote() || source.is_io() {
            return None;
        }
        match source.reason()? {
            h2::Reason::NO_ERROR => None,
            h2::Reason::ENHANCE_YOUR_CALM => Some(Self::Flood),
            _ => Some(Self::Connection),
        }
    }

    pub(super) fn status(self) -> StatusCode {
        if matches!(self, Self::TooManyFields | Self::TooLarge) {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        }
    }

    /// What was wrong, and what to do.
    pub(super) fn text(self) -> String {
        match self {
            Self::Method => "the method of the request is no word of letters".to_owned(),
            Self::Target => "the request's target has a byte that no target may have, or no `/` at its beginning \
                             (percent-encode it)"
                .to_owned(),
            Self::Version => "the request is none of HTTP/1.0 or HTTP/1.1".to_owned(),
            Self::Field => "a header field has a byte in its name or its value that HTTP does not allow, or is folded".to_owned(),
            Self::Framing => "the request's Content-Length or Transfer-Encoding can be read in two ways, or in none".to_owned(),
            Self::Host => Refusal::Host.to_string(),
            Self::Connect => Refusal::Connect.to_string(),
            Self::TooManyFields => format!("the request {}", Excess::Fields),
            Self::TooLarge => format!("the request {}", Excess::Bytes),
            Self::Malformed => "this is not HTTP/1".to_owned(),
            Self::Stream => "a request of HTTP/2 was malformed: a byte in its path that no target may have (percent-encode it), \
                             a field of HTTP/1 such as Connection, or a length that its body does not have"
                .to_owned(),
            Self::TooManyStreams => "a connection of HTTP/2 has more streams than it was allowed".to_owned(),
            Self::Connection => "a connection of HTTP/2 broke its rules and was ended".to_owned(),
            Self::Flood => "a connection of HTTP/2 sent resets, pings, settings or pieces of heads without end and was ended".to_owned(),
        }
    }
}

impl From<Excess> for Reason {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Fields => Self::TooManyFields,
            Excess::Bytes => Self::TooLarge,
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Connect => Self::Connect,
            Refusal::Host => Self::Host,
            Refusal::TransferCoding => Self::Framing,
            Refusal::Target => Self::Target,
        }
    }
}

// === impl Refusals ===

impl Refusals {
    pub(super) fn add(&self, reason: Reason) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        Reason::ALL
            .map(Reason::word)
            .into_iter()
            .zip(counts)
            .collect()
    }
}

/// Counts and logs what a `client` did.
pub(super) fn note(shared: &Shared, client: &Peer, reason: Reason, detail: &str) {
    shared.accounts.refuse_head(reason);
    let what = reason.text();
    let what = if detail.is_empty() {
        what
    } else {
        format!("{what} ({detail})")
    };
    shared.notices.say(&shared.clock, client, &what);
}

/// A connection of HTTP/1 ended with this error, with `unread` on it.
pub(super) async fn end_http1(
    shared: &Shared,
    client: &Peer,
    error: &hyper::Error,
    wire: TokioIo<Wire>,
    unread: &[u8],
) {
    let Some(reason) = Reason::of_http1(error, unread) else {
        return;
    };
    note(shared, client, reason, &error.to_string());
    let mut wire = wire.into_inner();
    if wire.has_kept_back() && !memory::is_short() {
        let told = shared.clock.timeout(LINGER, tell(&mut wire, reason));
        if let Err(elapsed) = told.await {
            tracing::debug!(%elapsed, "a client that was refused goes on sending");
        }
    }
}

/// A connection of HTTP/2 ended with this error.
pub(super) fn end_http2(shared: &Shared, client: &Peer, error: &hyper::Error) {
    if let Some(reason) = Reason::of_http2(error) {
        note(shared, client, reason, &crate::causes::chain(error));
    }
}

async fn tell(wire: &mut Wire, reason: Reason) {
    let (status, text) = (reason.status(), reason.text());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n\
         sidescale: {text}\n",
        "sidescale: \n".len() + text.len(),
    );
    wire.answer_at_last();
    if wire.write_all(answer.as_bytes()).await.is_err() || wire.shutdown().await.is_err() {
        return;
    }
    let (mut left, mut lost) = (LINGER_BYTES, [0; 1_024]);
    while let Ok(read @ 1..) = wire.read(&mut lost).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_and_a_word_of_its_own() {
        let refusals = Refusals::default();
        for reason in Reason::ALL {
            refusals.add(reason);
        }
        let read = refusals.read();
        assert!(read.iter().all(|(_, count)| *count == 1), "{read:?}");
        let words: std::collections::BTreeSet<_> = read.iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
