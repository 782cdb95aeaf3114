//! The controller of a reign, and the thread on which it thinks.
//!
//! A turn takes microseconds, but one that learns the past anew takes a seventh of a second, and under a CPU limit it
//! rests in between. The elector's renewals, the member channel and the admin port must not wait for it.

use std::ops::{Deref, DerefMut};
use std::panic::resume_unwind;

use crate::clock::Now;
use crate::controller::{Controller, Turn};
use crate::fleet::Snapshot;
use crate::pace::Pace;
use crate::policy::Policy;

/// A controller whose turns are made on a thread for blocking work. Between two turns it is used in place.
pub(super) struct Mind(Option<Box<Controller>>);

/// A turn, and what it was made from.
pub(super) struct Thought {
    pub(super) turn: Turn,
    pub(super) snapshot: Snapshot,
    pub(super) policy: Policy,
}

// === impl Mind ===

impl Mind {
    pub(super) fn new(mut controller: Controller, pace: &Pace) -> Self {
        controller.set_pace(pace);
        Self(Some(Box::new(controller)))
    }

    /// One turn. Dropped before its end, the controller is lost: only a reign that ends drops it.
    pub(super) async fn turn(&mut self, now: Now, snapshot: Snapshot, policy: Policy) -> Thought {
        let mut controller = self.0.take().expect(HERE);
        let thinking = tokio::task::spawn_blocking(move || {
            let turn = controller.turn(now, &snapshot, &policy);
            let thought = Thought {
                turn,
                snapshot,
                policy,
            };
            (controller, thought)
        });
        match thinking.await {
            Ok((controller, thought)) => {
                self.0 = Some(controller);
                thought
            }
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime goes, and with it this task.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }
}

const HERE: &str = "between two turns the controller is here";

impl Deref for Mind {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        self.0.as_ref().expect(HERE)
    }
}

impl DerefMut for Mind {
    fn deref_mut(&mut self) -> &mut Controller {
        self.0.as_mut().expect(HERE)
    }
}
