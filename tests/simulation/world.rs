//! Time, the network between processes and API server, and what goes wrong with both.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sidescale::clock::Instant;
use sidescale::leader::machine::{Action, Answer, Beacon, Event};
use sidescale::leader::preference::{Candidate, succession};
use sidescale::leader::{Part, Timings};

use super::node::Node;
use super::store::{Request, Response, Store};

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// The longest of the usual delays, one way.
    pub(crate) usual: Duration,
    /// The share of messages that lie in a socket for up to a minute.
    pub(crate) stuck: f64,
    /// The share of messages that are lost.
    pub(crate) lost: f64,
}

impl Network {
    pub(crate) const GOOD: Self = Self {
        usual: Duration::from_millis(5),
        stuck: 0.0,
        lost: 0.0,
    };
    pub(crate) const BAD: Self = Self {
        usual: Duration::from_millis(200),
        stuck: 0.02,
        lost: 0.02,
    };
}

#[derive(Clone, Debug)]
enum Happening {
    Wake(u32),
    /// Once a second: a leader sends its beacons and makes a turn.
    Second(u32),
    Arrives {
        from: usize,
        life: u32,
        id: u64,
        request: Request,
    },
    Answered {
        life: u32,
        id: u64,
        response: Response,
    },
    GivenUp {
        life: u32,
        id: u64,
    },
    Heard {
        life: u32,
        event: Event,
    },
    Restart,
}

/// A fleet, its API server and the time.
pub(crate) struct World {
    seed: u64,
    skew: f64,
    network: Network,
    pub(crate) now: Duration,
    pub(crate) rng: StdRng,
    pub(crate) store: Store,
    pub(crate) nodes: Vec<Node>,
    pub(crate) down_until: Duration,
    queue: BTreeMap<(Duration, u64), (usize, Happening)>,
    sequence: u64,
    log: VecDeque<String>,
    /// Every claim that was seen, in order: when, and whose.
    pub(crate) reigns: Vec<(Duration, String)>,
    pub(crate) violations: Vec<String>,
    /// How often a leader gave the Lease up to a lead.
    pub(crate) yields: usize,
}

impl World {
    pub(crate) fn new(seed: u64, size: usize, network: Network, skew: f64) -> Self {
        Self::of(seed, &vec![Part::Sidecar; size], network, skew)
    }

    /// The same with processes that are these to the election.
    pub(crate) fn of(seed: u64, parts: &[Part], network: Network, skew: f64) -> Self {
        let mut world = Self {
            seed,
            skew,
            network,
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            store: Store::new(),
            nodes: Vec::new(),
            down_until: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            log: VecDeque::new(),
            reigns: Vec::new(),
            violations: Vec::new(),
            yields: 0,
        };
        for (index, part) in parts.iter().enumerate() {
            let node = Node::new(index, *part, 0, Duration::ZERO, skew, &mut world.rng);
            world.nodes.push(node);
            world.start(index);
        }
        world
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn last_events(&self) -> String {
        self.log.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Lets `stretch` pass.
    pub(crate) fn run(&mut self, stretch: Duration) {
        let end = self.now + stretch;
        self.run_until(end, |_world| false);
    }

    /// Runs until `done` says so, and says whether it did before `end`.
    pub(crate) fn run_until(&mut self, end: Duration, done: impl Fn(&Self) -> bool) -> bool {
        while !done(self)
            && let Some(next) = self.queue.first_entry()
            && next.key().0 <= end
        {
            let ((at, _sequence), (index, happening)) = next.remove_entry();
            self.now = at;
            self.happen(index, happening);
        }
        let is_done = done(self);
        if !is_done {
            self.now = end;
        }
        is_done
    }

    /// The process that holds a valid claim and runs.
    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|index| self.leads(*index))
    }

    pub(crate) fn leads(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        node.alive && node.stopped_until <= self.now && node.claim(self.now).is_some()
    }

    // What goes wrong.

