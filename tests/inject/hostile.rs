//! Manifests that nobody would write: whatever comes, inject answers, and what it has done can be undone.

use proptest::prelude::*;
use serde_json::{Value, json};
use sidescale::inject::{self, Source};

use super::{CASES, assert_twice_is_once_and_back, case, objects, options};

/// What may stand anywhere.
pub(crate) fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(true)),
        Just(json!(-1)),
        Just(json!(8080)),
        Just(json!(9090)),
        Just(json!(1e300)),
        Just(json!("")),
        Just(json!("http")),
        Just(json!("sidescale")),
        Just(json!("true")),
        Just(json!("a/b~c=d\n---\n")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 1, "x", {"name": "x"}, {"name": 7}])),
        Just(json!({"name": "x", "containerPort": 70000})),
    ]
}

/// How many places a value has, and what to do at one of them.
pub(crate) fn at(value: &mut Value, place: &mut usize, change: &mut dyn FnMut(&mut Value)) {
    if *place == 0 {
        change(value);
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(list) => list.iter_mut().for_each(|item| at(item, place, change)),
        Value::Object(fields) => fields.values_mut().for_each(|item| at(item, place, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(crate) fn places(value: &Value) -> usize {
    let mut count = usize::MAX;
    at(&mut value.clone(), &mut count, &mut |_value| {});
    usize::MAX - count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn odd_manifests_are_answered_and_what_was_done_can_be_undone(
        number in 0..CASES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4),
    ) {
        let name = CASES[number];
        let mut list = json!({"apiVersion": "v1", "kind": "List", "items": objects(&case(name).text)});
        for (index, odd) in changes {
            let mut place = index.index(places(&list));
            at(&mut list, &mut place, &mut |value| *value = odd.clone());
        }
        let text = serde_saphyr::to_string(&list).expect("all of it is YAML");
        let source = Source { name: name.to_owned(), text };
        match inject::inject(std::slice::from_ref(&source), &options(name)) {
            Ok(output) if output.changed > 0 => {
                assert_twice_is_once_and_back(&source, &output.manifests, &options(name));
            }
            Ok(_) => {}
            Err(refusals) => {
                prop_assert!(!refusals.is_empty());
                for refusal in refusals {
                    prop_assert!(!refusal.place.is_empty() && !refusal.remedy.is_empty());
                }
            }
        }
    }

    #[test]
    fn any_text_is_answered(text in "[-a-z0-9:\\[\\]{}&*!|>'\"#%@`,? \n]{0,200}") {
        let source = Source { name: "-".to_owned(), text };
        drop(inject::inject(std::slice::from_ref(&source), &options("-")));
        drop(inject::uninject(&[source]));
    }

    #[test]
    fn an_original_that_somebody_made_up_is_answered(original in odd(), at in "(/[a-z=~0-9]{0,12}){0,4}") {
        let mut object = objects(&case("hpa-argo.yaml").text).remove(0);
        let before = json!([{"at": at, "was": original}, {"at": format!("/spec{at}")}]);
        object["metadata"]["annotations"]["sidescale.dev/original"] = json!(before.to_string());
        let source = Source { name: "-".to_owned(), text: object.to_string() };
        drop(inject::uninject(std::slice::from_ref(&source)));
        drop(inject::inject(&[source], &options("-")));
    }
}
