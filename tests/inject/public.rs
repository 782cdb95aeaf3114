//! Manifests in the shapes that public repositories have, and how their ports are handed over.
//!
//! `public` holds them, `public.out` what becomes of each: what is said, and what is changed in the server.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sidescale::inject::{self, Output, Source};

use super::{assert_twice_is_once_and_back, objects, options};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject/public")
}

fn sources() -> Vec<Source> {
    let files = folder().read_dir().expect("a folder");
    let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.sort();
    let read = |path: PathBuf| Source {
        name: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .expect("it has one"),
        text: std::fs::read_to_string(path).expect("a manifest is a file"),
    };
    paths.into_iter().map(read).collect()
}

/// The words of `output` about ports, and what stands in the server now where something else stood.
fn told(output: &Output) -> String {
    let mut out = String::new();
    let about_ports = |text: &str| text.contains("port") && !text.contains("terminationGrace");
    for note in output.notes.iter().filter(|note| about_ports(&note.text)) {
        writeln!(out, "  {note}").expect("a string takes all");
    }
    for object in objects(&output.manifests) {
        let pods = &object["spec"]["template"]["spec"];
        let sidecar = pods["initContainers"].as_array().into_iter().flatten();
        let sidecar = sidecar.into_iter().find(|one| one["name"] == "sidescale");
        for variable in sidecar
            .into_iter()
            .filter_map(|one| one["env"].as_array())
            .flatten()
        {
            if variable["name"] == "SIDESCALE_LISTEN" || variable["name"] == "SIDESCALE_UPSTREAM" {
                writeln!(out, "  {} {}", variable["name"], variable["value"])
                    .expect("a string takes all");
            }
        }
        let original = object["metadata"]["annotations"]["sidescale.dev/original"].as_str();
        let original: Vec<Value> =
            serde_json::from_str(original.unwrap_or("[]")).expect("inject wrote it");
        for key in ["command", "args", "env", "ports"] {
            let is_changed = |change: &&Value| {
                change["at"].as_str().is_some_and(|at| {
                    at.contains(&format!("/{key}")) && !at.contains("initContainers")
                })
            };
            let Some(changed) = original.iter().find(is_changed) else {
                continue;
            };
            let at = changed["at"].as_str().unwrap_or_default();
            let name = at.split('/').find_map(|step| step.strip_prefix("name="));
            let containers = pods["containers"].as_array().into_iter().flatten();
            let server = containers
                .into_iter()
                .find(|one| one["name"].as_str() == name);
            let server = server.expect("it is there");
            writeln!(out, "  {}: {key} {}", server["name"], server[key])
                .expect("a string takes all");
        }
    }
    out
}

#[test]
fn manifests_in_public_shapes_are_taken_and_their_servers_told() {
    let mut out = String::new();
    for source in sources() {
        let name = source.name.clone();
        match inject::inject(std::slice::from_ref(&source), &options("-")) {
            Ok(output) => {
                assert_twice_is_once_and_back(&source, &output.manifests, &options("-"));
                write!(out, "{name}: taken\n{}", told(&output))
            }
            Err(refusals) => writeln!(out, "{name}: refused\n  {}", refusals[0]),
        }
        .expect("a string takes all");
    }
    let approved = folder().with_extension("out");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&approved, &out).expect("the folder can be written");
    }
    let approved = std::fs::read_to_string(&approved).unwrap_or_default();
    assert_eq!(approved, out, "if this is meant, UPDATE_EXPECT=1");
}
