//! The leader's end of the member channel: one stream to every pod that has an address.
//!
//! The leader dials, so a follower needs to know nobody, and a pod that nobody may reach is simply unknown. Down each
//! stream go the hello with the term's token, a beacon every second and at once when there is news, and orders to drain;
//! up come reports. A stream that breaks is opened again with a jittered delay; since reports are cumulative nothing is
//! lost but time. All streams end with the [`Channels`] value: a leader whose claim lapses drops it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::fleet::Pod;
use crate::fleet::channel::stream::{End, Link, Peer};
use crate::lifecycle::Tasks;
use crate::report::{Beacon, Down, Hello, Past, Report};

mod stream;

/// The member port, where nothing else is set.
pub const MEMBER_PORT: u16 = 9190;

/// Room for lines that the leader has not taken yet: one second of a fleet of a thousand. A leader that lags further makes
/// its members wait, which costs nothing: the next report has the sum.
pub const LINES_BOUND: usize = 1024;

/// Between two beacons, and by the member between two reports.
pub const BEAT: Duration = Duration::from_secs(1);

/// The first delay before a broken stream is opened again; it doubles with each failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// The longest such delay. A starting pod refuses connections for as long as its container is not up: doubled, its first
/// minute of reports would begin later by as much; halved, a fleet of a thousand lost pods costs 500 dials a second.
const BACKOFF_LONGEST: Duration = Duration::from_secs(4);

/// Orders that wait for one member's stream: a drain and a goodbye, and room for an impatient caller.
const OUTBOX_BOUND: usize = 8;

/// How long a goodbye waits for members to have read it. A leader on its way out has the grace period's seconds to spare,
/// not more; who misses it waits for the lease to lapse as after a crash.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Something that came up from a member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberLine {
    /// The pod that was dialled.
    pub pod: String,
    /// What it said.
    pub said: Said,
}

/// What a member said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Its present, in time.
    Report(Report),
    /// Its present, ahead of time: it is overrun, and the plan should not wait for its next turn.
    Overrun(Report),
    /// Its past, once for each member and leader.
    Past(Past),
    /// It speaks another major version of the wire format.
    Foreign {
        /// That version.
        v: u32,
    },
    /// Its stream has ended; it will be dialled again.
    Ended,
}

/// The order could not be given: no stream to that member stands now. It is not kept for later, when the plan may be
/// another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no member channel to pod `{pod}` is open (is its port reachable from the leader?)")]
pub struct NotConnected {
    /// The pod.
    pub pod: String,
}

/// The streams to all members.
#[derive(Debug)]
pub struct Channels {
    link: Arc<Link>,
    beacon: watch::Receiver<Beacon>,
    lines: mpsc::Sender<MemberLine>,
    members: BTreeMap<String, Channel>,
    rng: StdRng,
    /// Held by every stream's task: when all copies are gone, so are the streams.
    alive: mpsc::Sender<()>,
    all_ended: mpsc::Receiver<()>,
}

/// The stream to one member.
#[derive(Debug)]
struct Channel {
    ip: String,
    outbox: mpsc::Sender<Down>,
    is_open: Arc<AtomicBool>,
    /// Ends with this value.
    _tasks: Tasks,
}

// === impl Channels ===

impl Channels {
    /// No stream yet. `hello` goes down each stream first; a later value of `beacon` at once, and the last one every
    /// second. What comes up goes to `lines` (of [`LINES_BOUND`]). Without the sender of `beacon` all streams end.
    pub fn new(
        clock: Clock,
        port: u16,
        hello: Hello,
        beacon: watch::Receiver<Beacon>,
        lines: mpsc::Sender<MemberLine>,
        rng: StdRng,
    ) -> Self {
        let (alive, all_ended) = mpsc::channel(1);
        Self {
            link: Arc::new(Link { clock, port, hello }),
            beacon,
            lines,
            members: BTreeMap::new(),
            rng,
            alive,
            all_ended,
        }
    }

