//! Who may do what: identities by bearer token, and the roles bound to them.

use serde_json::Value;

use super::json::{elements, text};
use super::kind::Kind;
use super::refusal::Refusal;
use super::store::{Key, Objects};
use super::target::{Place, Verb};

/// The group that may do everything.
pub const ADMINISTRATORS: &str = "system:masters";

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name, such as `system:serviceaccount:default:web`.
    pub user: String,
    /// The groups, such as `system:masters`.
    pub groups: Vec<String>,
}

// === impl Identity ===

impl Identity {
    /// May do everything.
    pub fn administrator() -> Self {
        Self {
            user: "admin".to_owned(),
            groups: vec![ADMINISTRATORS.to_owned()],
        }
    }

    /// The account of a pod.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
        }
    }

    /// Somebody without a token.
    pub(super) fn anonymous() -> Self {
        Self {
            user: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    fn is_subject(&self, subject: &Value, namespace: &str) -> bool {
        let name = text(subject, "/name");
        match text(subject, "/kind") {
            "User" => self.user == name,
            "Group" => self.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                let given = text(subject, "/namespace");
                let namespace = if given.is_empty() { namespace } else { given };
                self.user == format!("system:serviceaccount:{namespace}:{name}")
            }
            _ => false,
        }
    }
}

/// Refuses what no role bound to the identity allows.
pub(super) fn authorize(
    objects: &Objects,
    identity: &Identity,
    verb: Verb,
    place: &Place,
) -> Result<(), Refusal> {
    if identity.groups.iter().any(|group| group == ADMINISTRATORS)
        || granted(objects, identity, verb, place)
    {
        return Ok(());
    }
    let scope = if place.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", place.namespace)
    };
    Err(Refusal::Forbidden {
        kind: place.kind,
        name: place.name.clone(),
        why: format!(
            "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
            identity.user,
            verb.name(),
            place.resource(),
            place.kind.facts().group,
        ),
    })
}

fn granted(objects: &Objects, identity: &Identity, verb: Verb, place: &Place) -> bool {
    let in_namespace = (!place.namespace.is_empty())
        .then(|| objects.of(Kind::RoleBinding, Some(&place.namespace)))
        .into_iter()
        .flatten();
    in_namespace
        .chain(objects.of(Kind::ClusterRoleBinding, None))
        .filter(|(key, binding)| {
            elements(binding, "/subjects")
                .iter()
                .any(|subject| identity.is_subject(subject, &key.namespace))
        })
        .filter_map(|(key, binding)| {
            let name = text(binding, "/roleRef/name");
            let role = if text(binding, "/roleRef/kind") == "ClusterRole" {
                Key::new(Kind::ClusterRole, "", name)
            } else {
                Key::new(Kind::Role, &key.namespace, name)
            };
            objects.get(&role)
        })
        .flat_map(|role| elements(role, "/rules"))
        .any(|rule| covers(rule, verb, place))
}

fn covers(rule: &Value, verb: Verb, place: &Place) -> bool {
    let lists = |field: &str, wanted: &str| {
        elements(rule, field)
            .iter()
            .filter_map(Value::as_str)
            .any(|has| has == wanted || has == "*")
    };
    let resource = place.resource();
    let any_of_part = format!("*/{}", place.subresource);
    let names = elements(rule, "/resourceNames");
    lists("/verbs", verb.name())
        && lists("/apiGroups", place.kind.facts().group)
        && (lists("/resources", &resource) || lists("/resources", &any_of_part))
        && (names.is_empty()
            || names
                .iter()
                .any(|name| name.as_str() == Some(place.name.as_str())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::target::Target;
    use super::*;

    fn place(path: &str) -> Place {
        match Target::parse(path) {
            Ok(Target::Objects(place)) => place,
            Ok(Target::Server(_)) | Err(_) => panic!("{path} names objects"),
        }
    }

    #[test]
    fn a_role_allows_its_verbs_on_its_names_in_its_namespace_alone() {
        let mut objects = Objects::new(0, 16);
        objects.put(
            Key::new(Kind::Role, "n", "r"),
            json!({"rules": [
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["x"], "verbs": ["get", "update"]},
                {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["*"]},
            ]}),
        );
        objects.put(
            Key::new(Kind::RoleBinding, "n", "b"),
            json!({
                "subjects": [{"kind": "ServiceAccount", "name": "web"}],
                "roleRef": {"kind": "Role", "name": "r"},
            }),
        );
        let web = Identity::service_account("n", "web");
        let check = |identity: &Identity, verb, path: &str, allowed: bool| {
            let answer = authorize(&objects, identity, verb, &place(path));
            assert_eq!(answer.is_ok(), allowed, "{verb:?} {path}");
        };
        let leases = "/apis/coordination.k8s.io/v1/namespaces/n/leases";
        check(&web, Verb::Get, &format!("{leases}/x"), true);
        check(&web, Verb::Get, &format!("{leases}/y"), false);
        check(&web, Verb::Delete, &format!("{leases}/x"), false);
        check(&web, Verb::List, leases, false);
        check(
            &web,
            Verb::Get,
            "/apis/coordination.k8s.io/v1/namespaces/m/leases/x",
            false,
        );
        check(
            &web,
            Verb::Patch,
            "/apis/apps/v1/namespaces/n/deployments/d/scale",
            true,
        );
        check(
            &web,
            Verb::Patch,
            "/apis/apps/v1/namespaces/n/deployments/d",
            false,
        );
        check(
            &Identity::administrator(),
            Verb::Delete,
            &format!("{leases}/x"),
            true,
        );
        check(
            &Identity::service_account("m", "web"),
            Verb::Get,
            &format!("{leases}/x"),
            false,
        );
    }

    #[test]
    fn the_refusal_says_which_right_is_missing() {
        let objects = Objects::new(0, 16);
        let user = Identity {
            user: "u".to_owned(),
            groups: Vec::new(),
        };
        let refused = |verb, path: &str| {
            authorize(&objects, &user, verb, &place(path))
                .expect_err("nobody has a role")
                .to_string()
        };
        assert_eq!(
            refused(
                Verb::Get,
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/x"
            ),
            "leases.coordination.k8s.io \"x\" is forbidden: User \"u\" cannot get resource \"leases\" in API group \
             \"coordination.k8s.io\" in the namespace \"n\""
        );
        assert_eq!(
            refused(Verb::List, "/api/v1/pods"),
            "pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
    }
}
