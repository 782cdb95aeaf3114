//! The rules of the election, without input or output: events in, requests and a [`Leadership`] out.
//!
//! The driver feeds every [`Event`] with the time, sends what [`Machine::poll_action`] returns, answers each request
//! exactly once, and comes back at [`Machine::poll_timeout`]. At most one request is under way, so an answer needs no
//! number. Three rules carry the safety:
//!
//! - a Lease is taken only after this process has itself seen it unchanged for the lease duration, or when it is free;
//! - every write carries the version that was read, so of two who take it one wins;
//! - a claim counts from before its renewal was *sent*: counted from the answer, a slow answer would stretch it past the
//!   moment when others, who count from the write, may take over.
//!
//! The load on the API server does not grow with the fleet: the leader renews, two standbys watch, and all others hear the
//! leader's beacons over the member channel and ask only when these stop.

mod event;
mod patience;
mod reaction;
mod request;
mod sight;

use std::time::Duration;

use rand::CryptoRng;

pub use self::event::{Action, Answer, Beacon, End, Event};
use self::sight::Sight;
use super::{Claim, Leadership, Part, Record, Timings, Token};
use crate::clock::{Instant, Now};

/// One process's part in the election.
#[derive(Debug)]
pub struct Machine {
    identity: String,
    part: Part,
    timings: Timings,
    sight: Sight,
    standing: Standing,
    standby: bool,
    /// How much later than its expiry a Lease is taken, for a lead that would take it then.
    deference: Duration,
    members: u32,
    action: Option<Action>,
    sent: Option<Sent>,
    /// When a candidate reads the Lease next.
    look_at: Instant,
    /// A candidate does not write before this, so that a free Lease is not stormed.
    hold_off: Instant,
    /// A read found the Lease unchanged for the lease duration: those who do not watch may take it now.
    found_expired: bool,
    /// Reads in a row that found a change, without a beacon in between.
    lively_looks: u32,
    /// Failed requests in a row.
    failures: u32,
    /// The holder that said goodbye and named me.
    bequeathed_by: Option<String>,
    leaving: Option<Leave>,
    last_end: Option<End>,
}

/// How the Lease is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// To another, who is named in the goodbye. If that one does not take it, this process may.
    Yield,
    /// At the end of this process.
    ForGood,
}

#[derive(Debug)]
enum Standing {
    Candidate,
    Leading(Box<Reign>),
    Retired,
}

#[derive(Debug)]
struct Reign {
    claim: Claim,
    record: Record,
    renew_at: Instant,
    /// A renewal met another version: read before the next.
    doubted: bool,
}

/// The request under way.
#[derive(Debug)]
enum Sent {
    Look,
    Write {
        purpose: Purpose,
        record: Record,
        at: Instant,
    },
}

#[derive(Debug)]
enum Purpose {
    Acquire(Token),
    Renew,
    Release,
}

// === impl Machine ===

impl Machine {
    /// A candidate that reads the Lease at once, and takes it if it is free; a [`Part::Follower`] asks for nothing, and takes
    /// nothing.
    pub fn new(identity: String, part: Part, timings: Timings, now: Instant) -> Self {
        Self {
            sight: Sight::new(identity.clone(), timings.lease_duration(), now),
            identity,
            part,
            timings,
            standing: Standing::Candidate,
            standby: false,
            deference: Duration::ZERO,
            members: 1,
            action: None,
            sent: None,
            look_at: now,
            hold_off: now,
            found_expired: false,
            lively_looks: 0,
            failures: 0,
            bequeathed_by: None,
            leaving: None,
            last_end: None,
        }
    }

    /// Takes `event` in, and decides what to send next.
    pub fn handle(&mut self, event: Event, now: Now, rng: &mut impl CryptoRng) {
        self.let_lapse(now.instant);
        match event {
            Event::Tick => {}
            Event::Answer(answer) => self.answered(answer, now, rng),
            Event::Watched { record, version } => {
                if !self.is_leading() {
                    self.saw(record, version, now.instant, rng);
                }
            }
            Event::WatchedDeletion => {
                if !self.is_leading() {
                    self.missed(now.instant, rng);
                }
            }
            Event::Beacon(beacon) => self.heard(&beacon, now.instant, rng),
            Event::Goodbye { from, successor } => {
                self.bidden_farewell(from, successor.as_deref(), now.instant);
            }
            Event::Stamped(term) => self.stamped(term),
            Event::Deposed => self.deposed(now.instant),
            Event::Yield => self.leaving = self.leaving.or(Some(Leave::Yield)),
            Event::Release => self.leaving = Some(Leave::ForGood),
        }
        self.advance(now, rng);
    }

    /// The request to send now, to be answered by one [`Event::Answer`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// When to come back with [`Event::Tick`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lapse = match &self.standing {
            Standing::Leading(reign) => Some(reign.claim.valid_until),
            Standing::Candidate | Standing::Retired => None,
        };
        let silence = self.sight.leader().map(|_known| self.sight.expiry());
        let due = if self.sent.is_some() {
            None
        } else {
            self.due()
        };
        [lapse, silence, due].into_iter().flatten().min()
    }

    /// What this process knows of the leadership.
    pub fn leadership(&self) -> Leadership {
        match &self.standing {
            Standing::Leading(reign) if self.leaving.is_none() => {
                Leadership::Leading(reign.claim.clone())
            }
            Standing::Leading(_) | Standing::Candidate | Standing::Retired => {
                self.sight.leader().map_or(Leadership::Unknown, |leader| {
                    Leadership::Following(leader.clone())
                })
            }
        }
    }

    /// Whether the driver should watch the Lease, and from which version on.
    pub fn watch_from(&self) -> Option<&str> {
        if self.standby && matches!(self.standing, Standing::Candidate) {
            self.sight.version()
        } else {
            None
        }
    }

    /// Whether [`Event::Release`] has been carried out, as far as it could be.
    pub fn is_retired(&self) -> bool {
        matches!(self.standing, Standing::Retired) && self.sent.is_none()
    }

    /// Whether every [`Event::Yield`] has been carried out, as far as it could be.
    pub fn has_yielded(&self) -> bool {
        let is_releasing = matches!(
            self.sent,
            Some(Sent::Write {
                purpose: Purpose::Release,
                ..
            })
        );
        self.leaving != Some(Leave::Yield) && !is_releasing
    }

    /// Why the last reign ended.
    pub fn last_end(&self) -> Option<End> {
        self.last_end
    }

    fn is_leading(&self) -> bool {
        matches!(self.standing, Standing::Leading(_))
    }
}

#[cfg(test)]
mod tests;
