//! Puts the sidecar beside an inference server: into its manifest, and into nothing else of it.
//!
//! The way of a workload: who owns it (`owners`), what its annotations ask for (`settings`), which container is the
//! server (`server`), who listens where (`ports`, `engines`), who asks whom for its health (`probes`), how the pod ends
//! (`ending`), under which account (`account`), what it costs (`resources`), the container (`sidecar`), and the objects
//! beside it (`companions`, `network`, `deletion_costs`). What cannot be done safely is refused with its place and a remedy, all of it in
//! one go, and then nothing is written at all: half a fleet with a sidecar is no state that anybody asked for.
//!
//! At admission the same steps are taken for a pod (`admitted`), by what was applied ahead of it (`ahead`): companions and,
//! where no process shall run, a policy of the API server itself (`admission_policy`).
//!
//! What a cluster says of a workload is judged here, too, where somebody has asked it (`fit`, `observed`).
//!
//! All of it is a function of the texts. Each change remembers what stood there (`edits`), so injecting twice is
//! injecting once, and [`uninject`] gives an equal document back.

mod account;
mod admission_policy;
mod admitted;
mod ahead;
mod backends;
mod callers;
mod carried;
mod cel;
mod companions;
mod deletion_costs;
mod documents;
mod doors;
mod edits;
mod ending;
mod engines;
mod fit;
mod free;
mod kinds;
mod kustomize;
mod lead;
mod listening;
mod network;
mod observed;
mod owners;
mod ports;
mod probes;
mod prospect;
mod requests;
mod resources;
mod rights;
mod selection;
mod server;
mod services;
mod settings;
mod sidecar;
mod speech;
mod steps;
mod targets;
mod task;
mod verdict;
mod workload;

use serde_json::Value;

pub use self::admitted::{Admission, Admitted, has_the_role, only_follows, pod};
pub use self::ahead::{Ahead, ahead};
use self::backends::Backend;
use self::companions::MANAGED_BY;
use self::documents::Document;
pub use self::documents::{Source, yaml};
use self::edits::Before;
pub use self::fit::{Node, fit};
pub use self::kustomize::{Component, component};
use self::network::Isolation;
pub use self::network::Network;
pub use self::observed::{Observed, enough_grace};
pub use self::prospect::Prospect;
pub use self::selection::Selector;
use self::selection::passed_over;
use self::services::Service;
use self::settings::ORIGINAL;
use self::steps::injected;
pub use self::verdict::{Note, Refusal};
use self::workload::described;

/// Where the annotation stands that holds what was before.
const ORIGINAL_AT: &str = "/metadata/annotations/sidescale.dev~1original";

/// How to inject.
#[derive(Clone, Debug)]
pub struct Options {
    /// The sidecar's image.
    pub image: String,
    /// As a plain container, for clusters before 1.29.
    pub classic: bool,
    /// Workloads without an annotation that are meant, too.
    pub selector: Option<Selector>,
    /// `sidescale lead` comes along, and the sidecars only follow.
    pub lead: bool,
    /// Which NetworkPolicy comes along; `None`: one for isolated pods where a policy of the input isolates them.
    pub network: Option<Network>,
}

/// Manifests, and what to know about them.
#[derive(Clone, Debug)]
pub struct Output {
    /// YAML, document by document.
    pub manifests: String,
    /// In the order of the workloads.
    pub notes: Vec<Note>,
    /// How many workloads were changed.
    pub changed: usize,
    /// Each workload as it will be, for who compares it with a cluster; `uninject` gives none.
    pub prospects: Vec<Prospect>,
}

/// What the whole input says to each of its workloads.
#[derive(Default)]
struct Surroundings {
    services: Vec<Service>,
    /// Who speaks TLS to pods.
    backends: Vec<Backend>,
    isolations: Vec<Isolation>,
    /// Of the kinds HPA and ScaledObject.
    scalers: Vec<Value>,
}

