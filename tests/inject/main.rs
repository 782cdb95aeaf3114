//! Injection from outside: whole manifests in, whole manifests out.
//!
//! `cases` holds a manifest and, beside it, all that is said and written about it: read the diff of these files when a rule
//! changes (`UPDATE_EXPECT=1 cargo test --test inject` writes them anew). That a real API server takes them is held in
//! `tests/cluster`.

mod admission;
mod hostile;
mod inputs;
mod kustomize;
mod neighbours;
mod ports;
mod public;
mod selection;
mod servers;
mod starts;
mod tls;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sidescale::inject::{self, Network, Options, Output, Refusal, Selector, Source};

/// Every case.
pub(crate) const CASES: [&str; 20] = [
    "classic.yaml",
    "costs.yaml",
    "flask-elsewhere.yaml",
    "flask-number.yaml",
    "flask-variable.yaml",
    "flask.yaml",
    "hook.yaml",
    "hpa-argo.yaml",
    "isolated.yaml",
    "kserve.yaml",
    "labelled.json",
    "nim.yaml",
    "passive.yaml",
    "production-stack.yaml",
    "sets.yaml",
    "sglang-number.yaml",
    "tgi-number.yaml",
    "torchserve.yaml",
    "triton.yaml",
    "vllm.yaml",
];

/// Those that are refused, and for what, all of it.
const REFUSED: [(&str, &[&str]); 5] = [
    (
        "flask-number.yaml",
        &[
            "a Service targets the server's port by its number, and how this server is told another one is not known",
        ],
    ),
    (
        "hook.yaml",
        &[
            "is not known",
            "\"0\" is no port",
            "the pod has the node's ports",
            "the server speaks TLS, which the sidecar does not",
            "there is a hook already",
            "Argo Rollouts makes its pods and moves its Services by itself",
        ],
    ),
    (
        "isolated.yaml",
        &[
            "networkpolicy/from-the-gateway lets requests to 8000 pass by its number, and the sidecar takes them on 8080",
        ],
    ),
    ("kserve.yaml", &["a InferenceService owns it"]),
    ("nim.yaml", &["a NIMService owns it"]),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inject/cases")
}

pub(crate) fn case(name: &str) -> Source {
    let text = std::fs::read_to_string(folder().join(name)).expect("a case is a file");
    Source {
        name: name.to_owned(),
        text,
    }
}

pub(crate) fn options(case: &str) -> Options {
    Options {
        image: "ghcr.io/sidescale/sidescale:0.1.0".to_owned(),
        classic: case.starts_with("classic"),
        // JSON has no comments: it is there for what a selector picks by a label, with `sidescale lead` beside it.
        selector: (case == "labelled.json")
            .then(|| Selector::parse("tier=gpu").expect("it is one")),
        lead: case == "labelled.json",
        network: (case == "passive.yaml").then_some(Network::Open),
    }
}

/// All objects of a text, lists opened.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let read = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Option<Value>> =
        serde_saphyr::from_multiple_with_options(text, read).expect("it is YAML");
    let mut objects = Vec::new();
    for document in documents.into_iter().flatten() {
        match document["items"].as_array() {
            Some(items) => objects.extend(items.clone()),
            None => objects.push(document),
        }
    }
    objects
}

#[test]
fn every_case_is_as_it_was_read_and_approved() {
    let files = folder().read_dir().expect("a folder");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut manifests: Vec<String> = names
        .filter(|name| name.strip_suffix(".out").is_none())
        .collect();
    manifests.sort();
    assert_eq!(manifests, CASES, "a case is in the list and in the folder");
    for name in CASES {
        let written = inject::inject(&[case(name)], &options(name));
        assert_approved(&folder(), name, written);
    }
}

