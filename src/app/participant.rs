//! This process in the election: finds the cluster and its Deployment, takes part, and reigns while it leads.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::connect::{Connection, Connector};
use super::faults::Fault;
use super::reign::{self, Farewell, Reign};
use super::shared::Shared;
use super::unheard;
use crate::causes::chain;
use crate::fleet::member::{Heard, Order};
use crate::leader::{Candidacy, Elector, Leadership, LeaseApi, Part, Timings, machine};
use crate::lifecycle::{Tasks, TasksHandle};
use crate::scale::owner_of_pod;

/// Between two tries to find the cluster or the Deployment. A missing account or right is put right by a person, which
/// takes minutes; an API server that is away comes back in less.
const AGAIN: Duration = Duration::from_secs(10);

/// What takes part.
pub(super) struct Participant {
    pub(super) shared: Arc<Shared>,
    pub(super) connector: Connector,
    pub(super) timings: Timings,
    pub(super) seed: u64,
    pub(super) tasks: TasksHandle,
}

/// A reign under way: it ends when this value is dropped, or by itself when the claim lapses.
struct Throne {
    _tasks: Tasks,
    hand_over: Option<oneshot::Sender<Farewell>>,
    /// Tells that somebody else should lead; closed when the reign has ended.
    yields: mpsc::Receiver<()>,
}

/// What woke the loop.
enum Wake {
    Heard(Option<Heard>),
    Leadership,
    Fault,
    Yields,
    ReignEnded,
    Draining,
}

// === impl Participant ===

impl Participant {
    /// Until the sidecar ends.
    pub(super) async fn run(self, mut heard: mpsc::Receiver<Heard>) {
        let place = tokio::select! {
            place = self.find_place() => place,
            // Nothing to hand over yet.
            () = self.shared.asked_to_drain() => {
                self.shared.set_retired();
                return;
            }
        };
        let candidacy = self.stand(&place);
        let (mut leadership, mut fault) = (candidacy.leadership(), candidacy.fault());
        let mut throne: Option<Throne> = None;
        loop {
            let wake = tokio::select! {
                said = heard.recv() => Wake::Heard(said),
                changed = leadership.changed() => match changed {
                    Ok(()) => Wake::Leadership,
                    // The elector has gone, and with it this process.
                    Err(_closed) => return,
                },
                Ok(()) = fault.changed() => Wake::Fault,
                wake = of_reign(&mut throne) => wake,
                () = self.shared.asked_to_drain() => Wake::Draining,
            };
            match wake {
                Wake::Heard(Some(said)) => self.obey(said, &candidacy).await,
                Wake::Heard(None) => return,
                Wake::Leadership => self.follow(&mut leadership, &mut throne, &place, &candidacy),
                Wake::Fault => match &*fault.borrow_and_update() {
                    Some(found) => self.shared.faults.raise(Fault::Lease, chain(found)),
                    None => self.shared.faults.clear(Fault::Lease),
                },
                Wake::Yields => {
                    if let Some(throne) = throne.take() {
                        hand_over(throne, Farewell::Yield).await;
                    }
                }
                Wake::ReignEnded => throne = None,
                Wake::Draining => {
                    if let Some(throne) = throne {
                        hand_over(throne, Farewell::ForGood).await;
                    }
                    candidacy.release().await;
                    self.shared.set_retired();
                    return;
                }
            }
        }
    }

    async fn find_place(&self) -> Place {
        let faults = &self.shared.faults;
        let connection = loop {
            match self.connector.connect().await {
                Ok(connection) => break connection,
                Err(error) => faults.raise(Fault::Cluster, chain(&error)),
            }
            self.shared.clock.sleep(AGAIN).await;
        };
        faults.clear(Fault::Cluster);
        let target = loop {
            match self.find_target(&connection).await {
                Ok(target) => break target,
                Err(text) => faults.raise(Fault::Target, text),
            }
            self.shared.clock.sleep(AGAIN).await;
        };
        faults.clear(Fault::Target);
        let workload = format!("{}/{target}", connection.namespace);
        info!(workload, identity = self.shared.identity, "taking part");
        self.shared.workload().get_or_init(|| workload);
        Place { connection, target }
    }

    /// By flag, by policy, or the Deployment that owns this pod; the one that owns a lead's is not the one that it leads.
    async fn find_target(&self, connection: &Connection) -> Result<String, String> {
        if let Some(named) = self.connector.target() {
            return Ok(named.to_owned());
        }
        // A process that did not wait for the file would take part for the pod's owner, whatever the file says.
        let policy = self.shared.first_policy().await;
        if let Some(named) = policy.and_then(|policy| policy.target.clone()) {
            return Ok(named.name);
        }
        if self.shared.config.part == Part::Lead {
            return Err("no Deployment is named (give --target NAME)".to_owned());
        }
        let pod = &self.shared.config.pod.name;
        let (client, namespace) = (connection.client.clone(), &connection.namespace);
        let owner = owner_of_pod(client, namespace, pod, &self.shared.clock).await;
        owner
            .map(|owner| owner.deployment)
            .map_err(|error| chain(&error))
    }