    pub(crate) fn stop(&mut self, index: usize, stretch: Duration) {
        self.note(index, &format!("stopped for {stretch:?}"));
        self.nodes[index].stopped_until = self.now + stretch;
    }

    pub(crate) fn crash(&mut self, index: usize) {
        self.note(index, "killed");
        self.nodes[index].alive = false;
    }

    pub(crate) fn restart_in(&mut self, index: usize, stretch: Duration) {
        self.schedule(self.now + stretch, index, Happening::Restart);
    }

    pub(crate) fn cut_off(&mut self, index: usize, stretch: Duration) {
        self.note(
            index,
            &format!("cut off from the API server for {stretch:?}"),
        );
        self.nodes[index].cut_off_until = self.now + stretch;
    }

    pub(crate) fn deafen(&mut self, index: usize, stretch: Duration) {
        self.note(index, &format!("hears no beacons for {stretch:?}"));
        self.nodes[index].deaf_until = self.now + stretch;
    }

    pub(crate) fn release(&mut self, index: usize) {
        self.note(index, "asked to go");
        self.give(index, Event::Release);
    }

    /// The standbys that the leader `index` would name: the first two others that live.
    pub(crate) fn standbys(&self, index: usize) -> Vec<usize> {
        let heirs = self.succession(index).into_iter().take(2);
        heirs.map(|heir| self.index_of(&heir.identity)).collect()
    }

    /// The others that live, in the order in which they should lead. Whoever comes first is the oldest.
    fn succession(&self, index: usize) -> Vec<Candidate> {
        let alive = self.nodes.iter().enumerate();
        let alive = alive.filter(|(other, node)| *other != index && node.alive);
        let candidates = alive.map(|(other, node)| Candidate {
            identity: node.identity.clone(),
            part: node.part,
            since: Instant::from_offset(Duration::from_secs(
                u64::try_from(other).expect("a small fleet"),
            )),
        });
        succession(candidates.collect())
    }

    fn index_of(&self, identity: &str) -> usize {
        let mut nodes = self.nodes.iter();
        let found = nodes.position(|node| node.identity == identity);
        found.expect("it was named for being there")
    }

    // What happens.

    fn happen(&mut self, index: usize, happening: Happening) {
        let stopped_until = self.nodes[index].stopped_until;
        let at_server = matches!(happening, Happening::Arrives { .. });
        if stopped_until > self.now && !at_server {
            // A stopped process finds its timers and its mail when it goes on.
            self.schedule(stopped_until, index, happening);
            return;
        }
        let life = self.nodes[index].life;
        let alive = self.nodes[index].alive;
        match happening {
            Happening::Arrives {
                from,
                life,
                id,
                request,
            } => self.arrives(from, life, id, request),
            Happening::Restart => self.restart(index),
            Happening::Wake(meant) if alive && meant == life => {
                self.nodes[index].wake_at = None;
                self.give(index, Event::Tick);
            }
            Happening::Second(meant) if alive && meant == life => self.second(index),
            Happening::Answered {
                life: meant,
                id,
                response,
            } if alive && meant == life => {
                self.answered(index, id, response);
            }
            Happening::GivenUp { life: meant, id } if alive && meant == life => {
                self.given_up(index, id);
            }
            Happening::Heard { life: meant, event } if alive && meant == life => {
                self.give(index, event);
            }
            Happening::Wake(_)
            | Happening::Second(_)
            | Happening::Answered { .. }
            | Happening::GivenUp { .. }
            | Happening::Heard { .. } => {}
        }
    }

    fn start(&mut self, index: usize) {
        let life = self.nodes[index].life;
        let first = self.now + Duration::from_millis(self.rng.random_range(0..1_000));
        self.schedule(first, index, Happening::Second(life));
        self.give(index, Event::Tick);
    }

    fn restart(&mut self, index: usize) {
        let life = self.nodes[index].life + 1;
        let part = self.nodes[index].part;
        self.nodes[index] = Node::new(index, part, life, self.now, self.skew, &mut self.rng);
        self.note(index, "started");
        self.start(index);
    }

