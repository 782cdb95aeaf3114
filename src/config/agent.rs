//! Flags and variables that `sidescale run` and `sidescale lead` share, as typed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Cluster, ConfigError, Election, Pod, in_range};
use crate::units::parse_duration;

/// Flags and variables of every process that takes part in an election.
#[derive(Args, Clone, Debug)]
pub struct Agent {
    /// Address of the admin port: metrics, health, the page and the API
    #[arg(
        long,
        env = "SIDESCALE_ADMIN",
        value_name = "ADDR",
        default_value = "0.0.0.0:9090"
    )]
    pub admin: SocketAddr,

    /// Address of the member channel, on which the leader asks for reports
    #[arg(
        long,
        env = "SIDESCALE_MEMBER",
        value_name = "ADDR",
        default_value = "0.0.0.0:9190"
    )]
    pub member: SocketAddr,

    /// Policy file; read again when it changes
    #[arg(
        long,
        env = "SIDESCALE_POLICY",
        value_name = "FILE",
        default_value = "/etc/sidescale/policy.yaml"
    )]
    pub policy: PathBuf,

    /// Deployment to scale; default, of run alone: the policy's, else the one that owns this pod
    #[arg(long, env = "SIDESCALE_TARGET", value_name = "NAME")]
    pub target: Option<String>,

    /// Namespace of pod and Deployment; default: the pod's own
    #[arg(long, env = "SIDESCALE_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Kubeconfig file; default: the in-cluster account, else $KUBECONFIG or ~/.kube/config
    #[arg(long, env = "SIDESCALE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// How long a leader's lease holds once it is seen to be renewed no more
    #[arg(long, env = "SIDESCALE_LEASE_DURATION", value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: Duration,

    /// How long a leader goes on without a good renewal
    #[arg(long, env = "SIDESCALE_RENEW_DEADLINE", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub renew_deadline: Duration,

    /// How often a leader renews
    #[arg(long, env = "SIDESCALE_RETRY_PERIOD", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub retry_period: Duration,

    /// Mark the pods that go by their deletion cost, which needs the right to patch pods; default: they turn unready
    #[arg(long, env = "SIDESCALE_DELETION_COSTS")]
    pub deletion_costs: bool,

    /// This pod's name (downward API)
    #[arg(long, env = "POD_NAME", value_name = "NAME", hide = true)]
    pub pod_name: Option<String>,

    /// This pod's namespace (downward API)
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", hide = true)]
    pub pod_namespace: Option<String>,

    /// This pod's address (downward API)
    #[arg(long, env = "POD_IP", value_name = "IP", hide = true)]
    pub pod_ip: Option<IpAddr>,
}

// === impl Agent ===

impl Agent {
    pub(super) fn listeners(&self) -> [(&'static str, SocketAddr); 2] {
        [("--admin", self.admin), ("--member", self.member)]
    }

    /// The Deployment that was named, without what kubectl would put before it.
    pub(super) fn named(&self) -> Option<&str> {
        let target = self.target.as_deref()?;
        Some(target.strip_prefix("deployment/").unwrap_or(target))
    }

    pub(super) fn cluster(&self) -> Cluster {
        Cluster {
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone().or(self.pod_namespace.clone()),
            target: self.named().map(str::to_owned),
        }
    }

    pub(super) fn election(&self) -> Election {
        Election {
            lease_duration: self.lease_duration,
            renew_deadline: self.renew_deadline,
            retry_period: self.retry_period,
        }
    }

    /// Who this is; outside a pod it is named by an address.
    pub(super) fn pod(&self, address: SocketAddr) -> Pod {
        Pod {
            name: self.pod_name.clone().unwrap_or_else(|| address.to_string()),
            ip: self.pod_ip,
        }
    }

    pub(super) fn check_times(&self, wrong: &mut Vec<ConfigError>) {
        let rows = [
            (
                "--lease-duration",
                self.lease_duration,
                1_000,
                3_600,
                "1s to 1h",
            ),
            (
                "--renew-deadline",
                self.renew_deadline,
                500,
                3_600,
                "500ms to 1h",
            ),
            (
                "--retry-period",
                self.retry_period,
                100,
                600,
                "100ms to 10m",
            ),
        ];
        for (flag, given, least, most, range) in rows {
            wrong.extend(in_range(flag, given, least, most, range).err());
        }
    }
}
