//! Injection at admission: an HTTPS server that the API server asks about new pods.
//!
//! Nothing here may keep a pod out. The API server goes on without an answer (`failurePolicy: Ignore`), and whatever cannot
//! be done gives the pod as it was, with a warning; because only the number behind a port's *name* moves, such a pod serves
//! as it did before. Only a pod whose account has the fleet's Role gets a sidecar: that is what
//! `sidescale inject --rbac` applies.
//!
//! The webhook is its own certificate authority. Authorities and certificate lie in one Secret, which all replicas read
//! and write by compare-and-swap, so they agree without an election: `renewal` decides what is due, `issue` makes it,
//! `keeper` speaks with the API server, `server` answers it, by the rules of `review`.

mod issue;
mod keeper;
mod manifests;
mod renewal;
mod review;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{error, info};

use crate::causes::chain;
use crate::clock::Clock;
use crate::inject::Options;
use crate::lifecycle::{Lifecycle, Phase, Tasks};

pub use self::issue::IssueError;
pub use self::keeper::{Keeper, KeeperError};
pub use self::manifests::manifests;
pub use self::renewal::{Authority, Certificate, Material};

/// How often the Secret and the configuration are looked at. An authority is used an hour after it has been made, so any
/// of these looks may fail; a Secret that somebody emptied is followed within this time.
const LOOK: Duration = Duration::from_secs(60);

/// After a failure: what is missing at the start is there soon, mostly.
const RETRY: Duration = Duration::from_secs(5);

/// From the deletion of a pod until no API server sends it anything any more.
const PROPAGATION: Duration = Duration::from_secs(10);

/// How the webhook is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The Service by which the API server calls it; Secret and configuration have its name, too.
    pub service: String,
    /// Of Service and Secret.
    pub namespace: String,
    /// Other names and addresses that it is called by.
    pub hosts: Vec<String>,
    /// How pods are injected.
    pub options: Options,
}

/// A webhook that runs.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    lifecycle: Lifecycle,
    clock: Clock,
    open: watch::Receiver<usize>,
}

// === impl Settings ===

impl Settings {
    /// What the certificate is for.
    fn names(&self) -> Vec<String> {
        let service = format!("{}.{}.svc", self.service, self.namespace);
        std::iter::once(service)
            .chain(self.hosts.iter().cloned())
            .collect()
    }

    /// Starts to listen, and answers as soon as there is a certificate that the API server has been told to trust.
    pub async fn start(
        self,
        client: Client,
        clock: Clock,
        tasks: &Tasks,
    ) -> std::io::Result<Running> {
        let listener = TcpListener::bind(self.listen).await?;
        let address = listener.local_addr()?;
        let lifecycle = Lifecycle::default();
        let (shown, certificate) = watch::channel(None);
        let keeper = Keeper::new(
            client.clone(),
            &self.namespace,
            &self.service,
            self.names(),
            clock.clone(),
        );
        tasks.spawn(keep(keeper, shown, clock.clone()));
        let (count, open) = watch::channel(0);
        let answers = server::Answers {
            client,
            options: self.options,
            clock: clock.clone(),
            lifecycle: lifecycle.clone(),
        };
        let answers = Arc::new(answers);
        let served = server::serve(listener, certificate, answers, tasks.handle(), count);
        tasks.spawn(served);
        Ok(Running {
            address,
            lifecycle,
            clock,
            open,
        })
    }
}

// === impl Running ===

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Turns unready, answers what still comes, and returns when that is over. A pod that is created while a webhook is
    /// replaced would otherwise come without a sidecar.
    pub async fn drain(&self) {
        self.lifecycle.advance(Phase::Draining);
        self.clock.sleep(PROPAGATION).await;
        self.lifecycle.advance(Phase::Drained);
        let mut open = self.open.clone();
        let closed = open.wait_for(|open| *open == 0);
        // Connections end with the answer that they are at; who does not is left behind.
        drop(self.clock.timeout(PROPAGATION, closed).await);
    }
}

/// Keeps the certificate valid and the API server told, for as long as the process runs.
#[expect(clippy::infinite_loop, reason = "keeps until its task is dropped")]
async fn keep(keeper: Keeper, shown: watch::Sender<Option<server::Tls>>, clock: Clock) {
    let mut current = None;
    loop {
        let turned = keeper.turn().await.and_then(|certificate| {
            if current.as_ref() != Some(&certificate) {
                let tls = server::tls(&certificate)?;
                info!(expires = %certificate.expires_on(), "serving with a new certificate");
                shown.send_replace(Some(tls));
                current = Some(certificate);
            }
            Ok(())
        });
        let pause = match turned {
            Ok(()) => LOOK,
            Err(fault) => {
                error!(fault = %chain(&fault), "cannot keep the webhook's certificate");
                RETRY
            }
        };
        clock.sleep(pause).await;
    }
}
