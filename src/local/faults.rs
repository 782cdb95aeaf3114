//! The switches by which a test makes the server fail, and the counts of who asked for what.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Request;
use tokio::sync::watch;

/// What becomes of a request that a [`Faults::set_hook`] looked at.
#[derive(Clone, Debug)]
pub enum Action {
    /// It is served.
    Pass,
    /// It is served once the gate is open, as if it had lain in a socket so long.
    Hold(Gate),
    /// It is answered with this HTTP status and a `Status` object, and has no effect.
    Fail(u16),
    /// Its connection breaks, and it has no effect.
    Drop,
}

/// Holds requests until it is opened. Clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
}

/// Which requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The user agent, empty if the client gave none.
    pub agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'static str,
    /// `leases`, `deployments/scale`.
    pub resource: String,
}

type Hook = Arc<dyn Fn(&Request<Bytes>) -> Action + Send + Sync>;

/// The switches and the counts. Clones share them.
#[derive(Clone)]
pub struct Faults {
    available: Arc<watch::Sender<bool>>,
    hook: Arc<Mutex<Option<Hook>>>,
    asked: Arc<Mutex<BTreeMap<Asked, u64>>>,
}

// === impl Gate ===

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Gate {
    /// Lets through what it held and everything after.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// How many requests it holds now.
    pub fn held(&self) -> usize {
        self.open.receiver_count()
    }

    pub(super) async fn opened(&self) {
        let mut open = self.open.subscribe();
        if open.wait_for(|open| *open).await.is_err() {
            // The sender lives in `self`.
            std::future::pending::<()>().await;
        }
    }
}

// === impl Faults ===

impl Default for Faults {
    fn default() -> Self {
        Self {
            available: Arc::new(watch::Sender::new(true)),
            hook: Arc::default(),
            asked: Arc::default(),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("available", &*self.available.borrow())
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Takes the server away or brings it back. While it is away connections break, watches end, and the controllers
    /// stand still; the objects stay.
    pub fn set_available(&self, available: bool) {
        self.available.send_replace(available);
    }

    /// Has `hook` decide what becomes of each request, before anything else looks at it.
    pub fn set_hook(&self, hook: impl Fn(&Request<Bytes>) -> Action + Send + Sync + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }

    /// Serves every request again.
    pub fn clear_hook(&self) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Requests since the start, by user agent, verb and resource. A watch counts once, when it starts.
    pub fn requests(&self) -> BTreeMap<Asked, u64> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Requests since the start, by user agent.
    pub fn requests_by_agent(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (asked, count) in self.requests() {
            *sums.entry(asked.agent).or_default() += count;
        }
        sums
    }

    pub(super) fn count(&self, asked: Asked) {
        *self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(asked)
            .or_default() += 1;
    }

    pub(super) fn decide(&self, request: &Request<Bytes>) -> Action {
        // Taken out of the lock, so that a hook may set another.
        let hook = self
            .hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        hook.map_or(Action::Pass, |hook| hook(request))
    }

    pub(super) fn available(&self) -> watch::Receiver<bool> {
        self.available.subscribe()
    }
}
