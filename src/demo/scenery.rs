//! What the demo's fleet is given: its policy, its node, and a load of the right size.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::pods::Pods;
use super::{Error, HEADLESS, Settings, model, objects};
use crate::clock::Clock;
use crate::local;
use crate::local::kubelet::{self, Addresses, Kubelet};
use crate::policy::{Metric, Mode, Policy};

/// The share of its slots that a pod can fill: requests are spread at random and come in clumps, and with more than this on
/// average one in some dozens waits for longer than a request takes.
const CARRIED: f64 = 0.8;
/// The share of a pod that the rules in its place would aim at: it sizes the load, and the days before.
pub(super) const TARGET: f64 = 0.7;
/// Bounds of the demo's policy. The fewest are two, so that a killed leader leaves somebody to take over at once.
pub(super) const BOUNDS: (u32, u32) = (2, 16);
/// The trace is scaled so that its peak wants so many pods.
pub(super) const PEAK_PODS: f64 = 10.0;

/// A policy file that goes with the demo.
pub(super) struct PolicyFile(PathBuf);

// === impl PolicyFile ===

impl PolicyFile {
    /// Writes `policy` where the demo's pods look for it.
    pub(super) fn write(policy: &Policy) -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("sidescale-demo-{}.yaml", std::process::id()));
        std::fs::write(&path, policy.to_yaml()).map_err(Error::failed("writing the policy"))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        // In the system's folder for temporary files: what stays is cleared by the system.
        drop(std::fs::remove_file(&self.0));
    }
}

/// What somebody would write for this server: what a pod can carry.
pub(super) fn policy(mode: Mode, server: &model::Settings) -> Policy {
    let mut policy = Policy::with_bounds(BOUNDS.0, BOUNDS.1);
    policy.mode = mode;
    policy.metrics = vec![Metric::Concurrency {
        average_value: CARRIED * server.slots as f64,
    }];
    policy
}

pub(super) fn start_kubelet(
    cluster: &local::Cluster,
    clock: &Clock,
    pods: Pods,
    addresses: Addresses,
) -> Kubelet {
    let node = kubelet::Settings {
        node: "laptop".to_owned(),
        namespace: Some(objects::NAMESPACE.to_owned()),
    };
    let client = cluster.client("kubelet");
    Kubelet::start(client, clock.clone(), Arc::new(pods), addresses, node)
}

/// Times the trace's rate, so that the peak of what is played wants [`PEAK_PODS`].
pub(super) fn factor(settings: &Settings, server: &model::Settings) -> f64 {
    let length = settings.length.unwrap_or(HEADLESS).mul_f64(settings.speed);
    let minutes = u32::try_from(length.as_secs() / 60).unwrap_or(u32::MAX);
    let rates = (0..=minutes).filter_map(|minute| {
        let at = settings.begin + Duration::from_secs(60) * minute;
        settings.trace.rate(at)
    });
    let peak = rates.fold(0.0, f64::max);
    // A window without any load would want no scaling at all.
    let peak = if peak > 0.0 {
        peak
    } else {
        settings.trace.peak_rate()
    };
    PEAK_PODS * TARGET * server.requests_per_second() / peak
}
