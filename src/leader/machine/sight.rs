//! What one process has seen of the Lease, and since when it has seen no change.

use std::time::Duration;

use super::Beacon;
use crate::clock::Instant;
use crate::leader::{Leader, Record};

/// What stood there at the last read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// No Lease.
    Missing,
    /// A Lease that says this.
    Lease(Record),
}

/// What was seen of the Lease.
#[derive(Debug)]
pub(super) struct Sight {
    me: String,
    fallback_duration: Duration,
    content: Option<Content>,
    /// The version of `content`, where it is a Lease.
    version: Option<String>,
    /// The version that the last beacon told.
    told: Option<String>,
    /// The highest term that a beacon named since the Lease was last seen to change hands.
    highest_term: u64,
    /// A write met another version, or its outcome is unknown: `content` is no basis for the next write.
    outdated: bool,
    since: Instant,
    leader: Option<Leader>,
}

// === impl Sight ===

impl Sight {
    pub(super) fn new(me: String, fallback_duration: Duration, now: Instant) -> Self {
        Self {
            me,
            fallback_duration,
            content: None,
            version: None,
            told: None,
            highest_term: 0,
            outdated: false,
            since: now,
            leader: None,
        }
    }

    /// Takes a read in; says whether it shows a change since the last news.
    pub(super) fn read(&mut self, record: Record, version: String, now: Instant) -> bool {
        let known = Some(&version) == self.version.as_ref() || Some(&version) == self.told.as_ref();
        if !known {
            self.since = now;
        }
        self.leader = self.leader_by(&record, now);
        if self
            .leader
            .as_ref()
            .is_some_and(|leader| leader.term.is_none())
        {
            self.highest_term = 0;
        }
        self.content = Some(Content::Lease(record));
        self.version = Some(version);
        self.outdated = false;
        !known
    }

    /// There is no Lease.
    pub(super) fn read_nothing(&mut self, now: Instant) {
        if self.content != Some(Content::Missing) {
            self.since = now;
        }
        self.content = Some(Content::Missing);
        self.version = None;
        self.leader = None;
        self.outdated = false;
    }

    /// Takes a beacon in; says whether it is a sign of life.
    ///
    /// A value that was told or read before is none: a leader that cannot reach the API server repeats its last. Nor is one
    /// of an older term: a deposed leader that still talks beside the new one would make every value differ from the last.
    pub(super) fn hear(&mut self, beacon: &Beacon, now: Instant) -> bool {
        if beacon.term < self.highest_term {
            return false;
        }
        self.highest_term = beacon.term;
        let known = Some(&beacon.renewed) == self.told.as_ref()
            || Some(&beacon.renewed) == self.version.as_ref();
        self.told = Some(beacon.renewed.clone());
        if !known {
            self.since = now;
        }
        if known && self.expiry() <= now {
            return false;
        }
        let token_sha256 = self
            .leader
            .take_if(|leader| leader.holder == beacon.holder)
            .and_then(|leader| leader.token_sha256);
        self.leader = Some(Leader {
            holder: beacon.holder.clone(),
            term: Some(beacon.term),
            token_sha256,
        });
        !known
    }

    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    pub(super) fn forget_a_silent_leader(&mut self, now: Instant) {
        if self.expiry() <= now {
            self.leader = None;
        }
    }

    pub(super) fn leader(&self) -> Option<&Leader> {
        self.leader.as_ref()
    }

    /// When the last change was seen.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// When the Lease may be taken if nothing is seen until then. The holder's own duration counts, as in client-go: it
    /// is the one that it promised to keep to.
    pub(super) fn expiry(&self) -> Instant {
        match &self.content {
            Some(Content::Lease(record)) => self.expiry_of(record),
            Some(Content::Missing) | None => self.since + self.fallback_duration,
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        self.content.is_none()
    }

    pub(super) fn is_free(&self) -> bool {
        !self.outdated
            && match &self.content {
                Some(Content::Lease(record)) => record.is_free(),
                Some(Content::Missing) => true,
                None => false,
            }
    }

    /// What the next write may build on.
    pub(super) fn content(&self) -> Option<&Content> {
        self.content.as_ref().filter(|_known| !self.outdated)
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn leader_by(&self, record: &Record, now: Instant) -> Option<Leader> {
        if record.is_free() || record.holder == self.me || self.expiry_of(record) <= now {
            return None;
        }
        let term = self
            .leader
            .as_ref()
            .filter(|leader| leader.holder == record.holder)
            .and_then(|leader| leader.term);
        Some(Leader {
            holder: record.holder.clone(),
            term,
            token_sha256: Some(record.token_sha256.clone()).filter(|hash| !hash.is_empty()),
        })
    }

    fn expiry_of(&self, record: &Record) -> Instant {
        let duration = if record.lease_duration.is_zero() {
            self.fallback_duration
        } else {
            record.lease_duration
        };
        self.since + duration
    }
}
