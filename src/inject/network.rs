//! Network policies: what lets the leader reach its members, and what would keep requests from the sidecar.

use serde_json::{Value, json};

use super::ports::Route;
use super::task::Task;
use super::workload::{Workload, described, is_one_namespace};
use crate::labels;
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
    /// `spec.podSelector`.
    selector: Value,
    /// Whether it says who may call the pods.
    of_ingress: bool,
    /// Whether it says whom the pods may call.
    of_egress: bool,
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
    /// `None`: `object` is something else.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let group = object["apiVersion"].as_str()?.split('/').next();
        if object["kind"] != "NetworkPolicy" || group != Some("networking.k8s.io") {
            return None;
        }
        let spec = &object["spec"];
        let types = spec["policyTypes"].as_array();
        let is_of = |wanted: &str, unsaid: bool| {
            types.map_or(unsaid, |types| types.iter().any(|one| one == wanted))
        };
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
            selector: spec["podSelector"].clone(),
            of_ingress: is_of("Ingress", true),
            of_egress: is_of("Egress", !spec["egress"].is_null())
                && !Self::allows_all_calls(&spec["egress"]),
            numbers,
        })
    }

    fn selects(&self, workload: &Workload) -> bool {
        is_one_namespace(self.namespace.as_deref(), workload.namespace.as_deref())
            && labels::selects(&self.selector, |name| {
                Some(workload.labels.get(name)?.as_str())
            })
    }

    /// Whether it is surely of this workload's namespace, and not by the place where either is applied.
    fn is_beside(&self, workload: &Workload) -> bool {
        self.namespace == workload.namespace
    }

    /// Whether it lets pods call all that there is.
    fn allows_all_calls(rules: &Value) -> bool {
        let rules = rules.as_array().into_iter().flatten();
        let mut open = rules.filter(|rule| {
            let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
            is_empty(&rule["to"]) && is_empty(&rule["ports"])
        });
        open.next().is_some()
    }
}

/// What has to stand beside the policies of the input: `given`, or what they make necessary.
pub(super) fn beside(
    task: &mut Task,
    isolations: &[Isolation],
    given: Option<Network>,
) -> Option<Network> {
    let mine: Vec<&Isolation> = isolations
        .iter()
        .filter(|isolation| isolation.selects(&task.workload))
        .collect();
    let (port, name) = (task.settings.member_port, task.workload.name.clone());
    for isolation in mine.iter().filter(|isolation| isolation.of_egress) {
        task.note(format!(
            "{} says whom the pods may call: let them call the API server, and each other at {port}",
            isolation.place
        ));
    }
    if given.is_some() {
        return given;
    }
    let mut mine = { mine.into_iter() }.filter(|isolation| isolation.of_ingress);
    let first = mine.clone().next()?;
    if let Some(isolation) = mine.find(|isolation| isolation.is_beside(&task.workload)) {
        task.note(format!(
            "{} isolates the pods, so NetworkPolicy sidescale-{name} lets them call each other at {port}",
            isolation.place
        ));
        return Some(Network::Isolated);
    }
    task.note(format!(
        "{} isolates the pods if it is of their namespace, which only one of the two documents names: if it is, add \
         --network-policy isolated, which lets them call each other at {port}",
        first.place
    ));
    None
}

/// Refuses a policy that lets requests to the server's number pass, where the sidecar takes them on another one.
pub(super) fn check(task: &mut Task, isolations: &[Isolation], routes: &[Route]) {
    let mine: Vec<&Isolation> = isolations
        .iter()
        .filter(|isolation| isolation.of_ingress && isolation.selects(&task.workload))
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
}
