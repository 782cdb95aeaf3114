//! Which labels a selector asks for, by Kubernetes' rule.

use serde_json::Value;

/// Whether a `LabelSelector` object (`matchLabels` and `matchExpressions`) is satisfied by the labels of which `label` gives
/// the values. An empty selector asks for nothing; an operator that no API server takes is never satisfied.
pub fn selects<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut sets = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    equal.all(|(name, value)| label(name) == value.as_str())
        && sets.all(|wanted| {
            let found = label(wanted["key"].as_str().unwrap_or_default());
            let mut values = wanted["values"].as_array().into_iter().flatten();
            let is_listed = found.is_some_and(|is| values.any(|value| value == is));
            match wanted["operator"].as_str() {
                Some("In") => is_listed,
                Some("NotIn") => !is_listed,
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}
