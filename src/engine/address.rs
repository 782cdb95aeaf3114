//! Where an inference server shows its metrics.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;

/// What stands in front of the path of a Unix socket.
const UNIX: &str = "unix:";
/// Where all four servers show their metrics.
const METRICS: PathAndQuery = PathAndQuery::from_static("/metrics");

/// Where an inference server shows its metrics: a URL without TLS, or a path on a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(super) place: Place,
    pub(super) path: PathAndQuery,
}

/// Whom to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `host:port`.
    Host(String),
    Socket(Arc<Path>),
}

/// What is no place to read metrics at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no place to read metrics at (http://host:port/path such as http://127.0.0.1:8002/metrics, without TLS, or \
     unix:/path/to.sock, with :/path behind it where that is not /metrics)"
)]
pub struct NotAnAddress(String);

// === impl Address ===

impl Address {
    /// `/metrics` of the server at `address`.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            place: Place::Host(address.to_string()),
            path: METRICS,
        }
    }

    /// `/metrics` of the server at a Unix socket.
    pub fn on_socket(socket: &Path) -> Self {
        Self {
            place: Place::Socket(socket.into()),
            path: METRICS,
        }
    }

    /// What a request's Host header says.
    pub(super) fn host(&self) -> &str {
        match &self.place {
            Place::Host(host) => host,
            Place::Socket(_) => "localhost",
        }
    }

    fn of_socket(text: &str) -> Option<Self> {
        let (socket, path) = match text.split_once(":/") {
            Some((socket, path)) => (socket, format!("/{path}").parse().ok()?),
            None => (text, METRICS),
        };
        let socket = Path::new(socket);
        socket.is_absolute().then(|| Self {
            place: Place::Socket(socket.into()),
            path,
        })
    }

    fn of_url(text: &str) -> Option<Self> {
        let url: Uri = text.parse().ok()?;
        let authority = url.authority()?;
        if url.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return None;
        }
        let port = authority.port_u16().unwrap_or(80);
        let path = match url.path_and_query() {
            Some(path) if path != "/" => path.clone(),
            Some(_) | None => METRICS,
        };
        (port != 0).then(|| Self {
            place: Place::Host(format!("{}:{port}", authority.host())),
            path,
        })
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let found = match text.strip_prefix(UNIX) {
            Some(socket) => Self::of_socket(socket),
            None => Self::of_url(text),
        };
        found.ok_or_else(|| NotAnAddress(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(host) => write!(f, "http://{host}{}", self.path),
            Place::Socket(socket) => write!(f, "{UNIX}{}:{}", socket.display(), self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_or_a_socket_and_shows_itself_so_that_it_is_read_again() {
        for (given, shown) in [
            (
                "http://127.0.0.1:8002/metrics",
                "http://127.0.0.1:8002/metrics",
            ),
            ("http://localhost:8002", "http://localhost:8002/metrics"),
            ("http://server/", "http://server:80/metrics"),
            ("http://[::1]:9/m?a=b", "http://[::1]:9/m?a=b"),
            ("unix:/run/model.sock", "unix:/run/model.sock:/metrics"),
            ("unix:/run/model.sock:/m", "unix:/run/model.sock:/m"),
        ] {
            let address: Address = given.parse().expect(given);
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
        let upstream = Address::at(([127, 0, 0, 1], 8000).into());
        assert_eq!("http://127.0.0.1:8000".parse(), Ok(upstream));
        let socket = Address::on_socket(Path::new("/run/model.sock"));
        assert_eq!("unix:/run/model.sock".parse(), Ok(socket));
    }

    #[test]
    fn what_is_no_address_is_refused_with_one_that_is() {
        for text in [
            "",
            "/metrics",
            "127.0.0.1:8002",
            "https://127.0.0.1:8002/metrics",
            "http://me:secret@127.0.0.1:8002",
            "http://127.0.0.1:0",
            "unix:",
            "unix:model.sock",
        ] {
            let error = text.parse::<Address>().expect_err(text);
            let shown = error.to_string();
            assert!(shown.contains(&format!("`{text}`")), "{shown}");
            assert!(shown.contains("http://127.0.0.1:8002/metrics"), "{shown}");
        }
    }
}
