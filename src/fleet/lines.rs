//! Lines of JSON in an HTTP body: how both ends of the member channel write and read.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use serde::Serialize;

/// The longest line of the present, either way: a report takes less than 1 KiB, a beacon less than 2. What is longer is
/// not ours, and a reader that took it would hold memory for whoever dialled.
pub(super) const LONGEST_LINE: usize = 64 * 1024;

/// The longest line of the past: an hour in slots of ten seconds takes about 100 KiB. Taken only by a leader that has
/// asked for it, once for each member.
pub(super) const LONGEST_PAST: usize = 512 * 1024;

/// Why no more lines can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// The other side writes a line that is none of ours.
    #[error("a line of more than {longest} bytes on the member channel")]
    TooLong {
        /// The bound, bytes.
        longest: usize,
    },
    /// The stream broke.
    #[error("the member channel broke")]
    Broken(#[source] hyper::Error),
}

/// The lines of a body, as they come.
#[derive(Debug)]
pub(super) struct Lines<B> {
    body: B,
    buffer: BytesMut,
    /// How much of the buffer holds no line end for sure: a long line that comes in small frames is searched once.
    searched: usize,
}

// === impl Lines ===

impl<B> Lines<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    /// Reads `body` line by line.
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next line of at most `longest` bytes, without its end; `None` when the other side has ended the stream (an
    /// unfinished last line is dropped). Nothing is lost when the future is dropped and called for again.
    pub(super) async fn next(&mut self, longest: usize) -> Result<Option<Bytes>, LineError> {
        loop {
            if let Some(line) = self.take_line(longest)? {
                return Ok(Some(line));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(LineError::Broken(error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self, longest: usize) -> Result<Option<Bytes>, LineError> {
        let unsearched = &self.buffer[self.searched..];
        let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > longest {
                Err(LineError::TooLong { longest })
            } else {
                Ok(None)
            };
        };
        let end = self.searched + end;
        if end > longest {
            return Err(LineError::TooLong { longest });
        }
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        self.searched = 0;
        Ok(Some(line.freeze()))
    }
}

/// `value` as a line of JSON with its end.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value)
        .expect("the wire types have string keys and no serializer of their own that fails");
    text.push(b'\n');
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn lines_of(
        frames: &'static [&'static str],
    ) -> Lines<impl Body<Data = Bytes, Error = hyper::Error> + Unpin> {
        let frames = frames
            .iter()
            .map(|frame| Ok(http_body::Frame::data(Bytes::from_static(frame.as_bytes()))));
        Lines::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn lines_are_cut_wherever_the_frames_are() {
        let mut lines = lines_of(&["{\"a\"", ":1}\n{\"b\":2}\n", "{\"c\"", ":3}", "\n", "half"]);
        let mut read = Vec::new();
        while let Some(line) = lines.next(64).await.expect("short lines") {
            read.push(String::from_utf8(line.to_vec()).expect("text"));
        }
        assert_eq!(read, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    }

    #[tokio::test]
    async fn a_long_line_is_refused_whether_it_has_ended_or_not() {
        for frames in [&["123456789\n"][..], &["12345", "6789"][..]] {
            // The frames live as long as the test binary: they are literals.
            let frames: &'static [&'static str] = frames.to_vec().leak();
            let error = lines_of(frames).next(8).await.expect_err("9 bytes");
            assert_eq!(
                error.to_string(),
                "a line of more than 8 bytes on the member channel"
            );
        }
        let line = lines_of(&["12345678\n"]).next(8).await.expect("8 bytes");
        assert_eq!(line.as_deref(), Some(&b"12345678"[..]));
    }
}
