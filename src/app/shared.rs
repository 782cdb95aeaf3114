//! What all parts of a sidecar look at. Nothing here is held while waiting.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};

use super::board::Board;
use super::faults::{Fault, Faults};
use super::pacer::pace_under;
use crate::cgroup::CpuGroup;
use crate::clock::{Clock, Instant};
use crate::config::Config;
use crate::engine;
use crate::fleet::member::Counts;
use crate::gpu;
use crate::leader::{Candidacy, Part};
use crate::lifecycle::{Lifecycle, Phase};
use crate::pace::Pace;
use crate::policy::{DataPath, Metric, Policy};
use crate::proxy::{Accounts, Admission, Connections, Health, Proxy};
use crate::report::Report;
use crate::report::meter::{Meter, Status};

/// How often the meter is read: often enough to fill every slot of its ring when nobody asks for reports.
const METER: Duration = Duration::from_secs(1);
/// A pod with twice in flight what it can carry is overrun: the leader should not wait for the next second.
const OVERRUN: f64 = 2.0;
/// No leader keeps a pod away for longer with one word: it says it again every second.
const LONGEST_ASIDE: Duration = Duration::from_secs(60);

/// What all parts of a sidecar look at.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) accounts: Arc<Accounts>,
    pub(super) admission: Arc<Admission>,
    pub(super) proxies: Vec<Proxy>,
    /// How far all of it is on its way out.
    lifecycle: Lifecycle,
    pub(super) identity: String,
    pub(super) admin: SocketAddr,
    pub(super) faults: Faults,
    /// What limits this process's CPU time; found once, read at each scrape.
    pub(super) cpu: Option<CpuGroup>,
    /// A request arrived above the threshold: report at once.
    pub(super) overrun: Arc<Notify>,
    pub(super) gpu: watch::Receiver<Option<gpu::Sample>>,
    /// What the server says of itself; told of every look, also of one in vain.
    pub(super) server: watch::Sender<engine::Tally>,
    meter: Mutex<Meter>,
    policy: watch::Sender<Option<Arc<Policy>>>,
    /// The policy file was looked at, whatever came of it.
    policy_sought: watch::Sender<bool>,
    candidacy: watch::Sender<Option<Candidacy>>,
    /// `Some` while this process leads.
    board: Mutex<Option<Board>>,
    leader: Mutex<LeaderSeen>,
    member_counts: OnceLock<Arc<Counts>>,
    /// Until when it stands aside, unready, because the leader has asked for it.
    aside: Mutex<Option<Instant>>,
    /// The control half has said goodbye, or has nothing to say goodbye to.
    retired: watch::Sender<bool>,
    workload: OnceLock<String>,
}

/// What is known of whoever leads.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaderSeen {
    pub(super) term: u64,
    pub(super) changes: u64,
    pub(super) admin: Option<SocketAddr>,
    /// When it was heard last.
    pub(super) heard: Option<Instant>,
}

