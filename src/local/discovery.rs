//! What the server says of itself: its version, and the groups and resources that it serves.

use std::collections::BTreeSet;

use http::Response;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::kind::Kind;
use super::refusal::Refusal;

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Answers a path that names no object.
pub(super) fn answer(path: &[String]) -> Result<Response<Body>, Refusal> {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let found = match words.as_slice() {
        ["version"] => json!({
            "major": "1",
            "minor": "36",
            "gitVersion": concat!("v1.36.0+sidescale-", env!("CARGO_PKG_VERSION")),
            "platform": "embedded",
        }),
        ["healthz" | "livez" | "readyz", ..] => {
            return Ok(answer::answer(200, answer::whole("ok".to_owned())));
        }
        ["api"] => json!({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}),
        ["apis"] => json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": groups().into_iter().map(group).collect::<Vec<_>>(),
        }),
        ["apis", name] if groups().contains(name) => {
            let mut found = group(name);
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            found
        }
        ["api", "v1"] => resources(""),
        ["apis", name, "v1"] if groups().contains(name) => resources(name),
        _ => return Err(Refusal::NoSuchResource),
    };
    Ok(answer::object(200, &found))
}

/// The named groups.
fn groups() -> BTreeSet<&'static str> {
    Kind::ALL
        .iter()
        .map(|kind| kind.facts().group)
        .filter(|group| !group.is_empty())
        .collect()
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str) -> Value {
    let mut resources = Vec::new();
    for kind in Kind::ALL {
        let facts = kind.facts();
        if facts.group != group {
            continue;
        }
        let mut main = json!({
            "name": facts.plural,
            "singularName": facts.kind.to_lowercase(),
            "namespaced": facts.namespaced,
            "kind": facts.kind,
            "verbs": VERBS,
        });
        if !facts.short.is_empty() {
            main["shortNames"] = json!([facts.short]);
        }
        resources.push(main);
        let part = |name: &str, kind: &str| {
            json!({
                "name": format!("{}/{name}", facts.plural),
                "singularName": "",
                "namespaced": facts.namespaced,
                "kind": kind,
                "verbs": ["get", "patch", "update"],
            })
        };
        if facts.status {
            resources.push(part("status", facts.kind));
        }
        if facts.scale {
            let mut scale = part("scale", "Scale");
            scale["group"] = "autoscaling".into();
            scale["version"] = "v1".into();
            resources.push(scale);
        }
    }
    let version = if group.is_empty() {
        "v1".to_owned()
    } else {
        format!("{group}/v1")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
}
