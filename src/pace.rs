//! Where long computations let others go first.
//!
//! A container's CPU limit is one purse for all its threads: a second of learning that is spent at a stretch stops the
//! requests of this pod for nine tenths of a second after each tenth, at a limit of a tenth of a core. No priority of a
//! thread prevents that. So what computes for long calls [`Pace::rest`] every now and then, and whoever started it says
//! what that means: nothing, or to sleep for a while.

use std::fmt;
use std::sync::Arc;

/// How a long computation rests. The default does not.
#[derive(Clone, Default)]
pub struct Pace(Option<Arc<dyn Fn() + Send + Sync>>);

// === impl Pace ===

impl Pace {
    /// `rest` is called some thousand times a second of computing, on its thread, and may block it.
    pub fn new(rest: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(rest)))
    }

    /// Lets others go first, if they should.
    pub fn rest(&self) {
        if let Some(rest) = &self.0 {
            rest();
        }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rests = if self.0.is_some() {
            "rests"
        } else {
            "does not rest"
        };
        f.write_str(rests)
    }
}
