//! What a pod asks of its node, as the scheduler counts it.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers> has the rules.

use serde_json::Value;

use super::resources::amount;
use super::task::containers;

/// What the sidecar, or the manifest that it came with, can ask more of: a pod is one pod and has its GPUs, as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Cpu,
    Memory,
    EphemeralStorage,
}

// === impl Resource ===

impl Resource {
    pub(super) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::EphemeralStorage];

    /// What Kubernetes calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
        }
    }

    /// How much of it `list` has, in thousandths of a core or in bytes; `None`: nothing is written, or no quantity.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a quantity of less than nothing is none, and one too large is the largest"
    )]
    pub(super) fn of(self, list: &Value) -> Option<u64> {
        let scale = match self {
            Self::Cpu => 1e3,
            Self::Memory | Self::EphemeralStorage => 1.0,
        };
        // Up, as the scheduler does; 1.1 cores are 1100.0000000000002 thousandths, which is not 1101.
        let units = amount(&list[self.name()])? * scale - 1e-6;
        Some(units.ceil().max(0.0) as u64)
    }

    /// So much of it, for people; what is asked is not shown as less, and what is there not as more.
    pub(super) fn shown(self, units: u64, is_asked: bool) -> String {
        const MEBIBYTE: u64 = 1 << 20;
        match self {
            Self::Cpu => format!("{units}m"),
            Self::Memory | Self::EphemeralStorage if is_asked => {
                format!("{}Mi", units.div_ceil(MEBIBYTE))
            }
            Self::Memory | Self::EphemeralStorage => format!("{}Mi", units / MEBIBYTE),
        }
    }

    /// How much of it a pod with this spec takes of its node; with its overhead, where that is written.
    pub(super) fn asked(self, pod: &Value) -> u64 {
        let overhead = self.overhead(pod).unwrap_or(0);
        let (requests, limits) = (&pod["resources"]["requests"], &pod["resources"]["limits"]);
        // A pod as a whole asks for no storage.
        let is_whole = self != Self::EphemeralStorage;
        let whole = self.of(requests).filter(|_units| is_whole);
        let limit = self.of(limits).filter(|_units| is_whole);
        // A request of the whole pod is what counts. One that is not written is what the containers ask for, and where
        // they ask for nothing the whole pod's limit.
        let asked = whole.unwrap_or_else(|| match self.by_containers(pod) {
            0 => limit.unwrap_or(0),
            asked => asked,
        });
        asked.saturating_add(overhead)
    }

    /// What the runtime's class adds; admission writes it into a pod.
    pub(super) fn overhead(self, pod: &Value) -> Option<u64> {
        self.of(&pod["overhead"])
    }

    /// The most that containers ask for at the same time: one that runs to its end first has beside it the sidecars that
    /// were started before it.
    fn by_containers(self, pod: &Value) -> u64 {
        let (mut running, mut most) = (0_u64, 0);
        for container in containers(pod) {
            let resources = &container.value["resources"];
            let request = self.of(&resources["requests"]);
            // A request that is not written is the limit.
            let asked = request.or_else(|| self.of(&resources["limits"]));
            let with_it = running.saturating_add(asked.unwrap_or(0));
            most = most.max(with_it);
            if container.stays {
                running = with_it;
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    fn native(cpu: &str) -> Value {
        let mut native = container(cpu);
        native["restartPolicy"] = json!("Always");
        native
    }

    #[test]
    fn sidecars_count_with_the_containers_and_first_ones_with_the_sidecars_before_them() {
        let rows = [
            (
                json!({"containers": [container("1"), container("500m")]}),
                1_500,
            ),
            (
                json!({"initContainers": [native("100m")], "containers": [container("1")]}),
                1_100,
            ),
            // What runs first and ends asks for more than all that runs later, beside a sidecar that is there already...
            (
                json!({"initContainers": [native("100m"), container("2")], "containers": [container("1")]}),
                2_100,
            ),
            // ...and not beside one that comes later.
            (
                json!({"initContainers": [container("2"), native("100m")], "containers": [container("1")]}),
                2_000,
            ),
            (
                json!({"initContainers": [container("900m")], "containers": [container("1")]}),
                1_000,
            ),
            (
                json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}),
                1_250,
            ),
            (json!({"containers": []}), 0),
        ];
        for (pod, expected) in rows {
            assert_eq!(Resource::Cpu.asked(&pod), expected, "{pod}");
        }
    }

    #[test]
    fn a_limit_is_a_request_where_none_is_written_and_a_whole_pod_asks_for_itself() {
        let of = |whole: &Value, container: &Value| {
            let pod = json!({
                "resources": whole,
                "containers": [{"name": "c", "resources": container}],
                "overhead": {"memory": "1Mi"},
            });
            Resource::ALL.map(|resource| resource.asked(&pod))
        };
        let limits = json!({"limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1k"}});
        let whole = json!({"requests": {"cpu": "3"}, "limits": {"memory": "8Gi"}});
        let mebibyte = 1 << 20;
        let from_limits = [2_000, (1 << 30) + mebibyte, 1_000];
        assert_eq!(of(&Value::Null, &limits), from_limits);
        assert_eq!(of(&whole, &limits), [3_000, from_limits[1], 1_000]);
        assert_eq!(of(&whole, &json!({})), [3_000, (8 << 30) + mebibyte, 0]);
    }

    #[test]
    fn quantities_are_whole_thousandths_and_bytes() {
        let cpu = |text: &str| Resource::Cpu.of(&json!({"cpu": text}));
        let expected = [
            ("1.1", Some(1_100)),
            ("0.1m", Some(1)),
            ("-1", Some(0)),
            ("?", None),
        ];
        for (text, units) in expected {
            assert_eq!(cpu(text), units, "{text}");
        }
        let odd = (1 << 20) + 1;
        assert_eq!(Resource::Memory.shown(odd, true), "2Mi");
        assert_eq!(Resource::Memory.shown(odd, false), "1Mi");
    }
}
