//! A reign: from the stamp to the handover, the leader's own loop.
//!
//! Wakes on one of a few [`Wake`]s, decides in the controller's turn, and writes through the fence. All that waits for
//! somebody lives in tasks of its own; the loop waits for the API server only where the next step needs the answer.

mod events;
mod turns;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use self::events::Gathered;
use self::turns::{AGAIN, Turns};
use self::writer::{Begun, Writer, Written};
use super::board::Board;
use super::checkpoint::{Loaded, Store};
use super::connect::Connection;
use super::faults::{Fault, Faults};
use super::shared::Shared;
use crate::causes::chain;
use crate::clock::{Instant, Now, Timestamp};
use crate::controller::{Controller, Turn};
use crate::fleet::channel::{Channels, LINES_BOUND, MemberLine};
use crate::fleet::watch::{EVENTS_BOUND, Event};
use crate::history::History;
use crate::leader::{Candidacy, Leadership};
use crate::lifecycle::TasksHandle;
use crate::policy::{Mode, Policy};
use crate::report::{Beacon, Hello, WIRE_VERSION};

/// Between two checkpoints. What is younger comes back from the members' own rings; they keep an hour.
const CHECKPOINT: Duration = Duration::from_secs(300);
/// From the begin of a reign to its first checkpoint: a leader that dies young must not leave a fleet whose next leader
/// finds nothing and lowers nothing for half an hour.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(10);
/// How many members watch the Lease beside the leader: one may go with the leader's node.
const STANDBYS: usize = 2;

/// What a reign is started from.
pub(super) struct Reign {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) target: String,
    pub(super) candidacy: Candidacy,
    pub(super) seed: u64,
}

/// What woke the loop.
enum Wake {
    Turn,
    Watched(Event),
    Line(MemberLine),
    Checkpoint,
    Lapsed,
    HandOver,
}

/// A reign that has its term, its history and its channels.
struct Throne {
    reign: Reign,
    store: Store,
    controller: Controller,
    gathered: Gathered,
    channels: Channels,
    beacon: watch::Sender<Beacon>,
    writer: Writer,
    policy: watch::Receiver<Option<Arc<Policy>>>,
    /// The time that members are asked for: from the checkpoint to the first turn.
    missing: std::ops::Range<Timestamp>,
    turns: Turns,
    next_checkpoint: Instant,
}

/// Reigns until the claim lapses or `hand_over` asks for the end.
pub(super) async fn run(reign: Reign, mut hand_over: oneshot::Receiver<()>, tasks: TasksHandle) {
    let mut leadership = reign.candidacy.leadership();
    let begun = tokio::select! {
        begun = Throne::ascend(reign, &tasks) => begun,
        () = lapsed(&mut leadership) => None,
        _asked = &mut hand_over => None,
    };
    let Some((mut throne, mut events, mut lines)) = begun else {
        return;
    };
    let shared = Arc::clone(&throne.reign.shared);
    loop {
        let wake = tokio::select! {
            _asked = &mut hand_over => Wake::HandOver,
            () = lapsed(&mut leadership) => Wake::Lapsed,
            Some(event) = events.recv() => Wake::Watched(event),
            Some(line) = lines.recv() => Wake::Line(line),
            () = shared.clock.sleep_until(throne.turns.next()) => Wake::Turn,
            () = shared.clock.sleep_until(throne.next_checkpoint) => Wake::Checkpoint,
        };
        match wake {
            Wake::HandOver => return throne.abdicate().await,
            Wake::Lapsed => return,
            Wake::Watched(event) => throne.watched(event),
            Wake::Line(line) => throne.heard(line),
            Wake::Checkpoint => throne.save().await,
            Wake::Turn => throne.turn().await,
        }
    }
}

/// Until this process leads no more.
async fn lapsed(leadership: &mut watch::Receiver<Leadership>) {
    let leads = |leadership: &Leadership| leadership.claim().is_some();
    // An error would say that the elector has gone: no claim without it.
    drop(leadership.wait_for(|leadership| !leads(leadership)).await);
}

