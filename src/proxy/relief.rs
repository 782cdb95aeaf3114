//! What is done when memory is short: clients that make the proxy hold much are cut off before the container's limit ends
//! everybody.
//!
//! What one client can have held is bounded (heads, windows, buffers), and a thousand times that bound is more than a small
//! container has. So while memory is short, new connections wait in the kernel, and those that stand are ended, in
//! turn and only until there is room again: first those for which much may be held, then those that have no request, new ones
//! before those that have carried some.
//!
//! Memory may also be short of what sidescale holds itself, a leader's history and members. No client can be cut off for that,
//! and none must wait for it: when all connections together could not make the difference, the bound is moved.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use super::wire::WireState;
use crate::memory;

/// How often it is looked at whether memory is short. What comes in between meets the look of [`Wire`](super::wire::Wire);
/// twice as long is seen by those who wait to be accepted.
const PERIOD: Duration = Duration::from_millis(100);
/// So many looks in a row that found memory short and nobody to cut off: a second.
const IN_VAIN: u32 = 10;
/// So many looks in a row that found memory short: half a second.
const LONG: u32 = 5;
/// What a connection holds at most for which not much is held: its buffers on both sides.
const LIGHT_BYTES: usize = 64 * 1_024;

/// The next connection; while memory is short, it waits in the kernel.
pub(super) async fn with_room(
    shared: &Shared,
    listener: &TcpListener,
) -> io::Result<(TcpStream, SocketAddr)> {
    while memory::is_short() {
        shared.clock.sleep(PERIOD).await;
    }
    listener.accept().await
}

/// Calls on connections to end while memory is short, for ever: see [`relieved`].
#[expect(clippy::infinite_loop, reason = "the task ends with its tree")]
pub(super) async fn relieve(shared: Arc<Shared>) {
    let (mut looks, mut in_vain, mut before) = (0, 0, memory::were_cut_off());
    loop {
        shared.clock.sleep(PERIOD).await;
        let cut = memory::were_cut_off() - before;
        before += cut;
        if cut > 0 {
            let mib = memory::taken() >> 20;
            tracing::warn!(
                cut,
                mib,
                "memory is short: clients that make sidescale hold much are cut off"
            );
        }
        if !memory::is_short() {
            (looks, in_vain) = (0, 0);
            continue;
        }
        looks += 1;
        in_vain = if cut == 0 { in_vain + 1 } else { 0 };
        let open = shared.open.len() + shared.late.len();
        if in_vain >= IN_VAIN && memory::is_short_without(open * LIGHT_BYTES) {
            in_vain = 0;
            let mib = memory::taken() >> 20;
            memory::concede();
            tracing::warn!(
                mib,
                "memory is short of what sidescale holds itself, and no client is cut off for that: raise resources.limits.memory \
                 of its container"
            );
        }
        shared.relief.send_replace(looks);
    }
}

/// Returns when a connection should end for want of memory: at once where much is held for it, at the second look where it has
/// never carried a request, and where it has none now when nothing else has helped for long: its client may just be sending one.
pub(super) async fn relieved(shared: &Shared, state: &WireState) {
    let mut relief = shared.relief.subscribe();
    while relief.changed().await.is_ok() {
        let looks = *relief.borrow_and_update();
        // Those before this one may have made room enough.
        let has_to_go = match looks {
            ..2 => state.is_heavy(),
            2..LONG => state.is_heavy() || !state.is_serving() && !state.is_used(),
            LONG.. => state.is_heavy() || !state.is_serving(),
        };
        if memory::is_short() && has_to_go {
            memory::cut_off();
            return;
        }
    }
    std::future::pending::<()>().await;
}
