//! The past of the fleet: brought back when a reign begins or as soon as it can be had, and saved as it grows.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{AGAIN, CHECKPOINT, Throne};
use crate::app::checkpoint::{Loaded, Store};
use crate::app::faults::{Fault, Faults};
use crate::causes::chain;
use crate::clock::{Clock, Now};
use crate::controller::Controller;
use crate::history::History;
use crate::policy::Policy;

/// What is known of the past.
pub(super) enum Past {
    /// This.
    Known(Box<History>),
    /// Nobody has led before: there is nothing to know.
    New,
    /// It was lost. What a leader without it saved since, and for how long the whole fleet had been seen by then.
    Lost(Option<(Box<History>, Duration)>),
}

/// The past, and the store that has read it, after the reign has begun without.
pub(super) struct Late {
    store: Store,
    past: Past,
}

// === impl Past ===

impl Past {
    /// The controller of a reign that begins with it.
    pub(super) fn controller(self, policy: &Policy) -> Controller {
        match self {
            Self::Known(history) => Controller::new(Some(*history), policy),
            Self::New => Controller::new(Some(History::new(policy.prediction.history)), policy),
            Self::Lost(None) => Controller::new(None, policy),
            Self::Lost(Some((history, seen))) => {
                let mut controller = Controller::new(Some(*history), policy);
                controller.go_on_awaiting(seen);
                controller
            }
        }
    }
}

/// The history as the last leader saved it. Where the API server does not say, the reign begins without it, and the store
/// stays unknown.
pub(super) async fn bring_back(store: &mut Store, faults: &Faults, is_first: bool) -> Past {
    match store.load().await {
        Ok(loaded) => judge(loaded, faults, is_first),
        Err(text) => {
            raise(faults, &text);
            Past::Lost(None)
        }
    }
}

/// Asks until the API server says what there is: a request that failed once must not cost two weeks.
pub(super) async fn go_on_loading(
    mut store: Store,
    faults: Faults,
    is_first: bool,
    clock: Clock,
    late: mpsc::Sender<Box<Late>>,
) {
    loop {
        clock.sleep(AGAIN).await;
        match store.load().await {
            Ok(loaded) => {
                let past = judge(loaded, &faults, is_first);
                // Nobody takes it where the reign has ended.
                late.send(Box::new(Late { store, past })).await.ok();
                return;
            }
            Err(text) => raise(&faults, &text),
        }
    }
}

fn judge(loaded: Loaded, faults: &Faults, is_first: bool) -> Past {
    let (lost, past) = match loaded {
        Loaded::History {
            history,
            awaits: None,
        } => return Past::Known(history),
        Loaded::Nothing if is_first => return Past::New,
        Loaded::Nothing => {
            let lost =
                "the ConfigMap with the history is gone or empty, though this fleet was led before";
            (lost.to_owned(), Past::Lost(None))
        }
        Loaded::Unreadable(error) => (chain(&error), Past::Lost(None)),
        Loaded::History {
            history,
            awaits: Some(seen),
        } => {
            let lost = format!(
                "the history was lost before this leader, and the whole fleet was seen for {} s since",
                seen.as_secs()
            );
            (lost, Past::Lost(Some((history, seen))))
        }
    };
    raise(faults, &lost);
    past
}

fn raise(faults: &Faults, lost: &str) {
    let text = format!(
        "{lost}; nothing is lowered until it is back or leaders have seen enough themselves"
    );
    faults.raise(Fault::History, text);
}

// === impl Throne ===

impl Throne {
    /// The past has come after all.
    pub(super) fn arrived(&mut self, late: Late) {
        let Late { store, past } = late;
        self.store = store;
        let begun = self.missing.end;
        if let Past::Known(history) | Past::Lost(Some((history, _))) = &past {
            // What members still send of the time before is in there.
            let newest = history.newest().unwrap_or_default();
            self.missing.start = newest.min(begun);
        }
        match past {
            Past::Known(history) => self.controller.bring_back(&history, begun),
            Past::New => {
                let nothing = History::new(Duration::ZERO);
                self.controller.bring_back(&nothing, begun);
            }
            Past::Lost(Some((history, seen))) => {
                self.controller.bring_back(&history, begun);
                self.controller.go_on_awaiting(seen);
            }
            Past::Lost(None) => {}
        }
        self.recall();
    }

    /// Ends the fault once nothing is waited for any more.
    pub(super) fn look_whether_the_past_is_back(&self, now: Now) {
        if self.store.is_known() && self.controller.awaits(now.instant).is_none() {
            self.reign.shared.faults.clear(Fault::History);
        }
    }

    /// Whether the checkpoint holds all but the last moment, so that the fleet may be lowered: a pod that goes takes what
    /// it remembers along.
    pub(super) async fn is_saved(&mut self, now: Now) -> bool {
        if self
            .saved
            .is_none_or(|saved| now.instant.since(saved) >= AGAIN)
        {
            self.save().await;
        }
        self.saved
            .is_some_and(|saved| now.instant.since(saved) < AGAIN)
    }

    pub(super) async fn save(&mut self) {
        let shared = &self.reign.shared;
        let now = shared.clock.instant();
        self.next_checkpoint = now + CHECKPOINT;
        let awaits = self.controller.awaits(now);
        let saved = self.store.save(self.controller.history(), awaits).await;
        match saved {
            Ok(()) => {
                self.saved = Some(now);
                shared.faults.clear(Fault::Checkpoint);
            }
            Err(text) => {
                let text = format!("{text}; until it is saved nothing is lowered");
                shared.faults.raise(Fault::Checkpoint, text);
            }
        }
    }

    /// The last chance of a reign that never got to know what there is.
    pub(super) async fn save_at_last(&mut self) {
        if !self.store.is_known() {
            let mut store = self.store.clone();
            match store.load().await {
                Ok(loaded) => {
                    let past = judge(loaded, &self.reign.shared.faults, self.is_first);
                    self.arrived(Late { store, past });
                }
                Err(error) => tracing::warn!(error, "the history of this reign is lost"),
            }
        }
        self.save().await;
    }
}
