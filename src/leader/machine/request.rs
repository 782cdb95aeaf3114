//! What to send next.

use rand::{CryptoRng, RngExt as _};

use super::sight::Content;
use super::{Action, End, Leave, Machine, Purpose, Sent, Standing};
use crate::clock::{Instant, Now};
use crate::leader::{Record, Token};

// === impl Machine ===

impl Machine {
    pub(super) fn advance(&mut self, now: Now, rng: &mut impl CryptoRng) {
        if self.sent.is_some() {
            return;
        }
        match self.leaving {
            Some(Leave::ForGood) => return self.release(End::Released, Standing::Retired, now),
            Some(Leave::Yield) => {
                self.leaving = None;
                self.yield_lease(now, rng);
            }
            None => {}
        }
        if self.sent.is_some() || !self.part.may_lead() {
            return;
        }
        match &mut self.standing {
            Standing::Leading(reign) if reign.renew_at <= now.instant => {
                reign.renew_at = now.instant + self.timings.retry_period();
                if reign.doubted {
                    self.look();
                } else {
                    self.renew(now);
                }
            }
            Standing::Candidate => {
                if self.compete_at().is_some_and(|at| at <= now.instant) {
                    self.compete(now, rng);
                } else if self.look_at <= now.instant {
                    self.look();
                }
            }
            Standing::Leading(_) | Standing::Retired => {}
        }
    }

    fn look(&mut self) {
        self.action = Some(Action::Get);
        self.sent = Some(Sent::Look);
    }

    fn compete(&mut self, now: Now, rng: &mut impl CryptoRng) {
        let token = Token::draw(rng);
        let mut record = match self.sight.content() {
            Some(Content::Lease(record)) => record.clone(),
            Some(Content::Missing) | None => Record::default(),
        };
        // client-go counts changes of holder; a holder that wins its own Lease again is no change.
        let created = matches!(self.sight.content(), Some(Content::Missing));
        if record.holder != self.identity && !created {
            record.transitions += 1;
        }
        record.holder.clone_from(&self.identity);
        record.lease_duration = self.timings.lease_duration();
        record.acquired = now.timestamp;
        record.renewed = now.timestamp;
        record.token_sha256 = token.sha256();
        self.found_expired = false;
        let action = match self.sight.version() {
            Some(version) => Action::Put {
                record: record.clone(),
                version: version.to_owned(),
            },
            None => Action::Create(record.clone()),
        };
        self.write(action, Purpose::Acquire(token), record, now.instant);
    }

    fn renew(&mut self, now: Now) {
        let Standing::Leading(reign) = &mut self.standing else {
            return;
        };
        reign.record.renewed = now.timestamp;
        let record = reign.record.clone();
        let action = Action::Put {
            record: record.clone(),
            version: reign.claim.renewed.clone(),
        };
        self.write(action, Purpose::Renew, record, now.instant);
    }

    fn yield_lease(&mut self, now: Now, rng: &mut impl CryptoRng) {
        // After everybody else, also where the claim has lapsed meanwhile: only who finds that nobody wanted it takes it back.
        self.hold_off = now.instant + self.timings.jittered_retry(rng.random());
        if self.is_leading() {
            self.standby = false;
            self.release(End::Yielded, Standing::Candidate, now);
        }
    }

    fn release(&mut self, end: End, then: Standing, now: Now) {
        match std::mem::replace(&mut self.standing, then) {
            Standing::Leading(reign) => {
                self.last_end = Some(end);
                let record = Record {
                    holder: String::new(),
                    token_sha256: String::new(),
                    renewed: now.timestamp,
                    ..reign.record
                };
                let action = Action::Put {
                    record: record.clone(),
                    version: reign.claim.renewed,
                };
                self.write(action, Purpose::Release, record, now.instant);
            }
            Standing::Candidate | Standing::Retired => {}
        }
    }

    fn write(&mut self, action: Action, purpose: Purpose, record: Record, at: Instant) {
        self.action = Some(action);
        self.sent = Some(Sent::Write {
            purpose,
            record,
            at,
        });
    }
}
