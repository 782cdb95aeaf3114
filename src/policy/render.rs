//! Shows a policy whole, in the schema it was read from: what was meant, with every default.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value, json};

use super::{
    DataPath, LeadTime, Metric, Mode, Policy, ScalingPolicyKind, ScalingRules, SelectPolicy,
};
use crate::units::Shown;

// === impl Policy ===

impl Policy {
    /// The policy as YAML that [`read`](super::read()) takes back unchanged.
    ///
    /// # Panics
    ///
    /// Never: text, finite numbers and mappings always have a YAML form.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("text, numbers and mappings always have a YAML form")
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let Self {
            target,
            mode,
            data_path,
            min_replicas,
            max_replicas,
            metrics,
            prediction,
            behavior,
        } = self;
        let mut map = serializer.serialize_map(None)?;
        if let Some(target) = target {
            map.serialize_entry(
                "target",
                &json!({"kind": "Deployment", "name": target.name}),
            )?;
        }
        map.serialize_entry("mode", mode.label())?;
        map.serialize_entry("dataPath", data_path.label())?;
        map.serialize_entry("minReplicas", min_replicas)?;
        map.serialize_entry("maxReplicas", max_replicas)?;
        let metrics: Vec<Value> = metrics.iter().map(metric).collect();
        map.serialize_entry("metrics", &metrics)?;
        let mut shown = Map::new();
        shown.insert("quantile".to_owned(), number(percent(prediction.quantile)));
        shown.insert("costRatio".to_owned(), number(prediction.cost_ratio));
        let lead_time = match prediction.lead_time {
            LeadTime::Auto => "auto".to_owned(),
            LeadTime::Fixed(duration) => Shown(duration).to_string(),
        };
        shown.insert("leadTime".to_owned(), json!(lead_time));
        let history = Shown(prediction.history).to_string();
        shown.insert("history".to_owned(), json!(history));
        if let Some(share) = prediction.max_ahead {
            let max_ahead = format!("{}%", percent(share));
            shown.insert("maxAhead".to_owned(), json!(max_ahead));
        }
        map.serialize_entry("prediction", &shown)?;
        let both = json!({
            "scaleUp": rules(&behavior.scale_up),
            "scaleDown": rules(&behavior.scale_down),
        });
        map.serialize_entry("behavior", &both)?;
        map.end()
    }
}

// === impl Mode ===

impl Mode {
    pub(super) const WORDS: [(&'static str, Self); 5] = [
        ("observe", Self::Observe),
        ("auto", Self::Auto),
        ("scaleUpOnly", Self::ScaleUpOnly),
        ("proactive", Self::Proactive),
        ("reactive", Self::Reactive),
    ];

    /// The word of the policy file, also for metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Auto => "auto",
            Self::ScaleUpOnly => "scaleUpOnly",
            Self::Proactive => "proactive",
            Self::Reactive => "reactive",
        }
    }
}

// === impl DataPath ===

impl DataPath {
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("proxy", Self::Proxy), ("passive", Self::Passive)];

    /// The word of the policy file, also for metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Passive => "passive",
        }
    }
}

// === impl SelectPolicy ===

impl SelectPolicy {
    pub(super) const WORDS: [(&'static str, Self); 3] = [
        ("Max", Self::Max),
        ("Min", Self::Min),
        ("Disabled", Self::Disabled),
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Max => "Max",
            Self::Min => "Min",
            Self::Disabled => "Disabled",
        }
    }
}

// === impl ScalingPolicyKind ===

impl ScalingPolicyKind {
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("Pods", Self::Pods), ("Percent", Self::Percent)];

    const fn label(self) -> &'static str {
        match self {
            Self::Pods => "Pods",
            Self::Percent => "Percent",
        }
    }
}

fn metric(metric: &Metric) -> Value {
    match metric {
        Metric::Gpu {
            average_utilization,
        } => json!({"type": "gpu", "averageUtilization": number(*average_utilization)}),
        Metric::RequestRate { per_second } => {
            json!({"type": "requestRate", "perSecond": number(*per_second)})
        }
        Metric::Concurrency { average_value } => {
            json!({"type": "concurrency", "averageValue": number(*average_value)})
        }
    }
}

fn rules(rules: &ScalingRules) -> Value {
    let policies = rules.policies.iter().map(|policy| {
        json!({
            "type": policy.kind.label(),
            "value": policy.value,
            "periodSeconds": number(policy.period.as_secs_f64()),
        })
    });
    json!({
        "stabilizationWindowSeconds": number(rules.stabilization_window.as_secs_f64()),
        "selectPolicy": rules.select.label(),
        "policies": policies.collect::<Vec<_>>(),
        "tolerance": number(rules.tolerance),
    })
}

/// 95 for 0.95, without the dust that the division left.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

/// Whole numbers without a point, as people write them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and small by the test before"
)]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
