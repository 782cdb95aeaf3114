//! The program under test as a process: `sidescale run` or `sidescale lead` on a loopback address of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::api_server::sidecar_user;
use crate::client;
use crate::cluster::Access;
use crate::model_server;
use crate::processes::{Process, Signal};
use crate::wait::eventually;
use crate::workload::TARGET;

/// Where a sidecar takes requests.
pub(crate) const TRAFFIC: u16 = 8080;
/// Where it answers questions.
pub(crate) const ADMIN: u16 = 9090;
/// Where the leader finds it.
pub(crate) const MEMBER: u16 = 9190;

/// An election in these tests takes seconds, not a quarter of a minute. Kubernetes keeps a lease's duration in whole
/// seconds; the proportions are about the defaults' own.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(3);
/// How long a leader acts on its last renewal.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(2);
/// How often it renews.
pub(crate) const RETRY_PERIOD: Duration = Duration::from_millis(500);

/// What is left out of a sidecar's surroundings, or put in.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The policy file's text; `None`: the file that `--policy` names is not there.
    pub(crate) policy: Option<String>,
    /// Whether there is a kubeconfig.
    pub(crate) cluster: bool,
    /// Whether it is told never to lead.
    pub(crate) follow: bool,
    /// Whether it marks the pods that go.
    pub(crate) costs: bool,
}

/// The pod that a sidecar belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: String,
    /// Its address.
    pub(crate) ip: Ipv4Addr,
    /// Whose token its sidecar has: the user `sidecar-<number>`.
    pub(crate) number: usize,
    /// What the downward API says.
    pub(crate) env: BTreeMap<String, String>,
    /// Whether it is a lead's.
    pub(crate) leads: bool,
}

/// One `sidescale run`, or `sidescale lead`.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// The address of that pod.
    pub(crate) ip: Ipv4Addr,
    /// Whose token it has: the user `sidecar-<number>`.
    pub(crate) number: usize,
    process: Process,
}

// === impl Surroundings ===

impl Surroundings {
    /// All that it needs, and `policy`.
    pub(crate) fn with(policy: &str) -> Self {
        Self {
            policy: Some(policy.to_owned()),
            cluster: true,
            follow: false,
            costs: false,
        }
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Starts the process; whether it comes up is the test's to see.
    pub(crate) fn start(cluster: &Access, around: &Surroundings, pod: &Pod) -> Self {
        let policy = cluster.file(&format!("{}.policy.yaml", pod.name));
        if let Some(text) = &around.policy {
            fs::write(&policy, text).expect("the test's folder can be written");
        }
        let kubeconfig = around.cluster.then(|| cluster.kubeconfig_of(pod.number));
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidescale"));
        if pod.leads {
            command.arg("lead");
        } else {
            command
                .arg("run")
                .args(["--listen", &format!("{}:{TRAFFIC}", pod.ip)])
                .args(["--upstream", &format!("{}:{}", pod.ip, model_server::PORT)])
                .args(around.follow.then_some("--follow"))
                .args(around.costs.then_some("--deletion-costs"));
        }
        // A follower finds its Deployment by its pod, as inject's Role lets it.
        if !around.follow || pod.leads {
            command.args(["--target", TARGET]);
        }
        add_common(&mut command, pod.ip, &policy, kubeconfig);
        command
            .args(["--namespace", cluster.namespace()])
            .envs(&pod.env)
            // A kubeconfig of the person who runs the tests must not be found.
            .env("HOME", cluster.file("nobody"));
        let log = cluster.file(&format!("{}.log", pod.name));
        Self {
            ip: pod.ip,
            number: pod.number,
            process: Process::start(&pod.name, command, &log).expect("the program can be started"),
        }
    }

    /// The user that its token belongs to.
    pub(crate) fn user(&self) -> String {
        sidecar_user(self.number)
    }

    /// Its process, for signals and its log.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it says that it takes requests.
    pub(crate) async fn ready(&mut self) {
        let ip = self.ip;
        let process = &mut self.process;
        eventually(
            "the sidecar is ready",
            Duration::from_secs(30),
            async || {
                if let Some(status) = process.ended() {
                    panic!("it ended with {status}, saying:\n{}", process.last_words());
                }
                is_ready(ip).await
            },
        )
        .await;
    }

    /// Whether its log holds every one of `words`; if not, which are missing, and what it said last.
    pub(crate) fn has_said(&self, words: &[&str]) -> Result<(), String> {
        let said = self.process.said();
        let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
        match missing.as_slice() {
            [] => Ok(()),
            _ => Err(format!(
                "without {missing:?}:\n{}",
                self.process.last_words()
            )),
        }
    }
}

/// Whether the sidecar at `ip` says that it takes requests.
pub(crate) async fn is_ready(ip: Ipv4Addr) -> Result<(), String> {
    let limit = Duration::from_millis(500);
    match client::get((ip, ADMIN).into(), "/readyz", limit).await {
        Ok((status, _why)) if status.is_success() => Ok(()),
        Ok((status, why)) => Err(format!("{status}: {}", String::from_utf8_lossy(&why))),
        Err(error) => Err(error.to_string()),
    }
}

/// What `/api/v1/<what>` of the sidecar at `ip` answers.
pub(crate) async fn api(ip: Ipv4Addr, what: &str) -> Result<Value, String> {
    let limit = Duration::from_secs(5);
    let path = format!("/api/v1/{what}");
    let (status, body) = client::get((ip, ADMIN).into(), &path, limit)
        .await
        .map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// The text of `/metrics` of the sidecar at `ip`.
pub(crate) async fn metrics(ip: Ipv4Addr) -> Result<String, String> {
    let limit = Duration::from_secs(5);
    let (_status, body) = client::get((ip, ADMIN).into(), "/metrics", limit)
        .await
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What `run` and `lead` both take.
fn add_common(command: &mut Command, ip: Ipv4Addr, policy: &Path, kubeconfig: Option<PathBuf>) {
    command
        .args(["--admin", &format!("{ip}:{ADMIN}")])
        .args(["--member", &format!("{ip}:{MEMBER}")])
        .arg("--policy")
        .arg(policy)
        .args(["--lease-duration", &seconds(LEASE_DURATION)])
        .args(["--renew-deadline", &seconds(RENEW_DEADLINE)])
        .args(["--retry-period", &seconds(RETRY_PERIOD)])
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("KUBERNETES_SERVICE_PORT");
    if let Some(kubeconfig) = kubeconfig {
        command.arg("--kubeconfig").arg(kubeconfig);
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
