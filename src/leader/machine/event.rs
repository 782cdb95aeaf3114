//! What goes into the machine and what comes out of it.

use crate::leader::Record;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time: [`Machine::poll_timeout`](super::Machine::poll_timeout) has come.
    Tick,
    /// The request under way is answered, or given up.
    Answer(Answer),
    /// The watch shows the Lease.
    Watched {
        /// Its content.
        record: Record,
        /// Its resourceVersion.
        version: String,
    },
    /// The watch shows that the Lease was deleted.
    WatchedDeletion,
    /// The leader's sign of life came by the member channel.
    Beacon(Beacon),
    /// The leader has released the Lease and goes.
    Goodbye {
        /// The holder identity of the leader that goes.
        from: String,
        /// Who may take the Lease at once.
        successor: Option<String>,
    },
    /// My term is stamped on the Deployment: the next renewal records it in the Lease.
    Stamped(u64),
    /// The Deployment carries a higher term than mine: I lead no more, whatever the Lease says.
    Deposed,
    /// Somebody else should lead: give up the Lease, and leave it to the one that is named.
    Yield,
    /// Shutdown: give up the Lease, and do not take it again.
    Release,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a Get.
    Found {
        /// The Lease's content.
        record: Record,
        /// Its resourceVersion.
        version: String,
    },
    /// To a Get: there is no Lease.
    Missing,
    /// To a Create or Put: it is written.
    Written {
        /// The new resourceVersion.
        version: String,
    },
    /// To a Create or Put: somebody else wrote first.
    Conflict,
    /// Refused, broken or not answered in time. A write may or may not have been done.
    Failed,
}

/// The leader's sign of life, as it reaches a member once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beacon {
    /// The leader's holder identity.
    pub holder: String,
    /// Its term.
    pub term: u64,
    /// The Lease's resourceVersion after its last good renewal. A new value counts as having seen the Lease change; a
    /// repeated one is no sign of life, since a leader that cannot renew still talks.
    pub renewed: String,
    /// Members of the fleet.
    pub members: u32,
    /// Whether this member is one of the standbys.
    pub standby: bool,
    /// Whether a lead is one of the standbys, and this member is none: it leaves the Lease to it for a moment.
    pub defers: bool,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease.
    Get,
    /// Create the Lease.
    Create(Record),
    /// Replace the Lease, if it still has this version.
    Put {
        /// What it shall say.
        record: Record,
        /// The resourceVersion it must still have.
        version: String,
    },
}

/// Why a reign ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No renewal succeeded within the renew deadline.
    Lapsed,
    /// Another process holds the Lease.
    Replaced,
    /// The Lease was deleted under the leader.
    LeaseGone,
    /// The Deployment carries a higher term.
    Deposed,
    /// Given up to another, who should lead.
    Yielded,
    /// Given up at shutdown.
    Released,
}
