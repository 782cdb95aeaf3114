//! Whether pods still fit their nodes when each of them asks for more.
//!
//! All of a workload's pods on a node are replaced, so they are judged together: four pods may each find room for one
//! sidecar that is there once.

use serde_json::Value;

use super::prospect::Prospect;
use super::requests::Resource;
use super::verdict::Note;

/// A node that pods of the workload stand on.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `status.allocatable`.
    pub allocatable: Value,
    /// The specs of the workload's pods there.
    pub own: Vec<Value>,
    /// The specs of all other pods there.
    pub others: Vec<Value>,
}

/// What is missing on one node.
struct Lack<'a> {
    node: &'a Node,
    asked: u64,
    free: u64,
}

/// A note for each resource of which a node has too little for the pods that it has now, as they will be.
pub fn fit(prospect: &Prospect, nodes: &[Node]) -> Vec<Note> {
    let notes = Resource::ALL.into_iter().filter_map(|resource| {
        let pod = &prospect.pod;
        let lacks = nodes.iter().filter_map(|node| lack(pod, node, resource));
        let lacks: Vec<Lack<'_>> = lacks.collect();
        let worst = lacks.iter().max_by_key(|lack| lack.asked - lack.free)?;
        let where_ = format!("{} of its {} nodes", lacks.len(), nodes.len());
        Some(prospect.note(said(resource, worst, &where_)))
    });
    notes.collect()
}

fn lack<'a>(pod: &Value, node: &'a Node, resource: Resource) -> Option<Lack<'a>> {
    let sum = |units: &mut dyn Iterator<Item = u64>| units.fold(0, u64::saturating_add);
    let before = sum(&mut node.own.iter().map(|old| resource.asked(old)));
    let asked = sum(&mut node.own.iter().map(|old| {
        // A manifest does not have it: admission has written it into the pod that is there.
        let overhead = if resource.overhead(pod).is_none() {
            resource.overhead(old).unwrap_or(0)
        } else {
            0
        };
        resource.asked(pod).saturating_add(overhead)
    }));
    let taken = sum(&mut node.others.iter().map(|other| resource.asked(other)));
    // A node that says nothing of it does not count it.
    let free = resource.of(&node.allocatable)?.saturating_sub(taken);
    // Where they ask for no more than now, a lack is not the sidecar's.
    (asked > before && asked > free).then_some(Lack { node, asked, free })
}

