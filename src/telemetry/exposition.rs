//! `OpenMetrics` text of the metric families.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::FAMILIES;
use super::family::{Kind, Sample, Value};
use super::readings::Readings;

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
