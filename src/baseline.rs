//! The published rules of other autoscalers, exact, to be measured against.
//!
//! A baseline is only worth beating when it is the real one: constants, windows and odd corners are those of the
//! published code, each held by its test vectors. [`World`] is the small world that rules are compared in; [`Shadow`] lets a
//! rule act in one on the same arrivals as the real fleet, so that "what would HPA have done" has an answer in waiting
//! requests.

mod cron;
mod hpa;
mod keda;
mod kpa;
mod rule;
mod shadow;
mod world;

pub use cron::{CronWindow, Schedule};
pub use hpa::{Hpa, PodSamples, Replicas, average_value, filled_in};
pub use keda::{Keda, KedaSettings};
pub use kpa::{Kpa, KpaSettings};
pub use rule::{Actor, Rule, Seen};
pub use shadow::Shadow;
pub use world::{Witness, World};

/// Rounds a quotient up to whole pods.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u32; NaN becomes 0"
)]
pub(crate) fn pods(quotient: f64) -> u32 {
    quotient.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}
