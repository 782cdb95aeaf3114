//! Injection and the life of pods on a real node, with real containers: what no API server can show alone.
//!
//! These tests need a cluster that may be used for nothing else, so they are asked for:
//!
//! ```text
//! cargo build && kind create cluster && docker build -t ghcr.io/sidescale/sidescale:0.1.0 .
//! kind load docker-image ghcr.io/sidescale/sidescale:0.1.0
//! cargo test --test node -- --ignored --test-threads=1 --nocapture
//! ```
//!
//! `upgrade` needs the same image under a second name: `docker tag`, and load it, too (`SIDESCALE_NEXT_IMAGE`, by default the
//! first one's name with `-next` behind it). Without Docker, `.ci/image` writes each as an archive (`--name`, `--output`),
//! and `kind load image-archive` or `ctr -n k8s.io images import` on the node takes it.
//!
//! `KUBECONFIG` says which cluster, `SIDESCALE_IMAGE` which image its nodes have, where it is another one; a command in
//! `SIDESCALE_LOAD_IMAGE` is run once before, with the image's name behind it (`kind load docker-image`). Nodes must be
//! reachable by their own addresses, where the tests' Services have a port. What ends or stops a process must be root
//! where the nodes' processes are (with kind: the machine itself); where several clusters are on it, `SIDESCALE_KUBELET` and
//! `SIDESCALE_API_SERVER` say which of their processes are meant, by number. Each test has a namespace of its own, which enforces the
//! `restricted` pod security standard, and takes it away at the end.
//!
//! Longer runs:
//!
//! | variable | default | what |
//! |---|---|---|
//! | `SIDESCALE_ROUNDS` | 1; of `quota` 3 | rollouts and scale-downs of `ending`, measurements of `quota` |
//! | `SIDESCALE_STREAM` | 20 | seconds of a stream of `ending` |
//! | `SIDESCALE_STOPPED` | 20 | seconds for which `faults` stops a sidecar, and `outages` kubelet and API server: a node is called not ready after 50 |
//! | `SIDESCALE_ATTACK` | 10 | seconds of an attack of `hostile`; `ulimit -n` should allow 2,200 files |
//!
//! `quota` and `hostile` measure the image: they are for one of a release (`cargo build --release`).

mod admission;
mod attacks;
mod cluster;
mod doors;
mod ending;
mod faults;
mod fleet;
mod hostile;
mod injection;
mod leading;
mod manifests;
mod outages;
mod processes;
mod quota;
mod servers;
mod single;
mod upgrade;
mod visitors;
mod wait;