// === impl Throne ===

impl Throne {
    /// Stamps the term, brings the history back, and opens the watches and channels. `None`: the claim was lost before.
    async fn ascend(
        reign: Reign,
        tasks: &TasksHandle,
    ) -> Option<(Self, mpsc::Receiver<Event>, mpsc::Receiver<MemberLine>)> {
        let shared = Arc::clone(&reign.shared);
        let policy = shared.policy();
        let mut writer = Writer::new(&reign, tasks);
        let Begun {
            term,
            view,
            is_first,
        } = begin_term(&reign, &mut writer, &policy).await?;
        let now = shared.clock.now();
        let store = Store::new(
            reign.connection.client.clone(),
            &reign.connection.namespace,
            &reign.target,
            shared.clock.clone(),
        );
        let current = effective(&policy).unwrap_or_else(|| assumed(view.spec_replicas));
        let history = bring_back(&store, &shared.faults, is_first, &current).await;
        let newest = history.as_ref().and_then(History::newest);
        let missing = newest.unwrap_or_default().min(now.timestamp)..now.timestamp;
        let (events_sender, events) = mpsc::channel(EVENTS_BOUND);
        tasks.spawn(watch_all(
            reign.connection.clone(),
            view.selector.clone(),
            reign.target.clone(),
            events_sender,
        ));
        let (channels, beacon, lines) = open_channels(&reign, term, missing.start, tasks);
        *shared.board() = Some(Board::of(term));
        info!(
            term,
            workload = view.name,
            replicas = view.spec_replicas,
            "reign begins"
        );
        let throne = Self {
            store,
            controller: Controller::new(history, &current),
            gathered: Gathered::new(view),
            channels,
            beacon,
            writer,
            policy,
            missing,
            turns: Turns::starting(now.instant),
            next_checkpoint: now.instant + FIRST_CHECKPOINT,
            reign,
        };
        throne.recall();
        Some((throne, events, lines))
    }

    fn watched(&mut self, event: Event) {
        let shared = &self.reign.shared;
        match event {
            Event::Lost(lost) => shared.faults.raise(Fault::Watch, lost.text),
            Event::Pods(_)
            | Event::PodApplied(_)
            | Event::PodDeleted(_)
            | Event::Deployment(_)
            | Event::DeploymentDeleted => {
                shared.faults.clear(Fault::Watch);
                self.gathered.watched(event, shared.clock.now());
            }
        }
    }

    fn heard(&mut self, line: MemberLine) {
        let now = self.reign.shared.clock.instant();
        if let Some(past) = self.gathered.heard(line, now, &mut self.turns) {
            self.controller.remember(&past, self.missing.clone());
            self.recall();
        }
    }

    /// Shows what is remembered of the time before this reign.
    fn recall(&self) {
        let (history, begun) = (self.controller.history(), self.missing.end);
        self.note(|board| board.recall(history, begun));
    }

    async fn turn(&mut self) {
        let now = self.reign.shared.clock.now();
        self.turns.begin(now.instant);
        let mut snapshot = self
            .gathered
            .view
            .snapshot(now, self.gathered.deployment.spec_replicas);
        snapshot.paused = self.gathered.deployment.paused;
        self.channels.follow(&snapshot.pods);
        self.tell(&snapshot);
        if !self.gathered.view.is_complete() {
            return;
        }
        let policy = effective(&self.policy);
        let acts = policy.as_ref().is_some_and(acts)
            && self.gathered.deployment.spec_replicas > 0
            && !snapshot.paused;
        let policy = policy.unwrap_or_else(|| assumed(snapshot.spec_replicas));
        let turn = self.controller.turn(now, &snapshot, &policy);
        if let Some(board) = self.reign.shared.board().as_mut() {
            board.turned(now, &turn, &snapshot, &policy, &self.controller, acts);
        }
        if turn.plan.desired != snapshot.spec_replicas {
            self.decide(now, &turn, acts).await;
        }
    }

