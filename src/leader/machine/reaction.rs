//! What an event changes.

use std::time::Duration;

use rand::CryptoRng;

use super::{Answer, Beacon, End, Machine, Purpose, Reign, Sent, Standing};
use crate::clock::{Instant, Now};
use crate::leader::{Claim, Record};

// === impl Machine ===

impl Machine {
    pub(super) fn let_lapse(&mut self, now: Instant) {
        if let Standing::Leading(reign) = &self.standing
            && !reign.claim.is_valid(now)
        {
            self.end(End::Lapsed, now);
        }
        self.sight.forget_a_silent_leader(now);
    }

    fn end(&mut self, end: End, now: Instant) {
        self.standing = Standing::Candidate;
        self.last_end = Some(end);
        self.standby = false;
        self.lively_looks = 0;
        self.found_expired = false;
        self.look_at = now;
    }

    pub(super) fn answered(&mut self, answer: Answer, now: Now, rng: &mut impl CryptoRng) {
        let Some(sent) = self.sent.take() else {
            return;
        };
        if answer != Answer::Failed {
            self.failures = 0;
        }
        match (answer, sent) {
            (Answer::Found { record, version }, _) => self.found(record, version, now.instant, rng),
            (Answer::Missing, _) => {
                if self.is_leading() {
                    self.end(End::LeaseGone, now.instant);
                }
                self.missed(now.instant, rng);
            }
            (
                Answer::Written { version },
                Sent::Write {
                    purpose,
                    record,
                    at,
                },
            ) => {
                self.written(purpose, record, version, at, now.instant);
            }
            (Answer::Conflict, _) => self.outrun(now.instant),
            // A driver that answers a Get with a version has answered nothing.
            (Answer::Failed, _) | (Answer::Written { .. }, Sent::Look) => {
                self.failed(now.instant, rng);
            }
        }
    }

    fn found(&mut self, record: Record, version: String, now: Instant, rng: &mut impl CryptoRng) {
        if let Standing::Leading(reign) = &mut self.standing {
            let mine =
                record.holder == self.identity && record.token_sha256 == reign.record.token_sha256;
            if mine {
                // The renewal whose answer was lost had been written. It counts when the next one is answered.
                reign.claim.renewed.clone_from(&version);
                reign.doubted = false;
                reign.renew_at = now;
                self.sight.read(record, version, now);
                return;
            }
            self.end(End::Replaced, now);
        }
        let changed = self.saw(record, version, now, rng);
        if !changed && self.sight.expiry() <= now {
            self.found_expired = true;
        }
        if changed {
            self.lively_looks += 1;
        }
        self.look_at = self.next_look(changed, now, rng);
    }

    /// The Lease was read, be it by a Get or by the watch. Says whether it shows a change.
    pub(super) fn saw(
        &mut self,
        record: Record,
        version: String,
        now: Instant,
        rng: &mut impl CryptoRng,
    ) -> bool {
        let free = record.is_free();
        let first = self.sight.is_unread();
        if !self.sight.read(record, version, now) {
            return false;
        }
        self.found_expired = false;
        if free {
            self.hold_off = now + self.courtesy(first, rng);
        }
        if self.standby {
            self.look_at = self.quiet_until(rng);
        }
        true
    }

    pub(super) fn missed(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        let first = self.sight.is_unread();
        self.sight.read_nothing(now);
        self.hold_off = now + self.courtesy(first, rng);
        self.look_at = now + self.timings.lease_duration();
    }

    fn written(
        &mut self,
        purpose: Purpose,
        record: Record,
        version: String,
        at: Instant,
        now: Instant,
    ) {
        let valid_until = at + self.timings.renew_deadline();
        let renew_at = at + self.timings.retry_period();
        self.sight.read(record.clone(), version.clone(), now);
        match purpose {
            Purpose::Acquire(token) if now < valid_until => {
                let claim = Claim {
                    holder: self.identity.clone(),
                    token,
                    after_term: record.highest_term(),
                    renewed: version,
                    valid_until,
                };
                self.bequeathed_by = None;
                self.standing = Standing::Leading(Box::new(Reign {
                    claim,
                    record,
                    renew_at,
                    doubted: false,
                }));
            }
            Purpose::Renew => {
                // A reign that lapsed while its renewal was under way stays over: the Lease still names me, so the
                // next reign, with a token of its own, begins at once.
                if let Standing::Leading(reign) = &mut self.standing
                    && reign.record.token_sha256 == record.token_sha256
                {
                    reign.claim.valid_until = valid_until;
                    reign.claim.renewed = version;
                    reign.renew_at = renew_at;
                }
            }
            // Read again before it is taken back: by then the named one has it.
            Purpose::Release => {
                self.sight.outdate();
                self.look_at = self.hold_off;
            }
            Purpose::Acquire(_) => {}
        }
    }

    fn outrun(&mut self, now: Instant) {
        self.sight.outdate();
        self.look_at = now;
        if let Standing::Leading(reign) = &mut self.standing {
            reign.doubted = true;
            reign.renew_at = now;
        }
    }

    fn failed(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        self.failures = self.failures.saturating_add(1);
        // A leader's next attempt is counted from its last one, so after a time-out it is due at once.
        if !self.is_leading() {
            // A write may have been done: read before the next.
            self.sight.outdate();
            self.look_at = now + self.back_off(rng);
        }
    }

    pub(super) fn heard(&mut self, beacon: &Beacon, now: Instant, rng: &mut impl CryptoRng) {
        if self.is_leading() || beacon.holder == self.identity {
            return;
        }
        let news = self.sight.hear(beacon, now);
        let role_changed = self.standby != beacon.standby;
        self.standby = beacon.standby && self.part.may_lead();
        if !beacon.defers {
            self.deference = Duration::ZERO;
        } else if self.deference.is_zero() {
            self.deference = self.give_way(rng);
        }
        self.members = beacon.members.max(1);
        if news {
            self.bequeathed_by = None;
            self.lively_looks = 0;
            self.found_expired = false;
        }
        // A standby has to read once, to know from where to watch; and so has one whose last request failed, to know that the
        // trouble is over.
        let must_read = self.standby && self.sight.is_unread() || self.failures > 0;
        if (news || role_changed) && !must_read {
            self.look_at = self.quiet_until(rng);
        }
    }

    pub(super) fn bidden_farewell(&mut self, from: String, successor: Option<&str>, now: Instant) {
        if successor == Some(&self.identity) && !self.is_leading() {
            self.hold_off = now;
            self.bequeathed_by = Some(from);
            if !self.standby {
                // What was read long ago is no basis for a write.
                self.sight.outdate();
            }
            if !self.sight.is_free() {
                self.look_at = now;
            }
        }
    }

    pub(super) fn stamped(&mut self, term: u64) {
        if let Standing::Leading(reign) = &mut self.standing {
            reign.record.term = reign.record.term.max(term);
            reign.claim.after_term = reign.record.highest_term();
        }
    }

    pub(super) fn deposed(&mut self, now: Instant) {
        if self.is_leading() {
            self.end(End::Deposed, now);
            // Should the Lease be mine after all, the next reign stamps above what it met. Not at once, so that two who
            // both believe in their Lease do not spin.
            self.hold_off = now + self.timings.retry_period();
        }
    }
}
