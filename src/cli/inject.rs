//! `sidescale inject` and `sidescale uninject`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};

use super::Failure;
use super::place::Place;
use super::words::{input, print, write_whole};
use crate::clock::Clock;
use crate::inject::{
    self, Ahead, Network, Note, Options, Output, Prospect, Refusal, Selector, Source,
};
use crate::survey::survey;

/// The image of this version.
pub(super) const IMAGE: &str = concat!("ghcr.io/sidescale/sidescale:", env!("CARGO_PKG_VERSION"));
const NOBODY: &str = "nothing asks for a sidecar: annotate a workload with sidescale.dev/inject: \"true\", or pick it with --selector";
/// What a folder's manifests end with.
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];

/// Adds the sidecar to each Deployment, StatefulSet and Pod with the annotation sidescale.dev/inject: "true"
#[derive(Args, Debug)]
#[command(after_help = ANNOTATIONS)]
pub(super) struct Inject {
    /// Files and folders with manifests; `-`, and none at all: what comes in (`helm template . | sidescale inject`)
    #[arg(value_name = "FILE")]
    sources: Vec<PathBuf>,

    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,

    /// As a plain container, for clusters before 1.29
    #[arg(long)]
    classic: bool,

    /// Inject workloads with these labels, or with pods of these labels, too: `app=bert,tier=gpu`
    #[arg(long, value_name = "LABELS", value_parser = Selector::parse)]
    selector: Option<Selector>,

    /// Let `sidescale lead` decide, in two pods of its own on CPU, so that the pods of the server need no right to write
    #[arg(long)]
    lead: bool,

    /// Write a component of kustomize into this folder, and leave the manifests as they are
    #[arg(long, value_name = "FOLDER")]
    kustomize: Option<PathBuf>,

    #[command(flatten)]
    ahead: AheadOfAdmission,

    /// A NetworkPolicy that keeps others than the fleet's pods from the member port
    #[arg(long, value_name = "WHERE")]
    network_policy: Option<Where>,

    /// Ask the cluster, too, with your own rights and without writing: whether the pods that are there will still fit their
    /// nodes, and whether a drain has the time that requests take (from sidecars that are there already)
    #[arg(long)]
    live: bool,

    #[command(flatten, next_help_heading = "With --live")]
    place: Place,
}

/// For pods that get their sidecar at admission.
#[derive(Args, Clone, Copy, Debug)]
struct AheadOfAdmission {
    /// Print only what stands beside the workloads (account, policy, Role, Lease), for pods that get their sidecar at admission
    #[arg(long, conflicts_with_all = ["kustomize", "classic"])]
    rbac: bool,

    /// Print only admission policies that put the sidecar into the workloads' pods, for clusters that serve
    /// MutatingAdmissionPolicy v1 (1.36); together with --rbac: both
    #[arg(long, conflicts_with_all = ["kustomize", "classic"])]
    admission_policy: bool,
}

/// Takes the sidecar out of what `sidescale inject` has written
#[derive(Args, Debug)]
pub(super) struct Uninject {
    /// Files and folders with manifests; `-`, and none at all: what comes in
    #[arg(value_name = "FILE")]
    sources: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// Other policies isolate the pods: let the members through, and nobody else
    Isolated,
    /// Nobody isolates the pods: keep only the member port from others
    Open,
}

const ANNOTATIONS: &str = "\
Annotations of the workload or its template, all with the prefix sidescale.dev/:
  inject             \"true\": add the sidecar; \"false\": do not, whatever --selector says
  container          name of the server's container, where it is not the only one, the only one that declares what the
                     Services target, the only one with an accelerator or with a port
  ports              names or numbers of the ports that carry requests, comma-separated; default: what the Services target
  listen-port        the sidecar's port for the first named one, the others count up; default: the next free one from 8080
  admin-port         default: the next free one from 9090
  member-port        default: the next free one from 9190
  server-port        where the server goes when a Service targets its number; default: 10000 above, or below where
                     that would be 32768 or more, and the next free one from there
  port-flag          the server's flag for its port, such as --port, where it is not known (two dozen servers are) and no
                     --port or PORT says the number
  port-env           the server's variable for its port
  upstream-protocol  auto, http1 or h2c
  data-path          passive: nothing in front of the server, its own metrics tell the load
  grace              how long a drain may take; default: what terminationGracePeriodSeconds leaves, at least 50s
  prestop-composed   \"true\": the server's own preStop hook waits for http://127.0.0.1:9090/api/v1/drained
  run-as-user        the sidecar's user, default 65532; \"namespace\": whom the namespace says (OpenShift)
  deletion-costs     \"true\": pods that go are marked instead of turned unready; needs a policy of the cluster, which comes with it
  policy             ConfigMap with the policy; default: one in `observe` is made";

// === impl Inject ===

