//! A trace against an address by name: the whole of `sidescale load`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::{Load, Settings, Summary};
use crate::clock::Clock;
use crate::demo::arrivals::Trace;

/// How often the name is looked up again. A headless Service answers with its pods: with half of this a new pod gets its
/// share sooner and the DNS server twice the questions.
const LOOK_UP_PERIOD: Duration = Duration::from_secs(5);

/// The generators for arrivals and for requests must not walk in step.
const ARRIVALS_SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What to send, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// `host:port` or `http://host:port`; the Service, or any one server. The Host header follows it.
    pub target: String,
    /// The load.
    pub trace: Trace,
    /// Where in the trace to begin.
    pub from: Duration,
    /// Where in the trace to end.
    pub to: Duration,
    /// Times the trace's rate.
    pub factor: f64,
    /// What the requests are.
    pub settings: Settings,
}

/// Why a load cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target is no address.
    #[error("`{given}` is not a target (write host:port or http://host:port; https is not spoken)")]
    Target {
        /// What was given.
        given: String,
    },
    /// The name has no address.
    #[error("cannot look up `{host}`")]
    LookUp {
        /// The host and port.
        host: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
}

// === impl Replay ===

impl Replay {
    /// Sends all of it, or until `stop` is done; requests that are under way then are not counted.
    pub async fn run(self, clock: Clock, stop: impl Future<Output = ()>) -> Result<Summary, Error> {
        let host = authority(&self.target)?;
        let (sender, endpoints) = watch::channel(look_up(&host).await?);
        let settings = Settings {
            host: http::HeaderValue::from_str(&host).map_err(|_no_header| Error::Target {
                given: self.target.clone(),
            })?,
            ..self.settings
        };
        let seed = settings.seed.wrapping_add(ARRIVALS_SEED_STEP);
        let rng = StdRng::seed_from_u64(seed);
        let arrivals = self.trace.arrivals(self.from, self.to, self.factor, rng);
        let (load, mut outcomes) = Load::new(settings, endpoints, clock.clone());
        let mut summary = Summary::default();
        let counted = async {
            while let Some(outcome) = outcomes.recv().await {
                summary.add(&outcome);
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(load.play(clock.instant(), arrivals), counted) } => {}
            never = keep_looking_up(&host, &clock, &sender) => match never {},
            () = stop => {}
        }
        Ok(summary)
    }
}

#[expect(clippy::infinite_loop, reason = "it looks up until the load drops it")]
async fn keep_looking_up(
    host: &str,
    clock: &Clock,
    endpoints: &watch::Sender<Vec<SocketAddr>>,
) -> Infallible {
    loop {
        clock.sleep(LOOK_UP_PERIOD).await;
        match look_up(host).await {
            Ok(found) => {
                endpoints.send_if_modified(|known| {
                    let changed = *known != found;
                    *known = found;
                    changed
                });
            }
            // The last addresses stay: a DNS server that restarts is no reason to stop.
            Err(error) => tracing::warn!(%error, "the load keeps its last addresses"),
        }
    }
}

async fn look_up(host: &str) -> Result<Vec<SocketAddr>, Error> {
    let found = tokio::net::lookup_host(host)
        .await
        .map_err(|source| Error::LookUp {
            host: host.to_owned(),
            source,
        })?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// `host:port` of a target.
fn authority(target: &str) -> Result<String, Error> {
    let wrong = || Error::Target {
        given: target.to_owned(),
    };
    let bare = target.strip_prefix("http://").unwrap_or(target);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let authority: http::uri::Authority = bare.parse().map_err(|_not_an_authority| wrong())?;
    match authority.port_u16() {
        Some(_) if !authority.host().is_empty() && !bare.contains('@') => Ok(bare.to_owned()),
        Some(_) | None => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for target in ["model:8080", "http://model:8080", "http://model:8080/"] {
            assert_eq!(authority(target).ok().as_deref(), Some("model:8080"));
        }
        assert_eq!(authority("[::1]:80").ok().as_deref(), Some("[::1]:80"));
        for target in [
            "",
            "model",
            "https://model:8080",
            "http://model:8080/v1",
            ":80",
        ] {
            let error = authority(target).expect_err(target);
            assert!(error.to_string().contains(target), "{error}");
        }
    }
}
