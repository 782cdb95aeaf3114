//! Changes of a pod as expressions of the Common Expression Language, which the API server evaluates itself.
//!
//! A pod at admission is not the template that the changes were made from: defaults are filled in, and other webhooks have
//! added containers and volumes. So a change is said by names, as in [`Edits`](super::edits::Edits), and comes with what
//! must still stand there: where it does not, the policy does not match, and the pod comes as it is.

use serde_json::Value;

use super::edits::{Before, steps};

/// One change.
#[derive(Debug)]
pub(super) struct Change {
    /// What must hold before, all of it.
    pub(super) guard: String,
    /// A list of JSON patch steps that makes the list which the change adds to, where it is not there.
    pub(super) list: Option<String>,
    /// A list of JSON patch steps.
    pub(super) patch: String,
}

/// A way into the pod.
struct Way {
    /// What stands there.
    here: String,
    /// The JSON pointer to it: terms whose sum it is.
    pointer: Vec<String>,
    /// The end of the pointer that is known already.
    known: String,
    /// What must hold, in this order, so that it can be followed.
    guards: Vec<String>,
}

/// The change that the step `patch` made, of which `before` tells the place by names; `was` is what stood there in the template.
pub(super) fn change(before: &Before, patch: &Value, was: Option<&Value>) -> Change {
    let at: Vec<String> = steps(&before.at).collect();
    let (last, parent) = apart(&at);
    if last.contains('=') && was.is_none() {
        return insertion(parent, last, patch);
    }
    let way = Way::to_what_was(parent, last, was);
    // `add` puts over what stands at a field, so it is right whether or not a default does.
    let step = match patch.get("value") {
        Some(value) => format!(
            "JSONPatch{{op: \"add\", path: {}, value: {}}}",
            way.path(""),
            literal(value)
        ),
        None => format!("JSONPatch{{op: \"remove\", path: {}}}", way.path("")),
    };
    Change {
        guard: way.guards.join(" && "),
        list: None,
        patch: format!("[{step}]"),
    }
}

/// That at `at` stands what stood there in the template.
pub(super) fn unchanged(at: &str, was: Option<&Value>) -> String {
    let at: Vec<String> = steps(at).collect();
    let (last, parent) = apart(&at);
    Way::to_what_was(parent, last, was).guards.join(" && ")
}

/// The last step of a way, and those before it.
fn apart(at: &[String]) -> (&str, &[String]) {
    at.split_last()
        .map_or(("", at), |(last, parent)| (last.as_str(), parent))
}

/// A new item of a list, which may not be there yet.
fn insertion(list: &[String], item: &str, patch: &Value) -> Change {
    let (field, parent) = apart(list);
    let mut way = Way::along(parent);
    let holder = way.here.clone();
    way.here = format!("{holder}.{field}");
    way.add(field);
    let (key, name) = item.split_once('=').unwrap_or((item, ""));
    way.guards.push(format!(
        "(!has({here}) || !{here}.exists(i, has(i.{key}) && i.{key} == {name}))",
        here = way.here,
        name = quoted(name)
    ));
    let end = if patch["path"]
        .as_str()
        .is_some_and(|path| path.ends_with("/0"))
    {
        "/0"
    } else {
        "/-"
    };
    let value = literal(&patch["value"]);
    Change {
        guard: way.guards.join(" && "),
        list: Some(format!(
            "(has({}) ? [] : [JSONPatch{{op: \"add\", path: {}, value: []}}])",
            way.here,
            way.path("")
        )),
        patch: format!(
            "[JSONPatch{{op: \"add\", path: {}, value: {value}}}]",
            way.path(end)
        ),
    }
}

// === impl Way ===

impl Way {
    fn along(at: &[String]) -> Self {
        let mut way = Self {
            here: "object".to_owned(),
            pointer: Vec::new(),
            known: String::new(),
            guards: Vec::new(),
        };
        for step in at {
            way.follow(step);
        }
        way
    }

    /// To the field `last`, with the condition that it is as it was.
    fn to_what_was(parent: &[String], last: &str, was: Option<&Value>) -> Self {
        let mut way = Self::along(parent);
        if let Some(was) = was {
            way.follow(last);
            let here = way.here.clone();
            way.guards.extend(alike(&here, was));
        } else {
            way.guards.push(format!("!has({}.{last})", way.here));
            way.add(last);
        }
        way
    }

    fn follow(&mut self, step: &str) {
        let list = self.here.clone();
        if let Some((key, name)) = step.split_once('=') {
            let is_it = format!("has(i.{key}) && i.{key} == {}", quoted(name));
            self.guards.push(format!("{list}.exists(i, {is_it})"));
            self.here = format!("{list}.filter(i, {is_it})[0]");
            // What stands in the list is known to nobody before.
            let index = format!(
                "string({list}.map(i, has(i.{key}) ? i.{key} : \"\").indexOf({}))",
                quoted(name)
            );
            self.pointer.push(quoted(&format!("{}/", self.known)));
            self.pointer.push(index);
            self.known.clear();
        } else {
            self.here = format!("{list}.{step}");
            self.guards.push(format!("has({})", self.here));
            self.add(step);
        }
    }

    fn add(&mut self, field: &str) {
        self.known.push('/');
        self.known.push_str(field);
    }

    /// The pointer as one expression, with `end` behind it.
    fn path(&self, end: &str) -> String {
        let mut terms = self.pointer.clone();
        let known = format!("{}{end}", self.known);
        if !known.is_empty() {
            terms.push(quoted(&known));
        }
        terms.join(" + ")
    }
}

/// Conditions that what stands `here` says at least what `was` says: defaults may have been filled in.
fn alike(here: &str, was: &Value) -> Vec<String> {
    match was {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, value)| !value.is_null() && is_identifier(key))
            .flat_map(|(key, value)| {
                let there = format!("{here}.{key}");
                let mut all = vec![format!("has({there})")];
                all.extend(alike(&there, value));
                all
            })
            .collect(),
        Value::Array(items) => {
            let mut all = vec![format!("size({here}) == {}", items.len())];
            for (index, item) in items.iter().enumerate() {
                all.extend(alike(&format!("{here}[{index}]"), item));
            }
            all
        }
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            vec![format!("{here} == {}", literal(was))]
        }
    }
}

/// Whether a field can be named with a dot; Kubernetes' own can.
fn is_identifier(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|sign| sign.is_ascii_alphanumeric())
}

/// A value as CEL writes it. The API server wants all values of a list or map to be of one type, which `dyn` is.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{}: dyn({})", quoted(key), literal(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| format!("dyn({})", literal(item)));
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A string of JSON is one of CEL.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
