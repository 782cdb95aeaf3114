//! What clients write into a request's target as it is, and hyper does not take: it is percent-encoded on its way in.
//!
//! Quotes and angle brackets in a query, a backtick in a path and bytes that are no UTF-8 are sent by curl and by many a script,
//! and taken by nginx and by uvicorn. hyper has no setting for them. This is no second reader of requests: of the first line of
//! a head, from the `/` behind the first space to the next space or the line's end, exactly the bytes that hyper would refuse
//! become `%XX`. None of them divides anything in HTTP, and what divides (space, CR, LF, colon) is neither read over nor
//! written; so a head is cut where it would have been cut, and one that is refused for anything else still is.
//!
//! It must not touch a body, whose length would change: see [`WireState::is_at_head`](super::wire::WireState::is_at_head).

/// How far the first line has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Line {
    /// Before the method.
    #[default]
    Start,
    Method,
    /// Behind the space behind the method.
    Slash,
    Path,
    Query,
    /// The target is over, or is not one to look at.
    Done,
}

/// What a byte means in a target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Passes,
    Refused,
    /// Part of UTF-8, or not.
    High,
    Question,
    End,
}

static PATH: [Class; 256] = classes(false);
static QUERY: [Class; 256] = classes(true);

#[expect(clippy::cast_possible_truncation, reason = "there are 256 bytes")]
const fn classes(in_query: bool) -> [Class; 256] {
    let mut table = [Class::Passes; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            // A fragment is cut off by hyper, and not looked at.
            0..=b' ' | 0x7f | b'#' => Class::End,
            0x80..=0xff => Class::High,
            b'<' | b'>' => Class::Refused,
            b'"' if in_query => Class::Refused,
            b'`' if !in_query => Class::Refused,
            b'?' if !in_query => Class::Question,
            _ => Class::Passes,
        };
        byte += 1;
    }
    table
}

// === impl Line ===

impl Line {
    /// What these bytes of a head become; `None`: they stay as they are.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut at = 0;
        while !matches!(self, Self::Path | Self::Query | Self::Done) {
            let byte = *bytes.get(at)?;
            at += 1;
            *self = match (*self, byte) {
                (Self::Start, b'\r' | b'\n') => Self::Start,
                (Self::Start | Self::Method, b'A'..=b'Z') => Self::Method,
                (Self::Method, b' ') => Self::Slash,
                (Self::Slash, b'/') => Self::Path,
                _ => Self::Done,
            };
        }
        let (begin, in_query, mut changes) = (at, *self == Self::Query, false);
        while *self != Self::Done
            && let Some(byte) = bytes.get(at)
        {
            let table = if *self == Self::Query { &QUERY } else { &PATH };
            match table[usize::from(*byte)] {
                Class::Passes => {}
                Class::Refused | Class::High => changes = true,
                Class::Question => *self = Self::Query,
                Class::End => {
                    *self = Self::Done;
                    break;
                }
            }
            at += 1;
        }
        changes
            .then(|| encoded(bytes, begin, at, in_query))
            .flatten()
    }
}

