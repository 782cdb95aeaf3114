//! Where kube-apiserver, kube-controller-manager and etcd come from.
//!
//! The convention of the field is kept: `KUBEBUILDER_ASSETS` names a folder with the binaries. Without it they are
//! built once from the Go module beside this file, into a cache that `cargo clean` and a new clone do not lose: five
//! minutes on two cores the first time, nothing after.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release of kube-apiserver and kube-controller-manager, as go.mod requires it.
const KUBERNETES: &str = "1.36.3";

/// The three programs, and what Go builds each of them from.
const PROGRAMS: [(&str, &str); 3] = [
    ("etcd", "./etcdmain"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
];

/// A folder that holds all three programs.
#[derive(Clone, Debug)]
pub(crate) struct Assets {
    folder: PathBuf,
}

/// Why there are no programs to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssetsError {
    #[error(
        "KUBEBUILDER_ASSETS is {}, which has no {program} (it needs etcd, kube-apiserver and kube-controller-manager; \
         unset it and they are built with Go)", .folder.display()
    )]
    Incomplete {
        folder: PathBuf,
        program: &'static str,
    },
    #[error(
        "the real Kubernetes components are not here and there is no Go to build them: install Go 1.26 or newer \
         (https://go.dev/dl), or let KUBEBUILDER_ASSETS name a folder with etcd, kube-apiserver and \
         kube-controller-manager {KUBERNETES}"
    )]
    NoGo(#[source] io::Error),
    #[error(
        "neither XDG_CACHE_HOME nor HOME is set: let KUBEBUILDER_ASSETS name a folder with the programs"
    )]
    NoHome,
    #[error("`go build` of {program} failed with {status}; its own words are above")]
    Build {
        program: &'static str,
        status: std::process::ExitStatus,
    },
    #[error("the cache {} cannot be used", .path.display())]
    Cache {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

// === impl Assets ===

impl Assets {
    /// Finds the programs, or builds them. Takes minutes the first time.
    pub(crate) fn find() -> Result<Self, AssetsError> {
        if let Some(folder) = given("KUBEBUILDER_ASSETS") {
            let assets = Self {
                folder: folder.into(),
            };
            return match assets.missing() {
                None => Ok(assets),
                Some(program) => Err(AssetsError::Incomplete {
                    folder: assets.folder,
                    program,
                }),
            };
        }
        let cache = given("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| given("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or(AssetsError::NoHome)?
            .join("sidescale");
        Self::cached_in(&cache)
    }

    /// The path of one of the three.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn cached_in(cache: &Path) -> Result<Self, AssetsError> {
        let assets = Self {
            folder: cache.join(format!("kubernetes-{KUBERNETES}")),
        };
        if assets.missing().is_none() {
            return Ok(assets);
        }
        let unusable = |source| AssetsError::Cache {
            path: cache.to_path_buf(),
            source,
        };
        fs::create_dir_all(cache).map_err(unusable)?;
        // Two test runs may come here at once: the second waits, and finds what the first has built.
        let lock = File::create(cache.join("build.lock")).map_err(unusable)?;
        if lock.try_lock().is_err() {
            say("another run is building the Kubernetes components: waiting for it");
            lock.lock().map_err(unusable)?;
        }
        if assets.missing().is_none() {
            return Ok(assets);
        }
        // Built beside and renamed as a whole: a build that was interrupted never looks like a finished one. Go's own
        // cache keeps what it had compiled, so the next try goes on from there.
        let building = cache.join("building");
        build(&building)?;
        if assets.folder.exists() {
            fs::remove_dir_all(&assets.folder).map_err(unusable)?;
        }
        fs::rename(&building, &assets.folder).map_err(unusable)?;
        say(&format!(
            "the Kubernetes components are in {}",
            assets.folder.display()
        ));
        Ok(assets)
    }

    fn missing(&self) -> Option<&'static str> {
        PROGRAMS
            .iter()
            .map(|(name, _source)| *name)
            .find(|name| !self.program(name).is_file())
    }
}

fn build(into: &Path) -> Result<(), AssetsError> {
    let version = "k8s.io/component-base/version";
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let flags = format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
    );
    for (at, (program, source)) in PROGRAMS.iter().enumerate() {
        say(&format!(
            "building {program} with Go, {} of {} (once; five minutes in all on two cores)",
            at + 1,
            PROGRAMS.len()
        ));
        let status = Command::new("go")
            .args(["build", "-buildvcs=false", "-mod=readonly", "-ldflags"])
            .arg(&flags)
            .arg("-o")
            .arg(into.join(program))
            .arg(source)
            .env("CGO_ENABLED", "0")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(AssetsError::NoGo)?;
        if !status.success() {
            return Err(AssetsError::Build { program, status });
        }
    }
    Ok(())
}

fn given(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// A line of progress that the test harness does not capture: five silent minutes look like a hang.
fn say(line: &str) {
    // A closed stderr is no reason to stop.
    writeln!(io::stderr(), "cluster tests: {line}").ok();
}

#[test]
fn the_version_is_the_one_that_go_mod_requires() {
    let module = include_str!("go.mod");
    assert!(
        module.contains(&format!("\tk8s.io/kubernetes v{KUBERNETES}\n")),
        "go.mod does not require Kubernetes {KUBERNETES}"
    );
    let staging = format!("v0.{}", &KUBERNETES[2..]);
    for line in module.lines().filter(|line| line.contains(" => ")) {
        assert!(
            line.ends_with(&staging),
            "`{line}` is of another release than {KUBERNETES}"
        );
    }
}
