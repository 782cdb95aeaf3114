//! Puts the sidecar beside an inference server: into its manifest, and into nothing else of it.
//!
//! The way of a workload: who owns it (`owners`), what its annotations ask for (`settings`), which container is the
//! server (`server`), who listens where (`ports`, `engines`), who asks whom for its health (`probes`), how the pod ends
//! (`ending`), under which account (`account`), what it costs (`resources`), the container (`sidecar`), and the objects
//! beside it (`companions`, `network`). What cannot be done safely is refused with its place and a remedy, all of it in
//! one go, and then nothing is written at all: half a fleet with a sidecar is no state that anybody asked for.
//!
//! All of it is a function of the texts. Each change remembers what stood there (`edits`), so injecting twice is
//! injecting once, and [`uninject`] gives an equal document back.

mod account;
mod companions;
mod documents;
mod edits;
mod ending;
mod engines;
mod kustomize;
mod lead;
mod network;
mod owners;
mod ports;
mod probes;
mod resources;
mod rights;
mod server;
mod services;
mod settings;
mod sidecar;
mod task;
mod verdict;
mod workload;

use serde_json::{Value, json};

use self::companions::MANAGED_BY;
use self::documents::Document;
pub use self::documents::Source;
use self::edits::{Before, Edits};
pub use self::kustomize::{Component, component};
use self::network::Isolation;
pub use self::network::Network;
use self::rights::Part;
use self::services::Service;
use self::settings::{ORIGINAL, Settings};
use self::task::{Task, declared};
pub use self::verdict::{Note, Refusal};
pub use self::workload::Selector;
use self::workload::{Workload, described, is_asked};

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
}

/// What the whole input says to each of its workloads.
struct Surroundings {
    services: Vec<Service>,
    isolations: Vec<Isolation>,
    /// Of the kinds HPA and ScaledObject.
    scalers: Vec<Value>,
}

/// A workload with its sidecar.
struct Injected {
    workload: Value,
    /// From what it was, as a JSON patch; without the annotation for `uninject`.
    patch: Vec<Value>,
    companions: Vec<Value>,
    notes: Vec<Note>,
}

