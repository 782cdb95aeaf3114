//! `managedFields`: who last wrote which field, and through which subresource.
//!
//! Coarser than the real ones in one respect: a list is one field. Nothing is refused for ownership; that is server-side
//! apply's business, which this server does not offer.

use serde_json::{Map, Value, json};

use super::json::{elements, set, text};
use super::kind::Kind;

/// Who writes, when, through what.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// `fieldManager` of the request, or the program of its user agent.
    pub(super) manager: String,
    /// The subresource written through; empty for the object itself.
    pub(super) subresource: &'static str,
    /// RFC 3339 in whole seconds.
    pub(super) time: String,
}

/// Fields of `metadata` that the server itself writes; nobody owns them.
const SERVERS_OWN: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Writes into `after` who owns its fields, now that `writer` has made it of `before`.
pub(super) fn track(kind: Kind, before: &Value, after: &mut Value, writer: &Writer) {
    let changed = changes(&own(before), &own(after));
    let present = paths(&own(after));
    let mut entries: Vec<Value> = Vec::new();
    let mut mine = Value::Null;
    for entry in elements(before, "/metadata/managedFields") {
        let same = text(entry, "/manager") == writer.manager
            && text(entry, "/subresource") == writer.subresource;
        if same {
            mine = entry.get("fieldsV1").cloned().unwrap_or_default();
            continue;
        }
        let mut left = entry.get("fieldsV1").cloned().unwrap_or_default();
        subtract(&mut left, &changed);
        intersect(&mut left, &present);
        if !is_empty(&left) {
            let mut entry = entry.clone();
            set(&mut entry, &["fieldsV1"], left);
            entries.push(entry);
        }
    }
    add(&mut mine, &changed);
    intersect(&mut mine, &present);
    if !is_empty(&mine) {
        let mut entry = json!({
            "manager": writer.manager,
            "operation": "Update",
            "apiVersion": kind.api_version(),
            "time": writer.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": mine,
        });
        if !writer.subresource.is_empty() {
            set(&mut entry, &["subresource"], writer.subresource.into());
        }
        entries.push(entry);
    }
    set(after, &["metadata", "managedFields"], entries.into());
}

/// The object without what nobody can own.
fn own(object: &Value) -> Value {
    let mut own = object.clone();
    if let Some(map) = own.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _value| !SERVERS_OWN.contains(&name.as_str()));
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    own
}

/// The set of paths of all leaves, in the form of `fieldsV1`.
fn paths(object: &Value) -> Value {
    match object {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (format!("f:{name}"), paths(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            json!({})
        }
    }
}

/// The paths that differ between the two, those gone included.
fn changes(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return paths(if after.is_null() { before } else { after });
    };
    let mut changed = Map::new();
    for name in old.keys().chain(new.keys()) {
        let (was, is) = (
            old.get(name).unwrap_or(&Value::Null),
            new.get(name).unwrap_or(&Value::Null),
        );
        if was != is {
            changed.insert(format!("f:{name}"), changes(was, is));
        }
    }
    changed.into()
}

fn is_empty(set: &Value) -> bool {
    set.as_object().is_none_or(Map::is_empty)
}

/// Adds the paths of `other`.
fn add(set: &mut Value, other: &Value) {
    let fields = super::json::fields(set);
    for (name, below) in other.as_object().into_iter().flatten() {
        add(
            fields.entry(name.clone()).or_insert_with(|| json!({})),
            below,
        );
    }
}

/// Takes the paths of `other` away.
fn subtract(set: &mut Value, other: &Value) {
    let Some(fields) = set.as_object_mut() else {
        return;
    };
    for (name, below) in other.as_object().into_iter().flatten() {
        if let Some(have) = fields.get_mut(name) {
            subtract(have, below);
            if is_empty(have) {
                fields.remove(name);
            }
        }
    }
}

/// Keeps the paths that `other` has too.
fn intersect(set: &mut Value, other: &Value) {
    let Some(fields) = set.as_object_mut() else {
        return;
    };
    fields.retain(|name, below| {
        other.get(name).is_some_and(|there| {
            let inner = !is_empty(below);
            intersect(below, there);
            !inner || !is_empty(below)
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str, subresource: &'static str) -> Writer {
        Writer {
            manager: manager.to_owned(),
            subresource,
            time: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn a_field_belongs_to_its_last_writer_and_subresource() {
        let mut made =
            json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "paused": true}});
        track(
            Kind::Deployment,
            &json!({}),
            &mut made,
            &writer("kubectl", ""),
        );
        let mut scaled = made.clone();
        set(&mut scaled, &["spec", "replicas"], json!(3));
        track(
            Kind::Deployment,
            &made,
            &mut scaled,
            &writer("sidescale", "scale"),
        );
        let of = |n: usize, field: &str| {
            text(&scaled, &format!("/metadata/managedFields/{n}/{field}")).to_owned()
        };
        assert_eq!(of(0, "manager"), "kubectl");
        assert_eq!(
            scaled.pointer("/metadata/managedFields/0/fieldsV1"),
            Some(&json!({"f:spec": {"f:paused": {}}}))
        );
        assert_eq!(
            (of(1, "manager"), of(1, "subresource")),
            ("sidescale".to_owned(), "scale".to_owned())
        );
        assert_eq!(
            scaled.pointer("/metadata/managedFields/1/fieldsV1"),
            Some(&json!({"f:spec": {"f:replicas": {}}}))
        );
    }

    #[test]
    fn a_field_that_went_has_no_owner() {
        let mut made = json!({"data": {"a": "1", "b": "2"}});
        track(Kind::ConfigMap, &json!({}), &mut made, &writer("x", ""));
        let mut less = made.clone();
        set(&mut less, &["data", "a"], Value::Null);
        track(Kind::ConfigMap, &made, &mut less, &writer("x", ""));
        assert_eq!(
            less.pointer("/metadata/managedFields/0/fieldsV1"),
            Some(&json!({"f:data": {"f:b": {}}}))
        );
    }
}
