//! The pod's account: its own stays, and the token goes to the sidecar alone.

use serde_json::{Value, json};

use super::task::Task;
use super::workload::Kind;
use super::workload::companion;

/// Where kube's in-cluster configuration looks.
pub(super) const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The volume with what Kubernetes would have mounted into every container by itself.
pub(super) const VOLUME: &str = "sidescale-account";

/// Under which account the pod works, and whether it is one that inject makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) is_made: bool,
}

/// Sees to it that the pod has an account of its own.
pub(super) fn settle(task: &mut Task) -> Account {
    let named = task.in_pod("/serviceAccountName").as_str();
    let named = named.or_else(|| task.in_pod("/serviceAccount").as_str());
    let own = named.filter(|name| !name.is_empty() && *name != "default");
    let made = companion(&task.workload.name);
    if let Some(name) = own {
        let name = name.to_owned();
        if task.in_pod("/automountServiceAccountToken") != &Value::Bool(false) {
            task.note(format!(
                "the pod's own ServiceAccount {name} gets the Role. Its token stays mounted in the other containers as before, so \
                 they get the Role's rights, too: write automountServiceAccountToken: false unless they talk to the API server"
            ));
        }
        return Account {
            // A template that names ours has been written for it.
            is_made: name == made,
            name,
        };
    }
    if task.workload.kind.is_at_admission() {
        return unchangeable(task, made);
    }
    let name = made;
    let at = task.pod("/serviceAccountName");
    let edited = task.edits.set(&at, json!(name));
    task.check(edited);
    // The older spelling of the same, which wins nothing but must agree.
    if !task.in_pod("/serviceAccount").is_null() {
        let at = task.pod("/serviceAccount");
        let edited = task.edits.set(&at, json!(name));
        task.check(edited);
    }
    let asked = task.in_pod("/automountServiceAccountToken") == &Value::Bool(true);
    if !asked {
        let at = task.pod("/automountServiceAccountToken");
        let edited = task.edits.set(&at, json!(false));
        task.check(edited);
    }
    let secrets = if task.in_pod("/imagePullSecrets").is_null() {
        "; imagePullSecrets of `default`, if it has some, must be given to it, too"
    } else {
        ""
    };
    let seen = if asked {
        "whose token all containers see, as automountServiceAccountToken asks for"
    } else {
        "whose token the sidecar alone sees"
    };
    task.note(format!(
        "the pod had no ServiceAccount of its own and gets {name}, {seen}{secrets}"
    ));
    Account {
        name,
        is_made: true,
    }
}

/// At admission the account has been settled already: mounted into each container, and its pull secrets written down. And
/// `default` is never given the Role, because all pods of the namespace that say nothing have it.
fn unchangeable(task: &mut Task, made: String) -> Account {
    let remedy =
        format!("write serviceAccountName: {made} and automountServiceAccountToken: false there");
    if task.workload.kind == Kind::Admitted {
        task.refuse(
            "serviceAccountName",
            "the template names no account of its own",
            remedy,
        );
    } else {
        task.note(format!(
            "the template names no ServiceAccount of its own, and at admission none can be given to its pods: until it does, \
             they get no sidecar; {remedy}"
        ));
    }
    Account {
        name: made,
        is_made: true,
    }
}

/// The token, for the sidecar alone.
pub(super) fn volume() -> Value {
    json!({
        "name": VOLUME,
        "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]},
    })
}
