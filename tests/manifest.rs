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

fn pod() -> Value {
    item("Deployment", "demo")["spec"]["template"]["spec"].clone()
}

fn sidecar() -> Value {
    pod()["initContainers"][0].clone()
}

/// The one variable that is not at its default, which fits a pod that says nothing of its grace period.
const GRACE: (&str, &str) = ("SIDESCALE_GRACE", "50s");

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
        if variable == GRACE.0 {
            assert_eq!(given.get(variable), Some(&GRACE.1));
            assert_ne!(default, Some(GRACE.1), "it is no exception any more");
        } else {
            assert_eq!(given.get(variable).copied(), default, "{variable}");
        }
        compared += usize::from(default.is_some());
    }
    assert!(compared >= 12, "only {compared} variables were compared");
}

#[test]
fn a_drain_fits_into_the_pods_grace_period() {
    let grace: f64 = (GRACE
        .1
        .strip_suffix('s')
        .and_then(|grace| grace.parse().ok()))
    .expect("whole seconds");
    let pods = pod()["terminationGracePeriodSeconds"].as_f64();
    // Some seconds for the server's own end, and the sidecar's after it.
    assert!(pods.is_some_and(|pods| pods >= grace + 10.0), "{pods:?}");
}

#[test]
fn a_crashed_server_leaves_the_endpoints_at_its_first_refusal() {
    let probe = &sidecar()["readinessProbe"];
    assert_eq!(probe["failureThreshold"], 1);
    assert!(probe["periodSeconds"].as_u64() <= Some(2), "{probe}");
}

#[test]
fn only_the_sidecar_gets_the_token() {
    let pod = pod();
    assert_eq!(pod["automountServiceAccountToken"], false);
    let mounts = |container: &Value| -> Vec<(String, String)> {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        mounts
            .map(|mount| (text(&mount["name"]), text(&mount["mountPath"])))
            .collect()
    };
    // Where kube's in-cluster configuration looks.
    let account = (
        "account".to_owned(),
        "/var/run/secrets/kubernetes.io/serviceaccount".to_owned(),
    );
    assert!(mounts(&sidecar()).contains(&account));
    assert_eq!(mounts(&pod["containers"][0]), []);
    let sources = volume(&pod, "account")["projected"]["sources"].clone();
    let sources = sources.as_array().expect("sources");
    let paths: Vec<&str> = [
        &sources[0]["serviceAccountToken"]["path"],
        &sources[1]["configMap"]["items"][0]["path"],
        &sources[2]["downwardAPI"]["items"][0]["path"],
    ]
    .into_iter()
    .filter_map(Value::as_str)
    .collect();
    assert_eq!(paths, ["token", "ca.crt", "namespace"]);
}

fn volume(pod: &Value, name: &str) -> Value {
    let mut volumes = pod["volumes"].as_array().into_iter().flatten();
    let found = volumes.find(|volume| volume["name"] == name);
    found.unwrap_or_else(|| panic!("no volume {name}")).clone()
}

/// What is built is what the manifest names and may run under its `securityContext`.
#[test]
fn the_image_is_the_manifests() {
    let dockerfile = include_str!("../Dockerfile");
    let image = sidecar()["image"].as_str().expect("an image").to_owned();
    assert!(dockerfile.contains(&format!("docker build -t {image} .")));
    assert!(include_str!("../README.md").contains(&format!("docker build -t {image} .")));
    let (repository, version) = image.split_once(':').expect("an image has a tag");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    // It reads all else from the Dockerfile and from Cargo.
    assert!(include_str!("../.ci/image").contains(&format!("\"{repository}:{{version}}\"")));
    let user = pod()["securityContext"]["runAsUser"].to_string();
    assert!(dockerfile.contains(&format!("USER {user}:{user}\n")));
    let ports = sidecar()["ports"].as_array().expect("ports").clone();
    let ports: Vec<String> = ports
        .iter()
        .map(|port| port["containerPort"].to_string())
        .collect();
    assert!(dockerfile.contains(&format!("EXPOSE {}\n", ports.join(" "))));
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