/// That all that is said and written about a case is what `folder` has beside its name.
pub(crate) fn assert_approved(folder: &Path, name: &str, written: Result<Output, Vec<Refusal>>) {
    let mut out = String::new();
    match written {
        Ok(output) => {
            for note in &output.notes {
                writeln!(out, "# {note}").expect("a string takes all");
            }
            out.push_str(&output.manifests);
        }
        Err(refusals) => {
            for refusal in refusals {
                writeln!(out, "refused: {refusal}").expect("a string takes all");
            }
        }
    }
    let approved = folder.join(format!("{name}.out"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&approved, &out).expect("the folder can be written");
    }
    let approved = std::fs::read_to_string(&approved).unwrap_or_default();
    assert_eq!(approved, out, "{name}: if this is meant, UPDATE_EXPECT=1");
}

#[test]
fn a_refused_case_is_refused_for_what_it_is_there_for() {
    for (name, reasons) in REFUSED {
        let refusals = inject::inject(&[case(name)], &options(name)).expect_err(name);
        assert_eq!(refusals.len(), reasons.len(), "{name}: {refusals:?}");
        for (refusal, reason) in refusals.iter().zip(reasons) {
            assert!(refusal.reason.contains(reason), "{name}: {refusal}");
        }
    }
}

#[test]
fn twice_is_once_and_out_again_is_what_it_was() {
    for name in CASES {
        let Ok(once) = inject::inject(&[case(name)], &options(name)) else {
            assert!(
                REFUSED.iter().any(|(refused, _)| *refused == name),
                "{name}"
            );
            continue;
        };
        assert_twice_is_once_and_back(&case(name), &once.manifests, &options(name));
    }
}

/// That `injected` stays as it is when it is injected again, and goes back to what `source` has.
pub(crate) fn assert_twice_is_once_and_back(source: &Source, injected: &str, options: &Options) {
    let again = Source {
        name: source.name.clone(),
        text: injected.to_owned(),
    };
    let twice = inject::inject(std::slice::from_ref(&again), options).expect("once went well");
    assert_eq!(twice.manifests, injected, "{}", source.name);
    let back = inject::uninject(&[again]).expect("inject wrote it");
    assert_eq!(
        objects(&back.manifests),
        objects(&source.text),
        "{}",
        source.name
    );
}

#[test]
fn a_newer_version_follows_its_own_objects_and_leaves_what_people_wrote() {
    let name = "vllm.yaml";
    let once = inject::inject(&[case(name)], &options(name)).expect("it can be injected");
    let edited = once.manifests.replace("mode: observe", "mode: auto");
    let edited = edited.replacen("- watch\n", "", 1);
    assert_ne!(edited, once.manifests);
    let newer = Options {
        image: "ghcr.io/sidescale/sidescale:0.2.0".to_owned(),
        ..options(name)
    };
    let source = Source {
        name: name.to_owned(),
        text: edited,
    };
    let twice = inject::inject(&[source], &newer).expect("it can be injected");
    let expected = once.manifests.replace("mode: observe", "mode: auto");
    assert_eq!(twice.manifests, expected.replace(":0.1.0", ":0.2.0"));
}

#[test]
fn what_is_not_asked_for_goes_on_letter_by_letter() {
    let text = "# A comment.\n'kind': \"Deployment\"\napiVersion: apps/v1\nmetadata: {name: a}\n---\n# Only this.\n---\n{\"kind\": \"X\"}\n";
    let source = Source {
        name: "-".to_owned(),
        text: text.to_owned(),
    };
    let output = inject::inject(&[source], &options("-")).expect("nothing is wrong with it");
    assert_eq!(output.changed, 0);
    assert_eq!(output.manifests, text.replace("---\n# Only this.\n", ""));
}

#[test]
fn the_role_is_the_one_of_the_single_manifest() {
    let name = "hpa-argo.yaml";
    let output = inject::inject(&[case(name)], &options(name)).expect("it can be injected");
    let role = |objects: &[Value]| {
        let role = objects.iter().find(|object| object["kind"] == "Role");
        role.expect("there is one")["rules"].to_string()
    };
    let single = role(&objects(include_str!("../../sidecar.yaml")));
    assert_eq!(
        role(&objects(&output.manifests)),
        single.replace("demo", "bert")
    );
}