    /// Opens streams to the pods that have an address and none yet, and ends those of pods that are gone or moved.
    /// Cheap when nothing has changed. Must be called inside a runtime.
    pub fn follow<'a>(&mut self, pods: impl IntoIterator<Item = &'a Pod>) {
        let addresses: BTreeMap<&str, &str> = pods
            .into_iter()
            .filter_map(|pod| Some((pod.name.as_str(), pod.ip.as_deref()?)))
            .collect();
        self.members
            .retain(|name, channel| addresses.get(name.as_str()) == Some(&channel.ip.as_str()));
        for (name, ip) in addresses {
            if !self.members.contains_key(name) {
                let channel = self.open(name, ip);
                self.members.insert(name.to_owned(), channel);
            }
        }
    }

    /// Gives an order to one member, if its stream stands.
    pub fn tell(&self, pod: &str, order: Down) -> Result<(), NotConnected> {
        let open = self
            .members
            .get(pod)
            .filter(|channel| channel.is_open.load(Ordering::Acquire));
        open.and_then(|channel| channel.outbox.try_send(order).ok())
            .ok_or_else(|| NotConnected {
                pod: pod.to_owned(),
            })
    }

    /// How many streams stand.
    pub fn open_streams(&self) -> usize {
        self.members
            .values()
            .filter(|channel| channel.is_open.load(Ordering::Acquire))
            .count()
    }

    /// Tells every member that the leader goes and who may follow, waits until they have read it (or a second), and ends
    /// all streams.
    pub async fn goodbye(self, successor: Option<String>) {
        let Self {
            link,
            members,
            alive,
            mut all_ended,
            lines: _,
            beacon: _keep_beacon_receiver,
            rng: _,
        } = self;
        drop(alive);
        let mut told = Vec::new();
        for channel in members.into_values() {
            let order = Down::Goodbye {
                successor: successor.clone(),
            };
            // A member without a stream cannot be told; its task is dropped with it.
            if channel.is_open.load(Ordering::Acquire) && channel.outbox.try_send(order).is_ok() {
                told.push(channel);
            }
        }
        let ended = link.clock.timeout(GOODBYE_WITHIN, all_ended.recv()).await;
        if ended.is_err() {
            tracing::warn!(
                "some members did not read the goodbye in {GOODBYE_WITHIN:?}; they wait for the lease to lapse"
            );
        }
    }

    fn open(&mut self, pod: &str, ip: &str) -> Channel {
        let (outbox, orders) = mpsc::channel(OUTBOX_BOUND);
        let is_open = Arc::new(AtomicBool::new(false));
        let peer = Peer {
            pod: pod.to_owned(),
            ip: ip.to_owned(),
            link: Arc::clone(&self.link),
            beacon: self.beacon.clone(),
            orders,
            lines: self.lines.clone(),
            is_open: Arc::clone(&is_open),
            past_since_millis: self.link.hello.past_since_millis,
        };
        let rng = StdRng::seed_from_u64(self.rng.random());
        let alive = self.alive.clone();
        let tasks = Tasks::here();
        tasks.spawn(async move {
            keep_open(peer, rng).await;
            drop(alive);
        });
        Channel {
            ip: ip.to_owned(),
            outbox,
            is_open,
            _tasks: tasks,
        }
    }
}

/// Holds one stream open until the leader goes.
async fn keep_open(mut peer: Peer, mut rng: StdRng) {
    let mut delay = BACKOFF_FIRST;
    loop {
        match peer.converse().await {
            End::LeaderGoes => return,
            End::Broken { was_heard: true } => delay = BACKOFF_FIRST,
            End::Broken { was_heard: false } => {}
        }
        // Between half and whole: a node that comes back is not dialled by all at the same moment.
        let jittered = delay.mul_f64(rng.random_range(0.5..1.0));
        peer.link.clock.sleep(jittered).await;
        delay = (delay * 2).min(BACKOFF_LONGEST);
    }
}
