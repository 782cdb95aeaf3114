//! Scenarios on real Kubernetes components, and on the embedded cluster that the demo runs on.
//!
//! What sidescale promises stands on rules of the API server: compare-and-swap, preconditions of a patch, subresources
//! that do not move the generation. `real_rules` checks these rules themselves, on both flavours, so that neither a new
//! release nor our own embedded server can drift from what the code relies on. The other scenarios run the program as
//! processes against them.
//!
//! One binary, because the control plane is started once per test run, by the first test that needs it: see
//! `control_plane`. Its programs are built once by Go, see `assets`.

mod admission;
mod api_server;
mod assets;
mod client;
mod cluster;
mod containers;
mod control_plane;
mod credentials;
mod election;
mod faults;
mod fencing;
mod fleet;
mod front;
mod keepers;
mod leads;
mod live;
mod load;
mod manifest;
mod memory;
mod model_server;
mod node;
mod outage;
mod parting;
mod passive;
mod processes;
mod real_rules;
mod requests;
mod rollouts;
mod scaling;
mod sidecar;
mod twins;
mod wait;
mod workload;
