//! Whole fleets in simulated time, over many seeds: the election's machine and the fence's rules as they run in
//! production, against an API server in memory.
//!
//! A seed draws everything: delays, losses, clock rates, and when a process is stopped, killed, cut off or sent home. A
//! failure prints its seed and what happened last; `SIDESCALE_SEED=N cargo test --test simulation` runs that one alone.

mod liveness;
mod node;
mod safety;
mod store;
mod world;

/// The seeds to run: `count` of them, or the one that `SIDESCALE_SEED` names.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no configuration to be given"
)]
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SIDESCALE_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIDESCALE_SEED is a whole number")],
        Err(_unset) => (0..count).collect(),
    }
}

/// Fails with what is needed to see the failure again.
#[track_caller]
fn hold(world: &world::World, held: bool, what: &str) {
    assert!(
        held,
        "{what}\nseed {seed}; replay: SIDESCALE_SEED={seed} cargo test --test simulation\nwhat happened last:\n{log}",
        seed = world.seed(),
        log = world.last_events(),
    );
}
