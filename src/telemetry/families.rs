//! The metric families, one row each.

mod samples;

use self::samples::{
    by, flag, of_fleet, of_latencies, of_refused_heads, of_requests, of_server, one, option,
};
use super::family::{Family, Kind, Sample, Value};
use crate::lifecycle::Phase;
use crate::telemetry::Readings;

const fn family(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: fn(&Readings) -> Vec<Sample>,
) -> Family {
    Family {
        name,
        kind,
        help,
        read,
    }
}

pub(super) static FAMILIES: &[Family] = &[
    family("build", Kind::Info, "The version that runs", |_| {
        by("version", [(env!("CARGO_PKG_VERSION"), 1.0)])
    }),
    family(
        "ready",
        Kind::Gauge,
        "Whether this pod takes requests: its server answers and it is not draining; of a lead: whether it takes part in the election",
        |r| flag(r.is_ready),
    ),
    family(
        "phase",
        Kind::Gauge,
        "1 for the phase this pod is in (serving, draining, drained), 0 for the others",
        |r| {
            let is = |phase| f64::from(u8::from(r.phase == phase));
            by(
                "phase",
                [
                    ("serving", is(Phase::Serving)),
                    ("draining", is(Phase::Draining)),
                    ("drained", is(Phase::Drained)),
                ],
            )
        },
    ),
    family(
        "requests_received",
        Kind::Counter,
        "Requests that arrived",
        |r| of_requests(r, |requests| requests.arrivals as f64),
    ),
    family(
        "requests",
        Kind::Counter,
        "Requests that ended, by outcome",
        |r| {
            r.requests.as_ref().map_or_else(Vec::new, |requests| {
                by(
                    "outcome",
                    [
                        ("completed", requests.completed as f64),
                        ("client_gone", requests.client_gone as f64),
                        ("upstream_failed", requests.upstream_failed as f64),
                        ("refused", requests.refused as f64),
                    ],
                )
            })
        },
    ),
    family(
        "request_heads_refused",
        Kind::Counter,
        "Requests refused for their head, by reason; most of them never became a request that is counted",
        of_refused_heads,
    ),
    family(
        "responses",
        Kind::Counter,
        "Responses sent, by status class",
        |r| {
            r.requests.as_ref().map_or_else(Vec::new, |requests| {
                let [of_1xx, of_2xx, of_3xx, of_4xx, of_5xx] = requests.responses.map(|n| n as f64);
                by(
                    "class",
                    [
                        ("1xx", of_1xx),
                        ("2xx", of_2xx),
                        ("3xx", of_3xx),
                        ("4xx", of_4xx),
                        ("5xx", of_5xx),
                    ],
                )
            })
        },
    ),
    family(
        "requests_in_flight",
        Kind::Gauge,
        "Requests in flight, waiting ones included",
        |r| of_requests(r, |requests| requests.in_flight as f64),
    ),
    family(
        "requests_waiting",
        Kind::Gauge,
        "Requests that wait in the sidecar for a place at the server (--max-concurrent)",
        |r| of_requests(r, |requests| requests.waiting as f64),
    ),
    family(
        "client_connections",
        Kind::Gauge,
        "Connections of clients that stand and were not retired",
        |r| option(r.connections.map(|now| now.open as f64)),
    ),
    family(
        "client_connections_retired",
        Kind::Counter,
        "Connections of clients ended so that these find new pods",
        |r| option(r.connections.map(|now| now.retired as f64)),
    ),
    family(
        "requests_in_flight_seconds",
        Kind::Counter,
        "Integral of the requests in flight over time",
        |r| of_requests(r, |requests| requests.in_flight_seconds),
    ),
    family(
        "request_duration_seconds",
        Kind::Histogram,
        "Times from arrival to end, of the requests completed",
        |r| of_latencies(r, |took| &took.service),
    ),
    family(
        "first_byte_seconds",
        Kind::Histogram,
        "Times from arrival to the response's head, of the requests that the server answered",
        |r| of_latencies(r, |took| &took.first_byte),
    ),
    family(
        "request_bytes",
        Kind::Counter,
        "Bytes of request bodies passed on",
        |r| of_requests(r, |requests| requests.request_bytes as f64),
    ),
    family(
        "response_bytes",
        Kind::Counter,
        "Bytes of response bodies passed on",
        |r| of_requests(r, |requests| requests.response_bytes as f64),
    ),
    family(
        "response_frames",
        Kind::Counter,
        "Pieces in which the bytes of response bodies came: of a stream, roughly its chunks",
        |r| of_requests(r, |requests| requests.response_frames as f64),
    ),
    family(
        "server",
        Kind::Info,
        "The inference server whose own metrics are read; absent while none are",
        |r| {
            r.server
                .as_ref()
                .map_or_else(Vec::new, |server| by("engine", [(server.engine, 1.0)]))
        },
    ),
    family(
        "server_requests",
        Kind::Counter,
        "Requests that ended on the server by its own metrics, by outcome",
        |r| {
            r.server.as_ref().map_or_else(Vec::new, |server| {
                by(
                    "outcome",
                    [("completed", server.completed), ("failed", server.failed)],
                )
            })
        },
    ),
    family(
        "server_requests_running",
        Kind::Gauge,
        "Requests that the server works on by its own metrics; absent where it does not tell",
        |r| of_server(r, |server| server.running),
    ),
    family(
        "server_requests_waiting",
        Kind::Gauge,
        "Requests that wait on the server by its own metrics",
        |r| of_server(r, |server| Some(server.waiting)),
    ),
    family(
        "server_kv_cache_utilization_ratio",
        Kind::Gauge,
        "Share of the server's KV cache in use by its own metrics, 0 to 1; absent where it does not tell",
        |r| of_server(r, |server| server.kv_cache),
    ),
    family(
        "gpu_devices",
        Kind::Gauge,
        "GPUs read; absent without a readable one",
        |r| option(r.gpu.map(|gpu| f64::from(gpu.devices))),
    ),
    family(
        "gpu_utilization_ratio",
        Kind::Gauge,
        "Mean utilisation of this pod's GPUs, 0 to 1",
        |r| option(r.gpu.map(|gpu| gpu.utilization)),
    ),
    family(
        "gpu_memory_used_bytes",
        Kind::Gauge,
        "Memory in use on this pod's GPUs",
        |r| option(r.gpu.map(|gpu| gpu.memory_used_bytes as f64)),
    ),
    family(
        "gpu_memory_bytes",
        Kind::Gauge,
        "Memory of this pod's GPUs",
        |r| option(r.gpu.map(|gpu| gpu.memory_total_bytes as f64)),
    ),
    family(
        "gpu_power_watts",
        Kind::Gauge,
        "Power drawn by this pod's GPUs",
        |r| option(r.gpu.map(|gpu| gpu.power_watts)),
    ),
    family(
        "cpu_limit_cores",
        Kind::Gauge,
        "CPU limit of this container in cores; absent without one",
        |r| option(r.cpu_limit),
    ),
    family(
        "cpu_throttled_seconds",
        Kind::Counter,
        "Time for which that limit has stopped every thread of this container",
        |r| option(r.cpu_throttled.map(|time| time.as_secs_f64())),
    ),
    family(
        "member_streams",
        Kind::Gauge,
        "Leaders' streams that stand at this pod's member port",
        |r| one(r.member.streams as f64),
    ),
    family(
        "member_impostors",
        Kind::Counter,
        "Leaders refused because their token did not match the Lease",
        |r| one(r.member.impostors as f64),
    ),
    family(
        "member_refused",
        Kind::Counter,
        "Streams closed for what they sent",
        |r| one(r.member.refused as f64),
    ),
    family(
        "member_stale_orders",
        Kind::Counter,
        "Orders of a deposed leader, not obeyed",
        |r| one(r.member.stale as f64),
    ),
    family(
        "member_not_understood",
        Kind::Counter,
        "Lines of leaders that were not understood",
        |r| one(r.member.not_understood as f64),
    ),
    family("leader", Kind::Gauge, "Whether this pod leads", |r| {
        flag(r.leadership.is_leader)
    }),
    family(
        "term",
        Kind::Gauge,
        "The highest term this pod knows of",
        |r| one(r.leadership.term as f64),
    ),
    family(
        "leader_changes",
        Kind::Counter,
        "Changes of the leader that this pod has seen",
        |r| one(r.leadership.changes as f64),
    ),
    family(
        "api_conflicts",
        Kind::Counter,
        "Writes that the API server refused because the object had moved on",
        |r| one(r.api_conflicts as f64),
    ),
    family(
        "api_errors",
        Kind::Counter,
        "Requests to the API server that failed otherwise",
        |r| one(r.api_errors as f64),
    ),
    family(
        "faults",
        Kind::Counter,
        "Faults since the start, by kind",
        |r| {
            let sample = |fault: &crate::telemetry::Fault| Sample {
                label: Some(("kind", fault.kind)),
                value: Value::Number(fault.count as f64),
            };
            r.faults.iter().map(sample).collect()
        },
    ),
    family(
        "fault",
        Kind::Gauge,
        "Whether a fault of this kind stands now",
        |r| {
            let sample = |fault: &crate::telemetry::Fault| Sample {
                label: Some(("kind", fault.kind)),
                value: Value::Number(f64::from(u8::from(fault.is_active))),
            };
            r.faults.iter().map(sample).collect()
        },
    ),
    family(
        "replicas_desired",
        Kind::Gauge,
        "Replicas that the last plan asks for",
        |r| of_fleet(r, |fleet| Some(f64::from(fleet.desired))),
    ),
    family(
        "replicas_spec",
        Kind::Gauge,
        "spec.replicas of the Deployment",
        |r| of_fleet(r, |fleet| Some(f64::from(fleet.spec))),
    ),
    family("replicas_ready", Kind::Gauge, "Pods that can serve", |r| {
        of_fleet(r, |fleet| Some(fleet.ready as f64))
    }),
    family(
        "replicas_starting",
        Kind::Gauge,
        "Pods on their way to their first Ready",
        |r| of_fleet(r, |fleet| Some(fleet.starting as f64)),
    ),
    family(
        "replicas_unknown",
        Kind::Gauge,
        "Ready pods whose load is not known",
        |r| of_fleet(r, |fleet| Some(fleet.unknown as f64)),
    ),
    family(
        "scale_writes",
        Kind::Counter,
        "Changes of spec.replicas made by this leader, by direction",
        |r| {
            r.fleet.as_ref().map_or_else(Vec::new, |fleet| {
                by(
                    "direction",
                    [("up", fleet.raised as f64), ("down", fleet.lowered as f64)],
                )
            })
        },
    ),
    family(
        "fleet_arrivals_per_second",
        Kind::Gauge,
        "Requests that arrive at the fleet each second",
        |r| of_fleet(r, |fleet| Some(fleet.arrivals_per_second)),
    ),
    family(
        "fleet_requests_in_flight",
        Kind::Gauge,
        "Requests in flight over the reporting pods",
        |r| of_fleet(r, |fleet| Some(fleet.in_flight)),
    ),
    family(
        "forecast_arrivals_per_second",
        Kind::Gauge,
        "Arrivals forecast for one lead time ahead: point, and the upper quantile",
        |r| {
            let fleet = r.fleet.unwrap_or_default();
            let both = fleet.forecast_point.zip(fleet.forecast_upper);
            both.map_or_else(Vec::new, |(point, upper)| {
                by("quantile", [("point", point), ("upper", upper)])
            })
        },
    ),
    family(
        "forecast_trust_ratio",
        Kind::Gauge,
        "How far the forecast's own record lets it be trusted, 0 to 1",
        |r| of_fleet(r, |fleet| fleet.trust),
    ),
    family(
        "lead_time_seconds",
        Kind::Gauge,
        "How long a new pod is expected to take until it answers",
        |r| of_fleet(r, |fleet| fleet.lead_time_seconds),
    ),
];

#[cfg(test)]
mod tests;
