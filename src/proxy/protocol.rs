//! Which HTTP goes to the upstream: what was set, what the server was heard to speak, and what follows for a request.
//!
//! vLLM and uvicorn speak HTTP/1 alone, a port of gRPC HTTP/2 alone, and neither says so unasked. So a server that has
//! just come up is sent the preface of HTTP/2: who speaks it answers with SETTINGS, all others with an error or an end.
//! The answer holds until there is reason to doubt it.
//!
//! A server that speaks TLS answers plain text by an alert, by an end or not at all. An end and silence have other reasons,
//! too, so it is asked in its own tongue before it is called one: see `tls`.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::dial::Upstream;
use super::setting::SettingError;
use super::tls;
use super::wire::{Carrier, PREFACE};
use crate::clock::Clock;

/// An empty SETTINGS frame: no length, type 4, no flags, stream 0. The preface must be followed by one.
const SETTINGS: &[u8; 9] = &[0, 0, 0, TYPE_SETTINGS, 0, 0, 0, 0, 0];
const TYPE_SETTINGS: u8 = 4;
/// What every answer of HTTP/1 begins with.
const VERSION: &[u8] = b"HTTP/";
/// So many requests without an answer make one ask whether the server speaks TLS, where it is set what it speaks. One alone is
/// more often a server that has just died.
const UNANSWERED: u32 = 2;
/// How long a server may take to say what it speaks.
const PATIENCE: Duration = Duration::from_secs(1);

/// By which HTTP requests go to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// By the client's own, where the server speaks it.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
}

/// What a server was heard to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Spoken {
    Unknown,
    Http1,
    H2c,
    Both,
    /// Not what is spoken here.
    Tls,
}

/// The setting, and what is known beside it.
#[derive(Debug)]
pub(super) struct Speech {
    setting: Protocol,
    spoken: AtomicU8,
    doubted: AtomicBool,
    /// Requests and probes that had no answer since it was last asked.
    unanswered: AtomicU32,
}

// === impl Protocol ===

impl FromStr for Protocol {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "auto" => Ok(Self::Auto),
            "http1" => Ok(Self::Http1),
            "h2c" => Ok(Self::H2c),
            _ => Err(SettingError::Protocol(text.to_owned())),
        }
    }
}

// === impl Spoken ===

impl Spoken {
    fn from_u8(value: u8) -> Self {
        [Self::Http1, Self::H2c, Self::Both, Self::Tls]
            .into_iter()
            .find(|spoken| *spoken as u8 == value)
            .unwrap_or(Self::Unknown)
    }
}

// === impl Speech ===

impl Speech {
    pub(super) fn new(setting: Protocol) -> Self {
        Self {
            setting,
            spoken: AtomicU8::new(Spoken::Unknown as u8),
            doubted: AtomicBool::new(false),
            unanswered: AtomicU32::new(0),
        }
    }

    /// By what a request of a `client` goes on.
    pub(super) fn carrier(&self, client: Carrier) -> Carrier {
        carrier(self.setting, self.spoken(), client)
    }

    /// Whether by what a request goes on is not known, though it could be.
    pub(super) fn is_open(&self) -> bool {
        self.setting == Protocol::Auto
            && (self.spoken() == Spoken::Unknown || self.doubted.load(Relaxed))
    }

    /// Whether a server that answers should be listened to, if only for whether it still speaks TLS, or does at all.
    pub(super) fn is_unheard(&self) -> bool {
        self.is_open() || self.is_tls() || self.unanswered.load(Relaxed) >= UNANSWERED
    }

    /// The server had no answer to a request or a probe.
    pub(super) fn note_unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    /// Whether it was heard to speak TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.spoken() == Spoken::Tls
    }

    /// The server behaves as if it were another one.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Relaxed);
    }

    /// Asks the server. What is known stands when it does not answer.
    pub(super) async fn listen(&self, upstream: &Upstream, clock: &Clock) {
        let Some(heard) = hear(self.setting, upstream, clock).await else {
            return;
        };
        self.doubted.store(false, Relaxed);
        self.unanswered.store(0, Relaxed);
        if self.spoken.swap(heard as u8, Relaxed) != heard as u8 {
            tracing::info!(spoken = ?heard, "what the upstream speaks is known");
        }
    }

    fn spoken(&self) -> Spoken {
        Spoken::from_u8(self.spoken.load(Relaxed))
    }
}

fn carrier(setting: Protocol, spoken: Spoken, client: Carrier) -> Carrier {
    match (setting, spoken, client) {
        (Protocol::Http1, _, _)
        | (Protocol::Auto, Spoken::Unknown | Spoken::Http1 | Spoken::Tls, _)
        | (Protocol::Auto, Spoken::Both, Carrier::Http1) => Carrier::Http1,
        (Protocol::H2c, _, _)
        | (Protocol::Auto, Spoken::H2c, _)
        | (Protocol::Auto, Spoken::Both, Carrier::Http2) => Carrier::Http2,
    }
}

