//! The clients' connections, and which of them should come anew.
//!
//! A Service of Kubernetes balances connections and not requests: a client that keeps its own stays with the pods that
//! were there when it connected, and pods that came later stand idle beside full ones. So the leader asks the pods above
//! the fleet's mean to retire a share of theirs ([`Connections::retire`]). A connection that is called ends with a
//! response, never in one and never between two: `Connection: close` on the next response of HTTP/1, GOAWAY on the next of
//! HTTP/2, whose other streams go on to their end. A connection that carries no new request is left alone, as moving it
//! would move no load. A client that pipelines must send again what it had sent behind that response, as RFC 9112, 9.6 has
//! it.
//!
//! Each connection has a lot, a point on a circle. A share is an arc of it that grows over the given time, so the calls
//! are spread, and the next share begins where the last one ended: every connection is moved once before any is moved
//! twice. The lots of connections that follow each other lie apart by the golden ratio of the circle, which keeps every
//! arc's part of them close to its length, of four connections as well as of a thousand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Clock;

/// The circle's golden section: the lots of any number of connections in a row are spread evenly.
const GOLDEN: u32 = 0x9E37_79B9;
/// In so many steps an arc grows. Halved, a pod with a thousand connections ends a hundred of them at a moment; doubled, it
/// is woken every quarter of a second.
const STEPS: u32 = 20;
/// And for so many more it stays: those called last carry their next request a little later.
const HELD: u32 = 5;
/// Parts of the circle in a thousandth of it.
const PER_MILLE: u32 = u32::MAX / 1_000;

/// The clients' connections of a sidecar; proxies that share it retire theirs together.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    retired: AtomicU64,
    /// The next connection's lot.
    next: AtomicU32,
    /// The arc whose connections are called: its start in the upper half, its length in the lower; 0: none.
    arc: AtomicU64,
    /// Where the next arc starts; held while one grows.
    start: Mutex<u32>,
}

/// One client's connection. Its drop is its end.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Arc<Connections>,
    lot: u32,
    /// It was called, and is not among the open ones any more.
    left: AtomicBool,
}

// === impl Connections ===

impl Connections {
    /// Connections that stand and were not retired, tunnels included.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Connections that were retired since the start.
    pub fn retired(&self) -> u64 {
        self.retired.load(Relaxed)
    }

    /// Retires a share of the connections that carry requests, spread evenly over a time `over`; it takes a quarter
    /// longer. Does nothing while an
    /// earlier call is under way. Dropped, it leaves the rest alone.
    pub async fn retire(&self, per_mille: u16, over: Duration, clock: &Clock) {
        let Ok(mut start) = self.start.try_lock() else {
            return;
        };
        let whole = u32::from(per_mille.min(1_000)) * PER_MILLE;
        let _growing = Growing(self);
        for step in 1..=STEPS + HELD {
            let length = whole / STEPS * step.min(STEPS);
            let arc = u64::from(*start) << 32 | u64::from(length);
            self.arc.store(arc, Relaxed);
            clock.sleep(over / STEPS).await;
        }
        *start = start.wrapping_add(whole);
    }
}

/// Nobody is called any more when this is dropped.
struct Growing<'a>(&'a Connections);

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        self.0.arc.store(0, Relaxed);
    }
}

// === impl Connection ===

impl Connection {
    pub(super) fn open(connections: &Arc<Connections>) -> Self {
        connections.open.fetch_add(1, Relaxed);
        Self {
            lot: connections.next.fetch_add(GOLDEN, Relaxed),
            left: AtomicBool::new(false),
            connections: Arc::clone(connections),
        }
    }

