//! What each account of a fleet may do: see docs/security.md for the why of each right.

use serde_json::{Value, json};

use super::workload::companion;

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A sidecar that leads where nobody else does.
    Sidecar,
    /// A sidecar that only follows.
    Follower,
    /// `sidescale lead`.
    Lead,
}

/// The rules of the Role for a fleet of the Deployment `target`; `costs`: its leader writes deletion costs.
pub(super) fn rules(part: Part, target: &str, costs: bool) -> Vec<Value> {
    let lease = companion(target);
    let history = format!("{lease}-history");
    let leases = |verbs: &[&str]| rule("coordination.k8s.io", &["leases"], Some(&lease), verbs);
    let pods = |verbs: &[&str]| rule("", &["pods"], None, verbs);
    let replica_sets = rule("apps", &["replicasets"], None, &["get"]);
    let scaled = ["deployments/status", "deployments/scale"];
    let scaling = |verbs: &[&str]| {
        [
            rule(
                "apps",
                &["deployments"],
                Some(target),
                &["get", "list", "watch"],
            ),
            rule("apps", &scaled, Some(target), verbs),
            rule("", &["configmaps"], Some(&history), &["get", "update"]),
            rule("events.k8s.io", &["events"], None, &["create", "patch"]),
        ]
    };
    let mut rules = Vec::new();
    match part {
        Part::Sidecar => {
            rules.push(leases(&["get", "list", "watch", "update"]));
            rules.push(pods(&["get", "list", "watch"]));
            rules.push(replica_sets);
            rules.extend(scaling(&["get", "patch"]));
        }
        Part::Follower => {
            // The proof of who leads, and the way from the pod to its Deployment.
            rules.push(leases(&["get"]));
            rules.push(pods(&["get"]));
            rules.push(replica_sets);
        }
        Part::Lead => {
            rules.push(leases(&["get", "watch", "update"]));
            rules.push(pods(&["list", "watch"]));
            rules.extend(scaling(&["patch"]));
        }
    }
    if costs && part != Part::Follower {
        rules.push(pods(&["patch"]));
    }
    rules
}

fn rule(group: &str, resources: &[&str], name: Option<&str>, verbs: &[&str]) -> Value {
    let mut rule = json!({"apiGroups": [group], "resources": resources});
    if let Some(name) = name {
        rule["resourceNames"] = json!([name]);
    }
    rule["verbs"] = json!(verbs);
    rule
}
