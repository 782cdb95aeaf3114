//! A reign: from the stamp to the handover, the leader's own loop.
//!
//! Wakes on one of a few [`Wake`]s, decides in the controller's turn, and writes through the fence. All that waits for
//! somebody lives in tasks of its own; the loop waits for the API server only where the next step needs the answer.

mod beginning;
mod events;
mod heirs;
mod mind;
mod past;
mod turns;
mod victims;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::beginning::Senders;
use self::events::Gathered;
use self::mind::{Mind, Thought};
use self::past::Late;
use self::turns::{AGAIN, Turns};
use self::writer::{Writer, Written};
use super::board::Board;
use super::checkpoint::Store;
use super::connect::Connection;
use super::faults::Fault;
use super::shared::Shared;
use crate::clock::{Instant, Now, Timestamp};
use crate::controller::Turn;
use crate::fleet::Snapshot;
use crate::fleet::channel::{Channels, MemberLine};
use crate::fleet::parting::{Lowering, Parting};
use crate::fleet::reach::Reach;
use crate::fleet::spread::Spread;
use crate::fleet::watch::{Event, Watched};
use crate::leader::preference::Preference;
use crate::leader::{Candidacy, Leadership, Timings};
use crate::lifecycle::TasksHandle;
use crate::policy::{Mode, Policy};
use crate::report::{Beacon, Down};
use crate::scale::Costs;

/// Between two checkpoints. What is younger comes back from the members' own rings; they keep an hour.
const CHECKPOINT: Duration = Duration::from_secs(300);
/// From the begin of a reign to its first checkpoint: a leader that dies young must not leave a fleet whose next leader
/// finds nothing and lowers nothing for half an hour.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(10);

/// What a reign is started from.
pub(super) struct Reign {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) target: String,
    pub(super) candidacy: Candidacy,
    pub(super) timings: Timings,
    pub(super) seed: u64,
}

/// What woke the loop.
enum Wake {
    Turn,
    Watched(Event),
    Line(MemberLine),
    Late(Box<Late>),
    Checkpoint,
    Lapsed,
    HandOver(Farewell),
}

/// How a reign ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Somebody else should lead; this process goes on.
    Yield,
    /// This process goes.
    ForGood,
}

/// A reign that has its term, its history and its channels.
struct Throne {
    reign: Reign,
    store: Store,
    controller: Mind,
    gathered: Gathered,
    channels: Channels,
    beacon: watch::Sender<Beacon>,
    writer: Writer,
    spread: Spread,
    parting: Parting,
    /// Where pods that go are to be marked by their deletion cost.
    costs: Option<Costs>,
    reach: Reach,
    preference: Preference,
    /// Who should lead instead, as of the last turn.
    heir: Option<String>,
    policy: watch::Receiver<Option<Arc<Policy>>>,
    /// The time that members are asked for: from the checkpoint to the first turn.
    missing: std::ops::Range<Timestamp>,
    turns: Turns,
    next_checkpoint: Instant,
    /// When the last good save began.
    saved: Option<Instant>,
    /// No leader has stamped the Deployment before this one: no history can be missing.
    is_first: bool,
    /// A write was refused for a missing right: it would be again, also where the plan asks for none now.
    is_forbidden: bool,
    /// The last write came to nothing: nobody is to stand aside for one that may never come.
    has_failed: bool,
}

/// Reigns until the claim lapses or `hand_over` asks for the end. Asks for it by `yields` when somebody else should lead.
pub(super) async fn run(
    reign: Reign,
    mut hand_over: oneshot::Receiver<Farewell>,
    yields: mpsc::Sender<()>,
    tasks: TasksHandle,
) {
    let mut leadership = reign.candidacy.leadership();
    let _reigning = Reigning(Arc::clone(&reign.shared));
    let begun = tokio::select! {
        begun = Throne::ascend(reign, &tasks) => begun,
        () = lapsed(&mut leadership) => None,
        _asked = &mut hand_over => None,
    };
    let Some((mut throne, senders)) = begun else {
        return;
    };
    let Senders {
        mut events,
        mut lines,
        mut late,
    } = senders;
    let shared = Arc::clone(&throne.reign.shared);
    loop {
        let wake = tokio::select! {
            // An error would say that nobody is left who could ask.
            asked = &mut hand_over => Wake::HandOver(asked.unwrap_or(Farewell::ForGood)),
            () = lapsed(&mut leadership) => Wake::Lapsed,
            Some(event) = events.recv() => Wake::Watched(event),
            Some(line) = lines.recv() => Wake::Line(line),
            Some(past) = late.recv() => Wake::Late(past),
            () = shared.clock.sleep_until(throne.turns.next()) => Wake::Turn,
            () = shared.clock.sleep_until(throne.next_checkpoint) => Wake::Checkpoint,
        };
        match wake {
            // On the heap: the loop's future would carry room for the handover all its life.
            Wake::HandOver(farewell) => return Box::pin(throne.abdicate(farewell)).await,
            Wake::Lapsed => return,
            Wake::Watched(event) => throne.watched(event),
            Wake::Line(line) => throne.heard(line),
            Wake::Late(past) => throne.arrived(*past),
            Wake::Checkpoint => throne.save().await,
            Wake::Turn => {
                throne.turn().await;
                if throne.heir.is_some() {
                    // Once asked is enough.
                    yields.try_send(()).ok();
                }
            }
        }
    }
}

