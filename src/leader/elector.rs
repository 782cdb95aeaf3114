//! Drives the [`Machine`] against an API server: one future, no tasks of its own.
//!
//! [`Elector::run`] is spawned into the sidecar's `Tasks`; dropping it drops its requests and its watch. A refused or
//! failing API server never ends it: the trouble is published in [`Candidacy::fault`] with its remedy, logged once, and
//! tried again.

mod watching;

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use futures_util::stream::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};

use self::watching::{Watch, Watched, next};
use super::lease::{Shown, Written};
use super::machine::{Action, Answer, Beacon, Event, Machine};
use super::{Leadership, LeaseApi, LeaseFault, Part, Read, Timings};
use crate::clock::{Clock, Instant};

/// Beacons come once a second and are taken at once; what does not fit in is a beacon that the next one replaces.
const INPUTS: usize = 16;

/// The driver of one process's part in the election.
#[derive(Debug)]
pub struct Elector {
    machine: Machine,
    lease: LeaseApi,
    clock: Clock,
    rng: StdRng,
    inputs: mpsc::Receiver<Input>,
    leadership: watch::Sender<Leadership>,
    fault: watch::Sender<Option<LeaseFault>>,
    /// The Lease as it was last read or written, to be overlaid by the next write.
    base: Lease,
    retry: std::time::Duration,
    retired: Vec<oneshot::Sender<()>>,
    yielded: Vec<oneshot::Sender<()>>,
}

/// What the rest of a sidecar holds of its election. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Candidacy {
    identity: String,
    inputs: mpsc::Sender<Input>,
    leadership: watch::Receiver<Leadership>,
    fault: watch::Receiver<Option<LeaseFault>>,
    lease: LeaseApi,
}

#[derive(Debug)]
enum Input {
    Event(Event),
    Yield(oneshot::Sender<()>),
    Release(oneshot::Sender<()>),
}

type Answered = (Answer, Option<Box<Read>>, Option<LeaseFault>);
// === impl Elector ===

impl Elector {
    /// One named `identity` that is `part` to the election on `lease`. `rng` draws delays and the tokens of reigns: seed it from the operating
    /// system, except where a run must be replayable.
    pub fn new(
        identity: String,
        part: Part,
        lease: LeaseApi,
        timings: Timings,
        clock: Clock,
        rng: StdRng,
    ) -> (Self, Candidacy) {
        let (sender, inputs) = mpsc::channel(INPUTS);
        let (leadership, leadership_seen) = watch::channel(Leadership::Unknown);
        let (fault, fault_seen) = watch::channel(None);
        let candidacy = Candidacy {
            identity: identity.clone(),
            inputs: sender,
            leadership: leadership_seen,
            fault: fault_seen,
            lease: lease.clone(),
        };
        let elector = Self {
            machine: Machine::new(identity, part, timings, clock.instant()),
            lease,
            clock,
            rng,
            inputs,
            leadership,
            fault,
            base: Lease::default(),
            retry: timings.retry_period(),
            retired: Vec::new(),
            yielded: Vec::new(),
        };
        (elector, candidacy)
    }

    /// Takes part in the election until this future or the last [`Candidacy`] is dropped. Neither releases the Lease: that is
    /// what [`Candidacy::release`] is for, and what a crash looks like to the others.
    pub async fn run(mut self) {
        let mut request: OptionFuture<BoxFuture<'static, Answered>> = None.into();
        let mut watch = Watch::Off;
        self.take(Event::Tick);
        loop {
            // Before the next request goes out: nobody may still act on a claim that this request gives up.
            self.publish();
            if let Some(action) = self.machine.poll_action() {
                request = Some(self.perform(action)).into();
            }
            self.steer(&mut watch);
            let timer = self.machine.poll_timeout();
            tokio::select! {
                // In a fixed order, so that a run can be replayed.
                biased;
                Some((answer, read, fault)) = &mut request => {
                    request = None.into();
                    self.answered(answer, read, fault);
                }
                watched = next(&mut watch, &self.clock) => self.watched(watched, &mut watch),
                input = self.inputs.recv() => match input {
                    Some(Input::Event(event)) => self.take(event),
                    Some(Input::Yield(done)) => {
                        self.yielded.push(done);
                        self.take(Event::Yield);
                    }
                    Some(Input::Release(done)) => {
                        self.retired.push(done);
                        self.take(Event::Release);
                    }
                    None => return,
                },
                () = sleep_until(&self.clock, timer) => self.take(Event::Tick),
            }
        }
    }

