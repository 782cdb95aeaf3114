//! `/metrics` must be text that a scraper takes, and hold what the documentation promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::proxy::Latencies;
use crate::report::GpuReading;
use crate::telemetry::{Connections, Fault, Fleet, Requests, Server, render};

fn everything() -> Readings {
    Readings {
        is_ready: true,
        requests: Some(Requests {
            arrivals: 10,
            completed: 7,
            responses: [0, 7, 0, 0, 2],
            refused_heads: vec![("target", 1)],
            took: Latencies {
                service: [Duration::from_millis(1), Duration::from_millis(1_500)]
                    .into_iter()
                    .collect(),
                ..Latencies::default()
            },
            ..Requests::default()
        }),
        connections: Some(Connections {
            open: 40,
            retired: 2,
        }),
        server: Some(Server {
            engine: "vllm",
            running: Some(7.0),
            kv_cache: Some(0.6),
            completed: 20.0,
            ..Server::default()
        }),
        gpu: Some(GpuReading {
            devices: 2,
            utilization: 0.75,
            ..GpuReading::default()
        }),
        cpu_limit: Some(0.2),
        cpu_throttled: Some(Duration::from_millis(2_500)),
        faults: vec![Fault {
            kind: "api_forbidden",
            count: 3,
            is_active: true,
        }],
        fleet: Some(Fleet {
            desired: 12,
            forecast_point: Some(100.0),
            forecast_upper: Some(130.0),
            trust: Some(0.9),
            lead_time_seconds: Some(61.5),
            ..Fleet::default()
        }),
        ..Readings::default()
    }
}

/// Reads `OpenMetrics` text as a strict scraper would: each family once with HELP and TYPE, its samples right behind it with
/// the suffix of its kind and a number, one end. Gives the kind of each family by the name of its samples.
fn parse(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut seen = BTreeSet::new();
    let mut family = String::new();
    let mut suffix = "";
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && seen.insert(name.to_owned()), "{line}");
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, family, "{line}");
            suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                "gauge" | "histogram" => "",
                other => panic!("no such type: {other}"),
            };
            families.insert(format!("{name}{suffix}"), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let is_histogram = families
                .get(&family)
                .is_some_and(|kind| kind == "histogram");
            let name = match name.rsplit_once('_') {
                Some((histogram, "sum" | "count" | "bucket")) if is_histogram => histogram,
                _ => name,
            };
            assert_eq!(name, format!("{family}{suffix}"), "{line}");
            let value: f64 = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
        }
    }
    (families, samples)
}

/// The rows of the table in the module's documentation: name, kind, meaning.
fn documented() -> Vec<[&'static str; 3]> {
    include_str!("../../telemetry.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .map(|row| {
            let (name, rest) = row.split_once("` | ").expect("a name");
            let (kind, rest) = rest.split_once(" | ").expect("a kind");
            [name, kind, rest.strip_suffix(" |").expect("a row")]
        })
        .collect()
}

#[test]
fn every_documented_metric_exists_and_every_metric_is_documented() {
    let (families, _) = parse(&render(everything()));
    let exposed: BTreeMap<_, _> = families
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    let table: BTreeMap<_, _> = documented()
        .into_iter()
        .map(|[name, kind, _]| (name, kind))
        .collect();
    assert_eq!(exposed, table);
}

#[test]
fn the_documented_meaning_is_the_help_text() {
    let helps: Vec<_> = FAMILIES.iter().map(|family| family.help).collect();
    let table: Vec<_> = documented().into_iter().map(|[_, _, help]| help).collect();
    assert_eq!(helps, table);
}

#[test]
fn values_are_what_was_read() {
    let (_, samples) = parse(&render(everything()));
    let check = |series: &str, value: f64| {
        assert_eq!(
            samples.get(series),
            Some(&value),
            "{series} in {samples:#?}"
        );
    };
    check("sidescale_ready", 1.0);
    check("sidescale_phase{phase=\"serving\"}", 1.0);
    check("sidescale_phase{phase=\"draining\"}", 0.0);
    check("sidescale_requests_received_total", 10.0);
    check("sidescale_requests_total{outcome=\"completed\"}", 7.0);
    check("sidescale_responses_total{class=\"5xx\"}", 2.0);
    check("sidescale_request_duration_seconds_sum", 1.501);
    check("sidescale_request_duration_seconds_count", 2.0);
    let bucket = |le: &str| format!("sidescale_request_duration_seconds_bucket{{le=\"{le}\"}}");
    check(&bucket("0.000512"), 0.0);
    check(&bucket("0.001024"), 1.0);
    check(&bucket("1.048576"), 1.0);
    check(&bucket("2.097152"), 2.0);
    check(&bucket("+Inf"), 2.0);
    check("sidescale_server_info{engine=\"vllm\"}", 1.0);
    check(
        "sidescale_server_requests_total{outcome=\"completed\"}",
        20.0,
    );
    check("sidescale_server_requests_running", 7.0);
    check("sidescale_server_requests_waiting", 0.0);
    check("sidescale_server_kv_cache_utilization_ratio", 0.6);
    check("sidescale_gpu_utilization_ratio", 0.75);
    check("sidescale_cpu_limit_cores", 0.2);
    check("sidescale_cpu_throttled_seconds_total", 2.5);
    check("sidescale_faults_total{kind=\"api_forbidden\"}", 3.0);
    check("sidescale_fault{kind=\"api_forbidden\"}", 1.0);
    check("sidescale_replicas_desired", 12.0);
    check(
        "sidescale_forecast_arrivals_per_second{quantile=\"upper\"}",
        130.0,
    );
    check("sidescale_lead_time_seconds", 61.5);
    let version = format!(
        "sidescale_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    check(&version, 1.0);
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let (families, _) = parse(&render(Readings::default()));
    for name in [
        "sidescale_server_info",
        "sidescale_server_requests_waiting",
        "sidescale_gpu_utilization_ratio",
        "sidescale_cpu_limit_cores",
        "sidescale_replicas_desired",
        "sidescale_forecast_trust_ratio",
        "sidescale_requests_in_flight",
    ] {
        assert!(!families.contains_key(name), "{name}");
    }
    assert!(families.contains_key("sidescale_leader"));
}
