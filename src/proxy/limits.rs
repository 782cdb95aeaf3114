//! How large a head may be: the same for requests and responses, and for HTTP/1 and HTTP/2.
//!
//! A head counts as HTTP/1 writes it: the first line, `name: value` for each field, and what ends them. hyper holds requests of
//! HTTP/1 to both limits itself, and of responses it knows the number of fields.

use http::{Request, Response};

/// Header fields of a head. It is hyper's own number, and more would cost each head an allocation.
pub(super) const MAX_FIELDS: usize = 100;

/// What is held of a head, and of a body between two sockets, on a connection of HTTP/1. Servers take heads of 8 to 64 KiB;
/// hyper would take 400, and as much on the other side of each request.
pub(super) const MAX_HEAD: usize = 64 * 1_024;

/// Size of all fields of a head as HTTP/2 counts them, 32 bytes for each beside its own: above what [`MAX_FIELDS`] and
/// [`MAX_HEAD`] allow, so that a head which is a little too large can be answered in words.
#[expect(clippy::cast_possible_truncation, reason = "68 KiB")]
pub(super) const MAX_HEADER_LIST: u32 = (MAX_HEAD + 128 * 32) as u32;

/// What a name and a value have around them: `: ` and the line's end.
const AROUND: usize = 4;
/// ` HTTP/1.1`, the line's end, and the empty line.
const FIRST: usize = 13;

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Fields,
    Bytes,
}

// === impl Excess ===

impl Excess {
    /// Of a head that hyper calls too large, which it says of too many fields, too. `unread` begins with it.
    pub(super) fn of_unread(unread: &[u8]) -> Self {
        let ends = |head: &[u8]| {
            head.windows(4).any(|end| end == b"\r\n\r\n")
                || head.windows(2).any(|end| end == b"\n\n")
        };
        if unread.get(..MAX_HEAD).is_none_or(ends) {
            Self::Fields
        } else {
            Self::Bytes
        }
    }
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fields => write!(f, "has too many header fields (more than {MAX_FIELDS})"),
            Self::Bytes => write!(
                f,
                "has a head that is too large (more than {MAX_HEAD} bytes)"
            ),
        }
    }
}

/// What a request has too much of.
pub(super) fn of_request<B>(request: &Request<B>) -> Option<Excess> {
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // HTTP/1 has it as `host: name`.
    let host = uri
        .authority()
        .map_or(0, |host| "host".len() + AROUND + host.as_str().len());
    excess(
        request.method().as_str().len() + 1 + path + host,
        request.headers(),
    )
}

/// What a response has too much of.
pub(super) fn of_response<B>(response: &Response<B>) -> Option<Excess> {
    let reason = response.status().canonical_reason().unwrap_or_default();
    excess("200 ".len() + reason.len(), response.headers())
}

fn excess(first: usize, fields: &http::HeaderMap) -> Option<Excess> {
    let lines = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + AROUND);
    if fields.len() > MAX_FIELDS {
        Some(Excess::Fields)
    } else if first + FIRST + lines.sum::<usize>() > MAX_HEAD {
        Some(Excess::Bytes)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head as HTTP/1 writes it.
    fn written(request: &Request<()>) -> usize {
        let fields = request.headers().iter();
        let fields =
            fields.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().expect("text")));
        format!(
            "{} {} HTTP/1.1\r\n{}\r\n",
            request.method(),
            request.uri(),
            fields.collect::<String>()
        )
        .len()
    }

    #[test]
    fn a_head_of_the_limit_passes_and_a_byte_more_does_not() {
        let request = |length: usize| {
            Request::get("/a?b=c")
                .header("x-long", "v".repeat(length))
                .body(())
                .expect("valid")
        };
        let fits = MAX_HEAD - written(&request(0));
        assert_eq!(written(&request(fits)), MAX_HEAD);
        assert_eq!(of_request(&request(fits)), None);
        assert_eq!(of_request(&request(fits + 1)), Some(Excess::Bytes));
    }

    #[test]
    fn what_ends_within_the_limit_has_too_many_fields() {
        let body = vec![b'x'; MAX_HEAD];
        let short = [&b"GET / HTTP/1.1\r\na: b\r\n\r\n"[..], &body].concat();
        let long = [&b"GET / HTTP/1.1\r\na: "[..], &body, b"\r\n\r\n"].concat();
        assert_eq!(Excess::of_unread(&short), Excess::Fields);
        assert_eq!(Excess::of_unread(&short[..10]), Excess::Fields);
        assert_eq!(Excess::of_unread(&long), Excess::Bytes);
    }

    #[test]
    fn a_hundred_fields_pass_and_one_more_does_not() {
        let response = |fields: usize| {
            let fields = (0..fields).map(|n| format!("x-{n}"));
            let response = Response::builder();
            fields
                .fold(response, |response, name| response.header(name, "v"))
                .body(())
                .expect("valid")
        };
        assert_eq!(of_response(&response(MAX_FIELDS)), None);
        assert_eq!(of_response(&response(MAX_FIELDS + 1)), Some(Excess::Fields));
    }
}
