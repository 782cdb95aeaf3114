//! Where the inference server listens, and a connection to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use super::setting::SettingError;

/// What stands in front of the path of a Unix socket.
const UNIX: &str = "unix:";

/// Where the inference server listens: an address in this pod, or a Unix socket on a volume that both containers mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Address(SocketAddr),
    Socket(Arc<Path>),
}

/// A connection to the server.
pub(super) type Stream = Either<TcpStream, UnixStream>;

// === impl Upstream ===

impl Upstream {
    /// The server at `address`.
    pub const fn new(address: SocketAddr) -> Self {
        Self(Place::Address(address))
    }

    /// The server at a Unix socket.
    pub fn socket(path: &Path) -> Self {
        Self(Place::Socket(path.into()))
    }

    /// Its address; `None`: a Unix socket has none.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Place::Address(address) => Some(address),
            Place::Socket(_) => None,
        }
    }

    /// The path of its Unix socket; `None`: it has an address.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Address(_) => None,
            Place::Socket(path) => Some(path),
        }
    }

    /// What requests to it are addressed to where nobody said otherwise.
    pub(super) fn authority(&self) -> String {
        match &self.0 {
            Place::Address(address) => address.to_string(),
            Place::Socket(_) => "localhost".to_owned(),
        }
    }

    /// The same as a Host header says it.
    pub(super) fn host(&self) -> HeaderValue {
        // The digits, dots, colons and brackets of an address are always a valid value.
        HeaderValue::try_from(self.authority()).unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// A new connection.
    pub(super) async fn dial(&self) -> io::Result<Stream> {
        match &self.0 {
            Place::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                // A token of a stream is smaller than a segment: Nagle would hold it back for the next acknowledgement.
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Place::Socket(path) => Ok(Either::Right(UnixStream::connect(path).await?)),
        }
    }
}

impl FromStr for Upstream {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = || SettingError::Upstream(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = Path::new(path);
            return path
                .is_absolute()
                .then(|| Self::socket(path))
                .ok_or_else(wrong);
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let address = match bare.strip_prefix("localhost:") {
            Some(port) => {
                let port = port.parse().map_err(|_not_a_port| wrong())?;
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
            }
            None => bare.parse().map_err(|_not_an_address| wrong())?,
        };
        if address.port() == 0 {
            return Err(wrong());
        }
        Ok(Self::new(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_an_address_or_a_socket_in_this_pod() {
        for text in [
            "127.0.0.1:8000",
            "localhost:8000",
            "http://127.0.0.1:8000/",
            "http://localhost:8000",
        ] {
            let upstream: Upstream = text.parse().expect(text);
            assert_eq!(
                upstream,
                Upstream::new(([127, 0, 0, 1], 8000).into()),
                "{text}"
            );
            assert_eq!(upstream.host(), "127.0.0.1:8000");
        }
        let socket: Upstream = "unix:/run/model/http.sock".parse().expect("a socket");
        assert_eq!(socket, Upstream::socket(Path::new("/run/model/http.sock")));
        assert_eq!(
            (socket.address(), socket.host()),
            (None, HeaderValue::from_static("localhost"))
        );
        for text in [
            "",
            "8000",
            "model:8000",
            "127.0.0.1:0",
            "localhost:x",
            "unix:",
            "unix:http.sock",
        ] {
            let error = text.parse::<Upstream>().expect_err(text);
            assert!(error.to_string().contains("ip:port"), "{error}");
        }
    }
}