// === impl Shared ===

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "it is put together in one place, from the parts that app.rs made"
    )]
    pub(super) fn new(
        config: Config,
        clock: Clock,
        accounts: Arc<Accounts>,
        admission: Arc<Admission>,
        proxies: Vec<Proxy>,
        meter: Meter,
        gpu: watch::Receiver<Option<gpu::Sample>>,
        epoch: u64,
        admin: SocketAddr,
    ) -> Self {
        Self {
            identity: identity(&config.pod.name, epoch),
            faults: Faults::new(clock.clone()),
            cpu: CpuGroup::of_this_process(),
            config,
            clock,
            accounts,
            admission,
            proxies,
            lifecycle: Lifecycle::default(),
            admin,
            overrun: Arc::default(),
            gpu,
            server: watch::Sender::default(),
            meter: Mutex::new(meter),
            policy: watch::Sender::new(None),
            policy_sought: watch::Sender::new(false),
            candidacy: watch::Sender::new(None),
            board: Mutex::default(),
            leader: Mutex::default(),
            member_counts: OnceLock::new(),
            aside: Mutex::default(),
            retired: watch::Sender::new(false),
            workload: OnceLock::new(),
        }
    }

    /// Whether the pod takes requests, or a lead its part in the election; if not, why.
    pub(super) fn ready(&self) -> Result<(), String> {
        if self.phase() >= Phase::Draining {
            return Err("draining".to_owned());
        }
        if self.stands_aside() {
            return Err("standing aside: the fleet gets smaller by this pod".to_owned());
        }
        match self.config.part {
            Part::Lead => self.takes_part(),
            Part::Sidecar | Part::Follower => self.answers(),
        }
    }

    /// Whether the election can be followed; if not, why.
    fn takes_part(&self) -> Result<(), String> {
        let wrong = [Fault::Cluster, Fault::Target, Fault::Lease];
        let wrong = wrong.into_iter().find_map(|fault| self.faults.text(fault));
        match wrong {
            Some(text) => Err(text),
            None if self.candidacy.borrow().is_some() => Ok(()),
            None => Err("the API server is not asked yet".to_owned()),
        }
    }

    /// Whether it may write the Lease, as far as it has tried.
    fn may_write_lease(&self) -> bool {
        let candidacy = self.candidacy.borrow();
        candidacy.as_ref().is_none_or(Candidacy::may_write)
    }

    /// Whether the server behind the first proxy answers; if not, why. The others are not waited for: Triton without gRPC never
    /// opens its second port, and the pod serves all the same. Requests to a closed one get 503 from their own proxy.
    pub(super) fn answers(&self) -> Result<(), String> {
        let health = self.proxies.first().map(|proxy| *proxy.upstream().borrow());
        match health {
            None | Some(Health::Ready) => Ok(()),
            Some(Health::Starting) => Err("the inference server does not answer yet".to_owned()),
            Some(Health::Down) => Err("the inference server answers no more".to_owned()),
            // What does not pass through here may be encrypted.
            Some(Health::Tls) if self.is_passive() => Ok(()),
            Some(Health::Tls) => Err(
                "the inference server answers plain HTTP as one of TLS does: is this TLS? (let it speak plain HTTP to this \
                 pod alone, and end TLS in front of it)"
                    .to_owned(),
            ),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Asks every proxy to drain and waits until all have, and until the server has nothing more by its own word where its
    /// requests do not pass through here. A server that takes its requests itself and tells nothing is only told when it may
    /// stop: the pod is unready, and no endpoint list has it any more.
    pub(super) async fn drained(&self) {
        self.lifecycle.advance(Phase::Draining);
        if self.phase() == Phase::Drained {
            return;
        }
        let proxies = futures_util::future::join_all(self.proxies.iter().map(Proxy::drain));
        futures_util::future::join(proxies, self.left_alone()).await;
        self.lifecycle.advance(Phase::Drained);
    }

    /// Unready for so long from now, and serving what comes all the same: Kubernetes gives up an unready pod first, and
    /// only then ends it. A leader that has died takes nothing back, so it ends by itself. Whether that is news.
    pub(super) fn stand_aside(&self, holds: Duration) -> bool {
        let stood = self.stands_aside();
        let until = self.clock.instant() + holds.min(LONGEST_ASIDE);
        *self.aside() = Some(until).filter(|_until| !holds.is_zero());
        stood != self.stands_aside()
    }

    fn stands_aside(&self) -> bool {
        let until = *self.aside();
        until.is_some_and(|until| self.clock.instant() < until)
    }

    fn aside(&self) -> MutexGuard<'_, Option<Instant>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody has asked for a drain.
    pub(super) async fn asked_to_drain(&self) {
        self.lifecycle.reached(Phase::Draining).await;
    }

    /// How long computations rest in this container.
    pub(super) fn pace(&self) -> Pace {
        pace_under(self.cpu.as_ref().and_then(CpuGroup::limit))
    }

    /// The clients' connections; `None`: the server takes them itself.
    pub(super) fn connections(&self) -> Option<&Arc<Connections>> {
        self.proxies.first().map(Proxy::connections)
    }

    /// The report of this moment.
    pub(super) fn report(&self) -> Report {
        let follows = self.config.part == Part::Follower || !self.may_write_lease();
        // A lead without a policy could lead and would scale nothing.
        let is_fit = self.config.part != Part::Lead || self.policy.borrow().is_some();
        let status = Status {
            ready: is_fit && self.ready().is_ok(),
            draining: self.phase() != Phase::Serving || self.stands_aside(),
            gpu: (*self.gpu.borrow()).map(Into::into),
            connections: self.connections().map(|connections| connections.open()),
            server: self.server_counts(),
            follows,
        };
        self.meter().report(self.clock.now(), status)
    }

    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn policy(&self) -> watch::Receiver<Option<Arc<Policy>>> {
        self.policy.subscribe()
    }

    pub(super) fn policy_sender(&self) -> watch::Sender<Option<Arc<Policy>>> {
        self.policy.clone()
    }

    pub(super) fn policy_sought_sender(&self) -> watch::Sender<bool> {
        self.policy_sought.clone()
    }

    /// The policy, once the file was looked at; `None`: it is missing or refused.
    pub(super) async fn first_policy(&self) -> Option<Arc<Policy>> {
        let mut sought = self.policy_sought.subscribe();
        // The sender lives in `self`.
        drop(sought.wait_for(|sought| *sought).await);
        self.policy.borrow().clone()
    }

    pub(super) fn candidacy(&self) -> watch::Receiver<Option<Candidacy>> {
        self.candidacy.subscribe()
    }

    pub(super) fn set_candidacy(&self, candidacy: Candidacy) {
        self.candidacy.send_replace(Some(candidacy));
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Option<Board>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leader(&self) -> MutexGuard<'_, LeaderSeen> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_member_counts(&self, counts: Arc<Counts>) {
        // Set once, at the start; a second value would be another sidecar's.
        self.member_counts.get_or_init(|| counts);
    }

    pub(super) fn member_counts(&self) -> Option<&Counts> {
        self.member_counts.get().map(Arc::as_ref)
    }

    /// The Deployment, as `namespace/name`, once it is known.
    pub(super) fn workload(&self) -> &OnceLock<String> {
        &self.workload
    }

    pub(super) fn set_retired(&self) {
        self.retired.send_replace(true);
    }

    /// Waits until the control half has handed over what it had.
    pub(super) async fn retired(&self) {
        // Without a cluster there is nothing to hand over.
        if self.config.cluster.is_none() && self.candidacy.borrow().is_none() {
            return;
        }
        // The sender lives in `self`.
        drop(self.retired.subscribe().wait_for(|retired| *retired).await);
    }
}

/// Reads the meter once a second, for as long as the sidecar lives.
pub(super) async fn keep_meter(shared: Arc<Shared>) {
    loop {
        shared.clock.sleep(METER).await;
        // The report itself goes nowhere: reading fills the meter's own ring.
        drop(shared.report());
    }
}

/// Passes overruns on to the member channel, at the threshold that the policy sets.
pub(super) async fn watch_overrun(
    accounts: Arc<Accounts>,
    mut policy: watch::Receiver<Option<Arc<Policy>>>,
    overrun: Arc<Notify>,
) {
    loop {
        let threshold = policy
            .borrow_and_update()
            .as_deref()
            // Where requests pass by the sidecar, they are told of when the server's metrics are read.
            .filter(|policy| policy.data_path == DataPath::Proxy)
            .and_then(overrun_threshold);
        accounts.set_overrun_threshold(threshold);
        tokio::select! {
            changed = policy.changed() => if changed.is_err() { return },
            () = accounts.overrun() => overrun.notify_one(),
        }
    }
}

/// Only concurrency says at once, and of one pod alone, that it has too much.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a policy's target is a small positive number"
)]
pub(super) fn overrun_threshold(policy: &Policy) -> Option<u64> {
    let targets = policy.metrics.iter().filter_map(|metric| match metric {
        Metric::Concurrency { average_value } => Some(*average_value),
        Metric::Gpu { .. } | Metric::RequestRate { .. } => None,
    });
    let least = targets.min_by(f64::total_cmp)?;
    Some((least * OVERRUN).ceil() as u64)
}

