//! What the components know each other by: the key that signs service account tokens, bearer tokens, kubeconfigs.

use std::fs;
use std::io;
use std::path::Path;

use k8s_openapi::ByteString;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

/// What stands before an uncompressed P-256 point to make it a `SubjectPublicKeyInfo` (RFC 5480).
const P256_PUBLIC_KEY: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The pair that signs and checks service account tokens, as PEM.
///
/// Elliptic, where most setups have RSA: the components take both, and `ring`, which is in the tree for TLS, makes
/// this one in a millisecond without openssl on the machine.
pub(crate) struct SigningKey {
    private: String,
    public: String,
}

// === impl SigningKey ===

impl SigningKey {
    /// A new pair.
    pub(crate) fn generate() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .expect("the system has a random source");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
            .expect("a key just made can be read");
        let public = [&P256_PUBLIC_KEY, pair.public_key().as_ref()].concat();
        Self {
            private: pem("PRIVATE KEY", document.as_ref()),
            public: pem("PUBLIC KEY", &public),
        }
    }

    /// Writes both halves.
    pub(crate) fn write(&self, private: &Path, public: &Path) -> io::Result<()> {
        fs::write(private, &self.private)?;
        fs::write(public, &self.public)
    }
}

/// A bearer token nobody can guess.
pub(crate) fn token() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has a random source");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// A kubeconfig for `token` at `server`. JSON is YAML, and needs no quoting rules of its own.
pub(crate) fn kubeconfig(
    server: &str,
    authority: Option<&Path>,
    token: &str,
    namespace: &str,
) -> String {
    let mut cluster = json!({ "server": server });
    if let Some(authority) = authority {
        cluster["certificate-authority"] = json!(authority);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": "test", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": namespace } }],
        "current-context": "test",
    })
    .to_string()
}

fn pem(label: &str, der: &[u8]) -> String {
    // The API's own byte type writes base64; a crate for it would be a dependency for one line.
    let quoted = serde_json::to_string(&ByteString(der.to_vec())).expect("bytes are a JSON string");
    let text = quoted.trim_matches('"');
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}
