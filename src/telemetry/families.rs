//! The metric families, one row each, and their `OpenMetrics` text.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::lifecycle::Phase;
use crate::proxy::{Durations, Latencies};
use crate::telemetry::{Fleet, Readings, Requests};

/// What `/metrics` says it is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "sidescale";

/// The metrics at this moment, as `OpenMetrics` text.
#[expect(
    clippy::missing_panics_doc,
    reason = "writing to a string does not fail"
)]
pub fn render(readings: Readings) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape(Arc::new(readings))));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

/// One metric family: what it is called and how it is read. A row of the table in the module's documentation each.
struct Family {
    /// Without the prefix, and for counters without `_total`.
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: fn(&Readings) -> Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// One value, with at most one label.
struct Sample {
    label: Option<(&'static str, &'static str)>,
    value: Value,
}

enum Value {
    Number(f64),
    Durations(Durations),
}

#[derive(Debug)]
struct Scrape(Arc<Readings>);

// === impl Scrape ===

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in FAMILIES {
            let samples = (family.read)(&self.0);
            if samples.is_empty() {
                continue;
            }
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in samples {
                sample.encode(family.kind, &mut metric)?;
            }
        }
        Ok(())
    }
}

// === impl Sample ===

impl Sample {
    fn encode(&self, kind: Kind, metric: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let labels: Vec<_> = self.label.into_iter().collect();
        if kind == Kind::Info {
            return metric.encode_info(&labels);
        }
        if labels.is_empty() {
            return self.value.encode(kind, metric);
        }
        self.value.encode(kind, &mut metric.encode_family(&labels)?)
    }
}

// === impl Value ===

impl Value {
    fn encode(&self, kind: Kind, metric: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Number(value) if kind == Kind::Counter => {
                metric.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            Self::Number(value) => metric.encode_gauge(value),
            Self::Durations(durations) => metric.encode_histogram::<NoLabelSet>(
                durations.sum().as_secs_f64(),
                durations.count(),
                &durations.by_bound(),
                None,
            ),
        }
    }
}

fn one(value: f64) -> Vec<Sample> {
    vec![Sample {
        label: None,
        value: Value::Number(value),
    }]
}

fn flag(value: bool) -> Vec<Sample> {
    one(f64::from(u8::from(value)))
}

fn option(value: Option<f64>) -> Vec<Sample> {
    value.map_or_else(Vec::new, one)
}

fn by<const N: usize>(label: &'static str, values: [(&'static str, f64); N]) -> Vec<Sample> {
    values
        .into_iter()
        .map(|(name, value)| Sample {
            label: Some((label, name)),
            value: Value::Number(value),
        })
        .collect()
}

fn of_requests(readings: &Readings, read: fn(&Requests) -> f64) -> Vec<Sample> {
    option(readings.requests.as_ref().map(read))
}

fn of_latencies(readings: &Readings, read: fn(&Latencies) -> &Durations) -> Vec<Sample> {
    let requests = readings.requests.iter();
    requests
        .map(|requests| Sample {
            label: None,
            value: Value::Durations(read(&requests.took).clone()),
        })
        .collect()
}

fn of_fleet(readings: &Readings, read: fn(&Fleet) -> Option<f64>) -> Vec<Sample> {
    option(readings.fleet.as_ref().and_then(read))
}

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&Readings) -> Vec<Sample>,
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        read,
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&Readings) -> Vec<Sample>,
) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        read,
    }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    read: fn(&Readings) -> Vec<Sample>,
) -> Family {
    Family {
        name,
        kind: Kind::Histogram,
        help,
        read,
    }
}

