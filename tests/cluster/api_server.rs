//! How an API server is reached, and who it knows: the same for the embedded and the real one.

use std::path::PathBuf;

use kube::config::AuthInfo;
use kube::{Client, Config};

use crate::credentials::token;

/// Identities a test can give its sidecars. Fleets in these tests stay well below.
pub(crate) const SIDECARS: usize = 128;

/// The first of those that leads get: their account is another one.
pub(crate) const FIRST_LEAD: usize = 120;

/// An API server, and who it knows.
#[derive(Debug)]
pub(crate) struct ApiServer {
    /// Where it listens.
    pub(crate) url: String,
    /// The certificate to trust; `None`: plain HTTP.
    pub(crate) authority: Option<PathBuf>,
    /// The token of a user of `system:masters`.
    pub(crate) admin: String,
    /// The tokens of the users [`sidecar_user`]`(0..)`, in order.
    pub(crate) sidecars: Vec<String>,
}

// === impl ApiServer ===

impl ApiServer {
    /// One at `url` that will be told who these users are.
    pub(crate) fn at(url: String, authority: Option<PathBuf>) -> Self {
        Self {
            url,
            authority,
            admin: token(),
            sidecars: (0..SIDECARS).map(|_number| token()).collect(),
        }
    }

    /// A client with every right, straight to the server. Lives on the caller's runtime.
    pub(crate) fn admin(&self, namespace: &str) -> Client {
        self.client(Some(&self.admin), namespace)
    }

    /// A client without an identity, for a front that passes on other people's.
    pub(crate) fn anonymous(&self) -> Client {
        self.client(None, "default")
    }

    /// A client that neither retries nor waits for ever: a test wants to see the first answer.
    fn client(&self, token: Option<&str>, namespace: &str) -> Client {
        let mut config = Config::new(self.url.parse().expect("a loopback address is a URI"));
        config.root_cert_file.clone_from(&self.authority);
        namespace.clone_into(&mut config.default_namespace);
        config.default_retry = false;
        config.auth_info = AuthInfo {
            token: token.map(|token| token.to_owned().into()),
            ..AuthInfo::default()
        };
        Client::try_from(config).expect("the server's certificate was read before")
    }
}

/// The user name that goes with the token of the same number.
pub(crate) fn sidecar_user(number: usize) -> String {
    format!("sidecar-{number}")
}
