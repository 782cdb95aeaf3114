//! What the sidecar asks for, so that the pod keeps its class of service.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/> has the rules. A pod that falls out of `Guaranteed` loses
//! its whole cores, and is killed before its neighbours when the node runs out of memory.

use serde_json::{Value, json};

use super::task::{Task, containers};

/// A class of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Every container has limits for CPU and memory, and requests that are the same.
    Guaranteed,
    Burstable,
    /// Nobody asks for anything.
    BestEffort,
}

/// The sidecar's `resources`, and a word about them.
pub(super) fn fit(task: &mut Task) -> Value {
    let pod = task.in_pod("");
    let whole_cores = containers(pod)
        .filter(|container| container.stays)
        .all(|container| {
            let cpu = amount(&container.value["resources"]["limits"]["cpu"]);
            cpu.is_some_and(|cpu| cpu.fract() == 0.0)
        });
    // Where the pod as a whole has resources, they alone make its class.
    let by_pod = pod
        .get("resources")
        .is_some_and(|resources| !resources.is_null());
    let class = class(pod);
    match class {
        _ if by_pod => {
            task.note("the pod has resources as a whole, in which the sidecar shares: give it 0.1 cores and 64Mi more");
            Value::Null
        }
        Class::Guaranteed => {
            let cpu = if whole_cores { "1" } else { "500m" };
            let same = json!({"cpu": cpu, "memory": "128Mi"});
            task.note(format!(
                "the pod stays Guaranteed, so the sidecar has limits: each pod asks for cpu {cpu} and memory 128Mi more"
            ));
            json!({"requests": same, "limits": same})
        }
        Class::Burstable => {
            task.note("each pod asks for cpu 100m and memory 64Mi more (the sidecar's requests; it has no limits)");
            json!({"requests": {"cpu": "100m", "memory": "64Mi"}})
        }
        Class::BestEffort => {
            task.note("nobody in the pod asks for CPU or memory, so the sidecar does not either: it would change the pod's class");
            Value::Null
        }
    }
}

fn class(pod: &Value) -> Class {
    let each = |container: &Value, what: &str| {
        let resources = &container["resources"];
        let limit = amount(&resources["limits"][what]);
        // A request that is not written is the limit.
        let request = amount(&resources["requests"][what]).or(limit);
        (
            request.filter(|amount| *amount > 0.0),
            limit.filter(|amount| *amount > 0.0),
        )
    };
    let pairs: Vec<_> = containers(pod)
        .flat_map(|container| ["cpu", "memory"].map(|what| each(container.value, what)))
        .collect();
    if pairs
        .iter()
        .all(|(request, limit)| limit.is_some() && request == limit)
    {
        Class::Guaranteed
    } else if pairs.iter().all(|pair| *pair == (None, None)) {
        Class::BestEffort
    } else {
        Class::Burstable
    }
}

/// A quantity of Kubernetes, in its unit; `None`: it is none.
pub(super) fn amount(quantity: &Value) -> Option<f64> {
    if quantity.is_number() {
        return quantity.as_f64();
    }
    let text = quantity.as_str()?.trim();
    let end = text
        .find(|sign: char| sign.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "u" => 1e-6,
        "n" => 1e-9,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        _ => return text.parse().ok().filter(|amount: &f64| amount.is_finite()),
    };
    let number: f64 = number.parse().ok()?;
    Some(number * factor).filter(|amount| amount.is_finite())
}
