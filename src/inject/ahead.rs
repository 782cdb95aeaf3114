//! What is applied ahead of pods that get their sidecar at admission: the objects beside them, and the policy that does it.
//!
//! The Deployment is left as it is. Its template goes through the same steps as its pods will, so what admission could not
//! do is refused here, where somebody reads it, and not by a warning that only a controller sees.

use serde_json::{Value, json};

use super::admission_policy;
use super::documents::{self, Document, Source};
use super::prospect::Prospect;
use super::selection::passed_over;
use super::settings::{INJECT, PREFIX, Settings};
use super::steps::{asked, take};
use super::task::Task;
use super::verdict::{Note, Refusal};
use super::workload::{Kind, Workload, described};
use super::{Options, Output, Surroundings, read_all};

/// What is wanted of [`ahead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The companions.
    pub rbac: bool,
    /// The admission policies.
    pub policy: bool,
}

/// What to apply ahead of the pods of each Deployment of `sources` that asks for a sidecar.
pub fn ahead(sources: &[Source], options: &Options, wanted: Ahead) -> Result<Output, Vec<Refusal>> {
    // Where there are such policies, there are native sidecars.
    let options = &Options {
        classic: false,
        ..options.clone()
    };
    let documents = read_all(sources)?;
    let surroundings = Surroundings::of(&documents);
    let mut notes = passed_over(&documents, options);
    let (mut refusals, mut prospects) = (Vec::new(), Vec::new());
    let mut out = Vec::new();
    for document in &documents {
        for object in document.objects() {
            match of_workload(object, &surroundings, options, wanted) {
                Ok(None) => {}
                Ok(Some(settled)) => {
                    let objects = settled.objects.into_iter();
                    out.extend(objects.map(|object| Document::new(&document.place, object)));
                    notes.extend(settled.notes);
                    prospects.push(settled.prospect.within(&document.place));
                }
                Err(these) => {
                    let these = these.into_iter();
                    refusals.extend(these.map(|refusal| refusal.within(&document.place)));
                }
            }
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    notes.extend(documents::unread(&documents));
    let manifests = documents::write(&out).map_err(|refusal| vec![refusal])?;
    Ok(Output {
        manifests,
        notes,
        changed: prospects.len(),
        prospects,
    })
}

/// What is applied ahead of one workload's pods.
struct Settled {
    objects: Vec<Value>,
    notes: Vec<Note>,
    prospect: Prospect,
}

/// `Ok(None)`: nobody asked.
fn of_workload(
    object: &Value,
    surroundings: &Surroundings,
    options: &Options,
    wanted: Ahead,
) -> Result<Option<Settled>, Vec<Refusal>> {
    let one = |refusal| vec![refusal];
    let Some(object) = asked(object, options).map_err(one)? else {
        return Ok(None);
    };
    let workload = Workload::of(&object).map_err(one)?;
    let Some(workload) = workload.filter(|workload| workload.kind == Kind::Deployment) else {
        return Err(one(Refusal::new(
            described(&object),
            "at admission only pods of a Deployment get a sidecar",
            "use `sidescale inject` on the manifest",
        )));
    };
    let task = |kind, annotations: &Value| {
        let pod = pod(&object);
        let place = workload.place();
        let settings = Settings::read(&place, annotations, &pod["metadata"]["annotations"])?;
        let workload = Workload {
            kind,
            ..workload.clone()
        };
        Ok::<_, Vec<Refusal>>(Task::new(workload, settings, pod))
    };
    let mut settled = task(Kind::Template, &object["metadata"]["annotations"])?;
    let companions = take(&mut settled, surroundings, options)?;
    let mut objects = Vec::new();
    if wanted.rbac {
        objects.extend(companions);
    }
    if wanted.policy {
        objects.extend(admission_policy::of(&settled, &pod(&object)));
        if settled.workload.namespace.is_none() {
            settled.note(
                "the manifest names no namespace, so the policies are for the pods of a Deployment of this name in every namespace \
                 where the RoleBinding is",
            );
        }
    } else {
        let mut alone = task(Kind::Template, &Value::Null)?;
        let same = take(&mut alone, &Surroundings::default(), options).is_ok()
            && alone.edits.patch() == settled.edits.patch();
        say_what_a_pod_must_say(&mut settled, same);
    }
    Ok(Some(Settled {
        objects,
        prospect: Prospect::of(&settled),
        notes: settled.notes,
    }))
}

/// The webhook sees a pod, and neither its Deployment nor its Services.
fn say_what_a_pod_must_say(task: &mut Task, is_seen_alike: bool) {
    let annotations = task.workload.metadata["annotations"].as_object();
    let keys = annotations.into_iter().flatten();
    let keys = keys.map(|(key, _)| key.as_str());
    let template = &task.edits.document()["metadata"]["annotations"];
    let mut missing: Vec<&str> = keys
        .filter(|key| key.starts_with(PREFIX) && template.get(*key).is_none())
        .collect();
    // Whoever was chosen by a selector has not asked.
    if template.get(INJECT).is_none() && !missing.contains(&INJECT) {
        missing.push(INJECT);
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        task.note(format!(
            "`sidescale webhook` sees its pods alone: write {missing} into the template's annotations, too"
        ));
    } else if !is_seen_alike {
        task.note(
            "`sidescale webhook` does not see the Services and takes every named port for one that carries requests: name those that \
             do in the template's annotation sidescale.dev/ports",
        );
    }
}

/// A pod of this template, as the API server has filled it in before admission, where that matters to a step.
fn pod(deployment: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"],
    });
    let spec = &mut pod["spec"];
    for list in ["initContainers", "volumes"] {
        if spec[list].is_null() {
            spec[list] = json!([]);
        }
    }
    if spec["securityContext"].is_null() {
        spec["securityContext"] = json!({});
    }
    if spec["securityContext"].is_object() && spec["securityContext"]["sysctls"].is_null() {
        spec["securityContext"]["sysctls"] = json!([]);
    }
    if spec["terminationGracePeriodSeconds"].is_null() {
        spec["terminationGracePeriodSeconds"] = json!(30);
    }
    pod
}