    /// Whether it should end with the response that begins now.
    pub(super) fn is_called(&self) -> bool {
        let arc = self.connections.arc.load(Relaxed);
        if arc == 0 {
            return false;
        }
        let (start, length) = halves(arc);
        let called = self.lot.wrapping_sub(start) < length;
        if called && !self.left.swap(true, Relaxed) {
            self.connections.open.fetch_sub(1, Relaxed);
            self.connections.retired.fetch_add(1, Relaxed);
        }
        called
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !*self.left.get_mut() {
            self.connections.open.fetch_sub(1, Relaxed);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper half is shifted away, the lower one is what is wanted"
)]
fn halves(arc: u64) -> (u32, u32) {
    ((arc >> 32) as u32, arc as u32)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn many(connections: &Arc<Connections>, count: usize) -> Vec<Connection> {
        (0..count).map(|_| Connection::open(connections)).collect()
    }

    fn called(open: &[Connection]) -> Vec<usize> {
        let is_called = |at: &usize| open[*at].is_called();
        (0..open.len()).filter(is_called).collect()
    }

    /// A share's arc at its full length.
    async fn retire(connections: &Connections, per_mille: u16, open: &[Connection]) -> Vec<usize> {
        let clock = Clock::real();
        let over = Duration::from_secs(10);
        let mut retiring = Box::pin(connections.retire(per_mille, over, &clock));
        for _step in 0..STEPS + HELD {
            assert_eq!(retiring.as_mut().now_or_never(), None);
            tokio::time::advance(over / STEPS).await;
        }
        let called = called(open);
        assert_eq!(retiring.now_or_never(), Some(()));
        called
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_grows_over_its_time_and_is_over_with_it() {
        let connections = Arc::<Connections>::default();
        let open = many(&connections, 1_000);
        assert!(called(&open).is_empty(), "nobody asked");
        let clock = Clock::real();
        let over = Duration::from_secs(10);
        let mut retiring = Box::pin(connections.retire(500, over, &clock));
        for step in 1..=STEPS + HELD {
            assert_eq!(retiring.as_mut().now_or_never(), None);
            let expected = 500 / STEPS * step.min(STEPS);
            let called = u32::try_from(called(&open).len()).expect("a thousand");
            assert!(called.abs_diff(expected) <= 5, "{called} at step {step}");
            tokio::time::advance(over / STEPS).await;
        }
        assert_eq!(retiring.now_or_never(), Some(()));
        assert!(called(&open).is_empty(), "over");
        let left = connections.open() + connections.retired();
        assert_eq!(left, 1_000, "each is counted once");
        drop(open);
        assert_eq!(connections.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_moved_once_before_one_is_moved_twice() {
        let connections = Arc::<Connections>::default();
        let open = many(&connections, 12);
        let mut moved = Vec::new();
        for _share in 0..4 {
            moved.extend(retire(&connections, 250, &open).await);
        }
        moved.sort_unstable();
        moved.dedup();
        // A thousandth of the circle is not quite a part of 2^32, so the four quarters leave a gap of one.
        assert!(moved.len() >= 11, "{moved:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_a_share_is_under_way_changes_nothing() {
        let connections = Arc::<Connections>::default();
        let open = many(&connections, 100);
        let clock = Clock::real();
        let over = Duration::from_secs(10);
        let mut first = Box::pin(connections.retire(100, over, &clock));
        assert_eq!(first.as_mut().now_or_never(), None);
        let second = connections.retire(1_000, over, &clock);
        assert_eq!(second.now_or_never(), Some(()));
        assert!(called(&open).len() < 10);
        drop(first);
        assert!(called(&open).is_empty(), "dropped, it calls nobody");
    }

    proptest! {
        #[test]
        fn a_share_is_its_part_of_any_number_of_connections(
            count in 1_usize..300,
            per_mille in 0_u16..=1_000,
            shares in 0_usize..4,
            before in 0_u32..1_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let connections = Arc::<Connections>::default();
                connections.next.store(GOLDEN.wrapping_mul(before), Relaxed);
                let open = many(&connections, count);
                for _share in 0..shares {
                    retire(&connections, 333, &open).await;
                }
                let called = retire(&connections, per_mille, &open).await.len() as f64;
                let expected = count as f64 * f64::from(per_mille) / 1_000.0;
                // A golden sequence of N lies within 2 + log N of its part, for any arc.
                let allowed = 2.0 + (count as f64).log2();
                prop_assert!((called - expected).abs() <= allowed, "{} for {}", called, expected);
                Ok(())
            })?;
        }
    }
}
