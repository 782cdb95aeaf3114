//! Frames of HTTP/2 as they pass by, cut anywhere: the head of each, and where it is wanted what comes right behind it.

/// Length, type, flags and stream.
const HEAD: usize = 9;
/// How much of a payload can be looked at.
pub(super) const PEEK: usize = 4;

/// Where in which frame the bytes are.
#[derive(Debug, Default)]
pub(super) struct Walk {
    bytes: [u8; HEAD + PEEK],
    filled: usize,
    /// Bytes of a frame that are still to come and say nothing.
    skip: usize,
}

/// How a frame begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Bytes of its payload.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0: it is of the connection.
    pub(super) stream: u32,
}

/// What is wanted of a frame whose head was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The first [`PEEK`] bytes of its payload, where it has as many.
    First,
    Nothing,
}

// === impl Walk ===

impl Walk {
    /// Calls `read` with each head, and once more with the payload's first bytes where it wanted them.
    pub(super) fn pass(
        &mut self,
        mut bytes: &[u8],
        mut read: impl FnMut(Head, Option<[u8; PEEK]>) -> Wanted,
    ) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = if self.filled < HEAD {
                HEAD
            } else {
                HEAD + PEEK
            };
            let taken = (wanted - self.filled).min(bytes.len());
            self.bytes[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < wanted {
                return;
            }
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3, first @ ..] = self.bytes;
            let head = Head {
                length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
                kind,
                flags,
                // The first bit is reserved.
                stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            };
            let peeked = self.filled - HEAD;
            let wanted = read(head, (peeked > 0).then_some(first));
            if wanted == Wanted::First && peeked == 0 && head.length >= PEEK {
                continue;
            }
            self.skip = head.length - peeked;
            self.filled = 0;
        }
    }
}
