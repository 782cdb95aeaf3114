//! Label and field selectors, as lists and watches carry them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json;
use super::kind::Kind;
use super::refusal::Refusal;
use crate::labels;

/// Which objects a list or watch wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

// === impl Selector ===

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`; an empty text selects everything.
    pub(super) fn parse(kind: Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        Ok(Self {
            labels: split_outside_parentheses(labels)
                .map(requirement)
                .collect::<Result<_, _>>()?,
            fields: fields
                .split(',')
                .map(str::trim)
                .filter(|term| !term.is_empty())
                .map(|term| field(kind, term))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The name of the one object that can be selected, where the field selector says it.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|(pointer, equal, _value)| pointer == "/metadata/name" && *equal)
            .map(|(_pointer, _equal, value)| value.as_str())
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |name: &str| labels.and_then(|map| map.get(name)).and_then(Value::as_str);
        self.labels.iter().all(|wanted| match wanted {
            Requirement::In(name, values) => label(name).is_some_and(|is| values.contains(is)),
            Requirement::NotIn(name, values) => label(name).is_none_or(|is| !values.contains(is)),
            Requirement::Exists(name) => label(name).is_some(),
            Requirement::Absent(name) => label(name).is_none(),
        }) && self.fields.iter().all(|(pointer, equal, value)| {
            (json::text(object, pointer) == value.as_str()) == *equal
        })
    }
}

/// Whether `labels` satisfy a `LabelSelector` object.
pub(super) fn selects(selector: &Value, labels: Option<&Value>) -> bool {
    labels::selects(selector, |name| labels?.get(name)?.as_str())
}

/// A `LabelSelector` object as text: `app=web,tier in (a,b)`.
pub(super) fn shown(selector: &Value) -> String {
    let equal = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let sets = json::elements(selector, "/matchExpressions")
        .iter()
        .map(|expression| {
            let key = json::text(expression, "/key");
            let values: Vec<&str> = json::elements(expression, "/values")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let values = values.join(",");
            match json::text(expression, "/operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.to_owned(),
            }
        });
    equal.chain(sets).collect::<Vec<_>>().join(",")
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Result<Requirement, Refusal> {
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    let name = |text: &str| text.trim().to_owned();
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(name(key), one(value)));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(name(key), one(value)));
    }
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(name(key)));
    }
    let Some((key, rest)) = term.split_once(char::is_whitespace) else {
        return Ok(Requirement::Exists(name(term)));
    };
    let rest = rest.trim();
    let (set, negated) = match (rest.strip_prefix("notin"), rest.strip_prefix("in")) {
        (Some(set), _) => (set, true),
        (None, Some(set)) => (set, false),
        (None, None) => {
            return Err(Refusal::BadRequest(format!(
                "unable to parse requirement: found '{rest}', expected: in, notin, =, ==, !=, gt, lt"
            )));
        }
    };
    let set = set.trim();
    let values = set
        .strip_prefix('(')
        .and_then(|open| open.strip_suffix(')'))
        .ok_or_else(|| {
            Refusal::BadRequest(format!(
                "unable to parse requirement: found '{set}' expected: '('"
            ))
        })?
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    Ok(if negated {
        Requirement::NotIn(name(key), values)
    } else {
        Requirement::In(name(key), values)
    })
}

fn field(kind: Kind, term: &str) -> Result<(String, bool, String), Refusal> {
    let (path, equal, value) = term
        .split_once("!=")
        .map(|(path, value)| (path, false, value))
        .or_else(|| {
            term.split_once("==")
                .or_else(|| term.split_once('='))
                .map(|(path, value)| (path, true, value))
        })
        .ok_or_else(|| {
            Refusal::BadRequest(format!(
                "invalid selector: '{term}'; can't understand '{term}'"
            ))
        })?;
    let path = path.trim();
    let known = match path {
        "metadata.name" => true,
        "metadata.namespace" => kind.facts().namespaced,
        "spec.nodeName"
        | "spec.schedulerName"
        | "spec.restartPolicy"
        | "spec.serviceAccountName"
        | "status.phase"
        | "status.podIP" => kind == Kind::Pod,
        "reason"
        | "type"
        | "regarding.kind"
        | "regarding.name"
        | "regarding.namespace"
        | "regarding.uid"
        | "reportingController" => kind == Kind::Event,
        "status.replicas" => kind == Kind::ReplicaSet,
        _ => false,
    };
    if !known {
        return Err(Refusal::BadRequest(format!(
            "field label not supported: {path}"
        )));
    }
    Ok((
        format!("/{}", path.replace('.', "/")),
        equal,
        value.trim().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_by_equality_and_by_sets() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "gpu"}}});
        let check = |selector: &str, expected: bool| {
            let parsed = Selector::parse(Kind::Pod, selector, "").expect(selector);
            assert_eq!(parsed.matches(&pod), expected, "{selector}");
        };
        check("", true);
        check("app=web", true);
        check("app==web,tier!=cpu", true);
        check("app!=web", false);
        check("missing!=x", true);
        check("tier in (cpu, gpu),app", true);
        check("tier notin (gpu)", false);
        check("!app", false);
        check("!missing", true);
        check("app = web , tier in (gpu)", true);
    }

    #[test]
    fn one_object_is_named_by_equality_alone() {
        let check = |selector: &str, expected: Option<&str>| {
            let parsed = Selector::parse(Kind::Pod, "", selector).expect(selector);
            assert_eq!(parsed.name(), expected, "{selector}");
        };
        check("metadata.name=p", Some("p"));
        check("spec.nodeName=n,metadata.name==p", Some("p"));
        check("metadata.name!=p", None);
        check("spec.nodeName=p", None);
        check("", None);
    }

    #[test]
    fn fields_are_selected_where_the_kind_has_them() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let check = |selector: &str, expected: bool| {
            let parsed = Selector::parse(Kind::Pod, "", selector).expect(selector);
            assert_eq!(parsed.matches(&pod), expected, "{selector}");
        };
        check("metadata.name=p,spec.nodeName=n", true);
        check("status.phase!=Running", false);
        check("spec.nodeName=", false);
        let unknown = Selector::parse(Kind::Lease, "", "spec.nodeName=n");
        assert_eq!(
            unknown,
            Err(Refusal::BadRequest(
                "field label not supported: spec.nodeName".to_owned()
            ))
        );
        assert!(Selector::parse(Kind::Pod, "a in b", "").is_err());
    }

    #[test]
    fn a_selector_object_selects_what_its_text_says() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
        });
        assert_eq!(shown(&selector), "app=web,tier in (a,b)");
        assert!(selects(
            &selector,
            Some(&json!({"app": "web", "tier": "a"}))
        ));
        assert!(!selects(
            &selector,
            Some(&json!({"app": "web", "tier": "c"}))
        ));
        assert!(!selects(&selector, None));
    }
}