static FAMILIES: &[Family] = &[
    Family {
        name: "build",
        kind: Kind::Info,
        help: "The version that runs",
        read: |_| by("version", [(env!("CARGO_PKG_VERSION"), 1.0)]),
    },
    gauge(
        "ready",
        "Whether this pod takes requests: its server answers and it is not draining",
        |r| flag(r.is_ready),
    ),
    gauge(
        "phase",
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
    counter("requests_received", "Requests that arrived", |r| {
        of_requests(r, |requests| requests.arrivals as f64)
    }),
    counter("requests", "Requests that ended, by outcome", |r| {
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
    }),
    counter("responses", "Responses sent, by status class", |r| {
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
    }),
    gauge(
        "requests_in_flight",
        "Requests in flight, waiting ones included",
        |r| of_requests(r, |requests| requests.in_flight as f64),
    ),
    counter(
        "requests_in_flight_seconds",
        "Integral of the requests in flight over time",
        |r| of_requests(r, |requests| requests.in_flight_seconds),
    ),
    histogram(
        "request_duration_seconds",
        "Times from arrival to end, of the requests completed",
        |r| of_latencies(r, |took| &took.service),
    ),
    histogram(
        "first_byte_seconds",
        "Times from arrival to the response's head, of the requests that the server answered",
        |r| of_latencies(r, |took| &took.first_byte),
    ),
    counter(
        "response_bytes",
        "Bytes of response bodies passed on",
        |r| of_requests(r, |requests| requests.response_bytes as f64),
    ),
    counter(
        "response_frames",
        "Pieces in which the bytes of response bodies came: of a stream, roughly its chunks",
        |r| of_requests(r, |requests| requests.response_frames as f64),
    ),
    gauge(
        "gpu_devices",
        "GPUs read; absent without a readable one",
        |r| option(r.gpu.map(|gpu| f64::from(gpu.devices))),
    ),
    gauge(
        "gpu_utilization_ratio",
        "Mean utilisation of this pod's GPUs, 0 to 1",
        |r| option(r.gpu.map(|gpu| gpu.utilization)),
    ),
    gauge(
        "gpu_memory_used_bytes",
        "Memory in use on this pod's GPUs",
        |r| option(r.gpu.map(|gpu| gpu.memory_used_bytes as f64)),
    ),
    gauge("gpu_memory_bytes", "Memory of this pod's GPUs", |r| {
        option(r.gpu.map(|gpu| gpu.memory_total_bytes as f64))
    }),
    gauge("gpu_power_watts", "Power drawn by this pod's GPUs", |r| {
        option(r.gpu.map(|gpu| gpu.power_watts))
    }),
    gauge(
        "member_streams",
        "Leaders' streams that stand at this pod's member port",
        |r| one(r.member.streams as f64),
    ),
    counter(
        "member_impostors",
        "Leaders refused because their token did not match the Lease",
        |r| one(r.member.impostors as f64),
    ),
    counter("member_refused", "Streams closed for what they sent", |r| {
        one(r.member.refused as f64)
    }),
    counter(
        "member_stale_orders",
        "Orders of a deposed leader, not obeyed",
        |r| one(r.member.stale as f64),
    ),
    counter(
        "member_not_understood",
        "Lines of leaders that were not understood",
        |r| one(r.member.not_understood as f64),
    ),
    gauge("leader", "Whether this pod leads", |r| {
        flag(r.leadership.is_leader)
    }),
    gauge("term", "The highest term this pod knows of", |r| {
        one(r.leadership.term as f64)
    }),
    counter(
        "leader_changes",
        "Changes of the leader that this pod has seen",
        |r| one(r.leadership.changes as f64),
    ),
    counter(
        "api_conflicts",
        "Writes that the API server refused because the object had moved on",
        |r| one(r.api_conflicts as f64),
    ),
    counter(
        "api_errors",
        "Requests to the API server that failed otherwise",
        |r| one(r.api_errors as f64),
    ),
    counter("faults", "Faults since the start, by kind", |r| {
        let sample = |fault: &crate::telemetry::Fault| Sample {
            label: Some(("kind", fault.kind)),
            value: Value::Number(fault.count as f64),
        };
        r.faults.iter().map(sample).collect()
    }),
    gauge("fault", "Whether a fault of this kind stands now", |r| {
        let sample = |fault: &crate::telemetry::Fault| Sample {
            label: Some(("kind", fault.kind)),
            value: Value::Number(f64::from(u8::from(fault.is_active))),
        };
        r.faults.iter().map(sample).collect()
    }),
    gauge(
        "replicas_desired",
        "Replicas that the last plan asks for",
        |r| of_fleet(r, |fleet| Some(f64::from(fleet.desired))),
    ),
    gauge("replicas_spec", "spec.replicas of the Deployment", |r| {
        of_fleet(r, |fleet| Some(f64::from(fleet.spec)))
    }),
    gauge("replicas_ready", "Pods that can serve", |r| {
        of_fleet(r, |fleet| Some(fleet.ready as f64))
    }),
    gauge(
        "replicas_starting",
        "Pods on their way to their first Ready",
        |r| of_fleet(r, |fleet| Some(fleet.starting as f64)),
    ),
    gauge(
        "replicas_unknown",
        "Ready pods whose load is not known",
        |r| of_fleet(r, |fleet| Some(fleet.unknown as f64)),
    ),
    counter(
        "scale_writes",
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
    gauge(
        "fleet_arrivals_per_second",
        "Requests that arrive at the fleet each second",
        |r| of_fleet(r, |fleet| Some(fleet.arrivals_per_second)),
    ),
    gauge(
        "fleet_requests_in_flight",
        "Requests in flight over the reporting pods",
        |r| of_fleet(r, |fleet| Some(fleet.in_flight)),
    ),
    gauge(
        "forecast_arrivals_per_second",
        "Arrivals forecast for one lead time ahead: point, and the upper quantile",
        |r| {
            let fleet = r.fleet.unwrap_or_default();
            let both = fleet.forecast_point.zip(fleet.forecast_upper);
            both.map_or_else(Vec::new, |(point, upper)| {
                by("quantile", [("point", point), ("upper", upper)])
            })
        },
    ),
    gauge(
        "forecast_trust_ratio",
        "How far the forecast's own record lets it be trusted, 0 to 1",
        |r| of_fleet(r, |fleet| fleet.trust),
    ),
    gauge(
        "lead_time_seconds",
        "How long a new pod is expected to take until it answers",
        |r| of_fleet(r, |fleet| fleet.lead_time_seconds),
    ),
];

#[cfg(test)]
mod tests;
