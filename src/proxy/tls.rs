//! How a server that speaks TLS is known: by an alert to plain text, or by its answer to the beginning of a handshake.
//!
//! OpenSSL ends without a word when it is sent a request of HTTP, Go's server answers in plain text, rustls by an alert. To the
//! beginning of a handshake each of them answers, if only that it wants another version.

/// What begins a record: an alert or a handshake, and the version's first byte, which is 3 of all versions.
const RECORDS: [[u8; 2]; 2] = [[0x15, 3], [0x16, 3]];

/// A record of a handshake that says `ClientHello`: nothing follows it, so whichever is agreed to does not matter. And an empty
/// line, at which a server of HTTP that reads by lines gives it up.
pub(super) const HELLO: [u8; 80] = *b"\
    \x16\x03\x01\x00\x47\
    \x01\x00\x00\x43\
    \x03\x03sidescale asks if this is TLS...\
    \x00\
    \x00\x08\xc0\x2f\xc0\x2b\xc0\x30\x00\x9c\
    \x01\x00\
    \x00\x12\
    \x00\x0a\x00\x04\x00\x02\x00\x17\
    \x00\x0d\x00\x06\x00\x04\x04\x01\x04\x03\
    \r\n\r\n";

/// Whether this is the beginning of what TLS sends.
pub(super) fn is_record(answer: &[u8]) -> bool {
    RECORDS.iter().any(|record| answer.starts_with(record))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_lengths_in_a_hello_are_those_of_its_parts() {
        let after = |at: usize| HELLO.len() - b"\r\n\r\n".len() - at;
        assert_eq!(usize::from(HELLO[4]), after(5));
        assert_eq!(usize::from(HELLO[8]), after(9));
    }

    #[test]
    fn a_server_of_tls_answers_a_hello_by_a_record() {
        let key = rcgen::generate_simple_self_signed(["model".to_owned()]).expect("a certificate");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
        )
        .expect("a key for its certificate");
        for (question, first) in [(&HELLO[..], 0x16), (b"GET / HTTP/1.1\r\n\r\n", 0x15)] {
            let mut server = rustls::ServerConnection::new(Arc::new(config.clone())).expect("one");
            let mut question = question;
            server.read_tls(&mut question).expect("read");
            drop(server.process_new_packets());
            let mut answer = Vec::new();
            server.write_tls(&mut answer).expect("written");
            assert!(is_record(&answer), "{answer:?}");
            assert_eq!(answer[0], first, "{answer:?}");
        }
    }
}
