//! What the inference server says of itself: its Prometheus text, read once a second, in words that fit every server.
//!
//! For a server that must not be proxied (`dataPath: passive`) this is where the pod's load comes from. [`read`] asks once
//! and gives a [`Sample`]; a [`Tally`] turns samples into sums that only grow, as the proxy's accounts are. The text is
//! another program's: whatever it holds, reading it ends in a sample or in an error that says what to do.

mod address;
mod dialect;
mod fetch;
mod tally;
pub(crate) mod text;

use serde::Serialize;

pub use self::address::{Address, NotAnAddress};
pub use self::dialect::UnknownServer;
pub use self::fetch::{ReadError, read};
pub use self::tally::{Counts, Sums, Tally};

/// A server whose metrics are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// Hugging Face's Text Generation Inference.
    Tgi,
    /// NVIDIA's Triton Inference Server, whatever its backend.
    Triton,
}

/// A server's load at one moment, summed over its models, engines and ranks. Counters count from the server's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Who said it.
    pub engine: Engine,
    /// Requests being worked on; `None`: this server does not tell.
    pub running: Option<f64>,
    /// Requests that wait for their turn.
    pub waiting: f64,
    /// Share of the KV cache in use, 0 to 1; `None`: not told.
    pub kv_cache: Option<f64>,
    /// Requests that ended with their whole answer.
    pub completed: f64,
    /// Requests that ended otherwise.
    pub failed: f64,
    /// Sum of the times from arrival to end of the requests that ended; `None`: not told.
    pub request_seconds: Option<f64>,
}

// === impl Engine ===

impl Engine {
    /// A stable word for metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::Triton => "triton",
        }
    }
}

// === impl Sample ===

impl Sample {
    /// Requests that are known to be on the server.
    pub fn in_flight(&self) -> f64 {
        self.running.unwrap_or(0.0) + self.waiting
    }
}