/// What is shown of a reign ends with it, however it ends.
struct Reigning(Arc<Shared>);

impl Drop for Reigning {
    fn drop(&mut self) {
        *self.0.board() = None;
        self.0.faults.clear_all(&Fault::OF_A_REIGN);
    }
}

fn watch_of(what: Watched) -> Fault {
    match what {
        Watched::Pods => Fault::WatchPods,
        Watched::Leads => Fault::WatchLeads,
        Watched::Deployments => Fault::WatchDeployment,
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
    fn watched(&mut self, event: Event) {
        let shared = &self.reign.shared;
        let faults = &shared.faults;
        match &event {
            Event::Lost(lost) => {
                faults.raise(watch_of(lost.what), lost.explained(&self.reign.target));
            }
            Event::Pods(_) => faults.clear(Fault::WatchPods),
            Event::Leads(_) => faults.clear(Fault::WatchLeads),
            Event::Deployment(_) => faults.clear(Fault::WatchDeployment),
            Event::DeploymentDeleted => {
                let text = "the Deployment was deleted; nothing is scaled until it is there again";
                faults.raise(Fault::WatchDeployment, text.to_owned());
            }
        }
        self.gathered.watched(event, shared.clock.now());
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
        self.follow_and_tell(&snapshot, now);
        if !self.gathered.view.is_complete() {
            return;
        }
        self.look_whom_it_reaches(&snapshot, now.instant);
        if let Some(text) = self.reign.shared.faults.text(Fault::Policy) {
            self.writer
                .trouble(&self.gathered.deployment, "PolicyRefused", text);
        }
        let policy = effective(&self.policy);
        let acts = policy.as_ref().is_some_and(acts)
            && self.gathered.deployment.spec_replicas > 0
            && !snapshot.paused;
        let policy = policy.unwrap_or_else(|| assumed(snapshot.spec_replicas));
        let Thought {
            mut turn,
            snapshot,
            policy,
        } = self.controller.turn(now, snapshot, policy).await;
        self.look_whether_the_past_is_back(now);
        let lowering = self.choose_who_goes(now, &mut turn.plan, &snapshot, acts);
        if let Some(board) = self.reign.shared.board().as_mut() {
            board.turned(now, &turn, &snapshot, &policy, &self.controller, acts);
        }
        if acts {
            self.spread(&snapshot, now.instant);
        }
        if lowering.is_none() {
            self.keep_all().await;
        }
        self.let_stay(now, &snapshot).await;
        if turn.plan.desired != snapshot.spec_replicas {
            self.decide(now, &turn, lowering, acts).await;
        } else if !self.is_forbidden {
            // What could not be written is not wanted any more.
            self.reign.shared.faults.clear(Fault::Scale);
        }
    }

    /// Says where to look when most of the members are out of reach.
    fn look_whom_it_reaches(&mut self, snapshot: &Snapshot, now: Instant) {
        let shared = &self.reign.shared;
        match self.reach.note(&snapshot.pods, now) {
            Some(lost) => {
                let port = shared.config.member.port();
                shared.faults.raise(Fault::Members, lost.explained(port));
            }
            None => shared.faults.clear(Fault::Members),
        }
    }

    /// Lets clients find pods that are new.
    fn spread(&mut self, snapshot: &Snapshot, now: Instant) {
        let orders = self.spread.orders(&snapshot.pods, now);
        self.tell(orders);
    }

    /// Who cannot be told is told the next time, if it is still wanted then.
    fn tell(&self, orders: Vec<(String, Down)>) {
        for (pod, order) in orders {
            if let Err(error) = self.channels.tell(&pod, order) {
                tracing::debug!(%error, "a member was not told");
            }
        }
    }

    async fn decide(&mut self, now: Now, turn: &Turn, lowering: Option<Lowering>, acts: bool) {
        let from = self.gathered.deployment.spec_replicas;
        if !acts {
            self.writer.would_scale(&self.gathered.deployment, turn);
            self.note(|board| board.decided(turn, from, false));
            return;
        }
        if turn.plan.desired < from && !self.may_lower(now, lowering).await {
            return;
        }
        match self.writer.scale(&self.gathered.deployment, turn).await {
            Written::Scaled(resource_version) => {
                self.is_forbidden = false;
                self.has_failed = false;
                self.reign.shared.faults.clear(Fault::Scale);
                self.gathered.deployment.spec_replicas = turn.plan.desired;
                self.gathered.deployment.resource_version = resource_version;
                self.parting.gone(now.instant);
                self.note(|board| board.decided(turn, from, true));
            }
            Written::Moved(view) => {
                // Somebody else wrote, or a pod turned ready: decide again on what is there now.
                self.gathered.deployment = *view;
                self.turns.news();
                self.note(|board| board.conflicts += 1);
            }
            Written::Deposed => self.reign.candidacy.deposed().await,
            Written::Forbidden(text) => {
                self.is_forbidden = true;
                self.failed(text).await;
            }
            Written::Failed(text) => self.failed(text).await,
        }
    }

    async fn failed(&mut self, text: String) {
        self.has_failed = true;
        self.keep_all().await;
        self.reign.shared.faults.raise(Fault::Scale, text);
        self.turns.failed();
        self.note(|board| board.errors += 1);
    }

    fn note(&self, write: impl FnOnce(&mut Board)) {
        if let Some(board) = self.reign.shared.board().as_mut() {
            write(board);
        }
    }
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