/// The holder identity of a process: `<pod>_<uuid>`, the uuid drawn from the process's epoch, so that a leader can name
/// a member that it knows by its reports.
pub(super) fn identity(pod: &str, epoch: u64) -> String {
    let bits: u128 = rand::RngExt::random(&mut StdRng::seed_from_u64(epoch));
    // Version 4, variant 1 (RFC 9562).
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    format!("{pod}_{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn an_identity_is_the_pod_and_a_uuid_of_its_epoch() {
        let identity = identity("llm-0", 7);
        let (pod, uuid) = identity.split_once('_').expect("two parts");
        assert_eq!((pod, uuid.len()), ("llm-0", 36));
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
        assert_eq!(super::identity("llm-0", 7), identity);
        assert_ne!(super::identity("llm-0", 8), identity);
    }

    #[test]
    fn a_pod_is_overrun_at_twice_what_its_tightest_concurrency_metric_lets_it_carry() {
        let mut policy = Policy::with_bounds(1, 2);
        policy.metrics = vec![
            Metric::RequestRate { per_second: 1.0 },
            Metric::Concurrency { average_value: 5.6 },
            Metric::Concurrency { average_value: 8.0 },
        ];
        assert_eq!(overrun_threshold(&policy), Some(12));
        policy.metrics.truncate(1);
        assert_eq!(overrun_threshold(&policy), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_that_overruns_a_pod_is_told_of_at_once() {
        let accounts = Arc::new(Accounts::new(Clock::real()));
        let mut policy = Policy::with_bounds(1, 2);
        policy.metrics = vec![Metric::Concurrency { average_value: 2.0 }];
        let (policy_sender, policy) = watch::channel(Some(Arc::new(policy)));
        let overrun = Arc::<Notify>::default();
        let watching = watch_overrun(Arc::clone(&accounts), policy, Arc::clone(&overrun));
        let mut watching = std::pin::pin!(watching);
        let mut told = || {
            // One look at it, and no time passes.
            assert_eq!(watching.as_mut().now_or_never(), None);
            overrun.notified().now_or_never().is_some()
        };
        assert!(!told(), "the threshold is set");
        let mut in_flight: Vec<_> = (0..4).map(|_| accounts.arrive()).collect();
        assert!(!told(), "twice the target");
        in_flight.push(accounts.arrive());
        assert!(told(), "one more");
        policy_sender.send_replace(None);
        assert!(!told(), "without a policy nothing is too much");
        in_flight.push(accounts.arrive());
        assert!(!told());
    }
}
