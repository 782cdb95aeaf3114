//! Clients that send at their own pace, whatever becomes of the answers, and never try again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sidescale::clock::Clock;
use sidescale::lifecycle::{Tasks, TasksHandle};
use tokio::sync::watch;

use crate::client;

/// No answer takes as long on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of requests; dropped, it ends with what is in flight.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Arc<Counts>,
    _tasks: Tasks,
}

#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    failed: AtomicU64,
}

// === impl Load ===

impl Load {
    /// Sends `per_second` requests, in turn to `port` of whatever `endpoints` says at that moment, as a Service would.
    pub(crate) fn start(
        endpoints: watch::Receiver<Vec<SocketAddr>>,
        port: u16,
        per_second: u32,
    ) -> Self {
        let counts = Arc::<Counts>::default();
        let tasks = Tasks::here();
        let service = (endpoints, port);
        tasks.spawn(send(service, per_second, counts.clone(), tasks.handle()));
        Self {
            counts,
            _tasks: tasks,
        }
    }

    /// Whole answers with a 2xx so far.
    pub(crate) fn served(&self) -> u64 {
        self.counts.served.load(Ordering::Relaxed)
    }

    /// Everything else: refused, reset, cut short, another status, or no pod to send to.
    pub(crate) fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }
}

async fn send(
    (endpoints, port): (watch::Receiver<Vec<SocketAddr>>, u16),
    per_second: u32,
    counts: Arc<Counts>,
    tasks: TasksHandle,
) {
    let clock = Clock::real();
    let start = clock.instant();
    for number in 0_u32.. {
        // By the schedule and not by the last request: a stalled machine does not thin the load out.
        clock
            .sleep_until(start + Duration::from_secs(1) * number / per_second)
            .await;
        let target = {
            let endpoints = endpoints.borrow();
            let turn = usize::try_from(number).unwrap_or(0);
            let at = turn.checked_rem(endpoints.len());
            at.map(|at| SocketAddr::new(endpoints[at].ip(), port))
        };
        let counts = counts.clone();
        tasks.spawn(async move {
            let answer = match target {
                Some(target) => client::get(target, "/infer", PATIENCE).await.ok(),
                None => None,
            };
            let is_served = answer.is_some_and(|(status, _body)| status.is_success());
            let count = if is_served {
                &counts.served
            } else {
                &counts.failed
            };
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
}