    fn take(&mut self, event: Event) {
        self.machine.handle(event, self.clock.now(), &mut self.rng);
    }

    fn publish(&mut self) {
        let now = self.machine.leadership();
        let was = self.leadership.borrow().clone();
        if was != now {
            log_change(&was, &now, &self.machine);
            self.leadership.send_replace(now);
        }
        if self.machine.is_retired() {
            tell(&mut self.retired);
        }
        if self.machine.has_yielded() {
            tell(&mut self.yielded);
        }
    }

    fn perform(&self, action: Action) -> BoxFuture<'static, Answered> {
        let lease = self.lease.clone();
        let base = self.base.clone();
        async move {
            let written = match action {
                Action::Get => {
                    return match lease.get().await {
                        Ok(Some(read)) => (found(&read), Some(Box::new(read)), None),
                        Ok(None) => (Answer::Missing, None, None),
                        Err(fault) => (Answer::Failed, None, Some(fault)),
                    };
                }
                Action::Create(record) => lease.create(&record).await,
                Action::Put { record, version } => lease.put(base, &record, &version).await,
            };
            match written {
                Ok(Written::Done(read)) => {
                    let version = read.version.clone();
                    (Answer::Written { version }, Some(read), None)
                }
                Ok(Written::Conflict) => (Answer::Conflict, None, None),
                Err(fault) => (Answer::Failed, None, Some(fault)),
            }
        }
        .boxed()
    }

    fn answered(&mut self, answer: Answer, read: Option<Box<Read>>, fault: Option<LeaseFault>) {
        if let Some(read) = read {
            self.base = read.object;
        }
        // A conflict is an answer of a healthy API server. A Lease that is missing stays a fault until it is written:
        // the Get before each forbidden Create succeeds, and so does the one before each forbidden Put.
        let outlasts = match &answer {
            Answer::Missing => true,
            Answer::Found { .. } => self.may_not("watch") || self.may_not("update"),
            Answer::Written { .. } | Answer::Conflict | Answer::Failed => self.may_not("watch"),
        };
        if fault.is_some() || !outlasts {
            self.report(fault);
        }
        self.take(Event::Answer(answer));
    }

    fn report(&self, fault: Option<LeaseFault>) {
        self.fault.send_if_modified(|known| {
            if *known == fault {
                return false;
            }
            if let Some(fault) = &fault {
                tracing::warn!(%fault, "the election is in trouble; requests go on");
            } else {
                tracing::info!("the election's trouble is over");
            }
            *known = fault;
            true
        });
    }

    /// Only the same verb's success ends this fault: the reads in between succeed.
    fn may_not(&self, verb: &str) -> bool {
        matches!(
            &*self.fault.borrow(),
            Some(LeaseFault::Api(fault)) if fault.is_forbidden() && fault.verb == verb
        )
    }

    /// Opens or closes the watch as the machine wants it.
    fn steer(&self, watch: &mut Watch) {
        let Some(version) = self.machine.watch_from() else {
            *watch = Watch::Off;
            return;
        };
        if matches!(watch, Watch::Off) {
            let (lease, version) = (self.lease.clone(), version.to_owned());
            *watch =
                Watch::Opening(async move { Ok(lease.watch(&version).await?.boxed()) }.boxed());
        }
    }

    fn watched(&mut self, watched: Watched, watch: &mut Watch) {
        match watched {
            Watched::Opened(stream) => {
                *watch = Watch::Open(stream);
                if self.may_not("watch") {
                    self.report(None);
                }
            }
            Watched::Shown(Shown::Lease(read)) => {
                let Read {
                    record,
                    version,
                    object,
                } = *read;
                // While this process writes, the answer to its write is what the next write builds on.
                if self.machine.watch_from().is_some() {
                    self.base = object;
                    self.take(Event::Watched { record, version });
                }
            }
            Watched::Shown(Shown::Deleted) => self.take(Event::WatchedDeletion),
            Watched::Broken(fault) => {
                // The machine reads the Lease when the watch is quiet, so a broken one costs time, not truth. Only a
                // missing right is worth a word: servers end watches all day.
                if matches!(&fault, Some(LeaseFault::Api(fault)) if fault.is_forbidden()) {
                    self.report(fault);
                }
                *watch = if matches!(watch, Watch::Resting(_)) {
                    Watch::Off
                } else {
                    Watch::Resting(self.clock.instant() + self.retry)
                };
            }
        }
    }
}

