//! What a user applies: the parts of `sidecar.yaml` that these tests stand on, under their own names.
//!
//! A right that the code needs and the manifest does not ship turns a scenario red, and so does a probe or a hook that
//! does not do what the scenario is about.

use serde_json::{Value, json};
use sidescale::inject::{self, Options, Source};

use crate::workload::{LEASE, TARGET};

/// What the manifest calls its Deployment, and what everything of it is called after.
const DEPLOYMENT: &str = "demo";
const PREFIX: &str = "sidescale-demo";

/// The rules of the Role.
pub(crate) fn rules() -> Vec<Value> {
    let role = item("Role");
    role["rules"].as_array().expect("a Role has rules").clone()
}

/// The pod: a native sidecar, ready by its own probe, and a server whose end waits for the drain.
pub(crate) fn template() -> Value {
    let mut template = item("Deployment")["spec"]["template"].clone();
    // Here the sidecar's account is a user with a token in a kubeconfig; and a pod of an account that is not there is refused.
    template["spec"]
        .as_object_mut()
        .expect("a pod has a spec")
        .remove("serviceAccountName");
    template
}

/// What `sidescale inject --lead` emits for the target: its Deployment, and the rules of its Role and of that of sidecars
/// that follow.
pub(crate) fn of_lead() -> (Value, Vec<Value>, Vec<Value>) {
    let mut workload = item("Deployment");
    // Its pod without the sidecar, which inject puts there.
    let pod = &mut workload["spec"]["template"]["spec"];
    pod["initContainers"] = json!([]);
    pod["containers"][0]["lifecycle"] = json!(null);
    pod["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8000}]);
    workload["metadata"]["annotations"] = json!({"sidescale.dev/inject": "true"});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [workload]});
    let source = Source {
        name: "-".to_owned(),
        text: list.to_string(),
    };
    let options = Options {
        image: "ghcr.io/sidescale/sidescale:0.1.0".to_owned(),
        classic: false,
        selector: None,
        lead: true,
        network: None,
    };
    let output = inject::inject(&[source], &options).expect("it can be injected");
    let list: Value = serde_saphyr::from_str(&output.manifests).expect("inject writes YAML");
    let find = |kind: &str, name: &str| {
        let mut items = list["items"].as_array().into_iter().flatten();
        let found = items.find(|item| item["kind"] == kind && item["metadata"]["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {kind} {name} in {list}"))
            .clone()
    };
    let lead = format!("{LEASE}-lead");
    let rules_of = |name: &str| {
        let role = find("Role", name);
        role["rules"].as_array().expect("a Role has rules").clone()
    };
    (find("Deployment", &lead), rules_of(&lead), rules_of(LEASE))
}

fn item(kind: &str) -> Value {
    let text = include_str!("../../sidecar.yaml");
    let list: Value = serde_saphyr::from_str(text).expect("the manifest is YAML");
    let mut items = list["items"].as_array().into_iter().flatten();
    let found = items.find(|item| item["kind"] == kind);
    renamed(found.unwrap_or_else(|| panic!("no {kind}")))
}

fn renamed(value: &Value) -> Value {
    match value {
        Value::String(text) if text == DEPLOYMENT => json!(TARGET),
        Value::String(text) => match text.strip_prefix(PREFIX) {
            Some(rest) => json!(format!("{LEASE}{rest}")),
            None => value.clone(),
        },
        Value::Array(values) => values.iter().map(renamed).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| (name.clone(), renamed(value)))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
