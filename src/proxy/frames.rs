//! The frames of HTTP/2 that go to a client: which of its streams the h2 crate refuses.
//!
//! hyper and h2 refuse a stream without a word to anybody but the client. So the heads of the frames are read on their way out,
//! which are our own library's: nothing that a client sends is read here, and nothing is changed.

use std::io::IoSlice;
use std::sync::Arc;

use super::Shared;
use super::headers::Peer;
use super::refused::{self, Reason};
use super::walk::{Head, PEEK, Walk, Wanted};

const TYPE_DATA: u8 = 0;
const TYPE_HEADERS: u8 = 1;
const TYPE_RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
/// How HPACK begins `:status` with a value that it does not know yet, and how long it is with 431.
const STATUS: u8 = 0x48;
const STATUS_BYTES: usize = 5;
/// How many responses under way are known; of more than a connection may have at once, the oldest have ended unseen.
const OPEN: usize = 1_000;

/// What is known of the frames to one client.
#[derive(Debug)]
pub(super) struct Frames {
    walk: Walk,
    streams: Streams,
    shared: Arc<Shared>,
    peer: Peer,
}

/// What the frames have said of the streams.
#[derive(Debug, Default)]
struct Streams {
    /// Those whose responses have begun and not ended: what ends them may be trailers.
    open: Vec<u32>,
    /// The last one to which h2 gave an answer of its own.
    bare: u32,
}

/// What a client is told of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A status and nothing else. hyper's answers have a date at least; h2 says so that a head is too large.
    Bare,
    Reset(h2::Reason),
}

// === impl Frames ===

impl Frames {
    pub(super) fn new(shared: &Arc<Shared>, peer: &Peer) -> Self {
        Self {
            walk: Walk::default(),
            streams: Streams::default(),
            shared: Arc::clone(shared),
            peer: peer.clone(),
        }
    }

    /// So many bytes of these have gone.
    pub(super) fn pass(&mut self, pieces: &[IoSlice<'_>], mut written: usize) {
        for piece in pieces {
            let part = &piece[..piece.len().min(written)];
            written -= part.len();
            let (streams, shared, peer) = (&mut self.streams, &self.shared, &self.peer);
            self.walk.pass(part, |head, first| {
                let (wanted, told) = streams.read(head, first);
                let reason = match told {
                    Some(Told::Bare) => Some(Reason::TooLarge),
                    Some(Told::Reset(reason)) => refusal(reason),
                    None => None,
                };
                if let Some(reason) = reason {
                    refused::note(shared, peer, reason, "");
                }
                wanted
            });
            if written == 0 {
                return;
            }
        }
    }
}

// === impl Streams ===

impl Streams {
    /// What is wanted of a frame, and what it tells.
    fn read(&mut self, head: Head, first: Option<[u8; PEEK]>) -> (Wanted, Option<Told>) {
        let Head {
            length,
            kind,
            flags,
            stream,
        } = head;
        let ends = flags & END_STREAM != 0;
        let told = match (kind, first) {
            (TYPE_RST_STREAM, Some(reason)) => {
                self.reset(stream, u32::from_be_bytes(reason).into())
            }
            (TYPE_RST_STREAM, None) if length == PEEK => return (Wanted::First, None),
            (TYPE_DATA, _) if ends => {
                self.end(stream);
                None
            }
            (TYPE_HEADERS, Some([STATUS, ..])) => Some(self.bare(stream)),
            (TYPE_HEADERS, None) if !ends => {
                self.begin(stream);
                None
            }
            (TYPE_HEADERS, None) if self.end(stream) => None,
            (TYPE_HEADERS, None) if length == STATUS_BYTES => return (Wanted::First, None),
            (TYPE_HEADERS, None) if length == 1 => Some(self.bare(stream)),
            _ => None,
        };
        (Wanted::Nothing, told)
    }

    fn bare(&mut self, stream: u32) -> Told {
        self.bare = stream;
        Told::Bare
    }

    fn reset(&mut self, stream: u32, reason: h2::Reason) -> Option<Told> {
        // Where a response had begun, it broke off, or its client gave it up.
        (!self.end(stream) && stream != self.bare).then_some(Told::Reset(reason))
    }

    fn begin(&mut self, stream: u32) {
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push(stream);
    }

    /// Whether its response had begun.
    fn end(&mut self, stream: u32) -> bool {
        let place = self.open.iter().rposition(|open| *open == stream);
        if let Some(place) = place {
            self.open.remove(place);
        }
        place.is_some()
    }
}

/// Why the h2 crate has reset a stream; `None`: it has not, the response or its client broke off.
fn refusal(reason: h2::Reason) -> Option<Reason> {
    match reason {
        h2::Reason::REFUSED_STREAM => Some(Reason::TooManyStreams),
        h2::Reason::PROTOCOL_ERROR
        | h2::Reason::FLOW_CONTROL_ERROR
        | h2::Reason::FRAME_SIZE_ERROR => Some(Reason::Stream),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &[u8] = b"\0\0\x06\x01\x04\0\0\0\x01\x88abcde";
    const DATA: &[u8] = b"\0\0\x05\0\0\0\0\0\x01\0\0\x04\x03\0";
    const TRAILERS: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x01\xbe";
    const NO_CONTENT: &[u8] = b"\0\0\x02\x01\x05\0\0\0\x07\x89\xbe";
    const TOO_LARGE: &[u8] = b"\0\0\x05\x01\x05\0\0\0\x03\x48\x83\x68\x05\x9f";
    const RESET_3: &[u8] = b"\0\0\x04\x03\0\0\0\0\x03\0\0\0\x01";
    const RESET_5: &[u8] = b"\0\0\x04\x03\0\0\0\0\x05\0\0\0\x01";
    const TOO_LARGE_AGAIN: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x09\xbf";

    #[test]
    fn what_h2_says_by_itself_is_found_in_whatever_pieces_it_goes() {
        let sent = [
            HEADERS,
            DATA,
            TOO_LARGE,
            RESET_3,
            DATA,
            RESET_5,
            TRAILERS,
            NO_CONTENT,
            TOO_LARGE_AGAIN,
        ];
        let sent = sent.concat();
        for size in 1..=sent.len() {
            let (mut walk, mut streams) = (Walk::default(), Streams::default());
            let mut seen = Vec::new();
            for piece in sent.chunks(size) {
                walk.pass(piece, |head, first| {
                    let (wanted, told) = streams.read(head, first);
                    seen.extend(told);
                    wanted
                });
            }
            let expected = [
                Told::Bare,
                Told::Reset(h2::Reason::PROTOCOL_ERROR),
                Told::Bare,
            ];
            assert_eq!(seen, expected, "in pieces of {size}");
            assert!(streams.open.is_empty());
        }
    }
}
