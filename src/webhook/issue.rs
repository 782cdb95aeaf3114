//! Makes keys and certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::time::Duration;

use super::renewal::{AUTHORITY_LIFE, Authority, CERTIFICATE_LIFE, Certificate};
use crate::clock::Timestamp;

/// API servers whose clocks are behind must not find that a certificate begins tomorrow.
const SKEW: Duration = Duration::from_secs(3600);

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// `--host` names something that a certificate cannot be for.
    #[error("no certificate can be made for {} (check --service, --namespace and --host)", names.join(", "))]
    Names {
        /// All of them.
        names: Vec<String>,
        /// Which, and why.
        #[source]
        source: rcgen::Error,
    },
    /// Anything else.
    #[error("no certificate can be made")]
    Make(#[from] rcgen::Error),
}

/// A new authority.
pub(super) fn authority(now: Timestamp) -> Result<Authority, IssueError> {
    let expires = now + AUTHORITY_LIFE;
    let key = KeyPair::generate()?;
    let certificate = authority_params(now, expires).self_signed(&key)?;
    Ok(Authority {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        issued: now,
        expires,
    })
}

/// A new certificate for `names`, signed by `authority`.
pub(super) fn certificate(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<Certificate, IssueError> {
    let unusable = |source| IssueError::Names {
        names: names.to_vec(),
        source,
    };
    let expires = (now + CERTIFICATE_LIFE).min(authority.expires);
    let mut params = CertificateParams::new(names).map_err(unusable)?;
    params.distinguished_name = called("sidescale webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, expires);
    // What its certificate says of it follows from when it was made.
    let issuer = authority_params(authority.issued, authority.expires);
    let issuer = Issuer::new(issuer, KeyPair::from_pem(&authority.key)?);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Certificate {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        issued: now,
        expires,
        names: names.to_vec(),
        authority: authority.issued,
    })
}

fn authority_params(issued: Timestamp, expires: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two authorities with one name would be told apart by their keys alone.
    params.distinguished_name = called(&format!(
        "sidescale webhook authority {}",
        issued.as_millis()
    ));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set_validity(&mut params, issued, expires);
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// rcgen's own type of time has one constructor, for dates.
fn set_validity(params: &mut CertificateParams, issued: Timestamp, expires: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let start = Timestamp::from_secs(0);
    params.not_before = epoch + (issued - SKEW).since(start);
    params.not_after = epoch + expires.since(start);
}
