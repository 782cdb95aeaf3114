//! The values a scrape shows, as plain numbers: the app reads them where they stand and fills this in.

use std::time::Duration;

use crate::fleet::member::CountsReading;
use crate::lifecycle::Phase;
use crate::proxy::Latencies;
use crate::report::GpuReading;

/// Everything `/metrics` shows, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Whether this pod takes requests.
    pub is_ready: bool,
    /// How far it is on its way out.
    pub phase: Phase,
    /// What the proxy counted since the start; `None` without a proxy.
    pub requests: Option<Requests>,
    /// The clients' connections; `None` without a proxy.
    pub connections: Option<Connections>,
    /// What the inference server says of itself; `None` while it is not read.
    pub server: Option<Server>,
    /// The pod's GPUs, where there are any.
    pub gpu: Option<GpuReading>,
    /// The CPU limit of this container, in cores, where it has one.
    pub cpu_limit: Option<f64>,
    /// For how long that has stopped it.
    pub cpu_throttled: Option<Duration>,
    /// What happened on the member port.
    pub member: MemberPort,
    /// Who leads, as this pod knows.
    pub leadership: Leadership,
    /// Writes that the API server refused because the object had moved on.
    pub api_conflicts: u64,
    /// Requests to the API server that failed otherwise.
    pub api_errors: u64,
    /// Faults, each kind once.
    pub faults: Vec<Fault>,
    /// The fleet; `None` on a pod that does not lead.
    pub fleet: Option<Fleet>,
}

/// The clients' connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Those that stand and were not retired.
    pub open: u64,
    /// Those that were retired since the start.
    pub retired: u64,
}

/// What the proxy counted since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    /// Requests that arrived.
    pub arrivals: u64,
    /// Requests that got their whole response.
    pub completed: u64,
    /// Requests whose client left first.
    pub client_gone: u64,
    /// Requests that the upstream did not answer to the end.
    pub upstream_failed: u64,
    /// Requests answered without the upstream.
    pub refused: u64,
    /// Heads that were refused, by reason.
    pub refused_heads: Vec<(&'static str, u64)>,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Those of them that wait for a place at the server.
    pub waiting: u64,
    /// Responses by status class, `1xx` to `5xx`.
    pub responses: [u64; 5],
    /// Bytes of request bodies.
    pub request_bytes: u64,
    /// Bytes of response bodies.
    pub response_bytes: u64,
    /// Pieces in which they came: of a stream, roughly its chunks.
    pub response_frames: u64,
    /// Integral of the requests in flight over time, request-seconds.
    pub in_flight_seconds: f64,
    /// How long requests took.
    pub took: Latencies,
}

/// What an inference server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Server {
    /// Which server it is, in a stable word.
    pub engine: &'static str,
    /// Requests it works on, where it tells.
    pub running: Option<f64>,
    /// Requests that wait on it.
    pub waiting: f64,
    /// Share of its KV cache in use, 0 to 1, where it tells.
    pub kv_cache: Option<f64>,
    /// Requests that got their whole answer since it is read.
    pub completed: f64,
    /// Requests that ended otherwise since then.
    pub failed: f64,
}

/// What happened on the member port: the member's own counts.
pub type MemberPort = CountsReading;

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this pod does, with a claim that is valid now.
    pub is_leader: bool,
    /// The highest term it knows of; 0 before it knows any.
    pub term: u64,
    /// Changes of the leader it has seen.
    pub changes: u64,
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable word.
    pub kind: &'static str,
    /// How often since the start.
    pub count: u64,
    /// Whether it stands now.
    pub is_active: bool,
}

/// The fleet, as the leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Replicas that the last plan asks for.
    pub desired: u32,
    /// `spec.replicas`.
    pub spec: u32,
    /// Pods that can serve.
    pub ready: usize,
    /// Pods on their way to their first Ready.
    pub starting: usize,
    /// Ready pods whose load is not known.
    pub unknown: usize,
    /// Times this leader raised `spec.replicas`.
    pub raised: u64,
    /// Times this leader lowered it.
    pub lowered: u64,
    /// Requests that arrive at the fleet each second.
    pub arrivals_per_second: f64,
    /// Requests in flight over the reporting pods.
    pub in_flight: f64,
    /// Arrivals a second expected one lead time ahead; `None` without a forecast.
    pub forecast_point: Option<f64>,
    /// The upper quantile, arrivals a second.
    pub forecast_upper: Option<f64>,
    /// How far the forecast's own record lets it be trusted, 0 to 1.
    pub trust: Option<f64>,
    /// How long a new pod is expected to take, seconds.
    pub lead_time_seconds: Option<f64>,
}
