//! The published rules of other autoscalers, exact, to be measured against.
//!
//! A baseline is only worth beating when it is the real one: constants, windows and odd corners are those of the
//! published code, each held by its test vectors. [`Shadow`] lets a rule act in a small world of its own on the same
//! arrivals as the real fleet, so that "what would HPA have done" has an answer in waiting requests.

mod hpa;
mod kpa;
mod world;

pub use hpa::{Hpa, PodSamples, Replicas, average_value, filled_in};
pub use kpa::{Kpa, KpaSettings};
pub use world::{Rule, Shadow};

/// Rounds a quotient up to whole pods.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u32; NaN becomes 0"
)]
fn pods(quotient: f64) -> u32 {
    quotient.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}
