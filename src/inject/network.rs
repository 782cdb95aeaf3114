//! Network policies: what lets the leader reach its members, and what would keep requests from the sidecar.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ports::Route;
use super::task::Task;
use super::workload::{Workload, described, is_one_namespace, strings};
use crate::leader::preference::LABEL_LEAD;

/// Which NetworkPolicy comes with a fleet.
///
/// None by default, because no default is safe: where no policy selects a pod, one that allows the members alone would
/// cut off all others; where one does, one that allows all others would open what was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// For pods that other policies isolate: lets the fleet's own pods reach the member port, and nobody else anything.
    Isolated,
    /// For pods that nobody isolates: keeps all but the fleet's own pods from the member port, and nobody from the rest.
    Open,
}

/// A NetworkPolicy of the input.
#[derive(Clone, Debug)]
pub(super) struct Isolation {
    place: String,
    namespace: Option<String>,
    selector: BTreeMap<String, String>,
    /// Ports that its rules allow by number; `None`: a rule allows all, or by name.
    numbers: Option<Vec<u64>>,
}

// === impl Network ===

impl Network {
    pub(super) fn spec(self, task: &Task) -> Value {
        let port = task.settings.member_port;
        let own = selector(task);
        // A lead's pods are none of the Deployment's.
        let leads = json!({"matchLabels": {LABEL_LEAD: task.workload.name}});
        let members = json!({
            "from": [{"podSelector": own}, {"podSelector": leads}],
            "ports": [{"protocol": "TCP", "port": port}],
        });
        let mut ingress = vec![members];
        if self == Self::Open {
            let range = |protocol, first: u16, last: u16| json!({"protocol": protocol, "port": first, "endPort": last});
            let mut others = vec![range("UDP", 1, u16::MAX), range("SCTP", 1, u16::MAX)];
            if port > 1 {
                others.push(range("TCP", 1, port - 1));
            }
            if port < u16::MAX {
                others.push(range("TCP", port + 1, u16::MAX));
            }
            ingress.push(json!({ "ports": others }));
        }
        json!({"podSelector": own, "policyTypes": ["Ingress"], "ingress": ingress})
    }
}

/// The Deployment's own selector: the same syntax.
fn selector(task: &Task) -> Value {
    task.workload.selector.clone()
}

// === impl Isolation ===

impl Isolation {
    /// `None`: `object` is something else, or of other traffic.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let types = spec["policyTypes"].as_array();
        let of_ingress = types.is_none_or(|types| types.iter().any(|one| one == "Ingress"));
        if object["kind"] != "NetworkPolicy" || !of_ingress {
            return None;
        }
        let rules = spec["ingress"].as_array().into_iter().flatten();
        let mut numbers = Some(Vec::new());
        for rule in rules {
            let ports = rule["ports"].as_array();
            let whole = ports.is_none_or(Vec::is_empty);
            let named = ports
                .into_iter()
                .flatten()
                .any(|port| port["port"].as_u64().is_none());
            let ranged = ports
                .into_iter()
                .flatten()
                .any(|port| !port["endPort"].is_null());
            if whole || named || ranged {
                numbers = None;
                break;
            }
            if let Some(numbers) = &mut numbers {
                let these = ports.into_iter().flatten();
                numbers.extend(these.filter_map(|port| port["port"].as_u64()));
            }
        }
        Some(Self {
            place: described(object),
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            selector: strings(&spec["podSelector"]["matchLabels"]),
            numbers,
        })
    }

    fn selects(&self, workload: &Workload) -> bool {
        is_one_namespace(self.namespace.as_deref(), workload.namespace.as_deref())
            && self
                .selector
                .iter()
                .all(|(key, value)| workload.labels.get(key) == Some(value))
    }
}

/// Refuses what the input's policies would keep from the sidecar; returns whether the pods are isolated.
pub(super) fn check(task: &mut Task, isolations: &[Isolation], routes: &[Route]) -> bool {
    let mine: Vec<&Isolation> = isolations
        .iter()
        .filter(|isolation| isolation.selects(&task.workload))
        .collect();
    let allows = |number: u16| {
        mine.iter().any(|isolation| {
            let numbers = isolation.numbers.as_ref();
            numbers.is_none_or(|numbers| numbers.contains(&number.into()))
        })
    };
    for route in routes {
        if mine.is_empty() || task.settings.passive || !allows(route.was) || allows(route.listen) {
            continue;
        }
        let (was, listen) = (route.was, route.listen);
        let place = mine[0].place.clone();
        task.refuse(
            "ports",
            format!("{place} lets requests to {was} pass by its number, and the sidecar takes them on {listen}"),
            format!("let it allow the port by its name, which the sidecar keeps, or {listen} beside {was}"),
        );
    }
    !mine.is_empty()
}
