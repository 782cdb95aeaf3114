//! Who in front of a Service is told that its pods speak TLS: their requests would reach the sidecar under TLS.

use serde_json::Value;

use super::workload::{described, text};

/// Annotations of an Ingress, or of a Service, and what of their value says TLS.
const ANNOTATIONS: [(&str, &[&str]); 9] = [
    ("nginx.ingress.kubernetes.io/backend-protocol", SECRET),
    ("alb.ingress.kubernetes.io/backend-protocol", SECRET),
    (
        "traefik.ingress.kubernetes.io/service.serversscheme",
        SECRET,
    ),
    ("cloud.google.com/app-protocols", SECRET),
    ("service.alpha.kubernetes.io/app-protocols", SECRET),
    (
        "service.beta.kubernetes.io/aws-load-balancer-backend-protocol",
        SECRET,
    ),
    ("ingress.kubernetes.io/secure-backends", &["true"]),
    ("haproxy.org/server-ssl", &["true"]),
    ("haproxy-ingress.github.io/secure-backends", &["true"]),
];
const SECRET: &[&str] = &["https", "grpcs", "ssl", "h2"];

/// Somebody who speaks TLS to the pods behind a Service.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    /// What says so.
    pub(super) said: String,
    /// The Service's.
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

/// Those that `object` tells of.
pub(super) fn of(object: &Value) -> Vec<Backend> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let namespace = text(&object["metadata"]["namespace"]);
    let (said, services): (Option<String>, Vec<&Value>) = match kind {
        "Service" => (annotation(object), vec![&object["metadata"]["name"]]),
        "Ingress" => (annotation(object), of_ingress(&object["spec"])),
        "BackendTLSPolicy" => {
            let targets = object["spec"]["targetRefs"]
                .as_array()
                .into_iter()
                .flatten();
            let targets = targets.chain([&object["spec"]["targetRef"]]);
            let of_services = targets.filter(|target| target["kind"] == "Service");
            let names = of_services.map(|target| &target["name"]).collect();
            (Some("its pods are called under TLS".to_owned()), names)
        }
        _ => return Vec::new(),
    };
    let Some(said) = said else { return Vec::new() };
    services
        .into_iter()
        .filter_map(|name| {
            Some(Backend {
                said: format!("{} says {said}", described(object)),
                name: text(name)?,
                namespace: namespace.clone(),
            })
        })
        .collect()
}

fn annotation(object: &Value) -> Option<String> {
    ANNOTATIONS.iter().find_map(|(key, words)| {
        let value = object["metadata"]["annotations"][*key].as_str()?;
        let lower = value.to_lowercase();
        let mut said = lower.split(|sign: char| !sign.is_ascii_alphanumeric());
        said.any(|word| words.contains(&word))
            .then(|| format!("{key}: {value}"))
    })
}

/// The names of the Services that an Ingress leads to.
fn of_ingress(spec: &Value) -> Vec<&Value> {
    let rules = spec["rules"].as_array().into_iter().flatten();
    let paths = rules.flat_map(|rule| rule["http"]["paths"].as_array().into_iter().flatten());
    let backends = paths.map(|path| &path["backend"]);
    backends
        .chain([&spec["defaultBackend"]])
        .map(|backend| &backend["service"]["name"])
        .collect()
}