    /// Gives `event` to a machine, and does what it then asks for.
    fn give(&mut self, index: usize, event: Event) {
        let led = self.nodes[index].claim(self.now).map(|claim| claim.token);
        self.nodes[index].take(event, self.now);
        let leads = self.nodes[index].claim(self.now);
        if let Some(claim) = &leads
            && led.as_ref() != Some(&claim.token)
        {
            self.note(index, &format!("leads after term {}", claim.after_term));
            self.reigns.push((self.now, claim.holder.clone()));
        }
        if leads.is_some() {
            let others: Vec<_> = (0..self.nodes.len())
                .filter(|other| *other != index && self.leads(*other))
                .collect();
            for other in others {
                let (one, two) = (&self.nodes[index].identity, &self.nodes[other].identity);
                self.violations.push(format!(
                    "{one} and {two} both hold a valid claim at {:?}",
                    self.now
                ));
            }
        }
        if let Some(action) = self.nodes[index].machine.poll_action() {
            let id = self.send(index, Request::Lease(action));
            self.nodes[index].asking = Some(id);
        }
        self.say_goodbye(index);
        let node = &mut self.nodes[index];
        if let Some(timeout) = node.machine.poll_timeout() {
            let at = node.world_time(timeout).max(self.now);
            if node.wake_at.is_none_or(|wake_at| at < wake_at) {
                node.wake_at = Some(at);
                let life = node.life;
                self.schedule(at, index, Happening::Wake(life));
            }
        }
    }

    fn say_goodbye(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let heir = if node.machine.has_yielded() {
            node.heir.take()
        } else {
            None
        };
        let goes = node.machine.is_retired() && !node.said_goodbye;
        if !goes && heir.is_none() {
            return;
        }
        node.said_goodbye |= goes;
        let from = node.identity.clone();
        let first = || self.succession(index).into_iter().next();
        let successor = heir.or_else(|| first().map(|heir| heir.identity));
        self.note(index, &format!("goodbye, {successor:?}"));
        for other in 0..self.nodes.len() {
            let (from, successor) = (from.clone(), successor.clone());
            self.tell(index, other, Event::Goodbye { from, successor });
        }
    }

    fn second(&mut self, index: usize) {
        let node = &self.nodes[index];
        let (life, next) = (node.life, self.now + node.in_world(Duration::from_secs(1)));
        self.schedule(next, index, Happening::Second(life));
        let Some(claim) = self.nodes[index].claim(self.now) else {
            return;
        };
        let heirs = self.succession(index);
        let (part, now) = (
            self.nodes[index].part,
            self.nodes[index].now(self.now).instant,
        );
        let preference = &mut self.nodes[index].preference;
        if let Some(heir) = preference.heir(part, &heirs, now).map(str::to_owned) {
            self.note(index, &format!("yields to {heir}"));
            self.nodes[index].heir = Some(heir);
            self.yields += 1;
            return self.give(index, Event::Yield);
        }
        let standbys = self.standbys(index);
        let lead_stands_by = standbys
            .iter()
            .any(|standby| self.nodes[*standby].part == Part::Lead);
        let members = u32::try_from(self.nodes.len()).expect("a small fleet");
        let term = self.nodes[index]
            .term
            .as_ref()
            .map_or(claim.after_term + 1, |term| term.number);
        for other in 0..self.nodes.len() {
            let beacon = Beacon {
                holder: claim.holder.clone(),
                term,
                renewed: claim.renewed.clone(),
                members,
                standby: standbys.contains(&other),
                defers: lead_stands_by && self.nodes[other].part != Part::Lead,
            };
            self.tell(index, other, Event::Beacon(beacon));
        }
        if self.nodes[index].turning.is_none() {
            let id = self.send(index, Request::View);
            self.nodes[index].turning = Some(id);
        }
    }

