//! One pod's load and GPU sample, as it travels from a member to the leader.
//!
//! A report carries cumulative counters, the start of the process that counts (`epoch`) and a sequence number, so that
//! two readers, a lost line or a second leader cost nothing: a reader takes the difference of any two reports of one
//! epoch. The wire format is a line of JSON; unknown fields are ignored, another major version (`v`) makes the member
//! unknown.

pub mod meter;

use serde::{Deserialize, Serialize};

/// The major version of the wire format that this program speaks.
pub const WIRE_VERSION: u32 = 1;

/// Sums over an observed time that can be joined: over pods, and over intervals.
///
/// All fields are additive. `pod_seconds` is the observed time itself, so that an interval nobody observed is told
/// from one without load (`pod_seconds` = 0 means missing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Pod-seconds observed: one pod that reports for one second adds one.
    pub pod_seconds: f64,
    /// Requests that arrived (per-route filtered: health checks are not load).
    pub arrivals: f64,
    /// Requests that got their whole response.
    pub completions: f64,
    /// Requests that ended otherwise: the client left, the upstream failed, or they were refused.
    pub failures: f64,
    /// Integral of requests in flight over time (waiting ones included), in request-seconds.
    pub busy_seconds: f64,
    /// Sum of the time from arrival to end over `completions`, in seconds.
    pub service_seconds: f64,
    /// Integral of GPU utilisation (mean over the pod's devices, 0 to 1) over `gpu_observed_seconds`.
    pub gpu_busy_seconds: f64,
    /// Pod-seconds with a GPU sample.
    pub gpu_observed_seconds: f64,
}

/// One pod's state at one moment, cumulative since `epoch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "fields of a wire format, each of which a member of another version may lack"
)]
pub struct Report {
    /// [`WIRE_VERSION`] of the sender.
    pub v: u32,
    /// The pod's name.
    pub pod: String,
    /// Identifies the process that counts; a new process starts from zero.
    pub epoch: u64,
    /// Grows by one with every report of an epoch.
    pub seq: u64,
    /// The member's monotonic time of the reading, milliseconds since its own start.
    pub at_millis: u64,
    /// Sums since the epoch's start.
    pub total: Load,
    /// Requests in flight at this moment, waiting ones included.
    pub in_flight: u64,
    /// The sums and what is in flight say nothing of now: the server's own metrics are to tell them, and do not.
    pub load_unknown: bool,
    /// Whether the pod takes requests: its server answers and it is not draining.
    pub ready: bool,
    /// Whether it drains, or stands aside because it was asked to.
    pub draining: bool,
    /// The GPU at this moment, where there is one.
    pub gpu: Option<GpuReading>,
    /// Connections of clients that stand at this moment; `None`: it carries none itself, or is too old to say.
    pub connections: Option<u64>,
    /// It does not lead, whoever names it: it was told to follow, or may not write the Lease.
    pub follows: bool,
}

/// GPU state at one moment, over the devices of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuReading {
    /// Devices read.
    pub devices: u32,
    /// Mean utilisation of the devices, 0 to 1.
    pub utilization: f64,
    /// Memory in use over all devices, bytes.
    pub memory_used_bytes: u64,
    /// Memory of all devices, bytes.
    pub memory_total_bytes: u64,
    /// Power drawn by all devices, watts.
    pub power_watts: f64,
}

/// A stretch of a member's past, kept in its own ring, for a leader whose checkpoint is older.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// The member's wall clock at the start of the first slot, milliseconds since the epoch.
    pub start_millis: i64,
    /// Length of a slot in seconds.
    pub step_seconds: u32,
    /// The slots in order.
    pub slots: Vec<Load>,
}

/// A line that a member sends up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Up {
    /// The present.
    Report(Report),
    /// The present, sent at once because the pod is overrun.
    Overrun(Report),
    /// The past that the leader asked for in its [`Hello`].
    Past(Past),
}

/// A line that the leader sends down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Down {
    /// The first line: who leads, and the proof.
    Hello(Hello),
    /// Once a second: the leader lives.
    Beacon(Beacon),
    /// Be unready for so long: the fleet gets smaller by you. Said again, it counts from then; 0 takes it back.
    Drain {
        /// For how long; nobody stays away for a leader that has gone.
        for_millis: u32,
    },
    /// Let a share of your clients connect anew: they may find pods that have fewer.
    Retire {
        /// How many of a thousand connections.
        per_mille: u16,
        /// Spread over so long.
        over_millis: u32,
    },
    /// The leader goes; the named successor may take the Lease at once.
    Goodbye {
        /// Holder identity of the successor, where there is one.
        successor: Option<String>,
    },
}

/// The leader's first line on a member channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// [`WIRE_VERSION`] of the sender.
    pub v: u32,
    /// The term it leads in.
    pub term: u64,
    /// Its holder identity.
    pub holder: String,
    /// The term's random token; its SHA-256 (hex) stands in the Lease.
    pub token: String,
    /// Send your past from this wall-clock time on (milliseconds since the epoch); `None`: none is wanted.
    pub past_since_millis: Option<i64>,
}

/// The leader's sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beacon {
    /// The term it leads in.
    pub term: u64,
    /// Its holder identity.
    pub holder: String,
    /// The Lease's resourceVersion after its last good renewal: a new value counts as having seen the Lease.
    pub renewed: String,
    /// Members of the fleet: the others draw their delay from it.
    pub members: u32,
    /// Holder identities of the standbys, first successor first; they watch the Lease.
    pub standbys: Vec<String>,
    /// How many of them, from the first on, are processes of `sidescale lead`: the others leave the Lease to these.
    pub leads: usize,
    /// `ip:port` of the leader's admin listener, which followers ask for plan and history.
    pub admin: String,
}

// === impl GpuReading ===

impl From<crate::gpu::Sample> for GpuReading {
    fn from(sample: crate::gpu::Sample) -> Self {
        // Destructured without `..`, so that a new field cannot be forgotten on the wire.
        let crate::gpu::Sample {
            devices,
            utilization,
            memory_used_bytes,
            memory_total_bytes,
            power_watts,
        } = sample;
        Self {
            devices,
            utilization,
            memory_used_bytes,
            memory_total_bytes,
            power_watts,
        }
    }
}

// === impl Load ===

impl Load {
    /// Adds `other` to `self`, field by field.
    pub fn add(&mut self, other: &Self) {
        self.zip(other, |mine, theirs| mine + theirs);
    }

    /// What came between `earlier` and `self`, two readings of one epoch; never below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = *self;
        difference.zip(earlier, |mine, theirs| (mine - theirs).max(0.0));
        difference
    }

    /// Every field times `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut scaled = *self;
        scaled.zip(self, |mine, _same| mine * factor);
        scaled
    }

    fn zip(&mut self, other: &Self, join: impl Fn(f64, f64) -> f64) {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let Self {
            pod_seconds,
            arrivals,
            completions,
            failures,
            busy_seconds,
            service_seconds,
            gpu_busy_seconds,
            gpu_observed_seconds,
        } = other;
        self.pod_seconds = join(self.pod_seconds, *pod_seconds);
        self.arrivals = join(self.arrivals, *arrivals);
        self.completions = join(self.completions, *completions);
        self.failures = join(self.failures, *failures);
        self.busy_seconds = join(self.busy_seconds, *busy_seconds);
        self.service_seconds = join(self.service_seconds, *service_seconds);
        self.gpu_busy_seconds = join(self.gpu_busy_seconds, *gpu_busy_seconds);
        self.gpu_observed_seconds = join(self.gpu_observed_seconds, *gpu_observed_seconds);
    }
}

#[cfg(test)]
mod wire;