/// Adds the sidecar to each workload of `sources` that asks for it; everything else goes on as it is.
pub fn inject(sources: &[Source], options: &Options) -> Result<Output, Vec<Refusal>> {
    let mut documents = read_all(sources)?;
    let surroundings = Surroundings::of(&documents);
    let mut notes = passed_over(&documents, options);
    let (mut refusals, mut prospects) = (Vec::new(), Vec::new());
    let mut companions: Vec<(usize, Vec<Value>)> = Vec::new();
    for (index, document) in documents.iter_mut().enumerate() {
        let mut objects: Vec<Value> = document.objects().into_iter().cloned().collect();
        let mut beside = Vec::new();
        let before = prospects.len();
        for object in &mut objects {
            match injected(object, &surroundings, options) {
                Ok(None) => {}
                Ok(Some(injected)) => {
                    *object = injected.workload;
                    beside.extend(injected.companions);
                    notes.extend(injected.notes);
                    prospects.push(injected.prospect.within(&document.place));
                }
                Err(these) => {
                    let these = these.into_iter();
                    refusals.extend(these.map(|refusal| refusal.within(&document.place)));
                }
            }
        }
        if prospects.len() > before {
            document.replace(objects);
            companions.push((index, beside));
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    // From the last one on, so that the places before it stay right.
    for (index, beside) in companions.into_iter().rev() {
        place(&mut documents, index, beside);
    }
    let output = finish(&documents, notes, prospects.len())?;
    Ok(Output {
        prospects,
        ..output
    })
}

/// Takes the sidecar out again, and with it what came along.
pub fn uninject(sources: &[Source]) -> Result<Output, Vec<Refusal>> {
    let mut documents = read_all(sources)?;
    let (mut refusals, mut restored) = (Vec::new(), Vec::new());
    for document in &mut documents {
        let mut objects: Vec<Value> = document.objects().into_iter().cloned().collect();
        let before = restored.len();
        for object in &mut objects {
            match restore(object) {
                Ok(false) => {}
                Ok(true) => restored.push(object.clone()),
                Err(refusal) => refusals.push(refusal.within(&document.place)),
            }
        }
        if restored.len() > before {
            document.replace(objects);
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let is_companion = |object: &Value| {
        let mut workloads = restored.iter();
        workloads.any(|workload| companions::is_of(object, workload))
    };
    for document in &mut documents {
        if document.list().is_some() && document.objects().into_iter().any(is_companion) {
            let kept = document
                .objects()
                .into_iter()
                .filter(|object| !is_companion(object));
            let kept = kept.cloned().collect();
            document.replace(kept);
        }
    }
    documents.retain(|document| document.list().is_some() || !is_companion(&document.content));
    let notes = restored.iter().map(|workload| Note {
        place: described(workload),
        text: format!(
            "the sidecar is out; what came with it is left out here and stays in the cluster until it is deleted, with its \
             history: role, rolebinding, lease, configmap and serviceaccount with the label {}={}",
            MANAGED_BY.0, MANAGED_BY.1
        ),
    });
    let notes: Vec<Note> = notes.collect();
    let changed = notes.len();
    finish(&documents, notes, changed)
}

fn read_all(sources: &[Source]) -> Result<Vec<Document>, Vec<Refusal>> {
    let (mut documents, mut refusals) = (Vec::new(), Vec::new());
    for source in sources {
        match documents::read(source) {
            Ok(read) => documents.extend(read),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() {
        Ok(documents)
    } else {
        Err(refusals)
    }
}

fn finish(
    documents: &[Document],
    mut notes: Vec<Note>,
    changed: usize,
) -> Result<Output, Vec<Refusal>> {
    let manifests = documents::write(documents).map_err(|refusal| vec![refusal])?;
    notes.extend(documents::unread(documents));
    if let Some(document) = documents.iter().find(|document| document.is_changed) {
        notes.push(Note {
            place: document.place.clone(),
            text: "comments of documents that were changed are lost; --kustomize leaves the files as they are".to_owned(),
        });
    }
    Ok(Output {
        manifests,
        notes,
        changed,
        prospects: Vec::new(),
    })
}

// === impl Surroundings ===

impl Surroundings {
    fn of(documents: &[Document]) -> Self {
        let objects: Vec<&Value> = documents.iter().flat_map(Document::objects).collect();
        let is_scaler = |object: &&&Value| !object["spec"]["scaleTargetRef"].is_null();
        Self {
            services: objects
                .iter()
                .filter_map(|object| Service::of(object))
                .chain(objects.iter().flat_map(|object| doors::of(object)))
                .collect(),
            backends: objects
                .iter()
                .flat_map(|object| backends::of(object))
                .collect(),
            isolations: objects
                .iter()
                .filter_map(|object| Isolation::of(object))
                .collect(),
            scalers: objects
                .iter()
                .filter(is_scaler)
                .map(|object| (*object).clone())
                .collect(),
        }
    }
}

/// Puts companions before the document with their workload, or where they stand already.
fn place(documents: &mut Vec<Document>, index: usize, beside: Vec<Value>) {
    let mut new = Vec::new();
    for companion in beside {
        let same = |object: &Value| {
            ["kind", "apiVersion"]
                .iter()
                .all(|key| object[*key] == companion[*key])
                && ["name", "namespace"]
                    .iter()
                    .all(|key| object["metadata"][*key] == companion["metadata"][*key])
        };
        let Some(found) = documents
            .iter_mut()
            .find(|document| document.objects().into_iter().any(same))
        else {
            new.push(companion);
            continue;
        };
        // What people and leaders write into stays; what follows from the version of inject follows it.
        let is_kept = matches!(companion["kind"].as_str(), Some("ConfigMap" | "Lease"));
        let objects = found.objects().into_iter().cloned();
        let objects: Vec<Value> = objects
            .map(|object| {
                let ours = object["metadata"]["labels"][MANAGED_BY.0] == MANAGED_BY.1;
                if same(&object) && ours && !is_kept {
                    companion.clone()
                } else {
                    object
                }
            })
            .collect();
        if found.objects() != objects.iter().collect::<Vec<_>>() {
            found.replace(objects);
        }
    }
    let document = &mut documents[index];
    if document.list().is_some() {
        new.extend(document.objects().into_iter().cloned());
        document.replace(new);
    } else {
        let origin = document.place.clone();
        let new = new.into_iter().map(|object| Document::new(&origin, object));
        documents.splice(index..index, new);
    }
}

/// Puts back what inject has changed; `Ok(false)`: nothing.
fn restore(object: &mut Value) -> Result<bool, Refusal> {
    let Some(original) = object.pointer(ORIGINAL_AT).and_then(Value::as_str) else {
        return Ok(false);
    };
    let place = format!("{} annotation {ORIGINAL}", described(object));
    let before: Vec<Before> = serde_json::from_str(original).map_err(|error| {
        Refusal::new(
            &place,
            error.to_string(),
            "inject wrote it otherwise: take the manifest from before",
        )
    })?;
    let here = described(object);
    edits::undo(object, &before).map_err(|malformed| Refusal::malformed(&here, &malformed))?;
    let annotations = object["metadata"]["annotations"].as_object_mut();
    if let Some(annotations) = annotations {
        annotations.shift_remove(ORIGINAL);
        if annotations.is_empty() {
            let metadata = object["metadata"].as_object_mut();
            metadata.map(|metadata| metadata.shift_remove("annotations"));
        }
    }
    Ok(true)
}
