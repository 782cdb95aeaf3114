//! Which header fields cross the proxy, and what a request must look like to be passed on.
//!
//! What belongs to one connection (hop-by-hop fields and those that `Connection` names) stays on it; the message
//! framing is written anew from how hyper has read the body, so that upstream and proxy cannot read two different
//! requests out of one stream of bytes. All else, `traceparent` among it, passes untouched.
//!
//! A prepared request is one of HTTP/1.1, whatever the client speaks; [`for_http2`] makes of it what goes into a stream.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, FORWARDED, HOST, HeaderName, HeaderValue,
    TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, request, response};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const VIA_HTTP1: HeaderValue = HeaderValue::from_static("1.1 sidescale");
const VIA_HTTP2: HeaderValue = HeaderValue::from_static("2.0 sidescale");

/// The client at the other end of a connection, as the upstream is told of it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    address: HeaderValue,
}

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("CONNECT is for forward proxies, this is a reverse proxy")]
    Connect,
    #[error("a request needs exactly one Host header")]
    Host,
    #[error("the transfer coding is not known (only `chunked` is passed on)")]
    TransferCoding,
    #[error("the request target has no path")]
    Target,
}

/// Whether the client asked to leave HTTP on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrading {
    No,
    Asked,
}

// === impl Peer ===

impl Peer {
    pub(super) fn new(ip: IpAddr) -> Self {
        // The digits, dots and colons of an address are always a valid value.
        let address = HeaderValue::try_from(ip.to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        Self { address }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.address.to_str().unwrap_or("unknown"))
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Host | Self::Target => StatusCode::BAD_REQUEST,
        }
    }
}

/// Makes of a client's request the one for the upstream. `bodiless`: its head was the end of it.
///
/// `own_host` is for clients of HTTP/1.0 that send no Host: HTTP/1.1 towards the upstream requires one.
pub(super) fn prepare_request(
    parts: &mut request::Parts,
    bodiless: bool,
    peer: &Peer,
    own_host: &HeaderValue,
) -> Result<Upgrading, Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    set_target(parts, own_host)?;
    let headers = &mut parts.headers;
    let upgrading = upgrade_asked(headers, parts.version);
    let wants_trailers = headers.get(TE).is_some_and(|te| has_token(te, "trailers"));
    let via_http2 = parts.version == Version::HTTP_2;
    let chunked = if via_http2 {
        join_cookies(headers);
        !bodiless && !headers.contains_key(CONTENT_LENGTH)
    } else {
        set_framing(headers)?
    };
    let upgrade = (upgrading == Upgrading::Asked).then(|| headers.get(UPGRADE).cloned());
    strip_hop_by_hop(headers);
    // It is asked of the server where that can answer: see `request::RequestBody::wait_for_word`.
    headers.remove(EXPECT);
    if chunked {
        // Said outright: for a GET or HEAD with a body of unknown length hyper would drop the body otherwise.
        headers.insert(TRANSFER_ENCODING, CHUNKED);
    }
    if let Some(Some(protocol)) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    set_forwarded(headers, peer);
    headers.append(VIA, if via_http2 { VIA_HTTP2 } else { VIA_HTTP1 });
    parts.version = Version::HTTP_11;
    Ok(upgrading)
}

/// The head of a stream, from a prepared request.
///
/// An upgrade is not carried over: HTTP/2 has none, and who is asked for one may answer without it.
pub(super) fn for_http2(prepared: &request::Parts) -> Result<Request<()>, Refusal> {
    let mut headers = prepared.headers.clone();
    let host = headers.remove(HOST).ok_or(Refusal::Host)?;
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_invalid| Refusal::Host)?);
    uri.path_and_query = prepared.uri.path_and_query().cloned();
    let mut request = Request::new(());
    *request.method_mut() = prepared.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_invalid| Refusal::Target)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Whether a client of gRPC sent this: it takes no answer but gRPC's own.
