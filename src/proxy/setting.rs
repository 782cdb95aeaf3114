//! What is wrong with a setting of the proxy that somebody typed.

/// What is wrong with an upstream, a probe or a protocol somebody typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not an address.
    #[error(
        "upstream `{0}` is not an address in this pod (write ip:port, localhost:port, http://ip:port or unix:/path)"
    )]
    Upstream(String),
    /// Not a probe.
    #[error("readiness probe `{0}` is not known (write tcp or http:/path)")]
    Probe(String),
    /// Not a protocol.
    #[error("upstream protocol `{0}` is not known (write auto, http1 or h2c)")]
    Protocol(String),
}
