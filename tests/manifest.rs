//! `sidecar.yaml` says what the code does: every variable with its default, a policy that is read, names that agree.

use std::collections::BTreeMap;

use clap::{CommandFactory as _, Parser};
use serde_json::Value;
use sidescale::config::Given;

#[derive(Parser)]
struct Run {
    #[command(flatten)]
    _given: Given,
}

/// The objects of the manifest's list.
fn items() -> Vec<Value> {
    let text = include_str!("../sidecar.yaml");
    let list: Value = serde_saphyr::from_str(text).expect("the manifest is YAML");
    assert_eq!(list["kind"], "List");
    list["items"].as_array().expect("a list has items").clone()
}

fn item(kind: &str, name: &str) -> Value {
    let mut items = items().into_iter();
    let found = items.find(|item| item["kind"] == kind && item["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn sidecar() -> Value {
    item("Deployment", "demo")["spec"]["template"]["spec"]["initContainers"][0].clone()
}

#[test]
fn every_variable_stands_in_the_manifest_with_its_default() {
    let sidecar = sidecar();
    let given: BTreeMap<&str, &str> = sidecar["env"]
        .as_array()
        .expect("the sidecar has variables")
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)))
        .collect();
    let mut compared = 0;
    for argument in Run::command().get_arguments() {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        // A switch is off by default and has nothing to be set to.
        let takes_value = argument.get_action().takes_values();
        let default = argument
            .get_default_values()
            .first()
            .filter(|_| takes_value);
        let default = default.and_then(|default| default.to_str());
        assert_eq!(given.get(variable).copied(), default, "{variable}");
        compared += usize::from(default.is_some());
    }
    assert!(compared >= 12, "only {compared} variables were compared");
}

#[test]
fn the_policy_of_the_manifest_is_read() {
    let policy = item("ConfigMap", "sidescale-demo-policy");
    let text = policy["data"]["policy.yaml"].as_str().expect("a policy");
    let read = sidescale::policy::read(text).expect("the manifest's policy is valid");
    assert_eq!((read.min_replicas, read.max_replicas), (1, 10));
}

#[test]
fn names_of_ports_fit_and_the_role_names_what_the_code_asks_for() {
    for port in sidecar()["ports"].as_array().expect("ports") {
        // A real API server refuses longer ones.
        assert!(
            port["name"].as_str().is_none_or(|name| name.len() <= 15),
            "{port}"
        );
    }
    let role = item("Role", "sidescale-demo");
    let rules = role["rules"].as_array().expect("rules");
    let verbs = |resource: &str| -> Vec<&str> {
        let rules = rules.iter().filter(|rule| {
            let mut resources = rule["resources"].as_array().into_iter().flatten();
            resources.any(|name| name == resource)
        });
        let verbs = rules.flat_map(|rule| rule["verbs"].as_array().into_iter().flatten());
        verbs.filter_map(Value::as_str).collect()
    };
    assert!(verbs("leases").contains(&"update"));
    assert!(verbs("deployments/scale").contains(&"patch"));
    assert!(verbs("deployments/status").contains(&"patch"));
    assert!(verbs("configmaps").contains(&"update"));
    // Nothing can be created but Events, and no pod template can be changed.
    assert!(!verbs("deployments").contains(&"patch"));
    let creators: Vec<_> = rules
        .iter()
        .filter(|rule| {
            rule["verbs"]
                .as_array()
                .is_some_and(|verbs| verbs.contains(&"create".into()))
        })
        .collect();
    assert_eq!(creators.len(), 1);
    assert_eq!(creators[0]["resources"][0], "events");
}