// === impl Candidacy ===

impl Candidacy {
    /// My holder identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Who leads. Read it at the moment of writing, with [`Leadership::valid_claim`].
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// What keeps the election from the Lease, where something does.
    pub fn fault(&self) -> watch::Receiver<Option<LeaseFault>> {
        self.fault.clone()
    }

    /// The leader's beacon came. Dropped when the elector is behind: the next one says more.
    pub fn beacon(&self, beacon: Beacon) {
        if self
            .inputs
            .try_send(Input::Event(Event::Beacon(beacon)))
            .is_err()
        {
            tracing::debug!("the elector is behind; a beacon was dropped");
        }
    }

    /// The leader `from` has released the Lease and goes. Only from a leader that was verified, in its own name: the named
    /// successor may take the Lease from it even where the release failed.
    pub async fn goodbye(&self, from: String, successor: Option<String>) {
        self.send(Event::Goodbye { from, successor }).await;
    }

    /// My term is stamped on the Deployment; the next renewal records it in the Lease.
    pub async fn stamped(&self, term: u64) {
        self.send(Event::Stamped(term)).await;
    }

    /// The Deployment carries a higher term than mine: step down.
    pub async fn deposed(&self) {
        self.send(Event::Deposed).await;
    }

    /// Gives the Lease up to another, and returns when that is done or has failed. This process stays a candidate, and takes
    /// it back if nobody else does. The history must be saved before, and the goodbye that names the other said after.
    pub async fn yield_lease(&self) {
        let (done, wait) = oneshot::channel();
        if self.inputs.send(Input::Yield(done)).await.is_ok() && wait.await.is_err() {
            tracing::debug!("the elector ended before it had given up the lease");
        }
    }

    /// Whether this process may write the Lease, as far as it has tried.
    pub fn may_write(&self) -> bool {
        match &*self.fault.borrow() {
            None => true,
            Some(LeaseFault::Missing { .. }) => false,
            Some(LeaseFault::Api(fault)) => {
                !(fault.is_forbidden() && matches!(fault.verb, "create" | "update"))
            }
        }
    }

    /// Gives the Lease up for good, and returns when that is done or has failed. The history must be saved before, and
    /// the goodbye said after.
    pub async fn release(&self) {
        let (done, wait) = oneshot::channel();
        if self.inputs.send(Input::Release(done)).await.is_ok() && wait.await.is_err() {
            tracing::debug!("the elector ended before it had released the lease");
        }
    }

    /// Whether `holder` proves by `token` that it holds the Lease. Costs no request where the Lease was read since it leads
    /// and says so; else one, for which the caller has waited a jittered moment.
    pub async fn verify(&self, holder: &str, token: &str) -> Result<bool, LeaseFault> {
        let known = match &*self.leadership.borrow() {
            Leadership::Following(leader) if leader.holder == holder => leader.token_sha256.clone(),
            Leadership::Following(_) | Leadership::Leading(_) | Leadership::Unknown => None,
        };
        if known.is_some_and(|hash| hash == super::sha256_hex(token)) {
            return Ok(true);
        }
        self.lease.proves(holder, token).await
    }

    async fn send(&self, event: Event) {
        if self.inputs.send(Input::Event(event)).await.is_err() {
            tracing::debug!("the elector has ended");
        }
    }
}

fn tell(waiting: &mut Vec<oneshot::Sender<()>>) {
    for done in waiting.drain(..) {
        if done.send(()).is_err() {
            tracing::debug!("whoever asked for the end of the reign has gone");
        }
    }
}

fn found(read: &Read) -> Answer {
    Answer::Found {
        record: read.record.clone(),
        version: read.version.clone(),
    }
}

async fn sleep_until(clock: &Clock, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn log_change(was: &Leadership, now: &Leadership, machine: &Machine) {
    match (was, now) {
        (Leadership::Leading(old), Leadership::Leading(new)) if old.is_same_reign(new) => {}
        (_, Leadership::Leading(claim)) => {
            tracing::info!(holder = claim.holder, "this process leads");
        }
        (Leadership::Leading(_), _) => {
            tracing::info!(why = ?machine.last_end(), "this process leads no more");
        }
        (_, Leadership::Following(leader)) if was.holder() != Some(&leader.holder) => {
            tracing::info!(leader = leader.holder, "following");
        }
        (_, Leadership::Unknown) => tracing::info!("no leader is known"),
        (_, Leadership::Following(_)) => {}
    }
}
