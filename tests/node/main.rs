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
//! where the nodes' processes are (with kind: the machine itself). Each test has a namespace of its own, which enforces the
//! `restricted` pod security standard, and takes it away at the end.
//!
//! Longer runs: `SIDESCALE_ROUNDS` (rollouts and scale-downs of a test, default 1), `SIDESCALE_STREAM` (seconds of a stream,
//! default 20), `SIDESCALE_STOPPED` (seconds for which a sidecar is stopped, default 20).

mod cluster;
mod ending;
mod faults;
mod injection;
mod manifests;
mod processes;
mod single;
mod upgrade;
mod visitors;
mod wait;
