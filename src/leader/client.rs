//! A client for the requests that must not outlive their meaning.

use http::HeaderValue;
use http::header;

/// How sidescale's requests are told from others' in an audit log.
pub const USER_AGENT: &str = concat!("sidescale/", env!("CARGO_PKG_VERSION"));

/// Builds the client for election and scaling: it never retries by itself.
///
/// kube's default retries every verb on 429, 503 and 504 up to 15 times with pauses of up to 1000 s: a renewal would
/// hang far past its deadline, and a scale patch would be sent again long after the turn that asked for it. Every
/// request here is given a limit by its caller instead (`Clock::timeout`), which is also why there is no read timeout: it
/// would end a quiet watch. Requests are HTTP/1.1, so one that is given up closes its connection, and the next does not
/// wait behind it.
pub fn without_retries(mut config: kube::Config) -> Result<kube::Client, kube::Error> {
    config.default_retry = false;
    config.read_timeout = None;
    config
        .headers
        .push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    kube::Client::try_from(config)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::lifecycle::Tasks;

    #[tokio::test]
    async fn a_server_that_is_busy_is_asked_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(AtomicU32::new(0));
        let tasks = Tasks::here();
        let count = Arc::clone(&asked);
        tasks.spawn(async move {
            while let Ok((mut socket, _peer)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = socket.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..length]).to_lowercase();
                assert!(text.contains(&format!("user-agent: {USER_AGENT}")), "{text}");
                count.fetch_add(1, Ordering::SeqCst);
                let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                if socket.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
        let uri = format!("http://{address}").parse().expect("a URI");
        let client = without_retries(kube::Config::new(uri)).expect("no TLS to set up");
        let request = http::Request::get("/version")
            .body(Vec::new())
            .expect("a request");
        let answer = client.request::<serde_json::Value>(request).await;
        assert!(answer.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