    /// By the member channel. Lines of one channel stay in order; here they may not, which is worse.
    fn tell(&mut self, from: usize, to: usize, event: Event) {
        let deaf = self.nodes[to].deaf_until > self.now || self.nodes[from].deaf_until > self.now;
        if from == to || deaf || !self.nodes[to].alive {
            return;
        }
        if let Some(delay) = self.delay() {
            let life = self.nodes[to].life;
            self.schedule(self.now + delay, to, Happening::Heard { life, event });
        }
    }

    // The way to the API server and back.

    fn send(&mut self, index: usize, request: Request) -> u64 {
        self.sequence += 1;
        let id = self.sequence;
        let node = &self.nodes[index];
        let (life, cut_off) = (node.life, node.cut_off_until > self.now);
        let patience = node.in_world(Timings::default().request_timeout());
        if !cut_off && let Some(delay) = self.delay() {
            let from = index;
            self.schedule(
                self.now + delay,
                index,
                Happening::Arrives {
                    from,
                    life,
                    id,
                    request,
                },
            );
        }
        self.schedule(self.now + patience, index, Happening::GivenUp { life, id });
        id
    }

    fn arrives(&mut self, from: usize, life: u32, id: u64, request: Request) {
        if self.down_until > self.now {
            return;
        }
        let writes_lease = matches!(
            request,
            Request::Lease(Action::Create(_) | Action::Put { .. })
        );
        self.note(from, &format!("{request:?}"));
        let response = self.store.apply(self.now, request);
        if writes_lease && matches!(response, Response::Lease(Answer::Written { .. })) {
            self.show_the_watchers();
        }
        if self.nodes[from].cut_off_until <= self.now
            && let Some(delay) = self.delay()
        {
            self.schedule(
                self.now + delay,
                from,
                Happening::Answered { life, id, response },
            );
        }
    }

    fn show_the_watchers(&mut self) {
        let Some((record, version)) = self.store.lease.clone() else {
            return;
        };
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let life = node.life;
            let watches =
                node.alive && node.cut_off_until <= self.now && node.machine.watch_from().is_some();
            if watches && let Some(delay) = self.delay() {
                let event = Event::Watched {
                    record: record.clone(),
                    version: version.clone(),
                };
                self.schedule(self.now + delay, index, Happening::Heard { life, event });
            }
        }
    }

    fn answered(&mut self, index: usize, id: u64, response: Response) {
        let node = &mut self.nodes[index];
        if node.asking == Some(id) {
            node.asking = None;
            if let Response::Lease(answer) = response {
                self.give(index, Event::Answer(answer));
            }
        } else if node.turning == Some(id) {
            node.turning = None;
            match response {
                Response::View(view) => {
                    if let Some(request) = node.decide(&view, self.now) {
                        let id = self.send(index, request);
                        self.nodes[index].turning = Some(id);
                    }
                    self.give(index, Event::Tick);
                }
                Response::Stamped(term) => {
                    let number = term.number;
                    node.term = Some(term);
                    self.give(index, Event::Stamped(number));
                }
                Response::Scaled | Response::Conflict | Response::Lease(_) => {}
            }
        }
    }

    fn given_up(&mut self, index: usize, id: u64) {
        let node = &mut self.nodes[index];
        if node.asking == Some(id) {
            node.asking = None;
            self.give(index, Event::Answer(Answer::Failed));
        } else if node.turning == Some(id) {
            node.turning = None;
        }
    }

    /// How long a message is under way; `None`: for ever.
    fn delay(&mut self) -> Option<Duration> {
        let Network { usual, stuck, lost } = self.network;
        if self.rng.random_bool(lost) {
            None
        } else if self.rng.random_bool(stuck) {
            Some(Duration::from_millis(self.rng.random_range(0..60_000)))
        } else {
            Some(usual.mul_f64(self.rng.random()))
        }
    }

    fn schedule(&mut self, at: Duration, index: usize, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), (index, happening));
    }

    fn note(&mut self, index: usize, what: &str) {
        if self.log.len() >= 80 {
            self.log.pop_front();
        }
        let line = format!(
            "{:>12.6} {} {what}",
            self.now.as_secs_f64(),
            self.nodes[index].identity
        );
        self.log.push_back(line);
    }
}
