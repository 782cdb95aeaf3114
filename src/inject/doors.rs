//! Who else than a Service sends requests to pods: pools of a gateway, and routers that find the pods by themselves.
//!
//! All of them know a pod's port by its number, so to them the sidecar has to take the number.

use std::collections::BTreeMap;

use serde_json::Value;

use super::services::Service;
use super::task::containers;
use super::workload::{described, strings, text};

/// How a router is told which pods are its own.
struct Router {
    /// The flag without which it does not look for pods, and its value where it has one.
    looks: (&'static str, &'static [&'static str]),
    selectors: &'static [&'static str],
    namespace: &'static str,
    port: &'static str,
    /// Where no flag says one.
    default: Option<u16>,
}

const ROUTERS: [Router; 2] = [
    // vLLM's production stack.
    Router {
        looks: ("--service-discovery", &["k8s", "k8s_pod_ip"]),
        selectors: &["--k8s-label-selector"],
        namespace: "--k8s-namespace",
        port: "--k8s-port",
        default: Some(8000),
    },
    // SGLang's; 80 or 8000, by its version.
    Router {
        looks: ("--service-discovery", &[]),
        selectors: &["--selector", "--prefill-selector", "--decode-selector"],
        namespace: "--service-discovery-namespace",
        port: "--service-discovery-port",
        default: None,
    },
];

/// Labels by which the gateway of `AIBrix` finds pods and their port.
const AIBRIX: (&str, &str) = ("model.aibrix.ai/name", "model.aibrix.ai/port");

/// Those that `object` is, or that run in it.
pub(super) fn of(object: &Value) -> Vec<Service> {
    if object["kind"] == "InferencePool" {
        return pool(object).into_iter().collect();
    }
    let template = &object["spec"]["template"];
    let pod = if template.is_object() {
        template
    } else {
        object
    };
    let mut doors: Vec<Service> = aibrix(object, pod).into_iter().collect();
    for container in containers(&pod["spec"]) {
        let words = words(container.value);
        doors.extend(
            ROUTERS
                .iter()
                .flat_map(|router| router.found(object, &words)),
        );
    }
    doors
}

/// Of the Gateway API's inference extension: v1, and what it was before.
fn pool(object: &Value) -> Option<Service> {
    let spec = &object["spec"];
    let labels = &spec["selector"]["matchLabels"];
    let selector = strings(if labels.is_object() {
        labels
    } else {
        &spec["selector"]
    });
    let several = spec["targetPorts"].as_array().into_iter().flatten();
    let several = several.map(|port| &port["number"]);
    let numbers = several.chain([&spec["targetPortNumber"]]);
    let numbers: Vec<u16> = numbers.filter_map(number).collect();
    (!selector.is_empty()).then(|| {
        let namespace = text(&object["metadata"]["namespace"]);
        Service::door(described(object), namespace, selector, numbers)
    })
}

fn aibrix(object: &Value, pod: &Value) -> Option<Service> {
    // Its Service has the same labels.
    if !pod["spec"]["containers"].is_array() {
        return None;
    }
    let labels = strings(&pod["metadata"]["labels"]);
    let name = labels.get(AIBRIX.0)?;
    let port = labels.get(AIBRIX.1).and_then(|port| port.parse().ok());
    let selector = BTreeMap::from([(AIBRIX.0.to_owned(), name.clone())]);
    let namespace = text(&object["metadata"]["namespace"]);
    let who = "AIBrix's gateway".to_owned();
    Some(Service::door(
        who,
        namespace,
        selector,
        [port.unwrap_or(8000)],
    ))
}

// === impl Router ===

impl Router {
    fn found(&self, object: &Value, words: &[String]) -> Vec<Service> {
        let (flag, modes) = self.looks;
        let looks = match values(words, flag).next() {
            Some(mode) if !modes.is_empty() => modes.contains(&mode),
            Some(_) => modes.is_empty(),
            None => modes.is_empty() && words.iter().any(|word| word == flag),
        };
        if !looks {
            return Vec::new();
        }
        let said = values(words, self.port).next();
        let port = said.map_or(self.default, |port| port.parse().ok());
        let namespace = values(words, self.namespace).next();
        let namespace = namespace.filter(|name| !name.contains('$'));
        let namespace = namespace
            .map(str::to_owned)
            .or_else(|| text(&object["metadata"]["namespace"]));
        let selectors = self.selectors.iter();
        let selectors = selectors.map(|flag| labels(values(words, flag)));
        let who = format!("the router of {}", described(object));
        selectors
            .filter(|selector| !selector.is_empty())
            .map(|selector| Service::door(who.clone(), namespace.clone(), selector, port))
            .collect()
    }
}

/// What stands behind a flag: `--flag=a`, `--flag a b`, up to the next one.
fn values<'a>(words: &'a [String], flag: &str) -> impl Iterator<Item = &'a str> {
    let at = words.iter().position(|word| {
        word.strip_prefix(flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let first = at.and_then(|at| words[at].split_once('='));
    let first = first
        .filter(|(name, _)| *name == flag)
        .map(|(_, value)| value);
    let rest = at.map_or(&[][..], |at| &words[at + 1..]);
    let rest = rest.iter().map(String::as_str);
    first
        .into_iter()
        .chain(rest.take_while(|word| !word.starts_with('-')))
}

/// `a=b,c=d`, or one a word.
fn labels<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let pairs = words.flat_map(|word| word.split(','));
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| {
            (
                key.trim().to_owned(),
                value.trim_start_matches('=').to_owned(),
            )
        })
        .collect()
}

/// All that a container runs; a script by its blanks.
fn words(container: &Value) -> Vec<String> {
    let lists = ["command", "args"].iter();
    let texts = lists.flat_map(|key| container[*key].as_array().into_iter().flatten());
    let texts = texts.filter_map(Value::as_str);
    let quotes = |sign| sign == '"' || sign == '\'';
    let words = texts.flat_map(str::split_whitespace);
    words
        .filter(|word| *word != "\\")
        .map(|word| word.trim_matches(quotes).to_owned())
        .collect()
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}
