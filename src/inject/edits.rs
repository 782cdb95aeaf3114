//! A document under change: what it is now, how it came there, and what stood there before.
//!
//! One record serves three readers. `uninject` puts back what stood there, so elements of lists are named by what
//! Kubernetes merges them by and not by their place: whoever adds a container or bumps an image in the injected manifest
//! must not get another container's probe back. A JSON patch (RFC 6902), for kustomize and for admission, knows places
//! alone: it is written as the changes are made.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A way into a document is a JSON pointer (RFC 6901) in which `name=server` stands for the element of a list whose
/// `name` is `server`.
#[derive(Clone, Debug)]
pub(super) struct Edits {
    document: Value,
    before: Vec<Before>,
    patch: Vec<Value>,
}

/// What stood at a place before it was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) at: String,
    /// `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was: Option<Value>,
}

/// A document does not have the shape of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} is not {expected}")]
pub(super) struct Malformed {
    /// The way to it.
    pub(super) at: String,
    expected: &'static str,
}

// === impl Edits ===

impl Edits {
    pub(super) fn of(document: Value) -> Self {
        Self {
            document,
            before: Vec::new(),
            patch: Vec::new(),
        }
    }

    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    /// The steps from what it was, as a JSON patch.
    pub(super) fn patch(&self) -> &[Value] {
        &self.patch
    }

    /// What stood where something was changed, in the order of the changes.
    pub(super) fn before(&self) -> &[Before] {
        &self.before
    }

    pub(super) fn get(&self, at: &str) -> Option<&Value> {
        steps(at).try_fold(&self.document, |here, step| child(here, &step))
    }

    /// Puts `value` there, over what stands there. What is missing on the way becomes an object.
    pub(super) fn set(&mut self, at: &str, value: Value) -> Result<(), Malformed> {
        if self.get(at) == Some(&value) {
            return Ok(());
        }
        let (parent, key) = split(at);
        if matches!(self.get(parent), None | Some(Value::Null)) {
            // What did not stand there is one change: the whole of it goes again.
            return self.set(parent, json!({ key: value }));
        }
        let pointer = self.pointer(at, parent);
        let was = self.get(at).cloned();
        self.patch.push(
            json!({"op": if was.is_some() { "replace" } else { "add" }, "path": pointer, "value": value}),
        );
        put(&mut self.document, at, value)?;
        self.before.push(Before {
            at: at.to_owned(),
            was,
        });
        Ok(())
    }

    /// Takes away what stands there, if anything does.
    pub(super) fn remove(&mut self, at: &str) -> Result<(), Malformed> {
        let Some(was) = self.get(at).cloned() else {
            return Ok(());
        };
        let (parent, _) = split(at);
        let pointer = self.pointer(at, parent);
        take(&mut self.document, at)?;
        self.patch.push(json!({"op": "remove", "path": pointer}));
        self.before.push(Before {
            at: at.to_owned(),
            was: Some(was),
        });
        Ok(())
    }

    /// Puts an item with a `name` before the others of the list at `at`, or behind them.
    pub(super) fn insert(&mut self, at: &str, first: bool, item: Value) -> Result<(), Malformed> {
        match self.get(at) {
            None | Some(Value::Null) => return self.set(at, json!([item])),
            Some(Value::Array(_)) => {}
            Some(_) => return Err(malformed(at, "a list")),
        }
        let name = item["name"].as_str().unwrap_or_default().to_owned();
        let end = if first { "0" } else { "-" };
        let pointer = format!("{}/{end}", self.pointer(at, at));
        self.patch
            .push(json!({"op": "add", "path": pointer, "value": item}));
        let list = reach(&mut self.document, at)
            .and_then(Value::as_array_mut)
            .ok_or_else(|| malformed(at, "a list"))?;
        list.insert(if first { 0 } else { list.len() }, item);
        self.before.push(Before {
            at: format!("{at}/name={}", escape(&name)),
            was: None,
        });
        Ok(())
    }

    /// The JSON pointer of `at`, whose `parent` stands there.
    fn pointer(&self, at: &str, parent: &str) -> String {
        let mut here = Some(&self.document);
        let known = steps(parent).count();
        let mut pointer = String::new();
        for (index, step) in steps(at).enumerate() {
            let place = match here {
                Some(Value::Array(list)) => position(list, &step).map(|index| index.to_string()),
                _ => None,
            };
            let place = place.unwrap_or_else(|| escape(&step));
            here = here
                .filter(|_| index < known)
                .and_then(|value| child(value, &step));
            pointer = format!("{pointer}/{place}");
        }
        pointer
    }
}

/// Puts back what stood in `document`, last change first.
pub(super) fn undo(document: &mut Value, before: &[Before]) -> Result<(), Malformed> {
    for Before { at, was } in before.iter().rev() {
        match was {
            Some(was) => put(document, at, was.clone())?,
            // Somebody may have taken it away meanwhile.
            None => take(document, at)?,
        }
    }
    Ok(())
}

/// As it stands in a way, when it is one step of it.
pub(super) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

pub(super) fn steps(at: &str) -> impl Iterator<Item = String> + use<'_> {
    let unescape = |step: &str| step.replace("~1", "/").replace("~0", "~");
    at.split('/').skip(1).map(unescape)
}

/// The way to what holds it, and its last step.
fn split(at: &str) -> (&str, String) {
    let (parent, last) = at.rsplit_once('/').unwrap_or(("", at));
    (parent, last.replace("~1", "/").replace("~0", "~"))
}

fn child<'a>(here: &'a Value, step: &str) -> Option<&'a Value> {
    if let Value::Array(list) = here {
        list.get(position(list, step)?)
    } else {
        here.get(step)
    }
}

/// Where the element stands that a step `key=value` names.
fn position(list: &[Value], step: &str) -> Option<usize> {
    let (key, value) = step.split_once('=')?;
    let is_it = |item: &Value| match item.get(key) {
        Some(Value::String(text)) => text == value,
        Some(Value::Number(number)) => number.to_string() == value,
        _ => false,
    };
    list.iter().position(is_it)
}

fn reach<'a>(document: &'a mut Value, at: &str) -> Option<&'a mut Value> {
    let mut here = document;
    for step in steps(at) {
        here = if let Value::Array(list) = here {
            let index = position(list, &step)?;
            list.get_mut(index)?
        } else {
            here.get_mut(&step)?
        };
    }
    Some(here)
}

fn put(document: &mut Value, at: &str, value: Value) -> Result<(), Malformed> {
    let (parent, key) = split(at);
    match reach(document, parent) {
        Some(Value::Object(object)) => {
            object.insert(key, value);
            Ok(())
        }
        Some(_) | None => Err(malformed(parent, "an object")),
    }
}

fn take(document: &mut Value, at: &str) -> Result<(), Malformed> {
    let (parent, key) = split(at);
    match reach(document, parent) {
        Some(Value::Object(object)) => {
            object.shift_remove(&key);
        }
        Some(Value::Array(list)) => {
            if let Some(index) = position(list, &key) {
                list.remove(index);
            }
        }
        Some(_) => return Err(malformed(parent, "an object or a list")),
        None => {}
    }
    Ok(())
}

fn malformed(at: &str, expected: &'static str) -> Malformed {
    Malformed {
        at: if at.is_empty() { "the document" } else { at }.to_owned(),
        expected,
    }
}
