//! What a cluster needs so that the webhook runs in it, with no right that it does not use.

use serde_json::{Value, json};

/// Who its pods are.
const APP: &str = "app.kubernetes.io/name";
/// Where pods listen; the Service has 443, by which the API server calls.
const PORT: u16 = 8443;
/// Namespaces that are never asked about: a cluster must come up by itself.
const SYSTEM: &str = "kube-system";

/// The objects of the webhook `service` in `namespace`, whose own image, and its pods', is `image`.
///
/// Secret and `caBundle` are empty and are filled by the webhook, so that it needs no right to create.
pub fn manifests(service: &str, namespace: &str, image: &str) -> Vec<Value> {
    let object = |version: &str, kind: &str, body: Value| {
        let mut object = json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": service, "namespace": namespace, "labels": {APP: service}},
        });
        if kind.starts_with("ClusterRole") || kind.ends_with("Configuration") {
            object["metadata"]
                .as_object_mut()
                .map(|metadata| metadata.shift_remove("namespace"));
        }
        if let (Some(object), Value::Object(body)) = (object.as_object_mut(), body) {
            object.extend(body);
        }
        object
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let binding = |kind: &str| {
        json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": service},
            "subjects": [{"kind": "ServiceAccount", "name": service, "namespace": namespace}],
        })
    };
    let own = |group: &str, resource: &str, verbs: [&str; 2]| json!({"apiGroups": [group], "resources": [resource], "resourceNames": [service], "verbs": verbs});
    let certificates = own("", "secrets", ["get", "update"]);
    let configuration = own(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        ["get", "patch"],
    );
    // Whether a pod's account has the Role of its fleet. Fleets are anywhere and are called after their Deployments.
    let bindings = json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["get"]});
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }),
        object("v1", "ServiceAccount", json!({})),
        object("v1", "Secret", json!({})),
        object(rbac, "Role", json!({"rules": [certificates]})),
        object(rbac, "RoleBinding", binding("Role")),
        object(
            rbac,
            "ClusterRole",
            json!({"rules": [configuration, bindings]}),
        ),
        object(rbac, "ClusterRoleBinding", binding("ClusterRole")),
        object(
            "v1",
            "Service",
            json!({"spec": {
                "selector": {APP: service},
                "ports": [{"name": "https", "port": 443, "targetPort": "https"}],
            }}),
        ),
        object(
            "apps/v1",
            "Deployment",
            deployment(service, namespace, image),
        ),
        object(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            json!({"webhooks": [webhook(service, namespace)]}),
        ),
    ]
}

fn deployment(service: &str, namespace: &str, image: &str) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "https", "scheme": "HTTPS"}, "timeoutSeconds": 2});
    let mut ready = probe("/readyz");
    ready["periodSeconds"] = json!(2);
    let container = json!({
        "name": "webhook",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "webhook",
            format!("--listen=0.0.0.0:{PORT}"),
            format!("--service={service}"),
            format!("--namespace={namespace}"),
            format!("--image={image}"),
        ],
        "ports": [{"name": "https", "containerPort": PORT}],
        "readinessProbe": ready,
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    });
    json!({"spec": {
        // One may go while pods are created.
        "replicas": 2,
        "selector": {"matchLabels": {APP: service}},
        "template": {
            "metadata": {"labels": {APP: service}},
            "spec": {
                "serviceAccountName": service,
                "terminationGracePeriodSeconds": 30,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": 65532,
                    "runAsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "topologySpreadConstraints": [{
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {APP: service}},
                }],
                "containers": [container],
            },
        },
    }})
}

/// What the API server asks about: new pods with the annotation, outside of the system and of the webhook's own namespace.
fn webhook(service: &str, namespace: &str) -> Value {
    let asks = "has(object.metadata.annotations) && \"sidescale.dev/inject\" in object.metadata.annotations && \
                object.metadata.annotations[\"sidescale.dev/inject\"] != \"false\"";
    json!({
        "name": "inject.sidescale.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": service, "namespace": namespace, "path": "/inject", "port": 443}},
        // A pod without a sidecar serves; one that is refused does not.
        "failurePolicy": "Ignore",
        "timeoutSeconds": 5,
        "sideEffects": "None",
        // Another webhook may add containers behind ours: a pod that has a sidecar is left alone.
        "reinvocationPolicy": "IfNeeded",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [SYSTEM, namespace]},
        ]},
        "rules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }],
        "matchConditions": [{"name": "asks-for-a-sidecar", "expression": asks}],
    })
}
