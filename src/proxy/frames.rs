//! The frames of HTTP/2 that go to a client: which of its streams the h2 crate refuses.
//!
//! hyper and h2 refuse a stream without a word to anybody but the client. So the heads of the frames are read on their way out,
//! which are our own library's: nothing that a client sends is read here, and nothing is changed.

use std::io::IoSlice;
use std::sync::Arc;

use super::Shared;
use super::headers::Peer;
use super::refused::{self, Reason};

/// Length, type, flags and stream.
const HEAD: usize = 9;
/// The same and four bytes more: those that say why a stream is reset.
const PEEK: usize = HEAD + 4;
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
    shared: Arc<Shared>,
    peer: Peer,
}

/// Where in which frame the bytes are.
#[derive(Debug, Default)]
struct Walk {
    head: [u8; PEEK],
    have: usize,
    /// Bytes of a frame that are still to come and say nothing.
    skip: usize,
    /// Streams whose responses have begun and not ended: what ends them may be trailers.
    open: Vec<u32>,
    /// The last stream to which h2 gave an answer of its own.
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
            shared: Arc::clone(shared),
            peer: peer.clone(),
        }
    }

    /// So many bytes of these have gone.
    pub(super) fn pass(&mut self, pieces: &[IoSlice<'_>], mut written: usize) {
        for piece in pieces {
            let part = &piece[..piece.len().min(written)];
            written -= part.len();
            let (shared, peer) = (&self.shared, &self.peer);
            self.walk.pass(part, &mut |told| match told {
                Told::Bare => refused::note(shared, peer, Reason::TooLarge, ""),
                Told::Reset(reason) => {
                    if let Some(reason) = refusal(reason) {
                        refused::note(shared, peer, reason, "");
                    }
                }
            });
            if written == 0 {
                return;
            }
        }
    }
}

// === impl Walk ===

impl Walk {
    fn pass(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Told)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = if self.have < HEAD { HEAD } else { PEEK };
            let taken = (wanted - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == wanted {
                self.read(tell);
            }
        }
    }

    fn read(&mut self, tell: &mut impl FnMut(Told)) {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3, r0, r1, r2, r3] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        let (ends, peeked) = (flags & END_STREAM != 0, self.have - HEAD);
        match kind {
            TYPE_RST_STREAM if peeked > 0 => {
                self.reset(stream, u32::from_be_bytes([r0, r1, r2, r3]).into(), tell);
            }
            TYPE_RST_STREAM if length == PEEK - HEAD => return,
            TYPE_DATA if ends => {
                self.end(stream);
            }
            TYPE_HEADERS if peeked > 0 && r0 == STATUS => self.bare(stream, tell),
            TYPE_HEADERS if peeked > 0 => {}
            TYPE_HEADERS if !ends => self.begin(stream),
            TYPE_HEADERS if self.end(stream) => {}
            TYPE_HEADERS if length == STATUS_BYTES => return,
            TYPE_HEADERS if length == 1 => self.bare(stream, tell),
            _ => {}
        }
        self.skip = length - peeked;
        self.have = 0;
    }

    fn bare(&mut self, stream: u32, tell: &mut impl FnMut(Told)) {
        self.bare = stream;
        tell(Told::Bare);
    }

    fn reset(&mut self, stream: u32, reason: h2::Reason, tell: &mut impl FnMut(Told)) {
        // Where a response had begun, it broke off, or its client gave it up.
        if !self.end(stream) && stream != self.bare {
            tell(Told::Reset(reason));
        }
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
            let (mut walk, mut seen) = (Walk::default(), Vec::new());
            for piece in sent.chunks(size) {
                walk.pass(piece, &mut |told| seen.push(told));
            }
            let expected = [
                Told::Bare,
                Told::Reset(h2::Reason::PROTOCOL_ERROR),
                Told::Bare,
            ];
            assert_eq!(seen, expected, "in pieces of {size}");
            assert!(walk.open.is_empty());
        }
    }
}