    /// Who lives, and who should watch the Lease: the oldest ready members.
    fn tell(&self, snapshot: &crate::fleet::Snapshot) {
        let me = &self.reign.shared.identity;
        let standbys = self.gathered.successors(snapshot, me, STANDBYS);
        let members = u32::try_from(snapshot.pods.len()).unwrap_or(u32::MAX);
        self.beacon.send_if_modified(|beacon| {
            let changed = beacon.standbys != standbys || beacon.members != members;
            beacon.standbys = standbys;
            beacon.members = members;
            changed
        });
    }

    async fn decide(&mut self, now: Now, turn: &Turn, acts: bool) {
        let from = self.gathered.deployment.spec_replicas;
        if !acts {
            self.writer.would_scale(&self.gathered.deployment, turn);
            self.note(|board| board.decided(turn, from, false));
            return;
        }
        if turn.plan.desired < from && self.next_checkpoint > now.instant + CHECKPOINT - AGAIN {
            // Saved a moment ago.
        } else if turn.plan.desired < from {
            self.save().await;
        }
        match self.writer.scale(&self.gathered.deployment, turn).await {
            Written::Scaled(resource_version) => {
                self.reign.shared.faults.clear(Fault::Scale);
                self.gathered.deployment.spec_replicas = turn.plan.desired;
                self.gathered.deployment.resource_version = resource_version;
                self.note(|board| board.decided(turn, from, true));
            }
            Written::Moved(view) => {
                // Somebody else wrote, or a pod turned ready: decide again on what is there now.
                self.gathered.deployment = *view;
                self.turns.news();
                self.note(|board| board.conflicts += 1);
            }
            Written::Deposed => self.reign.candidacy.deposed().await,
            Written::Failed(text) => {
                self.reign.shared.faults.raise(Fault::Scale, text);
                self.turns.failed();
                self.note(|board| board.errors += 1);
            }
        }
    }

    fn note(&self, write: impl FnOnce(&mut Board)) {
        if let Some(board) = self.reign.shared.board().as_mut() {
            write(board);
        }
    }

    async fn save(&mut self) {
        let shared = &self.reign.shared;
        self.next_checkpoint = shared.clock.instant() + CHECKPOINT;
        match self.store.save(self.controller.history()).await {
            Ok(()) => shared.faults.clear(Fault::History),
            Err(text) => shared.faults.raise(Fault::History, text),
        }
    }

    /// Saves, gives the Lease up, and tells the members who may take it at once.
    async fn abdicate(mut self) {
        self.save().await;
        let now = self.reign.shared.clock.now();
        let snapshot = self
            .gathered
            .view
            .snapshot(now, self.gathered.deployment.spec_replicas);
        let me = &self.reign.shared.identity;
        let successor = self.gathered.successors(&snapshot, me, 1).pop();
        self.reign.candidacy.release().await;
        info!(successor, "reign handed over");
        self.channels.goodbye(successor).await;
    }
}

/// The reign's term and the Deployment as it is; asked again until the API server gives them. `None`: another leads.
async fn begin_term(
    reign: &Reign,
    writer: &mut Writer,
    policy: &watch::Receiver<Option<Arc<Policy>>>,
) -> Option<Begun> {
    let shared = &reign.shared;
    loop {
        let acts = effective(policy).as_ref().is_some_and(acts);
        match writer.begin(acts).await {
            Ok(begun) => {
                shared.faults.clear(Fault::Scale);
                return Some(begun);
            }
            Err(error) if error.is_deposed() => {
                reign.candidacy.deposed().await;
                return None;
            }
            Err(error) => shared.faults.raise(Fault::Scale, chain(&error)),
        }
        shared.clock.sleep(AGAIN).await;
    }
}