/// `None`: nobody listens, or says anything.
async fn hear(setting: Protocol, upstream: &Upstream, clock: &Clock) -> Option<Spoken> {
    let plain = match setting {
        Protocol::Auto => clock.timeout(PATIENCE, hear_plain(upstream)).await,
        // It was said what a server speaks. Whether it is encrypted is all that is asked.
        Protocol::Http1 | Protocol::H2c => Ok(Some(Spoken::Unknown)),
    };
    match plain {
        Ok(Some(Spoken::Unknown)) => {}
        Ok(heard) => return heard,
        Err(elapsed) => tracing::debug!(%elapsed, "the upstream did not say what it speaks"),
    }
    let answer = clock.timeout(PATIENCE, answer_to(upstream, &tls::HELLO));
    let answer = answer.await.ok().flatten();
    match (answer, plain) {
        (Some(answer), _) if tls::is_record(&answer) => Some(Spoken::Tls),
        // A server that ends at a preface, or talks back in no HTTP, is left to its requests; a silent one is asked again.
        (_, Ok(_)) => Some(Spoken::Http1),
        (_, Err(_)) => None,
    }
}

/// `Unknown`: it said something, or ended, and neither is HTTP.
async fn hear_plain(upstream: &Upstream) -> Option<Spoken> {
    let greeting = [&PREFACE[..], SETTINGS].concat();
    let heard = spoken_by(&answer_to(upstream, &greeting).await?);
    if heard != Spoken::H2c {
        return Some(heard);
    }
    // A server of both is asked in its other tongue, by a request that asks for nothing.
    let host = upstream.authority();
    let request = format!("OPTIONS * HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answer = answer_to(upstream, request.as_bytes()).await?;
    Some(if answer.starts_with(VERSION) {
        Spoken::Both
    } else {
        Spoken::H2c
    })
}

fn spoken_by(answer: &[u8]) -> Spoken {
    if is_settings(answer) {
        Spoken::H2c
    } else if answer.starts_with(VERSION) {
        Spoken::Http1
    } else if tls::is_record(answer) {
        Spoken::Tls
    } else {
        Spoken::Unknown
    }
}

/// The first bytes of an answer, as many as a frame's head has; fewer where the server ended before, or says enough.
async fn answer_to(upstream: &Upstream, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream = upstream.dial().await.ok()?;
    let mut answer = vec![0; SETTINGS.len()];
    let mut filled = 0;
    // A server that ends in the middle of the question has answered it.
    if stream.write_all(question).await.is_ok() {
        // An alert is shorter than a frame, and its sender may wait for the other side to end.
        while filled < answer.len() && !tls::is_record(&answer[..filled]) {
            match stream.read(&mut answer[filled..]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => filled += read,
            }
        }
    }
    answer.truncate(filled);
    Some(answer)
}

fn is_settings(answer: &[u8]) -> bool {
    // Stream 0; the flags tell an acknowledgement, which cannot come first.
    answer.len() == SETTINGS.len() && answer[3..] == SETTINGS[3..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_on_by_what_was_set_and_heard() {
        use Carrier::{Http1, Http2};
        let rows = [
            (Protocol::Http1, Spoken::H2c, Http1, Http1),
            (Protocol::H2c, Spoken::Http1, Http2, Http2),
            (Protocol::Auto, Spoken::Unknown, Http1, Http1),
            (Protocol::Auto, Spoken::Http1, Http1, Http1),
            (Protocol::Auto, Spoken::H2c, Http2, Http2),
            (Protocol::Auto, Spoken::Both, Http1, Http2),
            (Protocol::Auto, Spoken::Tls, Http1, Http1),
        ];
        for (setting, spoken, of_http1, of_http2) in rows {
            let carriers = [Http1, Http2].map(|client| carrier(setting, spoken, client));
            assert_eq!(carriers, [of_http1, of_http2], "{setting:?}, {spoken:?}");
        }
    }

    #[test]
    fn a_frame_of_settings_is_told_from_a_status_line() {
        assert!(is_settings(SETTINGS));
        assert!(is_settings(&[0, 0, 18, 4, 0, 0, 0, 0, 0]));
        for other in [
            &b"HTTP/1.1 "[..],
            &SETTINGS[..8],
            b"",
            &[0, 0, 8, 7, 0, 0, 0, 0, 0],
        ] {
            assert!(!is_settings(other), "{other:?}");
        }
    }

    #[test]
    fn only_an_open_question_is_asked() {
        assert!(Speech::new(Protocol::Auto).is_open());
        for setting in [Protocol::Http1, Protocol::H2c] {
            let speech = Speech::new(setting);
            speech.doubt();
            assert!(!speech.is_open());
        }
    }

    #[test]
    fn an_answer_says_what_is_spoken() {
        let rows = [
            (&SETTINGS[..], Spoken::H2c),
            (b"HTTP/1.1 ", Spoken::Http1),
            (b"\x15\x03\x01\x00\x02\x02\x46", Spoken::Tls),
            (b"SSH-2.0-O", Spoken::Unknown),
            (b"", Spoken::Unknown),
        ];
        for (answer, spoken) in rows {
            assert_eq!(spoken_by(answer), spoken, "{answer:?}");
        }
    }

    #[test]
    fn a_protocol_is_one_of_three() {
        assert_eq!("h2c".parse(), Ok(Protocol::H2c));
        let error = "h2".parse::<Protocol>().expect_err("not one of them");
        assert!(error.to_string().contains("auto, http1 or h2c"), "{error}");
    }
}
