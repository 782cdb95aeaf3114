//! What of the certificates is due, as a function of the time.
//!
//! An authority follows another in three steps, so that at no moment an API server is shown a certificate that it has not
//! been told to trust: the new one is made and published beside the old; when that has settled, certificates are signed by
//! it; the old one is left out when it has expired.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// For how long an authority is valid.
pub(super) const AUTHORITY_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// For how long a certificate is valid. It costs nothing to make one, so a key that has leaked is soon worth nothing.
pub(super) const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// From an authority's publication to its first use: replicas look each minute, and an API server watches.
const SETTLE: Duration = Duration::from_secs(3600);

/// All that lies in the Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// Oldest first.
    pub authorities: Vec<Authority>,
    /// What is served with.
    pub certificate: Option<Certificate>,
}

/// Somebody whose signature the API server trusts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// When it was made; no two are made at once.
    pub issued: Timestamp,
    /// When nobody trusts it any more.
    pub expires: Timestamp,
}

/// A server's certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// When it was made.
    pub issued: Timestamp,
    /// When nobody accepts it any more.
    pub expires: Timestamp,
    /// Whom it is for.
    pub names: Vec<String>,
    /// When its authority was made.
    pub authority: Timestamp,
}

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Authority,
    /// Signed by the one of this place.
    Certificate(usize),
}

// === impl Material ===

impl Material {
    /// Leaves out what has expired; says whether there was anything.
    pub(super) fn forget(&mut self, now: Timestamp) -> bool {
        let before = self.authorities.len();
        self.authorities.retain(|authority| authority.expires > now);
        self.authorities.len() < before
    }

    /// What to make next, for a server of these names.
    pub(super) fn due(&self, names: &[String], now: Timestamp) -> Option<Due> {
        let Some(newest) = self.authorities.last() else {
            return Some(Due::Authority);
        };
        if is_old(newest.issued, newest.expires, now) {
            return Some(Due::Authority);
        }
        let settled = |authority: &Authority| now.since(authority.issued) >= SETTLE;
        // The first of all is nobody's successor: nothing is served before it is published.
        let signer = self.authorities.iter().rposition(settled).unwrap_or(0);
        let is_good = self.certificate.as_ref().is_some_and(|certificate| {
            certificate.names == names
                && certificate.authority == self.authorities[signer].issued
                && !is_old(certificate.issued, certificate.expires, now)
        });
        (!is_good).then_some(Due::Certificate(signer))
    }

    /// All whom the API server is to trust, as PEM.
    pub fn bundle(&self) -> String {
        let each = self.authorities.iter();
        each.map(|authority| authority.certificate.as_str())
            .collect()
    }
}

/// Whether two thirds of a life are over: what is left is for those who hear of the next one late.
fn is_old(issued: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    now >= issued + expires.since(issued).mul_f64(2.0 / 3.0)
}

// === impl Certificate ===

impl Certificate {
    /// For people.
    pub(super) fn expires_on(&self) -> String {
        jiff::Timestamp::from_millisecond(self.expires.as_millis())
            .map_or_else(|_far| "never".to_owned(), |time| time.to_string())
    }
}

// Keys are not for logs.

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("issued", &self.issued)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("issued", &self.issued)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn authority(issued: Timestamp) -> Authority {
        Authority {
            certificate: String::new(),
            key: String::new(),
            issued,
            expires: issued + AUTHORITY_LIFE,
        }
    }

    /// Makes all that is due at `now`; says what it was.
    fn turn(material: &mut Material, now: Timestamp) -> Vec<Due> {
        let names = ["a".to_owned()];
        let mut made = Vec::new();
        material.forget(now);
        while let Some(due) = material.due(&names, now) {
            match due {
                Due::Authority => material.authorities.push(authority(now)),
                Due::Certificate(signer) => {
                    material.certificate = Some(Certificate {
                        certificate: String::new(),
                        key: String::new(),
                        issued: now,
                        expires: now + CERTIFICATE_LIFE,
                        names: names.to_vec(),
                        authority: material.authorities[signer].issued,
                    });
                }
            }
            made.push(due);
            assert!(made.len() < 3, "{made:?} does not end");
        }
        made
    }

    #[test]
    fn a_new_authority_is_published_an_hour_before_it_signs() {
        let start = Timestamp::from_secs(1_800_000_000);
        let mut material = Material::default();
        assert_eq!(
            turn(&mut material, start),
            [Due::Authority, Due::Certificate(0)]
        );
        assert_eq!(turn(&mut material, start + DAY), []);
        assert_eq!(turn(&mut material, start + 20 * DAY), [Due::Certificate(0)]);
        // Two thirds of 365 days.
        let second = start + 244 * DAY;
        let made = turn(&mut material, second);
        assert_eq!(made, [Due::Authority, Due::Certificate(0)]);
        let minute = Duration::from_secs(60);
        assert_eq!(turn(&mut material, second + SETTLE - minute), []);
        assert_eq!(material.authorities.len(), 2);
        assert_eq!(turn(&mut material, second + SETTLE), [Due::Certificate(1)]);
        assert_eq!(
            turn(&mut material, start + 365 * DAY),
            [Due::Certificate(0)],
            "the first one has expired"
        );
        assert_eq!(material.authorities.len(), 1);
    }

    #[test]
    fn another_name_needs_another_certificate() {
        let start = Timestamp::from_secs(1_800_000_000);
        let mut material = Material::default();
        turn(&mut material, start);
        let due = material.due(&["b".to_owned()], start);
        assert_eq!(due, Some(Due::Certificate(0)));
    }
}