    fn stand(&self, place: &Place) -> Candidacy {
        let part = self.shared.config.part;
        let lease = LeaseApi::new(
            place.connection.client.clone(),
            &place.connection.namespace,
            &format!("sidescale-{}", place.target),
            part,
            self.shared.clock.clone(),
            self.timings.renew_deadline() / 2,
        );
        let (elector, candidacy) = Elector::new(
            self.shared.identity.clone(),
            part,
            lease.clone(),
            self.timings,
            self.shared.clock.clone(),
            // Another stream than the identity's.
            StdRng::seed_from_u64(self.seed ^ 0x656c_6563),
        );
        self.tasks.spawn(elector.run());
        self.shared.set_candidacy(candidacy.clone());
        if part != Part::Sidecar {
            self.tasks.spawn(unheard::watch(
                Arc::clone(&self.shared),
                lease,
                place.target.clone(),
                self.timings.lease_duration(),
            ));
        }
        candidacy
    }

    /// What a verified leader said.
    async fn obey(&self, heard: Heard, candidacy: &Candidacy) {
        match heard.order {
            Order::Beacon(beacon) => {
                self.see(heard.term, beacon.admin.parse().ok());
                candidacy.beacon(machine::Beacon {
                    standby: beacon.standbys.contains(&self.shared.identity),
                    holder: beacon.holder,
                    term: beacon.term,
                    renewed: beacon.renewed,
                    members: beacon.members,
                    defers: beacon.leads > 0 && self.shared.config.part != Part::Lead,
                });
            }
            Order::Goodbye { successor } => candidacy.goodbye(heard.holder, successor).await,
            Order::Drain { holds } => {
                if self.shared.stand_aside(holds) {
                    let (leader, aside) = (heard.holder, !holds.is_zero());
                    info!(leader, aside, "the fleet gets smaller, by this pod or not");
                }
            }
            Order::Retire { per_mille, over } => self.retire(per_mille, over),
            Order::Ended => {}
        }
    }

    fn retire(&self, per_mille: u16, over: Duration) {
        let Some(connections) = self.shared.connections().map(Arc::clone) else {
            return;
        };
        info!(
            open = connections.open(),
            per_mille, "clients should connect anew: there are new pods"
        );
        let clock = self.shared.clock.clone();
        self.tasks
            .spawn(async move { connections.retire(per_mille, over, &clock).await });
    }

    fn see(&self, term: u64, admin: Option<std::net::SocketAddr>) {
        let mut leader = self.shared.leader();
        if term > leader.term {
            leader.changes += u64::from(leader.term > 0);
            leader.term = term;
        }
        leader.admin = admin;
        leader.heard = Some(self.shared.clock.instant());
        drop(leader);
        self.shared.faults.clear(Fault::Leader);
    }

    fn follow(
        &self,
        leadership: &mut watch::Receiver<Leadership>,
        throne: &mut Option<Throne>,
        place: &Place,
        candidacy: &Candidacy,
    ) {
        let now = self.shared.clock.instant();
        let leads = leadership.borrow_and_update().valid_claim(now).is_some();
        if !leads {
            *throne = None;
            *self.shared.board() = None;
            return;
        }
        if throne.is_some() {
            return;
        }
        self.shared.faults.clear(Fault::Leader);
        let (hand_over, asked) = oneshot::channel();
        let (yielding, yields) = mpsc::channel(1);
        let reign = Reign {
            shared: Arc::clone(&self.shared),
            connection: place.connection.clone(),
            target: place.target.clone(),
            candidacy: candidacy.clone(),
            timings: self.timings,
            seed: self.seed,
        };
        // On the runtime of the control half, but not in its tasks: the reign's tree goes when the reign does.
        let tasks = Tasks::here();
        let children = tasks.handle();
        tasks.spawn(async move {
            Box::pin(reign::run(reign, asked, yielding, children)).await;
        });
        *throne = Some(Throne {
            _tasks: tasks,
            hand_over: Some(hand_over),
            yields,
        });
    }
}

/// Where this process takes part.
struct Place {
    connection: Connection,
    target: String,
}

/// Lets a reign end by itself: it saves, gives the Lease up, and names who may follow.
async fn hand_over(mut throne: Throne, farewell: Farewell) {
    if let Some(ask) = throne.hand_over.take()
        && ask.send(farewell).is_ok()
    {
        while throne.yields.recv().await.is_some() {}
    }
}

/// What a reign has to tell.
async fn of_reign(throne: &mut Option<Throne>) -> Wake {
    match throne {
        Some(throne) => match throne.yields.recv().await {
            Some(()) => Wake::Yields,
            None => Wake::ReignEnded,
        },
        None => std::future::pending().await,
    }
}
