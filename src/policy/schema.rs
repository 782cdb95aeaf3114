//! The fields of a policy, what each may be, and an example that is right.

use super::field::{Names, Range};

pub(super) const POLICY: Names<'_> = Names {
    known: &[
        "target",
        "mode",
        "minReplicas",
        "maxReplicas",
        "metrics",
        "prediction",
        "dataPath",
        "behavior",
    ],
    later: &["schedule", "floors", "onMissing"],
};
/// What stands around the schema in the custom resource, where somebody copied one into the file.
pub(super) const RESOURCE: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
pub(super) const TARGET: Names<'_> = Names {
    known: &["kind", "name"],
    later: &["apiVersion"],
};
pub(super) const PREDICTION: Names<'_> = Names {
    known: &["quantile", "costRatio", "leadTime", "history", "maxAhead"],
    later: &[],
};
pub(super) const BEHAVIOR: Names<'_> = Names {
    known: &["scaleUp", "scaleDown"],
    later: &[],
};
pub(super) const RULES: Names<'_> = Names {
    known: &[
        "stabilizationWindowSeconds",
        "selectPolicy",
        "policies",
        "tolerance",
    ],
    later: &[],
};
pub(super) const SCALING_POLICY: Names<'_> = Names {
    known: &["type", "value", "periodSeconds"],
    later: &[],
};

/// Far above any cluster: a slip such as a timestamp is refused, a large fleet is not.
pub(super) const REPLICAS: Range = Range {
    contains: |count| (1.0..=100_000.0).contains(&count),
    shown: "1 <= replicas <= 100000; zero needs the gateway, which this version does not have",
    example: "2",
};
pub(super) const UTILIZATION: Range = Range {
    contains: |percent| percent > 0.0 && percent <= 100.0,
    shown: "0 < averageUtilization <= 100",
    example: "60",
};
pub(super) const PER_SECOND: Range = Range {
    contains: |rate| rate > 0.0,
    shown: "perSecond > 0",
    example: "5",
};
pub(super) const AVERAGE_VALUE: Range = Range {
    contains: |value| value > 0.0,
    shown: "averageValue > 0",
    example: "8",
};
pub(super) const QUANTILE: Range = Range {
    contains: |quantile| quantile > 50.0 && quantile < 100.0,
    shown: "50 < quantile < 100",
    example: "95",
};
pub(super) const COST_RATIO: Range = Range {
    contains: |ratio| (1.0..=10_000.0).contains(&ratio),
    shown: "1 <= costRatio <= 10000",
    example: "50",
};
pub(super) const LEAD_TIME: Range = Range {
    contains: |secs| (1.0..=21_600.0).contains(&secs),
    shown: "1s <= leadTime <= 6h",
    example: "180s",
};
pub(super) const HISTORY: Range = Range {
    contains: |secs| (3_600.0..=2_419_200.0).contains(&secs),
    shown: "1h <= history <= 28d",
    example: "14d",
};
pub(super) const MAX_AHEAD: Range = Range {
    contains: |percent| percent > 0.0 && percent <= 10_000.0,
    shown: "0% < maxAhead <= 10000%; to not look ahead at all write mode: reactive",
    example: "100%",
};
pub(super) const STABILIZATION: Range = Range {
    contains: |secs| (0.0..=3_600.0).contains(&secs),
    shown: "0 <= stabilizationWindowSeconds <= 3600",
    example: "300",
};
pub(super) const TOLERANCE: Range = Range {
    contains: |share| (0.0..=1.0).contains(&share),
    shown: "0 <= tolerance <= 1",
    example: "0.1",
};
pub(super) const VALUE: Range = Range {
    contains: |value| (1.0..=1_000_000.0).contains(&value),
    shown: "1 <= value <= 1000000",
    example: "4",
};
pub(super) const PERIOD: Range = Range {
    contains: |secs| (1.0..=1_800.0).contains(&secs),
    shown: "1 <= periodSeconds <= 1800",
    example: "60",
};
