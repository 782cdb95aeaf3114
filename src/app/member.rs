//! This pod as a member: what it reports, and whom it believes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::faults::Fault;
use super::shared::Shared;
use crate::clock::Timestamp;
use crate::fleet::member::{Source, Verdict, Verify};
use crate::leader::Part;
use crate::report::{Hello, Past, Report};

/// Members of a fleet meet a new leader all at once; so much time spreads their questions to the API server.
const JITTER: Duration = Duration::from_millis(500);

/// What this pod reports.
pub(super) struct Reporter(pub(super) Arc<Shared>);

/// Believes whom the Lease names: one GET for each term.
pub(super) struct LeaseVerifier {
    shared: Arc<Shared>,
    rng: Mutex<StdRng>,
}

// === impl Reporter ===

impl Source for Reporter {
    fn report(&self) -> Report {
        self.0.report()
    }

    fn past(&self, since: Timestamp) -> Past {
        if self.0.config.part == Part::Lead {
            return Past::default();
        }
        self.0.meter().past(self.0.clock.now(), since.as_millis())
    }
}

// === impl LeaseVerifier ===

impl LeaseVerifier {
    pub(super) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        // Another stream than the identity's.
        let rng = Mutex::new(StdRng::seed_from_u64(seed ^ 0x6d65_6d62));
        Self { shared, rng }
    }
}

impl Verify for LeaseVerifier {
    async fn verify(&self, hello: &Hello) -> Verdict {
        let Some(candidacy) = self.shared.candidacy().borrow().clone() else {
            // Not yet connected to the API: nobody can be judged.
            return Verdict::Unavailable;
        };
        // A leader knows itself without asking.
        if let Some(claim) = candidacy.leadership().borrow().claim() {
            self.shared.faults.clear(Fault::Verify);
            let is_me = claim.holder == hello.holder && claim.token.reveal() == hello.token;
            return if is_me {
                Verdict::Genuine
            } else {
                Verdict::Impostor
            };
        }
        let wait = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            JITTER.mul_f64(rng.random())
        };
        self.shared.clock.sleep(wait).await;
        let verified = candidacy.verify(&hello.holder, &hello.token).await;
        if verified.is_ok() {
            self.shared.faults.clear(Fault::Verify);
        }
        match verified {
            Ok(true) => Verdict::Genuine,
            Ok(false) => Verdict::Impostor,
            Err(fault) => {
                let text = crate::causes::chain(&fault);
                self.shared.faults.raise(Fault::Verify, text);
                Verdict::Unavailable
            }
        }
    }
}