impl Inject {
    pub(super) fn start(self) -> Result<(), Failure> {
        if !self.live && self.place.namespace.is_some() {
            return input(
                "--namespace is where --live looks, which is not given; for the manifests, say it to kubectl",
            );
        }
        let live = self.live.then_some(self.place);
        let sources = read(&self.sources)?;
        let options = Options {
            image: self.image,
            classic: self.classic,
            selector: self.selector,
            lead: self.lead,
            network: self.network_policy.map(|place| match place {
                Where::Isolated => Network::Isolated,
                Where::Open => Network::Open,
            }),
        };
        let wanted = Ahead {
            rbac: self.ahead.rbac,
            policy: self.ahead.admission_policy,
        };
        if wanted.rbac || wanted.policy {
            let output = inject::ahead(&sources, &options, wanted);
            let mut output = output.map_err(|refusals| refused(&refusals))?;
            compare(live, &output.prospects, &mut output.notes)?;
            return finish(&output, NOBODY);
        }
        let Some(folder) = self.kustomize else {
            let output = inject::inject(&sources, &options);
            let mut output = output.map_err(|refusals| refused(&refusals))?;
            compare(live, &output.prospects, &mut output.notes)?;
            return finish(&output, NOBODY);
        };
        let component = inject::component(&sources, &options);
        let mut component = component.map_err(|refusals| refused(&refusals))?;
        compare(live, &component.prospects, &mut component.notes)?;
        if component.changed == 0 {
            say(&component.notes);
            return input(NOBODY);
        }
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))
            .map_err(Failure::Other)?;
        for (name, text) in &component.files {
            write_whole("--kustomize", &folder.join(name), text)?;
        }
        say(&component.notes);
        say(&[Note {
            place: folder.display().to_string(),
            text: "name it under `components` of the kustomization that has the workloads"
                .to_owned(),
        }]);
        Ok(())
    }
}

// === impl Uninject ===

impl Uninject {
    pub(super) fn start(self) -> Result<(), Failure> {
        let sources = read(&self.sources)?;
        let output = inject::uninject(&sources).map_err(|refusals| refused(&refusals))?;
        finish(&output, "nothing here has a sidecar that inject put there")
    }
}

/// Asks the cluster at `live` about the workloads, before anything is written.
fn compare(
    live: Option<Place>,
    prospects: &[Prospect],
    notes: &mut Vec<Note>,
) -> Result<(), Failure> {
    let Some(place) = live.filter(|_place| !prospects.is_empty()) else {
        return Ok(());
    };
    let connector = place.connector();
    let survey = super::control_runtime()?.block_on(async {
        let connection = connector.connect().await;
        let connection = connection.map_err(|error| Failure::Input(error.into()))?;
        let (client, namespace) = (&connection.client, &connection.namespace);
        let survey = survey(client, namespace, &Clock::real(), prospects).await;
        survey
            .context("--live: the cluster cannot be asked (check your kubeconfig and its context, or leave --live out)")
            .map_err(Failure::Other)
    })?;
    if !survey.refusals.is_empty() {
        return Err(refused(&survey.refusals));
    }
    notes.extend(survey.notes);
    Ok(())
}

/// The manifests to stdout, what to know about them to stderr.
fn finish(output: &Output, nothing: &str) -> Result<(), Failure> {
    print(&output.manifests)?;
    say(&output.notes);
    if output.changed == 0 {
        say(&[Note {
            place: "warning".to_owned(),
            text: nothing.to_owned(),
        }]);
    }
    Ok(())
}

fn say(notes: &[Note]) {
    for note in notes {
        // Nothing is left to do when the terminal has gone.
        drop(writeln!(std::io::stderr(), "sidescale: {note}"));
    }
}

/// All of them, under one another.
fn refused(refusals: &[Refusal]) -> Failure {
    let lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let lines = lines.join("\n           ");
    Failure::Input(anyhow!("nothing was changed\n           {lines}"))
}

fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    if paths.is_empty() && std::io::stdin().is_terminal() {
        return input("give a file, a folder, or manifests on standard input");
    }
    let dash = [PathBuf::from("-")];
    let paths = if paths.is_empty() { &dash } else { paths };
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")
                .map_err(Failure::Input)?;
            sources.push(Source {
                name: "-".to_owned(),
                text,
            });
        } else {
            sources.extend(read_path(path).map_err(Failure::Input)?);
        }
    }
    Ok(sources)
}

/// A file, or the manifests right in a folder, as kubectl takes them.
fn read_path(path: &Path) -> anyhow::Result<Vec<Source>> {
    let shown = path.display();
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in path
            .read_dir()
            .with_context(|| format!("cannot read {shown}"))?
        {
            let file = entry
                .with_context(|| format!("cannot read {shown}"))?
                .path();
            let suffix = file.extension().and_then(|suffix| suffix.to_str());
            if suffix.is_some_and(|suffix| MANIFESTS.contains(&suffix)) {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    let read = |file: PathBuf| {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        Ok(Source { name, text })
    };
    files.into_iter().map(read).collect()
}
