//! The life of one sidecar: serving, draining, drained; and the tree of tasks it consists of.
//!
//! Every task lives in a [`Tasks`] that its parent holds. A parent that is dropped takes its children along, so that
//! killing a sidecar in the demo is dropping one value, and no task outlives what it works for.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How far a sidecar is on its way out. Only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Takes requests.
    #[default]
    Serving,
    /// Unready; still answers what arrives until endpoints have propagated, and finishes what it has.
    Draining,
    /// Nothing is in flight and nothing more is expected: the server may end now.
    Drained,
}

/// A sidecar's [`Phase`], shared by all of its parts.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
}

/// Tasks that end with their owner.
///
/// Clones share the set. The tasks are aborted when the last clone goes; children hold a [`TasksHandle`] instead,
/// which does not keep the tree alive.
#[derive(Clone, Debug)]
pub struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
    runtime: Handle,
}

/// Spawns into a [`Tasks`] without keeping it alive: what a connection holds, to start its own children.
#[derive(Clone, Debug)]
pub struct TasksHandle {
    set: std::sync::Weak<Mutex<JoinSet<()>>>,
    runtime: Handle,
}

// === impl Lifecycle ===

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
        }
    }
}

impl Lifecycle {
    /// The phase, now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`; going back is ignored. Says whether this call moved it.
    pub fn advance(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        })
    }

    /// To be woken at a change.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Waits until `phase` or a later one is reached.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives in `self`, so the wait can only end by the condition.
        let mut watch = self.watch();
        if watch.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

// === impl Tasks ===

impl Tasks {
    /// An empty tree whose tasks run on `runtime`.
    pub fn on(runtime: Handle) -> Self {
        Self {
            set: Arc::default(),
            runtime,
        }
    }

    /// An empty tree on the runtime of the caller, who must be inside one.
    pub fn here() -> Self {
        Self::on(Handle::current())
    }

    /// Starts `task`; it ends when it is done or when the tree goes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        spawn_into(&self.set, &self.runtime, task);
    }

    /// For children that spawn in turn.
    pub fn handle(&self) -> TasksHandle {
        TasksHandle {
            set: Arc::downgrade(&self.set),
            runtime: self.runtime.clone(),
        }
    }

    /// Ends every task now, at its next await.
    pub fn abort(&self) {
        self.set
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }
}

// === impl TasksHandle ===

impl TasksHandle {
    /// Starts `task`, unless the tree has gone already: then the task is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(set) = self.set.upgrade() {
            spawn_into(&set, &self.runtime, task);
        }
    }
}

/// hyper's HTTP/2 connections start their streams through this.
impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for TasksHandle {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

fn spawn_into(
    set: &Mutex<JoinSet<()>>,
    runtime: &Handle,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
    // A set keeps finished tasks until they are joined: a proxy with a task per connection would grow without this.
    while set.try_join_next().is_some() {}
    set.spawn_on(task, runtime);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_tree_takes_grandchildren_along() {
        let tasks = Tasks::here();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
        let handle = tasks.handle();
        let child = sender.clone();
        tasks.spawn(async move {
            handle.spawn(async move {
                let _held = child;
                std::future::pending::<()>().await;
            });
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(sender);
        drop(tasks);
        assert_eq!(receiver.recv().await, None);
    }

    #[test]
    fn a_phase_only_moves_forward() {
        let lifecycle = Lifecycle::default();
        assert!(lifecycle.advance(Phase::Draining));
        assert!(!lifecycle.advance(Phase::Serving));
        assert!(!lifecycle.advance(Phase::Draining));
        assert!(lifecycle.advance(Phase::Drained));
        assert_eq!(lifecycle.phase(), Phase::Drained);
    }
}
