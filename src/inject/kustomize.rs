//! The same as a component of kustomize, which leaves the manifests as they are.

use serde_json::{Value, json};

use super::documents::{self, Document, Source};
use super::prospect::Prospect;
use super::selection::passed_over;
use super::steps::{Injected, injected};
use super::verdict::{Note, Refusal};
use super::workload::Workload;
use super::{Options, Surroundings, read_all};

/// A kustomize component.
#[derive(Clone, Debug)]
pub struct Component {
    /// Name and text of each file.
    pub files: Vec<(String, String)>,
    /// In the order of the workloads.
    pub notes: Vec<Note>,
    /// How many workloads it patches.
    pub changed: usize,
    /// Each of them as it will be, for who compares it with a cluster.
    pub prospects: Vec<Prospect>,
}

/// The component that adds the sidecar to each workload of `sources` that asks for it.
pub fn component(sources: &[Source], options: &Options) -> Result<Component, Vec<Refusal>> {
    let documents = read_all(sources)?;
    let surroundings = Surroundings::of(&documents);
    let (mut refusals, mut component) = (Vec::new(), Parts::default());
    component.notes = passed_over(&documents, options);
    for document in &documents {
        for object in document.objects() {
            match injected(object, &surroundings, options) {
                Ok(None) => {}
                Ok(Some(injected)) => component.add(&document.place, object, injected),
                Err(these) => {
                    let these = these.into_iter();
                    refusals.extend(these.map(|refusal| refusal.within(&document.place)));
                }
            }
        }
    }
    component.notes.extend(documents::unread(&documents));
    if refusals.is_empty() {
        component.finish().map_err(|refusal| vec![refusal])
    } else {
        Err(refusals)
    }
}

#[derive(Default)]
struct Parts {
    files: Vec<(String, Vec<Document>)>,
    resources: Vec<String>,
    patches: Vec<Value>,
    notes: Vec<Note>,
    prospects: Vec<Prospect>,
}

// === impl Parts ===

impl Parts {
    fn add(&mut self, document: &str, object: &Value, injected: Injected) {
        let Ok(Some(workload)) = Workload::of(object) else {
            return;
        };
        let file = |what: &str| format!("{}-{}.{what}.yaml", workload.kind.word(), workload.name);
        let documents = |values: Vec<Value>| {
            values
                .into_iter()
                .map(|value| Document::new("", value))
                .collect()
        };
        if !injected.companions.is_empty() {
            self.resources.push(file("beside"));
            self.files
                .push((file("beside"), documents(injected.companions)));
        }
        let mut steps = injected.patch;
        // Places are all that a patch knows: where the containers stand otherwise it must not be applied.
        let at = format!("{}/spec/containers", workload.kind.template());
        let containers = object
            .pointer(&at)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let guards = containers.enumerate().map(|(index, container)| {
            json!({"op": "test", "path": format!("{at}/{index}/name"), "value": container["name"]})
        });
        steps.splice(0..0, guards);
        self.files
            .push((file("patch"), documents(vec![Value::Array(steps)])));
        let (group, version) = object["apiVersion"]
            .as_str()
            .unwrap_or_default()
            .split_once('/')
            .unwrap_or(("", "v1"));
        let mut target = json!({"version": version, "kind": object["kind"], "name": workload.name});
        if !group.is_empty() {
            target["group"] = json!(group);
        }
        self.patches
            .push(json!({"path": file("patch"), "target": target}));
        self.notes.extend(injected.notes);
        self.prospects.push(injected.prospect.within(document));
    }

    fn finish(self) -> Result<Component, Refusal> {
        let changed = self.patches.len();
        let head = json!({
            "apiVersion": "kustomize.config.k8s.io/v1alpha1",
            "kind": "Component",
            "resources": self.resources,
            "patches": self.patches,
        });
        let mut files = vec![(
            "kustomization.yaml".to_owned(),
            documents::write(&[Document::new("", head)])?,
        )];
        for (name, documents) in self.files {
            files.push((name, documents::write(&documents)?));
        }
        Ok(Component {
            files,
            notes: self.notes,
            changed,
            prospects: self.prospects,
        })
    }
}
