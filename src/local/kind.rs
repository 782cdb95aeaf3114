//! The kinds of object that the server keeps, and what is particular to each: the table behind paths and discovery.

use super::json;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Namespace,
    Node,
    Pod,
    ConfigMap,
    ServiceAccount,
    Service,
    Deployment,
    ReplicaSet,
    Lease,
    Event,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
}

/// What the server knows of a [`Kind`].
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the columns of a table, each with a meaning of its own"
)]
pub(super) struct Facts {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    /// Has the subresource `status`.
    pub(super) status: bool,
    /// Has the subresource `scale`.
    pub(super) scale: bool,
    /// `metadata.generation` counts the changes of its spec.
    pub(super) generation: bool,
    pub(super) short: &'static str,
}

const fn facts(group: &'static str, plural: &'static str, kind: &'static str) -> Facts {
    Facts {
        group,
        version: "v1",
        plural,
        kind,
        namespaced: true,
        status: false,
        scale: false,
        generation: false,
        short: "",
    }
}

// === impl Kind ===

impl Kind {
    pub(super) const ALL: [Self; 14] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::ConfigMap,
        Self::ServiceAccount,
        Self::Service,
        Self::Deployment,
        Self::ReplicaSet,
        Self::Lease,
        Self::Event,
        Self::Role,
        Self::RoleBinding,
        Self::ClusterRole,
        Self::ClusterRoleBinding,
    ];

    /// The row of the table.
    pub(super) const fn facts(self) -> Facts {
        const RBAC: &str = "rbac.authorization.k8s.io";
        match self {
            Self::Namespace => Facts {
                namespaced: false,
                status: true,
                short: "ns",
                ..facts("", "namespaces", "Namespace")
            },
            Self::Node => Facts {
                namespaced: false,
                status: true,
                short: "no",
                ..facts("", "nodes", "Node")
            },
            Self::Pod => Facts {
                status: true,
                generation: true,
                short: "po",
                ..facts("", "pods", "Pod")
            },
            Self::ConfigMap => Facts {
                short: "cm",
                ..facts("", "configmaps", "ConfigMap")
            },
            Self::ServiceAccount => Facts {
                short: "sa",
                ..facts("", "serviceaccounts", "ServiceAccount")
            },
            Self::Service => Facts {
                status: true,
                short: "svc",
                ..facts("", "services", "Service")
            },
            Self::Deployment => Facts {
                status: true,
                scale: true,
                generation: true,
                short: "deploy",
                ..facts("apps", "deployments", "Deployment")
            },
            Self::ReplicaSet => Facts {
                status: true,
                scale: true,
                generation: true,
                short: "rs",
                ..facts("apps", "replicasets", "ReplicaSet")
            },
            Self::Lease => facts("coordination.k8s.io", "leases", "Lease"),
            Self::Event => Facts {
                short: "ev",
                ..facts("events.k8s.io", "events", "Event")
            },
            Self::Role => facts(RBAC, "roles", "Role"),
            Self::RoleBinding => facts(RBAC, "rolebindings", "RoleBinding"),
            Self::ClusterRole => Facts {
                namespaced: false,
                ..facts(RBAC, "clusterroles", "ClusterRole")
            },
            Self::ClusterRoleBinding => Facts {
                namespaced: false,
                ..facts(RBAC, "clusterrolebindings", "ClusterRoleBinding")
            },
        }
    }

    /// The kind served under `/apis/{group}/{version}/{plural}` (or `/api/v1/{plural}`, where the group is empty).
    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let facts = kind.facts();
            facts.group == group && facts.version == version && facts.plural == plural
        })
    }

    /// `apps/v1`, or `v1` in the core group.
    pub(super) fn api_version(self) -> String {
        let facts = self.facts();
        if facts.group.is_empty() {
            facts.version.to_owned()
        } else {
            format!("{}/{}", facts.group, facts.version)
        }
    }

    /// How messages write the resource: `deployments.apps`, `pods`.
    pub(super) fn qualified(self) -> String {
        qualified(self.facts().plural, self.facts().group)
    }

    /// How messages of validation write the kind: `Deployment.apps`, `Pod`.
    pub(super) fn qualified_kind(self) -> String {
        qualified(self.facts().kind, self.facts().group)
    }

    /// Writes the object's `kind` and `apiVersion`.
    pub(super) fn name_type(self, object: &mut serde_json::Value) {
        json::set(object, &["kind"], self.facts().kind.into());
        json::set(object, &["apiVersion"], self.api_version().into());
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_path() {
        for kind in Kind::ALL {
            let facts = kind.facts();
            assert_eq!(
                Kind::find(facts.group, facts.version, facts.plural),
                Some(kind)
            );
        }
        assert_eq!(Kind::find("", "v1", "leases"), None);
        assert_eq!(Kind::Deployment.qualified(), "deployments.apps");
        assert_eq!(Kind::Pod.api_version(), "v1");
    }
}
