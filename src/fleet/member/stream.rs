//! One leader's stream, from its hello to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Sender;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::fleet::channel::BEAT;
use crate::fleet::lines::{LONGEST_LINE, LineError, Lines, line};
use crate::fleet::member::connection::Progress;
use crate::fleet::member::{Heard, Order, Shared, Source, Verdict, Verify};
use crate::report::{Down, Hello, Up, WIRE_VERSION};

/// Without a line for this long the leader is not there, whatever TCP believes. It sends one a second.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// Between two looks at the Lease, whatever became of the first: an impostor that dials and hangs up in a loop costs the
/// API server one GET in this time from each member, and a genuine leader waits no longer than this for its own.
const JUDGE_PAUSE: Duration = Duration::from_secs(1);

/// One leader's stream.
pub(super) struct Stream<S, V> {
    shared: Arc<Shared<S, V>>,
    from: SocketAddr,
    progress: Arc<watch::Sender<Progress>>,
}

// === impl Stream ===

impl<S, V> Drop for Stream<S, V> {
    fn drop(&mut self) {
        self.progress.send_replace(Progress::Over);
    }
}

impl<S: Source, V: Verify> Stream<S, V> {
    pub(super) fn new(
        shared: Arc<Shared<S, V>>,
        from: SocketAddr,
        progress: Arc<watch::Sender<Progress>>,
    ) -> Self {
        Self {
            shared,
            from,
            progress,
        }
    }

    /// Hello, verdict, and then both ways until one side ends it.
    pub(super) async fn run(self, body: Incoming, sender: Sender<Bytes, Infallible>) {
        let mut lines = Lines::new(body);
        let Some(hello) = self.hello(&mut lines).await else {
            return;
        };
        self.progress.send_replace(Progress::Greeted);
        if !self.is_verified(&hello, &mut lines).await {
            return;
        }
        tracing::info!(
            term = hello.term,
            holder = hello.holder,
            "reporting to a leader"
        );
        tokio::select! {
            () = self.obey(&hello, &mut lines) => {}
            () = self.report(&hello, sender) => {}
        }
        self.hand_on(&hello, Order::Ended).await;
    }

    async fn hello(&self, lines: &mut Lines<Incoming>) -> Option<Hello> {
        let first = lines.next(LONGEST_LINE).await;
        let hello = match first {
            Ok(Some(text)) => serde_json::from_slice(&text).ok(),
            Ok(None) | Err(_) => None,
        };
        match hello {
            Some(Down::Hello(hello)) if hello.v == WIRE_VERSION => Some(hello),
            Some(Down::Hello(hello)) => {
                tracing::warn!(from = %self.from, v = hello.v, "refused a leader of another wire version");
                count(&self.shared.counts.refused);
                None
            }
            Some(
                Down::Beacon(_) | Down::Drain { .. } | Down::Retire { .. } | Down::Goodbye { .. },
            )
            | None => {
                count(&self.shared.counts.refused);
                None
            }
        }
    }

    /// Waits for the verdict while throwing away what the leader says meanwhile.
    async fn is_verified(&self, hello: &Hello, lines: &mut Lines<Incoming>) -> bool {
        let mut judged = std::pin::pin!(self.judge(hello));
        loop {
            tokio::select! {
                verdict = &mut judged => return verdict,
                line = lines.next(LONGEST_LINE) => match line {
                    Ok(Some(_too_early)) => {}
                    Ok(None) => return false,
                    Err(_broken) => {
                        count(&self.shared.counts.refused);
                        return false;
                    }
                },
            }
        }
    }

    async fn judge(&self, hello: &Hello) -> bool {
        loop {
            let mut next_look = self.shared.judging.lock().await;
            if self.shared.trusted().covers(hello) {
                return true;
            }
            self.shared.clock.sleep_until(*next_look).await;
            // Set before the look: who hangs up during it must not make it free.
            *next_look = self.shared.clock.instant() + JUDGE_PAUSE;
            match self.shared.verify.verify(hello).await {
                Verdict::Genuine => {
                    self.shared.trusted().confirm(hello);
                    return true;
                }
                Verdict::Impostor => {
                    count(&self.shared.counts.impostors);
                    tracing::warn!(
                        from = %self.from, term = hello.term, holder = hello.holder,
                        "refused a leader whose token does not match the Lease"
                    );
                    return false;
                }
                Verdict::Unavailable => {}
            }
        }
    }

    /// Hands on what the leader says until it ends or breaks the stream.
    async fn obey(&self, hello: &Hello, lines: &mut Lines<Incoming>) {
        loop {
            let next = self
                .shared
                .clock
                .timeout(HEARD_WITHIN, lines.next(LONGEST_LINE));
            let text = match next.await {
                Ok(Ok(Some(text))) => text,
                Ok(Err(LineError::TooLong { .. })) => {
                    count(&self.shared.counts.refused);
                    return;
                }
                Ok(Ok(None) | Err(LineError::Broken(_))) | Err(_) => return,
            };
            let Some(order) = self.understand(hello, &text) else {
                continue;
            };
            let is_last = matches!(order, Order::Goodbye { .. });
            self.hand_on(hello, order).await;
            if is_last {
                return;
            }
        }
    }

    fn understand(&self, hello: &Hello, text: &[u8]) -> Option<Order> {
        let order = match serde_json::from_slice(text) {
            Ok(Down::Beacon(beacon))
                if beacon.term == hello.term && beacon.holder == hello.holder =>
            {
                Order::Beacon(beacon)
            }
            Ok(Down::Drain { for_millis }) => Order::Drain {
                holds: Duration::from_millis(for_millis.into()),
            },
            Ok(Down::Retire {
                per_mille,
                over_millis,
            }) => Order::Retire {
                per_mille,
                over: Duration::from_millis(over_millis.into()),
            },
            Ok(Down::Goodbye { successor }) => Order::Goodbye { successor },
            // A beacon for another term, a second hello, or what a newer leader has to say.
            Ok(Down::Beacon(_) | Down::Hello(_)) | Err(_) => {
                count(&self.shared.counts.not_understood);
                return None;
            }
        };
        if hello.term < self.shared.trusted().term {
            count(&self.shared.counts.stale);
            return None;
        }
        Some(order)
    }

    async fn hand_on(&self, hello: &Hello, order: Order) {
        let heard = Heard {
            term: hello.term,
            holder: hello.holder.clone(),
            order,
        };
        // An app that is gone takes this task along; nobody is left to tell.
        self.shared.heard.send(heard).await.ok();
    }

    /// Reports once a second, and at once when overrun, until the stream takes no more.
    async fn report(&self, hello: &Hello, mut sender: Sender<Bytes, Infallible>) {
        let source = &self.shared.source;
        if let Some(since) = hello.past_since_millis {
            let past = source.past(Timestamp::from_millis(since));
            if sender.send_data(line(&Up::Past(past))).await.is_err() {
                return;
            }
        }
        let mut overruns = self.shared.overruns.clone();
        overruns.mark_unchanged();
        let mut up = Up::Report(source.report());
        while sender.send_data(line(&up)).await.is_ok() {
            up = tokio::select! {
                () = self.shared.clock.sleep(BEAT) => Up::Report(source.report()),
                // The sender lives as long as the server; without it there are no more overruns.
                Ok(()) = overruns.changed() => Up::Overrun(source.report()),
            };
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
