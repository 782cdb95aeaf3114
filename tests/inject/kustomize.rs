//! The component of kustomize does to a manifest what `inject` does.

use serde_json::{Value, json};
use sidescale::inject;

use super::{CASES, case, objects, options};

#[test]
fn its_patches_make_of_the_manifest_what_inject_makes() {
    let mut patched = 0;
    for name in CASES {
        let Ok(component) = inject::component(&[case(name)], &options(name)) else {
            continue;
        };
        let file = |path: &str| {
            let (_, text) = component.files.iter().find(|(file, _)| file == path)?;
            Some(text.as_str())
        };
        let head = &objects(file("kustomization.yaml").expect("a component has one"))[0];
        assert_eq!(head["kind"], "Component");
        let mut made = Vec::new();
        for resource in head["resources"].as_array().into_iter().flatten() {
            let resource = resource.as_str().expect("a path");
            made.extend(objects(file(resource).expect("the file is there")));
        }
        let mut expected = objects(&case(name).text);
        for patch in head["patches"].as_array().expect("a list") {
            let target = &patch["target"];
            let object = expected.iter_mut().find(|object| {
                object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"]
            });
            let path = patch["path"].as_str().expect("a path");
            let steps = objects_of_list(file(path).expect("the file is there"));
            let steps: json_patch::Patch = serde_json::from_value(steps).expect("a JSON patch");
            json_patch::patch(object.expect("the target is there"), &steps).expect("it applies");
            patched += 1;
        }
        made.extend(expected);
        let injected = inject::inject(&[case(name)], &options(name)).expect("the same");
        let mut injected: Vec<Value> = objects(&injected.manifests);
        for object in &mut injected {
            forget(object);
        }
        let sorted = |mut objects: Vec<Value>| {
            objects
                .sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
            objects
        };
        assert_eq!(sorted(made), sorted(injected), "{name}");
    }
    assert!(patched >= 12, "{patched}");
}

#[test]
fn it_refuses_a_manifest_whose_containers_stand_otherwise() {
    let component = inject::component(&[case("vllm.yaml")], &options("vllm.yaml")).expect("it can");
    let patch = component
        .files
        .iter()
        .find(|(name, _)| name.ends_with("patch.yaml"));
    let steps = objects_of_list(&patch.expect("there is one").1);
    let steps: json_patch::Patch = serde_json::from_value(steps).expect("a JSON patch");
    let mut other = objects(&case("vllm.yaml").text).remove(0);
    let containers = other["spec"]["template"]["spec"]["containers"].as_array_mut();
    containers
        .expect("a list")
        .insert(0, json!({"name": "logs"}));
    json_patch::patch(&mut other, &steps).expect_err("the first container is another one");
}

fn objects_of_list(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("it is YAML")
}

/// What only `uninject` needs.
fn forget(object: &mut Value) {
    let metadata = object["metadata"]
        .as_object_mut()
        .expect("an object has some");
    if let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove("sidescale.dev/original");
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}
