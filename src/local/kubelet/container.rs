//! One container's life: its turn to start, its probes, its restarts, and its end in the real kubelet's order.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::sync::watch;

use super::probe::{self, ActionError, Finding};
use super::runtime::{Running, Runtime, Signal, Start, env};
use super::state::{Exit, Role, Stage, State, find, grace_secs};
use crate::clock::{Clock, Instant, Timestamp};

/// A container is always given this long between SIGTERM and SIGKILL, even when its hook or its turn took the whole
/// grace period.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// The first restart is immediate, the second waits this long, each further one twice as long as the one before.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);

const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// A container that ran this long starts afresh with its back-off.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// A killed container's exit code: 128 + SIGKILL.
const KILLED: i32 = 137;

/// What the containers of one pod share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) ip: Ipv4Addr,
    pub(super) roles: Vec<Role>,
    pub(super) states: watch::Sender<Vec<State>>,
    /// The pod as it is wanted now.
    pub(super) pod: watch::Sender<Arc<Pod>>,
    /// By when the pod is to be gone, once it is being deleted.
    pub(super) deadline: watch::Sender<Option<Instant>>,
}

/// The life of one container.
pub(super) struct Life {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
}

/// Why a run is over.
enum Outcome {
    Exited(i32),
    /// The pod is being deleted.
    Stopped(i32),
}

// === impl Shared ===

impl Shared {
    /// Whether the init containers before this one have come far enough.
    fn may_start(&self, states: &[State], index: usize) -> bool {
        self.roles[..index]
            .iter()
            .zip(states)
            .all(|(role, state)| match role {
                Role::Init => state.ended().is_some_and(|exit| exit.code == 0),
                Role::Sidecar => state.started,
                Role::Main => true,
            })
    }

    /// Whether what ends before this container has ended: for a sidecar, the main ones and the sidecars after it.
    fn may_end(&self, states: &[State], index: usize) -> bool {
        self.roles[index] != Role::Sidecar
            || self.roles[index + 1..]
                .iter()
                .zip(&states[index + 1..])
                .all(|(role, state)| *role == Role::Init || state.ended().is_some())
    }

    /// Waits until the pod is being deleted.
    async fn stopping(&self) {
        let mut deadline = self.deadline.subscribe();
        if deadline.wait_for(Option::is_some).await.is_err() {
            // The sender lives in `self`.
            std::future::pending::<()>().await;
        }
    }

    fn remaining(&self) -> Duration {
        let now = self.clock.instant();
        self.deadline
            .borrow()
            .map_or(Duration::MAX, |end| end.since(now))
    }
}

// === impl Life ===

impl Life {
    /// Lives until the container is over for good.
    pub(super) async fn run(self) {
        let shared = Arc::clone(&self.shared);
        let mut states = shared.states.subscribe();
        tokio::select! {
            // First, so that a pod that was being deleted before this kubelet saw it starts nothing.
            biased;
            () = shared.stopping() => {
                let now = shared.clock.now().timestamp;
                return self.end(Exit { code: KILLED, started: now, finished: now });
            }
            _ = states.wait_for(|states| shared.may_start(states, self.index)) => {}
        }
        let mut backoff = Duration::ZERO;
        loop {
            let container = self.wanted();
            let started = shared.clock.now();
            let outcome = self.attempt(&container, started.timestamp).await;
            let finished = shared.clock.now();
            let (code, stopped) = match outcome {
                Outcome::Exited(code) => (code, false),
                Outcome::Stopped(code) => (code, true),
            };
            let exit = Exit {
                code,
                started: started.timestamp,
                finished: finished.timestamp,
            };
            if stopped || !self.restarts_after(code) {
                return self.end(exit);
            }
            if finished.instant.since(started.instant) >= FORGIVEN_AFTER {
                backoff = Duration::ZERO;
            }
            self.wait_for_restart(exit, backoff);
            tokio::select! {
                biased;
                () = shared.stopping() => return self.end(exit),
                () = shared.clock.sleep(backoff) => {}
            }
            backoff = (backoff * 2).clamp(FIRST_BACKOFF, LONGEST_BACKOFF);
        }
    }

    /// One run, from its start to its exit.
    async fn attempt(&self, container: &Container, now: Timestamp) -> Outcome {
        let shared = &self.shared;
        let restarts = shared.states.borrow()[self.index].restarts;
        let pod = Arc::clone(&shared.pod.borrow());
        let mut running = shared.runtime.start(Start {
            pod: &pod,
            container,
            ip: shared.ip,
            env: env(&pod, container, shared.ip),
            restarts,
        });
        self.change(|state| {
            state.stage = Stage::Running(now);
            state.image = container.image.clone().unwrap_or_default();
        });
        let exempt = || shared.deadline.borrow().is_some();
        let found = |finding| {
            self.change(|state| match finding {
                Finding::Started => state.started = true,
                Finding::Ready(ready) => state.ready = ready,
            });
        };
        let probes = probe::watch(&shared.clock, container, shared.ip, exempt, found);
        let outcome = tokio::select! {
            outcome = self.live(&mut running, container) => Some(outcome),
            () = probes => None,
        };
        match outcome {
            Some(outcome) => outcome,
            None => Outcome::Exited(self.restart(&mut running).await),
        }
    }

