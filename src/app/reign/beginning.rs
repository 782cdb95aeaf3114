//! How a reign begins: the stamp, the history, and then the watches and the channels.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::events::Gathered;
use super::mind::Mind;
use super::past::{Late, bring_back, go_on_loading};
use super::writer::{Begun, Writer};
use super::{AGAIN, FIRST_CHECKPOINT, Reign, Throne, Turns, acts, assumed, effective};
use crate::app::board::Board;
use crate::app::checkpoint::Store;
use crate::app::faults::Fault;
use crate::causes::chain;
use crate::clock::Timestamp;
use crate::fleet::channel::{Channels, LINES_BOUND, MemberLine};
use crate::fleet::parting::Parting;
use crate::fleet::reach::Reach;
use crate::fleet::spread::Spread;
use crate::fleet::watch as watches;
use crate::fleet::watch::{EVENTS_BOUND, Event};
use crate::leader::Leadership;
use crate::leader::preference::{Preference, can_have_lead};
use crate::lifecycle::TasksHandle;
use crate::policy::Policy;
use crate::report::{Beacon, Hello, WIRE_VERSION};
use crate::scale::Costs;

/// What wakes a reign from outside.
pub(super) struct Senders {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) lines: mpsc::Receiver<MemberLine>,
    /// The checkpoint, where it could not be had at once.
    pub(super) late: mpsc::Receiver<Box<Late>>,
}

impl Throne {
    /// Stamps the term, brings the history back, and opens the watches and channels. `None`: the claim was lost before.
    pub(super) async fn ascend(reign: Reign, tasks: &TasksHandle) -> Option<(Self, Senders)> {
        let shared = Arc::clone(&reign.shared);
        let policy = shared.policy();
        let mut writer = Writer::new(&reign, tasks);
        let Begun {
            term,
            view,
            is_first,
            refused,
        } = begin_term(&reign, &mut writer, &policy).await?;
        let now = shared.clock.now();
        let mut store = Store::new(
            reign.connection.client.clone(),
            &reign.connection.namespace,
            &reign.target,
            shared.clock.clone(),
            reign.candidacy.leadership(),
            term,
        );
        let current = effective(&policy).unwrap_or_else(|| assumed(view.spec_replicas));
        let loaded = bring_back(&mut store, &shared.faults, is_first).await;
        let (late_sender, late) = mpsc::channel(1);
        if !store.is_known() {
            let (store, faults) = (store.clone(), shared.faults.clone());
            let clock = shared.clock.clone();
            tasks.spawn(go_on_loading(store, faults, is_first, clock, late_sender));
        }
        let controller = Mind::new(loaded.controller(&current), &reign.shared.pace());
        let newest = controller.history().newest();
        let missing = newest.unwrap_or_default().min(now.timestamp)..now.timestamp;
        let events = open_watches(&reign, &view.selector, tasks);
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
            controller,
            gathered: Gathered::new(view),
            channels,
            beacon,
            writer,
            spread: Spread::default(),
            parting: Parting::default(),
            costs: costs(&reign),
            reach: Reach::default(),
            preference: Preference::new(&reign.timings),
            heir: None,
            policy,
            missing,
            turns: Turns::starting(now.instant),
            next_checkpoint: now.instant + FIRST_CHECKPOINT,
            saved: None,
            is_first,
            is_forbidden: refused.is_some(),
            has_failed: refused.is_some(),
            reign,
        };
        throne.recall();
        let senders = Senders {
            events,
            lines,
            late,
        };
        Some((throne, senders))
    }
}

/// What marks pods, where that is wanted.
fn costs(reign: &Reign) -> Option<Costs> {
    let (shared, connection) = (&reign.shared, &reign.connection);
    let wanted = shared.config.deletion_costs;
    let client = connection.client.clone();
    wanted.then(|| Costs::new(client, &connection.namespace, shared.clock.clone()))
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
                match &begun.refused {
                    Some(text) => shared.faults.raise(Fault::Scale, text.clone()),
                    None => shared.faults.clear(Fault::Scale),
                }
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

/// The watches on the members' pods, the leads' pods and the Deployment.
fn open_watches(reign: &Reign, selector: &str, tasks: &TasksHandle) -> mpsc::Receiver<Event> {
    let (client, namespace) = (&reign.connection.client, &reign.connection.namespace);
    let target = reign.target.clone();
    let pods = || Api::<Pod>::namespaced(client.clone(), namespace);
    let (sender, events) = mpsc::channel(EVENTS_BOUND);
    if can_have_lead(&target) {
        let (leads, target, sender) = (pods(), target.clone(), sender.clone());
        tasks.spawn(async move { watches::run_leads(leads, &target, sender).await });
    }
    let (members, selector) = (pods(), watches::members(selector));
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    tasks.spawn(async move {
        watches::run(members, &selector, deployments, &target, sender).await;
    });
    events
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