/// Adds the sidecar to each workload of `sources` that asks for it; everything else goes on as it is.
pub fn inject(sources: &[Source], options: &Options) -> Result<Output, Vec<Refusal>> {
    let mut documents = read_all(sources)?;
    let surroundings = Surroundings::of(&documents);
    let (mut refusals, mut notes, mut changed) = (Vec::new(), Vec::new(), 0);
    let mut companions: Vec<(usize, Vec<Value>)> = Vec::new();
    for (index, document) in documents.iter_mut().enumerate() {
        let mut objects: Vec<Value> = document.objects().into_iter().cloned().collect();
        let mut beside = Vec::new();
        let before = changed;
        for object in &mut objects {
            match injected(object, &surroundings, options) {
                Ok(None) => {}
                Ok(Some(injected)) => {
                    *object = injected.workload;
                    beside.extend(injected.companions);
                    notes.extend(injected.notes);
                    changed += 1;
                }
                Err(these) => refusals.extend(these.into_iter().map(|refusal| Refusal {
                    place: format!("{}: {}", document.place, refusal.place),
                    ..refusal
                })),
            }
        }
        if changed > before {
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
    finish(&documents, notes, changed)
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
                Ok(true) => restored.push((
                    object["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    object["metadata"]["namespace"].as_str().map(str::to_owned),
                    described(object),
                )),
                Err(refusal) => refusals.push(Refusal {
                    place: format!("{}: {}", document.place, refusal.place),
                    ..refusal
                }),
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
        restored
            .iter()
            .any(|(name, namespace, _)| companions::is_of(object, name, namespace.as_deref()))
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
    let notes = restored.iter().map(|(_, _, place)| Note {
        place: place.clone(),
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

/// `Ok(None)`: nobody asked.
fn injected(
    object: &Value,
    surroundings: &Surroundings,
    options: &Options,
) -> Result<Option<Injected>, Vec<Refusal>> {
    let one = |refusal| vec![refusal];
    if !is_asked(object, options.selector.as_ref()).map_err(one)? {
        return Ok(None);
    }
    let mut object = object.clone();
    // Twice is once.
    restore(&mut object).map_err(one)?;
    let Some(workload) = Workload::of(&object).map_err(one)? else {
        return Err(one(Refusal::new(
            described(&object),
            "only a Deployment, a StatefulSet or a Pod can have a sidecar",
            "take the annotation away, or serve with one of them",
        )));
    };
    let template = object
        .pointer(workload.kind.template())
        .unwrap_or(&Value::Null);
    let settings = Settings::read(
        &workload.place(),
        &object["metadata"]["annotations"],
        &template["metadata"]["annotations"],
    )?;
    let mut task = Task {
        workload,
        settings,
        edits: Edits::of(object),
        server: String::new(),
        notes: Vec::new(),
        refusals: Vec::new(),
    };
    let companions = steps(&mut task, surroundings, options);
    if !task.refusals.is_empty() {
        return Err(task.refusals);
    }
    let patch = task.edits.patch().to_vec();
    let original = json!(serde_json::to_string(task.edits.before()).unwrap_or_default());
    let remembered = task.edits.set(ORIGINAL_AT, original);
    task.check(remembered);
    if !task.refusals.is_empty() {
        return Err(task.refusals);
    }
    Ok(Some(Injected {
        workload: task.edits.document().clone(),
        patch,
        companions,
        notes: task.notes,
    }))
}

/// The steps of one workload; its companions, which are worth nothing where something was refused.
fn steps(task: &mut Task, surroundings: &Surroundings, options: &Options) -> Vec<Value> {
    owners::refuse_rendered(task);
    refuse_unsuitable(task);
    let Some(server) = server::choose(task) else {
        return Vec::new();
    };
    task.server = server;
    // As the names are before they move.
    let names: Vec<(String, u16)> = declared(task.in_server(""))
        .filter_map(|(name, number)| Some((name?.to_owned(), number)))
        .collect();
    let routes = ports::hand_over(task, &surroundings.services);
    if routes.is_empty() || !task.refusals.is_empty() {
        return Vec::new();
    }
    let isolated = network::check(task, &surroundings.isolations, &routes);
    let ready = probes::hand_over(task, &names, &routes);
    let ending = ending::prepare(task);
    let in_the_cluster = sidecar::is_in_the_cluster(task);
    let account = in_the_cluster.then(|| account::settle(task));
    let resources = resources::fit(task);
    let settled = sidecar::Settled {
        routes: &routes,
        ready: &ready,
        ending,
        resources,
        follows: options.lead,
    };
    sidecar::insert(task, &options.image, options.classic, &settled);
    owners::hand_over_replicas(task, &surroundings.scalers);
    let Some(account) = account else {
        task.note("only Deployments are scaled: here the sidecar carries requests and measures, and has no account");
        return Vec::new();
    };
    let network = options.network.or(isolated.then_some(Network::Isolated));
    let bounds = owners::bounds(&surroundings.scalers, &task.workload);
    let part = if options.lead {
        Part::Follower
    } else {
        Part::Sidecar
    };
    let mut beside = companions::of(task, &account, part, bounds, network.as_ref());
    if options.lead {
        beside.extend(lead::of(task, &options.image));
    }
    beside
}

/// Refuses pods that no sidecar can stand in.
fn refuse_unsuitable(task: &mut Task) {
    let pod = task.in_pod("").clone();
    if pod["hostNetwork"] == true {
        task.refuse(
            "hostNetwork",
            "the pod has the node's ports, where each port can be taken once",
            "use the pod network, or set sidescale.dev/inject: \"false\"",
        );
    }
    if pod["os"]["name"] == "windows" {
        task.refuse("os.name", "the sidecar runs on Linux", "leave it out");
    }
    let taken = task::containers(&pod).any(|container| container.name == sidecar::NAME);
    if taken {
        task.refuse(
            "containers",
            "there is one called sidescale that inject did not put there",
            "take it out first, with what was changed for it; or keep it, and take the annotation away",
        );
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
