//! The inference server's own metrics: read once a second where the policy or a flag asks for them.
//!
//! The load that they tell is the pod's where the policy says `dataPath: passive`. What cannot be read is not known: the
//! report says so, and a fault says why.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Fault;
use super::shared::{Shared, overrun_threshold};
use crate::causes::chain;
use crate::engine::{self, Address, Counts};
use crate::leader::Part;
use crate::policy::{DataPath, Policy};
use crate::telemetry;

/// Between two looks: the leader plans by the second. Doubled, a burst is seen a second later; halved, a server in Python has
/// twice the work with texts that it renders between two steps.
const LOOK: Duration = Duration::from_secs(1);

/// Follows the server for as long as the sidecar lives.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut policy = shared.policy();
    loop {
        if !shared.reads_server() {
            shared.faults.clear(Fault::Server);
            // The sender lives in `shared`.
            drop(policy.changed().await);
            continue;
        }
        shared.look().await;
        shared.clock.sleep(LOOK).await;
    }
}

// === impl Shared ===

impl Shared {
    /// Whether the requests go to the server directly.
    pub(super) fn is_passive(&self) -> bool {
        self.in_force(|policy| policy.data_path == DataPath::Passive)
            .unwrap_or(false)
    }

    fn reads_server(&self) -> bool {
        self.config.server_metrics.is_some() || self.is_passive()
    }

    fn in_force<T>(&self, read: impl FnOnce(&Policy) -> T) -> Option<T> {
        self.policy().borrow().as_deref().map(read)
    }

    /// What the server says of its load, where that is the pod's.
    pub(super) fn server_counts(&self) -> Option<Counts> {
        let now = self.clock.instant();
        self.is_passive().then(|| self.server.borrow().counts(now))
    }

    /// The same for people, whatever the policy says.
    pub(super) fn server_shown(&self) -> Option<telemetry::Server> {
        let (tally, now) = (*self.server.borrow(), self.clock.instant());
        let sample = tally.sample(now)?;
        let sums = tally.counts(now).sums;
        Some(telemetry::Server {
            engine: sample.engine.label(),
            running: sample.running,
            waiting: sample.waiting,
            kv_cache: sample.kv_cache,
            completed: sums.completions,
            failed: sums.failures,
        })
    }

    /// Given by flag, else where the first route's server is.
    fn metrics_address(&self) -> Option<Address> {
        if let Some(given) = &self.config.server_metrics {
            return Some(given.clone());
        }
        let upstream = &self.config.routes.first()?.upstream;
        match (upstream.address(), upstream.path()) {
            (Some(address), _) => Some(Address::at(address)),
            (None, path) => path.map(Address::on_socket),
        }
    }

    async fn look(&self) {
        let Some(address) = self.metrics_address() else {
            let text = "the policy says dataPath: passive, and it is not known where the server shows its metrics (give \
                        --server-metrics URL)";
            return self.faults.raise(Fault::Server, text.to_owned());
        };
        match engine::read(&address, &self.clock).await {
            Ok(sample) => {
                self.faults.clear(Fault::Server);
                let now = self.clock.instant();
                self.server.send_modify(|tally| tally.take(now, sample));
                self.tell_overrun();
            }
            Err(error) => {
                // A server that is loading, or gone, has no metrics either: the pod is unready, and says why.
                match self.answers() {
                    Ok(()) => self.faults.raise(Fault::Server, chain(&error)),
                    Err(_why) => self.faults.clear(Fault::Server),
                }
                self.server.send_modify(engine::Tally::miss);
            }
        }
    }

    /// The leader should not wait for the next second.
    fn tell_overrun(&self) {
        let threshold = self.in_force(overrun_threshold).flatten();
        let counts = self.server_counts();
        if let (Some(threshold), Some(counts)) = (threshold, counts)
            && counts.in_flight > threshold as f64
        {
            self.overrun.notify_one();
        }
    }

    /// Waits until nobody sends requests to a server that has no proxy before it, and until it says that it has none; at most
    /// for the grace period.
    pub(super) async fn left_alone(&self) {
        let is_passive = self.is_passive();
        let is_lead = self.config.part == Part::Lead;
        if is_lead || !is_passive && !self.proxies.is_empty() {
            return;
        }
        let deadline = self.clock.instant() + self.config.grace;
        let propagation = self.config.propagation.min(self.config.grace);
        self.clock.sleep(propagation).await;
        if !is_passive {
            return;
        }
        let left = deadline.since(self.clock.instant());
        if self
            .clock
            .timeout(left, self.server_is_done())
            .await
            .is_err()
        {
            let in_flight = self.server.borrow().counts(self.clock.instant()).in_flight;
            tracing::error!(
                in_flight,
                "the grace period is over and the server does not say that it has nothing in flight (raise \
                 terminationGracePeriodSeconds and the grace of the sidecar above the longest stream)"
            );
        }
    }

    /// Waits for a look from now on that finds nothing on the server, or no server.
    async fn server_is_done(&self) {
        let mut looks = self.server.subscribe();
        // The sender lives in `self`.
        while looks.changed().await.is_ok() {
            let counts = looks.borrow_and_update().counts(self.clock.instant());
            let is_gone = !self.proxies.is_empty() && self.answers().is_err();
            if counts.is_idle() || is_gone {
                return;
            }
        }
    }
}