/// `bytes` with what lies between `begin` and `end` encoded; `None`: nothing there has to be.
///
/// Of a letter of UTF-8 that comes in two pieces both are encoded, which is the same letter.
fn encoded(bytes: &[u8], begin: usize, end: usize, mut in_query: bool) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let target = &bytes[begin..end];
    let mut whole = Vec::with_capacity(bytes.len() + 64);
    whole.extend_from_slice(&bytes[..begin]);
    let encode = |whole: &mut Vec<u8>, byte: u8| {
        whole.extend([
            b'%',
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    };
    for piece in target.utf8_chunks() {
        for byte in piece.valid().bytes() {
            let table = if in_query { &QUERY } else { &PATH };
            in_query |= byte == b'?';
            if table[usize::from(byte)] == Class::Refused {
                encode(&mut whole, byte);
            } else {
                whole.push(byte);
            }
        }
        for byte in piece.invalid() {
            encode(&mut whole, *byte);
        }
    }
    whole.extend_from_slice(&bytes[end..]);
    (whole.len() != bytes.len()).then_some(whole)
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use proptest::prelude::*;

    use super::*;

    /// What a head becomes that comes in pieces of this size.
    fn passed(head: &[u8], size: usize) -> Vec<u8> {
        let mut line = Line::default();
        let pieces = head.chunks(size.max(1));
        pieces
            .flat_map(|piece| line.pass(piece).unwrap_or_else(|| piece.to_vec()))
            .collect()
    }

    #[test]
    fn what_hyper_refuses_in_a_target_is_encoded_and_nothing_else() {
        let rows: [(&[u8], &[u8]); 11] = [
            (
                b"GET /a?q=\"x\" HTTP/1.1\r\nx: \"\r\n",
                b"GET /a?q=%22x%22 HTTP/1.1\r\nx: \"\r\n",
            ),
            (
                b"\r\nPOST /<a>`?<> HTTP/1.1\r\n",
                b"\r\nPOST /%3Ca%3E%60?%3C%3E HTTP/1.1\r\n",
            ),
            (b"GET /caf\xe9 HTTP/1.1\n", b"GET /caf%E9 HTTP/1.1\n"),
            (
                b"GET /caf\xc3\xa9?{}|^\\ HTTP/1.1\r\n",
                b"GET /caf\xc3\xa9?{}|^\\ HTTP/1.1\r\n",
            ),
            // Neither a second space nor anything behind it, a fragment, a method or a body.
            (b"GET /a \"b HTTP/1.1\r\n", b"GET /a \"b HTTP/1.1\r\n"),
            (b"GET /a?b#\" HTTP/1.1\r\n", b"GET /a?b#\" HTTP/1.1\r\n"),
            (b"G\"T /\" HTTP/1.1\r\n", b"G\"T /\" HTTP/1.1\r\n"),
            (b"GET /a HTTP/1.1\r\n\r\n<\"", b"GET /a HTTP/1.1\r\n\r\n<\""),
            (
                b"GET http://a\"/\" HTTP/1.1\r\n",
                b"GET http://a\"/\" HTTP/1.1\r\n",
            ),
            (b"x: GET /\"\r\n", b"x: GET /\"\r\n"),
            (b"GET /a\r\nx: <\r\n", b"GET /a\r\nx: <\r\n"),
        ];
        for (head, expected) in rows {
            let whole = passed(head, head.len());
            assert_eq!(whole, expected, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_line_may_come_in_any_pieces() {
        let head = b"GET /a?q=\"<x>\"&b=c HTTP/1.1\r\nx: \"y\"\r\n\r\n";
        for size in 1..head.len() {
            assert_eq!(passed(head, size), passed(head, head.len()), "{size}");
        }
    }

    proptest! {
        /// Whatever stands between the slash and the space, hyper's own reader of targets takes it, but for controls.
        #[test]
        fn every_target_without_controls_is_taken(target in proptest::collection::vec(0x21_u8..=0xff, 0..40)) {
            prop_assume!(!target.contains(&0x7f));
            let head = [b"GET /", &target[..], b" HTTP/1.1\r\n\r\n"].concat();
            let whole = passed(&head, head.len());
            let target = &whole[b"GET ".len()..whole.len() - b" HTTP/1.1\r\n\r\n".len()];
            if !target.contains(&b'#') {
                prop_assert!(PathAndQuery::try_from(target).is_ok(), "{}", String::from_utf8_lossy(target));
            }
        }

        /// Lines end where they ended, and nothing behind the first changes.
        #[test]
        fn what_divides_a_head_stays(bytes in proptest::collection::vec(any::<u8>(), 0..80), size in 1_usize..20) {
            let head = [b"GET /", &bytes[..]].concat();
            let whole = passed(&head, size);
            let divides = |head: &[u8]| -> Vec<u8> {
                head.iter().copied().filter(|byte| matches!(byte, b' ' | b'\r' | b'\n' | b':')).collect()
            };
            prop_assert_eq!(divides(&whole), divides(&head));
            let rest = |head: &[u8]| head.iter().position(|byte| *byte == b'\n').map(|end| head[end..].to_vec());
            prop_assert_eq!(rest(&whole), rest(&head));
        }
    }
}