/// The history as the last leader saved it. `None`: there was one, and it cannot be had.
async fn bring_back(
    store: &Store,
    faults: &Faults,
    is_first: bool,
    policy: &Policy,
) -> Option<History> {
    let lost = match store.load().await {
        Loaded::History(history) => return Some(*history),
        // Nobody has led before: there is nothing to wait for.
        Loaded::Nothing if is_first => return Some(History::new(policy.prediction.history)),
        Loaded::Nothing => {
            "the ConfigMap with the history is gone or empty, though this fleet was led before"
                .to_owned()
        }
        Loaded::Unreadable(error) => chain(&error),
        Loaded::Unknown(text) => text,
    };
    faults.raise(
        Fault::History,
        format!("{lost}; nothing is lowered until this leader has seen enough itself"),
    );
    None
}

/// The policy in force, where one was read.
fn effective(policy: &watch::Receiver<Option<Arc<Policy>>>) -> Option<Policy> {
    policy.borrow().as_deref().cloned()
}

/// Whether this policy's plans are carried out.
fn acts(policy: &Policy) -> bool {
    match policy.mode {
        Mode::Observe => false,
        Mode::Auto | Mode::ScaleUpOnly | Mode::Proactive | Mode::Reactive => true,
    }
}

/// Without a policy the fleet is still measured and shown; nothing is scaled.
fn assumed(replicas: u32) -> Policy {
    Policy::with_bounds(1, replicas.max(1))
}

async fn watch_all(
    connection: Connection,
    selector: String,
    target: String,
    events: mpsc::Sender<Event>,
) {
    let pods = Api::<Pod>::namespaced(connection.client.clone(), &connection.namespace);
    let deployments = Api::<Deployment>::namespaced(connection.client, &connection.namespace);
    crate::fleet::watch::run(pods, &selector, deployments, &target, events).await;
}

/// The channels to the members; their beacon follows the Lease by itself, also while the loop waits for an answer.
fn open_channels(
    reign: &Reign,
    term: u64,
    past_since: Timestamp,
    tasks: &TasksHandle,
) -> (Channels, watch::Sender<Beacon>, mpsc::Receiver<MemberLine>) {
    let shared = &reign.shared;
    let leadership = reign.candidacy.leadership();
    let claim = leadership.borrow().claim().cloned();
    let port = shared.config.member.port();
    let admin = shared
        .config
        .pod
        .ip
        .map_or(shared.admin, |ip| (ip, shared.admin.port()).into());
    let beacon = Beacon {
        term,
        holder: shared.identity.clone(),
        renewed: claim
            .as_ref()
            .map(|claim| claim.renewed.clone())
            .unwrap_or_default(),
        admin: admin.to_string(),
        ..Beacon::default()
    };
    let hello = Hello {
        v: WIRE_VERSION,
        term,
        holder: shared.identity.clone(),
        token: claim
            .map(|claim| claim.token.reveal().to_owned())
            .unwrap_or_default(),
        past_since_millis: Some(past_since.as_millis()),
    };
    let (beacon, beacon_seen) = watch::channel(beacon);
    let (lines_sender, lines) = mpsc::channel(LINES_BOUND);
    tasks.spawn(renew_beacon(leadership, beacon.clone()));
    // Another stream than the identity's.
    let rng = StdRng::seed_from_u64(reign.seed ^ 0x6368_616e);
    let channels = Channels::new(
        shared.clock.clone(),
        port,
        hello,
        beacon_seen,
        lines_sender,
        rng,
    );
    (channels, beacon, lines)
}

async fn renew_beacon(mut leadership: watch::Receiver<Leadership>, beacon: watch::Sender<Beacon>) {
    while leadership.changed().await.is_ok() {
        let renewed = leadership
            .borrow_and_update()
            .claim()
            .map(|claim| claim.renewed.clone());
        let Some(renewed) = renewed else { return };
        beacon.send_modify(|beacon| beacon.renewed = renewed);
    }
}
