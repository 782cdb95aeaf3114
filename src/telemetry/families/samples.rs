//! The samples of a family from what was read; none where it was not.

use crate::proxy::{Durations, Latencies};
use crate::telemetry::family::{Sample, Value};
use crate::telemetry::{Fleet, Readings, Requests, Server};

fn unlabelled(value: Value) -> Vec<Sample> {
    vec![Sample { label: None, value }]
}

pub(super) fn one(value: f64) -> Vec<Sample> {
    unlabelled(Value::Number(value))
}

pub(super) fn flag(value: bool) -> Vec<Sample> {
    one(f64::from(u8::from(value)))
}

pub(super) fn option(value: Option<f64>) -> Vec<Sample> {
    value.map_or_else(Vec::new, one)
}

pub(super) fn by<const N: usize>(
    label: &'static str,
    values: [(&'static str, f64); N],
) -> Vec<Sample> {
    values
        .into_iter()
        .map(|(name, value)| Sample {
            label: Some((label, name)),
            value: Value::Number(value),
        })
        .collect()
}

pub(super) fn of_refused_heads(readings: &Readings) -> Vec<Sample> {
    let requests = readings.requests.iter();
    requests
        .flat_map(|requests| &requests.refused_heads)
        .map(|(reason, count)| Sample {
            label: Some(("reason", reason)),
            value: Value::Number(*count as f64),
        })
        .collect()
}

pub(super) fn of_requests(readings: &Readings, read: fn(&Requests) -> f64) -> Vec<Sample> {
    option(readings.requests.as_ref().map(read))
}

pub(super) fn of_latencies(readings: &Readings, read: fn(&Latencies) -> &Durations) -> Vec<Sample> {
    readings
        .requests
        .as_ref()
        .map_or_else(Vec::new, |requests| {
            unlabelled(Value::Durations(read(&requests.took).clone()))
        })
}

pub(super) fn of_fleet(readings: &Readings, read: fn(&Fleet) -> Option<f64>) -> Vec<Sample> {
    option(readings.fleet.as_ref().and_then(read))
}

pub(super) fn of_server(readings: &Readings, read: fn(&Server) -> Option<f64>) -> Vec<Sample> {
    option(readings.server.as_ref().and_then(read))
}
