//! The two patches: JSON merge patch (RFC 7386), and the part of the strategic merge that people's tools need.
//!
//! A strategic merge here knows the lists of pods that are keyed (containers by name, conditions by type and so on) and
//! `$patch: delete`; every other list is replaced whole, as in a merge patch. JSON patch (RFC 6902) and server-side
//! apply are refused with 415.

use serde_json::Value;

use super::json;

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Merge,
    Strategic,
}

/// The lists whose elements have a key, and the key.
const KEYED: [(&str, &str); 10] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
    ("conditions", "type"),
    ("ownerReferences", "uid"),
    ("imagePullSecrets", "name"),
];

// === impl Style ===

impl Style {
    /// The style that a content type names.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }

    /// Changes `object` as `patch` says.
    pub(super) fn apply(self, object: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *object = patch.clone();
            return;
        };
        let fields = json::fields(object);
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(name);
                continue;
            }
            let old = fields.entry(name.clone()).or_insert(Value::Null);
            let key = KEYED.iter().find(|(list, _key)| list == name);
            match (self, key, value) {
                (Self::Strategic, Some((_list, key)), Value::Array(items)) if keyed(items, key) => {
                    merge_list(old, items, key);
                }
                _ => self.apply(old, value),
            }
        }
        if self == Self::Strategic {
            fields.retain(|name, _value| {
                !name.starts_with("$setElementOrder/") && name != "$retainKeys"
            });
        }
    }
}

fn keyed(items: &[Value], key: &str) -> bool {
    items.iter().all(|item| item.get(key).is_some())
}

fn merge_list(old: &mut Value, items: &[Value], key: &str) {
    if !old.is_array() {
        *old = Value::Array(Vec::new());
    }
    let Some(list) = old.as_array_mut() else {
        return;
    };
    for item in items {
        let at = list.iter().position(|have| have.get(key) == item.get(key));
        let deletes = json::text(item, "/$patch") == "delete";
        match (at, deletes) {
            (Some(at), true) => {
                list.remove(at);
            }
            (None, true) => {}
            (Some(at), false) => Style::Strategic.apply(&mut list[at], item),
            (None, false) => {
                let mut new = Value::Null;
                Style::Strategic.apply(&mut new, item);
                list.push(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(style: Style, before: &Value, patch: &Value, after: &Value) {
        let mut object = before.clone();
        style.apply(&mut object, patch);
        assert_eq!(&object, after, "{before} patched by {patch}");
    }

    #[test]
    fn a_merge_patch_sets_takes_away_and_replaces_lists() {
        check(
            Style::Merge,
            &json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}),
            &json!({"a": {"b": null, "d": {"e": null, "f": 3}}, "l": [3]}),
            &json!({"a": {"c": 2, "d": {"f": 3}}, "l": [3]}),
        );
    }

    #[test]
    fn a_strategic_patch_merges_containers_by_their_name() {
        check(
            Style::Strategic,
            &json!({"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "b"}, {"name": "c"}]}),
            &json!({
                "$setElementOrder/containers": [{"name": "a"}],
                "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "d"}],
            }),
            &json!({"containers": [{"name": "a", "image": "2", "tty": true}, {"name": "c"}, {"name": "d"}]}),
        );
        check(
            Style::Merge,
            &json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
            &json!({"containers": [{"name": "a", "image": "2"}]}),
            &json!({"containers": [{"name": "a", "image": "2"}]}),
        );
    }
}
