//! Header hygiene, by cases.

use http::{Request, Response};

use super::*;

fn request(target: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a valid request").into_parts().0
}

fn prepared(target: &str, headers: &[(&str, &str)]) -> Result<request::Parts, Refusal> {
    let mut parts = request(target, headers);
    prepare(&mut parts).map(|_upgrading| parts)
}

fn prepare(parts: &mut request::Parts) -> Result<Upgrading, Refusal> {
    let peer = Peer::new(IpAddr::from([10, 0, 0, 7]));
    prepare_request(
        parts,
        false,
        &peer,
        &HeaderValue::from_static("127.0.0.1:8000"),
    )
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().expect("text")).collect()
}

#[test]
fn what_belongs_to_one_connection_stays_on_it() {
    let parts = prepared(
        "/v1/completions",
        &[
            ("host", "model"),
            ("connection", "keep-alive, X-Private"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("x-other", "2"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("expect", "100-continue"),
            ("traceparent", "00-1-2-01"),
            ("authorization", "Bearer x"),
        ],
    )
    .expect("passes");
    let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "host",
            "traceparent",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto"
        ]
    );
}

#[test]
fn a_client_cannot_have_the_host_or_the_length_taken_off() {
    let parts = prepared(
        "/",
        &[
            ("host", "model"),
            ("content-length", "3"),
            ("connection", "host, content-length"),
        ],
    )
    .expect("passes");
    assert_eq!(text(&parts.headers, "host"), ["model"]);
    assert_eq!(text(&parts.headers, "content-length"), ["3"]);
}

#[test]
fn the_upstream_is_told_who_asked() {
    let first = prepared("/", &[("host", "model")]).expect("passes");
    assert_eq!(text(&first.headers, "x-forwarded-for"), ["10.0.0.7"]);
    assert_eq!(text(&first.headers, "x-forwarded-host"), ["model"]);
    assert_eq!(text(&first.headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(text(&first.headers, "via"), ["1.1 sidescale"]);
    let later = prepared(
        "/",
        &[
            ("host", "inner"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "api.example"),
            ("via", "1.1 ingress"),
        ],
    )
    .expect("passes");
    let chain = ["192.0.2.1, 192.0.2.2, 10.0.0.7"];
    assert_eq!(text(&later.headers, "x-forwarded-for"), chain);
    assert_eq!(text(&later.headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(text(&later.headers, "x-forwarded-host"), ["api.example"]);
    assert_eq!(
        text(&later.headers, "via"),
        ["1.1 ingress", "1.1 sidescale"]
    );
}

#[test]
fn one_host_or_none_at_all() {
    let two = prepared("/", &[("host", "a"), ("host", "b")]);
    assert_eq!(two.map(|_| ()), Err(Refusal::Host));
    assert_eq!(prepared("/", &[]).map(|_| ()), Err(Refusal::Host));
    let mut old = request("/", &[]);
    old.version = Version::HTTP_10;
    prepare(&mut old).expect("HTTP/1.0 needs no Host");
    assert_eq!(text(&old.headers, "host"), ["127.0.0.1:8000"]);
    assert_eq!(old.version, Version::HTTP_11);
}

#[test]
fn an_absolute_target_becomes_a_path_and_overrules_the_host() {
    let parts = prepared(
        "http://user:secret@real.example:81/a?b=c",
        &[("host", "forged")],
    )
    .expect("passes");
    assert_eq!(parts.uri, "/a?b=c");
    assert_eq!(text(&parts.headers, "host"), ["real.example:81"]);
    let bare = prepared("http://real.example", &[]).expect("passes");
    assert_eq!(bare.uri, "/");
}

#[test]
fn chunks_and_a_length_are_never_both_passed_on() {
    let parts = prepared(
        "/",
        &[
            ("host", "model"),
            ("transfer-encoding", "Chunked"),
            ("content-length", "3"),
        ],
    )
    .expect("passes");
    assert_eq!(text(&parts.headers, "transfer-encoding"), ["chunked"]);
    assert!(!parts.headers.contains_key(CONTENT_LENGTH));
    for coding in ["gzip, chunked", "identity", "xchunked"] {
        let refused = prepared("/", &[("host", "model"), ("transfer-encoding", coding)]);
        assert_eq!(
            refused.map(|_| ()),
            Err(Refusal::TransferCoding),
            "{coding}"
        );
    }
}

#[test]
fn an_upgrade_passes_only_when_asked_for_in_full() {
    let check = |headers: &[(&str, &str)], expected: Upgrading| {
        let mut parts = request("/", headers);
        parts.headers.insert(HOST, HeaderValue::from_static("m"));
        assert_eq!(prepare(&mut parts), Ok(expected), "{headers:?}");
        let passed = parts.headers.contains_key(UPGRADE) && parts.headers.contains_key(CONNECTION);
        assert_eq!(passed, expected == Upgrading::Asked, "{headers:?}");
    };
    check(
        &[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ],
        Upgrading::Asked,
    );
    check(&[("upgrade", "websocket")], Upgrading::No);
    check(
        &[("connection", "upgrade"), ("upgrade", "h2c")],
        Upgrading::No,
    );
}

#[test]
fn trailers_are_asked_for_when_the_client_takes_them() {
    let parts = prepared("/", &[("host", "m"), ("te", "gzip, trailers")]).expect("passes");
    assert_eq!(text(&parts.headers, "te"), ["trailers"]);
    assert_eq!(text(&parts.headers, "connection"), ["te"]);
}

#[test]
fn connect_is_refused() {
    let mut parts = request("model:443", &[("host", "model")]);
    parts.method = Method::CONNECT;
    assert_eq!(prepare(&mut parts), Err(Refusal::Connect));
}

#[test]
fn a_response_keeps_its_message_and_loses_its_connection() {
    let (mut parts, ()) = Response::builder()
        .version(Version::HTTP_10)
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .header("transfer-encoding", "chunked")
        .header("content-length", "3")
        .header("content-type", "text/event-stream")
        .body(())
        .expect("a valid response")
        .into_parts();
    prepare_response(&mut parts);
    let names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["content-type"]);
    assert_eq!(parts.version, Version::HTTP_11);
    prepare_response(&mut parts);
    end_connection(&mut parts, false);
    assert_eq!(text(&parts.headers, "connection"), ["close"]);
}
