//! Reads `metrics`: each item's fields depend on its type.

use super::Metric;
use super::field::{Field, Names, Problems, Range};
use super::schema::{AVERAGE_VALUE, PER_SECOND, UTILIZATION};

/// Fields of any type, to look at the type before the fields are held to it.
const ANY: Names<'_> = Names {
    known: &["type", "averageUtilization", "perSecond", "averageValue"],
    later: &["percentile", "milliseconds", "source", "query"],
};

/// Types of the schema that this version does not have.
const LATER: [&str; 4] = ["queue", "kvCache", "latency", "external"];

/// A type of metric and its target.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    target: &'static str,
    range: Range,
    make: fn(f64) -> Metric,
}

const GPU: Kind = Kind {
    name: "gpu",
    target: "averageUtilization",
    range: UTILIZATION,
    make: |target| Metric::Gpu {
        average_utilization: target,
    },
};
const REQUEST_RATE: Kind = Kind {
    name: "requestRate",
    target: "perSecond",
    range: PER_SECOND,
    make: |target| Metric::RequestRate { per_second: target },
};
const CONCURRENCY: Kind = Kind {
    name: "concurrency",
    target: "averageValue",
    range: AVERAGE_VALUE,
    make: |target| Metric::Concurrency {
        average_value: target,
    },
};

/// Every metric that is right; two of one type contradict each other.
pub(super) fn metrics(field: &Field<'_>, problems: &mut Problems) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut seen: Vec<(&str, String)> = Vec::new();
    for item in field.items(problems) {
        let Some((kind, metric)) = metric(&item, problems) else {
            continue;
        };
        if let Some((_kind, first)) = seen.iter().find(|(known, _path)| *known == kind) {
            let text = format!("contradicts {first}, which has the same type ({kind}); keep one");
            item.refuse(problems, text);
        }
        seen.push((kind, item.path));
        metrics.extend(metric);
    }
    metrics
}

/// The name of the type, and the metric where its target is right, too.
fn metric(item: &Field<'_>, problems: &mut Problems) -> Option<(&'static str, Option<Metric>)> {
    let mut unheard = Problems::default();
    let Some(fields) = item.fields(ANY, &mut unheard) else {
        problems.0.append(&mut unheard.0);
        return None;
    };
    let words = [GPU, REQUEST_RATE, CONCURRENCY].map(|kind| (kind.name, kind));
    let Kind {
        name,
        target,
        range,
        make,
    } = fields
        .require("type", "write for example type: concurrency", problems)?
        .word(&words, &LATER, problems)?;
    let names = Names {
        known: &["type", target],
        later: &[],
    };
    item.fields(names, problems);
    let why = format!(
        "type {name} needs it, for example {target}: {}",
        range.example
    );
    let metric = fields
        .require(target, &why, problems)
        .and_then(|field| field.number(&range, problems))
        .map(make);
    Some((name, metric))
}
