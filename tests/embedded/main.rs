//! The embedded cluster as a client meets it, through the real `kube::Client`.
//!
//! `conversation`, `workloads` and `fleet` know nothing of which server they speak to. They run on the embedded one here, and, with
//! `SIDESCALE_TEST_KUBECONFIG` naming a real one that has a kube-controller-manager and no scheduler, on that too
//! (`cargo test --test embedded -- --ignored`), so that the one cannot drift from the other. One binary, one link step.

mod containers;
mod conversation;
mod faults;
mod fleet;
mod place;
mod socket;
mod workloads;
