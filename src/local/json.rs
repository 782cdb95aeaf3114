//! Reading and writing fields of JSON objects by pointer, where an absent field and an empty one mean the same.

use serde_json::{Map, Value};

/// The text at `pointer`, or nothing: Kubernetes gives an absent string and an empty one the same meaning.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The whole number at `pointer`.
pub(super) fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The elements of the array at `pointer`; none if it is absent.
pub(super) fn elements<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Whether `pointer` leads to something.
pub(super) fn has(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .is_some_and(|found| !found.is_null())
}

/// The object's fields, after making it an object if it is none.
pub(super) fn fields(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    object
        .as_object_mut()
        .expect("the value was made an object above")
}

/// Writes `value` at the path of field names, making the objects on the way; a null takes the field away.
pub(super) fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut at = object;
    for parent in parents {
        at = fields(at)
            .entry(*parent)
            .or_insert_with(|| Value::Object(Map::new()));
    }
    if value.is_null() {
        fields(at).remove(*last);
    } else {
        fields(at).insert((*last).to_owned(), value);
    }
}

/// Writes `value` unless the field is there.
pub(super) fn set_default(object: &mut Value, path: &[&str], value: Value) {
    if !has(object, &format!("/{}", path.join("/"))) {
        set(object, path, value);
    }
}

/// Takes the field from `source`, absent included.
pub(super) fn copy(object: &mut Value, source: &Value, path: &[&str]) {
    let value = source
        .pointer(&format!("/{}", path.join("/")))
        .cloned()
        .unwrap_or_default();
    set(object, path, value);
}

/// Takes away every field that is null: typed clients write `"creationTimestamp": null` for "not given".
pub(super) fn without_nulls(object: &mut Value) {
    match object {
        Value::Object(map) => {
            map.retain(|_name, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_made_and_a_null_takes_it_away() {
        let mut object = json!({"a": 1});
        set(&mut object, &["b", "c"], json!(2));
        assert_eq!(object, json!({"a": 1, "b": {"c": 2}}));
        set(&mut object, &["b", "c"], Value::Null);
        assert_eq!(object, json!({"a": 1, "b": {}}));
        set_default(&mut object, &["a"], json!(9));
        assert_eq!(number(&object, "/a"), Some(1));
    }

    #[test]
    fn nulls_mean_not_given() {
        let mut object = json!({"a": null, "b": [{"c": null, "d": 1}]});
        without_nulls(&mut object);
        assert_eq!(object, json!({"b": [{"d": 1}]}));
    }
}
