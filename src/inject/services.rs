//! Services of the input, and what they ask of the pods that they select.

use std::collections::BTreeMap;

use serde_json::Value;

use super::task::{Container, declared};
use super::workload::{Workload, is_one_namespace, strings, text};

/// One Service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    namespace: Option<String>,
    selector: BTreeMap<String, String>,
    headless: bool,
    /// Whoever stands before it has been given a certificate.
    pub(super) ends_tls: bool,
    ports: Vec<ServicePort>,
    /// Who sends requests to the pods themselves, where it is no Service.
    pub(super) door: Option<String>,
}

#[derive(Clone, Debug)]
struct ServicePort {
    name: Option<String>,
    app_protocol: Option<String>,
    target: Target,
}

/// What a Service calls a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) app_protocol: Option<&'a str>,
}

/// Where a Service sends requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Name(String),
    Number(u16),
}

// === impl Service ===

impl Service {
    /// `None`: `object` is something else, or selects no pods.
    pub(super) fn of(object: &Value) -> Option<Self> {
        if object["kind"] != "Service" || object["apiVersion"] != "v1" {
            return None;
        }
        let spec = &object["spec"];
        let selector = strings(&spec["selector"]);
        if selector.is_empty() {
            return None;
        }
        let ports = spec["ports"].as_array().into_iter().flatten();
        let annotations = strings(&object["metadata"]["annotations"]);
        let is_certificate = |key: &String| key.contains("ssl-cert") || key.contains("tls-cert");
        let ends_tls = annotations.keys().any(is_certificate);
        Some(Self {
            name: object["metadata"]["name"]
                .as_str()
                .unwrap_or("?")
                .to_owned(),
            namespace: text(&object["metadata"]["namespace"]),
            selector,
            headless: spec["clusterIP"] == "None",
            ends_tls,
            ports: ports.filter_map(ServicePort::of).collect(),
            door: None,
        })
    }

    /// Somebody else who sends requests to the pods, by the number of a port.
    pub(super) fn door(
        who: String,
        namespace: Option<String>,
        selector: BTreeMap<String, String>,
        numbers: impl IntoIterator<Item = u16>,
    ) -> Self {
        let port = |number| ServicePort {
            name: None,
            app_protocol: None,
            target: Target::Number(number),
        };
        Self {
            name: who.clone(),
            namespace,
            selector,
            headless: false,
            ends_tls: false,
            ports: numbers.into_iter().map(port).collect(),
            door: Some(who),
        }
    }

    pub(super) fn selects(&self, workload: &Workload) -> bool {
        is_one_namespace(self.namespace.as_deref(), workload.namespace.as_deref())
            && self
                .selector
                .iter()
                .all(|(key, value)| workload.labels.get(key) == Some(value))
    }

    /// Clients of a headless Service connect to the pods themselves, by whatever port they were told.
    pub(super) fn is_headless(&self) -> bool {
        self.headless
    }

    /// What it calls the server's port of this `number`, of whose names `names` tells.
    pub(super) fn words_of<'a>(
        &'a self,
        names: &[(String, u16)],
        number: u16,
    ) -> impl Iterator<Item = Said<'a>> {
        let is_it = |port: &&ServicePort| match &port.target {
            Target::Name(wanted) => names
                .iter()
                .any(|(name, of)| name == wanted && *of == number),
            Target::Number(wanted) => *wanted == number,
        };
        let ports: Vec<&ServicePort> = self.ports.iter().filter(is_it).collect();
        ports.into_iter().map(|port| Said {
            name: port.name.as_deref(),
            app_protocol: port.app_protocol.as_deref(),
        })
    }

    /// Where it sends requests, whichever container of a pod is there; where only metrics are shown is not among them.
    pub(super) fn all_targets(&self) -> impl Iterator<Item = &Target> {
        let is_traffic = |port: &&ServicePort| {
            let asks_metrics =
                matches!(&port.target, Target::Name(name) if is_metrics(Some(name.as_str())));
            !asks_metrics && !is_metrics(port.name.as_deref())
        };
        let ports = self.ports.iter().filter(is_traffic);
        ports.map(|port| &port.target)
    }

    /// What of `server`'s ports it sends requests to; where only metrics are shown is not among them.
    pub(super) fn targets<'a>(
        &'a self,
        server: &'a Container<'_>,
    ) -> impl Iterator<Item = &'a Target> {
        self.all_targets().filter(|target| {
            let named = target.declared(server);
            let is_elsewhere = matches!(target, Target::Name(_)) && named.is_none();
            !is_elsewhere && !is_metrics(named.and_then(|(name, _)| name))
        })
    }
}

// === impl Target ===

impl Target {
    /// The port of a container that is meant.
    pub(super) fn declared<'a>(&self, container: &Container<'a>) -> Option<(Option<&'a str>, u16)> {
        declared(container.value).find(|(name, number)| match self {
            Self::Name(wanted) => name.is_some_and(|name| name == wanted),
            Self::Number(wanted) => number == wanted,
        })
    }

    pub(super) fn is_of(&self, container: &Container<'_>) -> bool {
        self.declared(container).is_some()
    }
}

// === impl ServicePort ===

impl ServicePort {
    fn of(port: &Value) -> Option<Self> {
        if port
            .get("protocol")
            .is_some_and(|protocol| protocol != "TCP")
        {
            return None;
        }
        let number = |value: &Value| u16::try_from(value.as_u64()?).ok().map(Target::Number);
        let given = &port["targetPort"];
        let target = if let Value::String(name) = given {
            Some(Target::Name(name.clone()))
        } else {
            number(if given.is_null() {
                &port["port"]
            } else {
                given
            })
        };
        Some(Self {
            name: text(&port["name"]),
            app_protocol: text(&port["appProtocol"]),
            target: target?,
        })
    }
}

/// Whether a port of this name is one that a Prometheus reads.
pub(super) fn is_metrics(name: Option<&str>) -> bool {
    name.is_some_and(|name| {
        name.split('-')
            .any(|word| matches!(word, "metrics" | "prometheus" | "prom" | "monitoring"))
    })
}
