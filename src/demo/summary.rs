//! What the demo came to, in demo seconds: the JSON of `--summary` and the last lines in the terminal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The figures of one demo. All times in demo seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Demo seconds in a second of life.
    pub speed: f64,
    /// The mode the policy had.
    pub mode: String,
    /// Requests sent.
    pub requests: u64,
    /// Requests that were reset, refused, cut short or not answered 2xx, or had no end when the demo had one; those lost with the
    /// killed pod not counted.
    pub failed: u64,
    /// Requests in flight on the killed pod, or sent to it before its endpoint was gone, that failed.
    pub lost_with_killed_pod: u64,
    /// Requests in flight on the killed pod, or sent to it before its endpoint was gone: the most that may be lost.
    pub exposed_to_killed_pod: u64,
    /// What the killed pod had in flight by its own account at that moment.
    pub in_flight_on_killed_pod: u64,
    /// From the kill until no client was given the pod's address any more; `None`: there was no kill, or it still was.
    pub killed_pod_gone_seconds: Option<f64>,
    /// Those of `failed` that had no end when the demo had one.
    pub unfinished: u64,
    /// Requests whose first byte came later than the SLO after they were due, failed ones included.
    pub slo_violations: u64,
    /// The fewest replicas asked for.
    pub replicas_min: u32,
    /// The most replicas asked for.
    pub replicas_max: u32,
    /// How often another process took the lead after the first.
    pub leader_changes: u32,
    /// From the kill to the next leader's stamp; `None`: there was no kill or no takeover.
    pub takeover_seconds: Option<f64>,
    /// How often more replicas were asked for.
    pub scale_ups: u32,
    /// Of the pods that the load needed beyond the first ones, the one that was least ahead: from the second in which so
    /// many were ready for the first time to the first with more load, as a mean of the minute around it, than one fewer
    /// can serve; negative when late.
    pub least_lead_seconds: Option<f64>,
    /// The median of the same over those pods.
    pub median_lead_seconds: Option<f64>,
    /// What HPA at 70 % would have violated on the same arrivals.
    pub shadow_hpa_slo_violations: u64,
    /// What KPA at 70 % would have violated on the same arrivals.
    pub shadow_kpa_slo_violations: u64,
    /// Pod-seconds paid for, and what the shadows would have paid.
    pub pod_seconds: f64,
    /// Pod-seconds of the HPA shadow.
    pub shadow_hpa_pod_seconds: f64,
    /// Pod-seconds of the KPA shadow.
    pub shadow_kpa_pod_seconds: f64,
    /// How often this machine let everything that decides stand still for so long that a leader may have lost its Lease:
    /// each is a change of the lead at most, and as rightful as one after a node's standstill.
    pub stalls: u32,
    /// The longest standstill.
    pub longest_stall_seconds: f64,
    /// The cold start that was measured, seconds.
    pub cold_start_seconds: f64,
    /// The requests a second that a pod serves at most.
    pub pod_rps: f64,
    /// Repeats the run.
    pub seed: u64,
}

// === impl Summary ===

impl Summary {
    /// The better shadow's violations.
    pub fn better_shadow(&self) -> u64 {
        self.shadow_hpa_slo_violations
            .min(self.shadow_kpa_slo_violations)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0} s"))
        };
        writeln!(
            f,
            "  requests              {} ({} failed)",
            self.requests, self.failed
        )?;
        writeln!(
            f,
            "  killed leader         {} of {} exposed requests lost, next leader after {}",
            self.lost_with_killed_pod,
            self.exposed_to_killed_pod,
            seconds(self.takeover_seconds)
        )?;
        writeln!(
            f,
            "  replicas              {} to {} in {} steps, pods ready {} before their load (median; {} at least)",
            self.replicas_min,
            self.replicas_max,
            self.scale_ups,
            seconds(self.median_lead_seconds),
            seconds(self.least_lead_seconds)
        )?;
        writeln!(
            f,
            "  waited too long       sidescale ({}) {}",
            self.mode, self.slo_violations
        )?;
        writeln!(
            f,
            "                        HPA at 70 %: {}, KPA at 70 %: {} (same arrivals, pod rate and cold start)",
            self.shadow_hpa_slo_violations, self.shadow_kpa_slo_violations
        )?;
        write!(
            f,
            "  pod-hours             sidescale {:.2}, HPA {:.2}, KPA {:.2}",
            self.pod_seconds / 3600.0,
            self.shadow_hpa_pod_seconds / 3600.0,
            self.shadow_kpa_pod_seconds / 3600.0
        )?;
        if self.stalls > 0 {
            write!(
                f,
                "\n  this machine          stood still {} times, up to {:.0} s of the demo: leaders may have lost their Lease",
                self.stalls, self.longest_stall_seconds
            )?;
        }
        Ok(())
    }
}