fn said(resource: Resource, worst: &Lack<'_>, where_: &str) -> String {
    let Lack { node, asked, free } = worst;
    let pods = node.own.len();
    let (they_ask, them) = if pods == 1 {
        ("its pod will ask".to_owned(), "it")
    } else {
        (format!("its {pods} pods will ask"), "them")
    };
    let (name, node) = (resource.name(), &node.name);
    let less = (asked - free).div_ceil(pods as u64);
    let less = resource.shown(less, true);
    let (asked, free) = (resource.shown(*asked, true), resource.shown(*free, false));
    format!(
        "with the sidecar its {name} no longer fits on {where_}: on {node} {they_ask} for {asked}, and {free} are free for {them} \
         (allocatable, less what other pods ask for). What finds no room elsewhere stays Pending: let the server ask for {less} \
         less, or make room before you apply"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::inject::{Options, Source, inject};

    /// A Deployment whose server asks for `resources`, as it is and as it will be.
    fn bert(resources: &Value) -> (Value, Prospect) {
        let pod = json!({"containers": [{
            "name": "server", "image": "vllm/vllm-openai:v0.9", "ports": [{"containerPort": 8000, "name": "http"}],
            "resources": resources,
        }]});
        let manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "bert", "annotations": {"sidescale.dev/inject": "true"}},
            "spec": {"selector": {}, "template": {"metadata": {}, "spec": pod}},
        });
        let source = Source {
            name: "bert.yaml".to_owned(),
            text: manifest.to_string(),
        };
        let options = Options {
            image: "sidescale:test".to_owned(),
            classic: false,
            selector: None,
            lead: false,
            network: None,
        };
        let output = inject(&[source], &options).expect("it can be injected");
        let prospect = output.prospects.into_iter().next();
        (pod, prospect.expect("it was injected"))
    }

    fn node(name: &str, cpu: &str, own: &[&Value], others: &[&Value]) -> Node {
        let all = |pods: &[&Value]| pods.iter().map(|pod| (*pod).clone()).collect();
        Node {
            name: name.to_owned(),
            allocatable: json!({"cpu": cpu, "memory": "64Gi", "pods": "110"}),
            own: all(own),
            others: all(others),
        }
    }

    fn other(cpu: &str) -> Value {
        json!({"containers": [{"name": "other", "resources": {"requests": {"cpu": cpu}}}]})
    }

    fn texts(notes: &[Note]) -> Vec<String> {
        notes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_no_longer_fits_is_said_with_its_node_and_its_numbers() {
        let (old, prospect) = bert(&json!({"requests": {"cpu": "3900m", "memory": "8Gi"}}));
        let nodes = [
            node("a", "4", &[&old], &[&other("50m")]),
            node("b", "4", &[&old], &[]),
            node("c", "8", &[&old, &old], &[&other("90m")]),
        ];
        let said = texts(&fit(&prospect, &nodes));
        assert_eq!(
            said,
            [
                "deployment/bert: with the sidecar its cpu no longer fits on 2 of its 3 nodes: on c its 2 pods will ask for 8000m, \
                 and 7910m are free for them (allocatable, less what other pods ask for). What finds no room elsewhere stays \
                 Pending: let the server ask for 45m less, or make room before you apply"
            ]
        );
        assert_eq!(texts(&fit(&prospect, &nodes[1..2])), [""; 0]);
        let one = texts(&fit(&prospect, &nodes[..1]));
        assert!(
            one[0].contains(
                "on 1 of its 1 nodes: on a its pod will ask for 4000m, and 3950m are free for it ("
            ),
            "{one:?}"
        );
    }

    #[test]
    fn each_class_of_service_asks_for_its_own() {
        let guaranteed = json!({"cpu": "3", "memory": "63Gi"});
        let (old, prospect) = bert(&json!({"requests": guaranteed, "limits": guaranteed}));
        let full = node("a", "4", &[&old], &[&other("1")]);
        let mut roomy = node("a", "4", &[&old], &[]);
        let said = texts(&fit(&prospect, std::slice::from_ref(&full)));
        assert!(
            said[0].contains("4000m, and 3000m are free"),
            "a whole core more: {said:?}"
        );
        assert_eq!(said.len(), 1);
        assert_eq!(
            texts(&fit(&prospect, std::slice::from_ref(&roomy))),
            [""; 0]
        );
        roomy.allocatable["memory"] = json!("66100000Ki");
        let said = texts(&fit(&prospect, &[roomy]));
        assert!(said[0].contains("its memory no longer fits on 1 of its 1 nodes: on a its pod will ask for 64640Mi, and 64550Mi are free"), "{said:?}");

        let (old, prospect) = bert(&json!({}));
        let crowded = node("a", "4", &[&old], &[&other("5")]);
        assert_eq!(
            texts(&fit(&prospect, &[crowded])),
            [""; 0],
            "BestEffort asks for nothing"
        );
    }

    #[test]
    fn what_the_runtime_adds_stays_and_a_pod_that_has_its_sidecar_is_no_news() {
        let (mut old, prospect) = bert(&json!({"requests": {"cpu": "3"}}));
        let tight = |old: &Value| texts(&fit(&prospect, &[node("a", "3200m", &[old], &[])])).len();
        assert_eq!(tight(&old), 0);
        old["overhead"] = json!({"cpu": "250m"});
        assert_eq!(tight(&old), 1, "3 cores, 100m and 250m");
        let (_, again) = bert(&json!({"requests": {"cpu": "3"}}));
        let nodes = [node("a", "1", &[&again.pod], &[])];
        assert_eq!(texts(&fit(&prospect, &nodes)), [""; 0]);
        assert_eq!(prospect.grace, Duration::from_secs(50));
    }
}