pub(super) fn is_grpc(parts: &request::Parts) -> bool {
    parts.version == Version::HTTP_2
        && parts
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether a client sends its body only when it is told to.
pub(super) fn expects_continue(parts: &request::Parts) -> bool {
    let expected = parts.headers.get(EXPECT);
    parts.version == Version::HTTP_11
        && expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Makes one length of those that a response of HTTP/1 has. `false`: they differ, and nobody knows where it ends.
pub(super) fn has_one_length(headers: &mut HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else {
        return true;
    };
    // Chunks overrule it, and it is taken out.
    if headers.contains_key(TRANSFER_ENCODING) {
        return true;
    }
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if values.next().is_none() && is_number(first.as_bytes()) {
        return true;
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| {
        let numbers = value.as_bytes().split(|byte| *byte == b',');
        numbers.map(<[u8]>::trim_ascii)
    });
    let first = lengths.next().unwrap_or_default().to_owned();
    if !is_number(&first) || lengths.any(|length| length != first) {
        return false;
    }
    if let Ok(value) = HeaderValue::try_from(first) {
        headers.insert(CONTENT_LENGTH, value);
    }
    true
}

/// Whether the upstream says that this response is its connection's last.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| has_token(value, "close"))
}

/// Makes of the upstream's response the one for the client.
pub(super) fn prepare_response(parts: &mut response::Parts) {
    let headers = &mut parts.headers;
    // Of a length beside a transfer coding only the coding holds, and hyper has read the body by it.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let upgrade = (parts.status == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| headers.get(UPGRADE).cloned())
        .flatten();
    strip_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    parts.version = Version::HTTP_11;
}

/// Closes the client's connection after a prepared response. `old`: the client is one of HTTP/1.0.
pub(super) fn end_connection(parts: &mut response::Parts, old: bool) {
    let close = HeaderValue::from_static("close");
    parts.headers.insert(CONNECTION, close);
    if old {
        // To a client of HTTP/1.0 that asked for it, hyper says `keep-alive` beside whatever a response of HTTP/1.1 says.
        parts.version = Version::HTTP_10;
    }
}

/// One Host, and a target in origin form.
fn set_target(parts: &mut request::Parts, own_host: &HeaderValue) -> Result<(), Refusal> {
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Refusal::Host);
    }
    if let Some(authority) = parts.uri.authority() {
        // An absolute target overrules the Host header (RFC 9112, 3.2.2); credentials in it go no further.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::try_from(host).map_err(|_invalid| Refusal::Host)?;
        parts.headers.insert(HOST, host);
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    } else if parts.uri.path_and_query().is_none() {
        return Err(Refusal::Target);
    }
    if !parts.headers.contains_key(HOST) {
        if parts.version == Version::HTTP_11 {
            return Err(Refusal::Host);
        }
        parts.headers.insert(HOST, own_host.clone());
    }
    Ok(())
}

/// Whether the body goes on in chunks. A length beside the chunks would be a second opinion on where it ends.
fn set_framing(headers: &mut HeaderMap) -> Result<bool, Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(false);
    };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::TransferCoding);
    }
    headers.remove(CONTENT_LENGTH);
    Ok(true)
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1 has one line for all (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::try_from(crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

fn upgrade_asked(headers: &HeaderMap, version: Version) -> Upgrading {
    let Some(protocol) = headers.get(UPGRADE) else {
        return Upgrading::No;
    };
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| has_token(value, "upgrade"));
    // `h2c` by upgrade would carry requests past every rule of this file; by prior knowledge it is a setting.
    let allowed = !has_token(protocol, "h2c") && !has_token(protocol, "h2");
    if named && allowed && version == Version::HTTP_11 {
        Upgrading::Asked
    } else {
        Upgrading::No
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name))
        .cloned()
        .collect();
    // Most heads have none of them.
    if own.is_empty() {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|token| HeaderName::try_from(token).ok())
            // What says where the message goes and ends is the message's, whatever a client calls it.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in own {
        headers.remove(name);
    }
}

/// Whether a field belongs to one connection. `Connection`, `TE`, `Transfer-Encoding` and `Upgrade` have rules of their own
/// above; `Trailer` stays, because hyper passes on only the trailers that it announces. By its letters: the length alone tells most
/// names apart, where nine names would be compared one by one.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
    )
}

fn set_forwarded(headers: &mut HeaderMap, peer: &Peer) {
    // One lookup each: these names are hashed letter by letter.
    match headers.entry(X_FORWARDED_FOR) {
        Entry::Vacant(first) => {
            first.insert(peer.address.clone());
        }
        Entry::Occupied(mut chain) => {
            let hops: Vec<&[u8]> = chain
                .iter()
                .chain([&peer.address])
                .map(HeaderValue::as_bytes)
                .collect();
            let whole = HeaderValue::try_from(hops.join(&b", "[..]));
            chain.insert(whole.unwrap_or_else(|_invalid| peer.address.clone()));
        }
    }
    // What an ingress in front has said stands: it saw the client's own connection.
    if headers.contains_key(FORWARDED) {
        return;
    }
    let host = headers.get(HOST).cloned();
    if let Entry::Vacant(proto) = headers.entry(X_FORWARDED_PROTO) {
        proto.insert(HeaderValue::from_static("http"));
    }
    if let Some(host) = host
        && let Entry::Vacant(named) = headers.entry(X_FORWARDED_HOST)
    {
        named.insert(host);
    }
}

fn has_token(value: &HeaderValue, wanted: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

#[cfg(test)]
mod tests;
