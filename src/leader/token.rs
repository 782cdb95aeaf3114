//! The random secret of one reign: only who may write the Lease can prove that it leads.

use std::fmt;

use rand::CryptoRng;
use ring::digest;

/// Enough that nobody guesses it, and its text still fits on one line of a log (where it never stands).
const TOKEN_BYTES: usize = 32;

/// The random secret of one reign, in hex. Debug output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

// === impl Token ===

impl Token {
    /// A new one. The bound keeps a generator out whose next value can be computed from the last.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; TOKEN_BYTES];
        rng.fill_bytes(&mut bytes);
        Self(hex(&bytes))
    }

    /// The secret itself, for the first line on a member channel alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may stand in the open: the SHA-256 of the secret's text, in hex.
    pub fn sha256(&self) -> String {
        sha256_hex(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The SHA-256 of a token's text, in hex, as it stands in the Lease.
pub fn sha256_hex(token: &str) -> String {
    hex(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_hash_is_sha_256_and_the_secret_is_not_printed() {
        // The digest of "abc" from FIPS 180-2.
        assert_eq!(
            sha256_hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let token = Token::draw(&mut StdRng::seed_from_u64(1));
        assert_eq!(token.reveal().len(), 2 * TOKEN_BYTES);
        assert!(!format!("{token:?}").contains(token.reveal()));
        assert_ne!(token, Token::draw(&mut StdRng::seed_from_u64(2)));
    }
}
