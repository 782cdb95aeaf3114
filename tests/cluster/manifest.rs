//! What a user applies: the parts of `sidecar.yaml` that these tests stand on, under their own names.
//!
//! A right that the code needs and the manifest does not ship turns a scenario red, and so does a probe or a hook that
//! does not do what the scenario is about.

use serde_json::{Value, json};

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

/// The README's parts for `sidescale lead`: its Deployment, and the rules of its Role and of that of sidecars that follow.
pub(crate) fn of_lead() -> (Value, Vec<Value>, Vec<Value>) {
    let readme = include_str!("../../README.md");
    let begin = readme.find("    # apps/v1 Deployment, of whose replicas");
    let parts = readme[begin.expect("the parts")..].lines();
    let parts: Vec<&str> = parts.map_while(|line| line.strip_prefix("    ")).collect();
    let [lead, rules, following] = parts.split(|line| *line == "---").collect::<Vec<_>>()[..]
    else {
        panic!("a Deployment and two Roles: {parts:?}");
    };
    let read = |lines: &[&str]| -> Value {
        serde_saphyr::from_str(&lines.join("\n")).expect("the README's parts are YAML")
    };
    let rules_of = |lines| {
        let role = read(lines);
        role["rules"].as_array().expect("a Role has rules").clone()
    };
    (read(lead), rules_of(rules), rules_of(following))
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
