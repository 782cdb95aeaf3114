//! Whom `--selector` picks: workloads that serve, by their own labels or their pods', and nothing else that carries the label.
//!
//! Charts write one set of labels on all that they make. So a Service or a `ServiceAccount` with them is not meant, and a pod
//! that is a chart's test is not either; and many a Deployment has labels in its template alone.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::Options;
use super::documents::Document;
use super::verdict::Note;
use super::workload::{Kind, described, strings};

/// Annotations of pods that a release runs once.
const HOOKS: [&str; 2] = ["helm.sh/hook", "argocd.argoproj.io/hook"];

/// Labels that must be there, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(BTreeMap<String, String>);

// === impl Selector ===

impl Selector {
    /// `app=bert,tier=gpu`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        for part in text.split(',') {
            let pair = part.split_once('=').map(|(key, value)| {
                // kubectl takes both.
                (key.trim(), value.strip_prefix('=').unwrap_or(value).trim())
            });
            match pair {
                Some((key, value)) if !key.is_empty() && !key.ends_with('!') => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => {
                    return Err(format!(
                        "{part:?} is no label; write `key=value`, several with commas between them"
                    ));
                }
            }
        }
        Ok(Self(labels))
    }

    /// Whether `object` is a workload with these labels, each on itself or on its template.
    pub(super) fn picks(&self, object: &Value) -> bool {
        Kind::of(object).is_some() && !ends_by_itself(object) && self.is_on(object)
    }

    fn is_on(&self, object: &Value) -> bool {
        let own = strings(&object["metadata"]["labels"]);
        let template = strings(&object["spec"]["template"]["metadata"]["labels"]);
        let Self(wanted) = self;
        wanted.iter().all(|(key, value)| {
            [&own, &template]
                .iter()
                .any(|labels| labels.get(key) == Some(value))
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(labels) = self;
        let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
        f.write_str(&labels.collect::<Vec<_>>().join(","))
    }
}

/// Whether it is a pod that is over when it has done its work.
fn ends_by_itself(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    let is_hook = HOOKS.iter().any(|hook| annotations.get(*hook).is_some());
    let ends = matches!(
        object["spec"]["restartPolicy"].as_str(),
        Some("Never" | "OnFailure")
    );
    is_hook || ends
}

/// What of the input a selector has passed over, where somebody could have meant it: pods of other kinds, or all of it.
pub(super) fn passed_over(documents: &[Document], options: &Options) -> Vec<Note> {
    let Some(selector) = &options.selector else {
        return Vec::new();
    };
    let objects: Vec<&Value> = documents.iter().flat_map(Document::objects).collect();
    let note = |place: String, text: String| Note { place, text };
    let has_pods = |object: &&&Value| object["spec"]["template"]["spec"]["containers"].is_array();
    let others = objects.iter().filter(has_pods);
    let others = others.filter(|object| Kind::of(object).is_none() && selector.is_on(object));
    let mut notes: Vec<Note> = others
        .map(|object| {
            let text = "--selector names its labels, and only a Deployment, a StatefulSet or a Pod can have a sidecar: it is passed over";
            note(described(object), text.to_owned())
        })
        .collect();
    if !objects.iter().any(|object| selector.picks(object)) {
        let there: Vec<String> = objects
            .iter()
            .filter(|object| Kind::of(object).is_some())
            .map(|object| described(object))
            .collect();
        let there = if there.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", there.join(", "))
        };
        let text = format!(
            "picks nothing: no Deployment, StatefulSet or Pod of the input has these labels, nor has its template ({there})"
        );
        notes.push(note(format!("--selector {selector}"), text));
    }
    notes
}