    /// Waits for an end that the probes do not bring about.
    async fn live(&self, running: &mut Running, container: &Container) -> Outcome {
        let other_image = async {
            let mut pod = self.shared.pod.subscribe();
            let image = |pod: &Pod| find(pod, self.index).and_then(|found| found.image.clone());
            if pod
                .wait_for(|pod| image(pod) != container.image)
                .await
                .is_err()
            {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            code = running.exited() => return Outcome::Exited(code),
            () = self.shared.stopping() => {}
            () = other_image => return Outcome::Exited(self.restart(running).await),
        }
        Outcome::Stopped(self.stop(running, container).await)
    }

    /// Ends the container because the pod is being deleted: its hook, its turn, SIGTERM, SIGKILL.
    async fn stop(&self, running: &mut Running, container: &Container) -> i32 {
        let shared = &self.shared;
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let prelude = async {
            if let Some(hook) = hook {
                let done = shared
                    .clock
                    .timeout(shared.remaining(), self.run_hook(container, hook));
                match done.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(container = container.name, %error, "the preStop hook failed");
                    }
                    Err(elapsed) => {
                        tracing::warn!(container = container.name, %elapsed, "the preStop hook took too long");
                    }
                }
            }
            let mut states = shared.states.subscribe();
            let turn = states.wait_for(|states| shared.may_end(states, self.index));
            // Late is as good as in turn: then everything is killed anyway.
            drop(shared.clock.timeout(shared.remaining(), turn).await);
        };
        tokio::select! {
            code = running.exited() => return code,
            () = prelude => {}
        }
        self.terminate(running, shared.remaining().max(LEAST_GRACE))
            .await
    }

    /// Ends the container so that it can be started again.
    async fn restart(&self, running: &mut Running) -> i32 {
        let pod = Arc::clone(&self.shared.pod.borrow());
        let grace = Duration::from_secs(grace_secs(&pod)).min(self.shared.remaining());
        self.terminate(running, grace.max(LEAST_GRACE)).await
    }

    async fn terminate(&self, running: &mut Running, grace: Duration) -> i32 {
        let clock = &self.shared.clock;
        running.signal(Signal::Terminate);
        if let Ok(code) = clock.timeout(grace, running.exited()).await {
            return code;
        }
        running.signal(Signal::Kill);
        // Whoever survives this is killed when `running` is dropped.
        clock
            .timeout(LEAST_GRACE, running.exited())
            .await
            .unwrap_or(KILLED)
    }

    async fn run_hook(
        &self,
        container: &Container,
        hook: &LifecycleHandler,
    ) -> Result<(), ActionError> {
        if let Some(get) = &hook.http_get {
            return probe::http_get(container, self.shared.ip, get).await;
        }
        let Some(sleep) = &hook.sleep else {
            return Err(ActionError::Unsupported);
        };
        let secs = u64::try_from(sleep.seconds).unwrap_or(0);
        self.shared.clock.sleep(Duration::from_secs(secs)).await;
        Ok(())
    }

    fn restarts_after(&self, code: i32) -> bool {
        let pod = self.shared.pod.borrow();
        let policy = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        match (self.shared.roles[self.index], policy) {
            (Role::Init | Role::Main, Some("Never")) => false,
            (Role::Init, _) | (Role::Main, Some("OnFailure")) => code != 0,
            (Role::Sidecar | Role::Main, _) => true,
        }
    }

    fn wait_for_restart(&self, exit: Exit, backoff: Duration) {
        self.change(|state| {
            state.restarts += 1;
            state.last = Some(exit);
            (state.started, state.ready) = (false, false);
            // Without a back-off the next run begins before anybody could read that it waited.
            if !backoff.is_zero() {
                state.stage = Stage::Waiting("CrashLoopBackOff");
            }
        });
    }

    fn end(&self, exit: Exit) {
        self.change(|state| {
            state.stage = Stage::Ended(exit);
            (state.started, state.ready) = (false, false);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.states.send_if_modified(|states| {
            let state = &mut states[self.index];
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// The container as the pod has it now.
    fn wanted(&self) -> Container {
        find(&self.shared.pod.borrow(), self.index)
            .cloned()
            .expect("the containers of a pod are immutable in number and order")
    }
}
