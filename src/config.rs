//! What `run` or `lead` was given, and what was meant by it.
//!
//! [`Given`] and [`GivenLead`] hold flags and variables as typed; [`Config`] is complete and valid. Every default stands here, once.
//! A flag that `run` cannot honour is an error of the command line (exit code 64); what concerns policy or cluster is
//! not read here, because requests must flow without either.

mod agent;
mod lead;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

pub use self::agent::Agent;
pub use self::lead::GivenLead;
use crate::engine;
use crate::leader::Part;
use crate::leader::preference::LABEL_LEAD;
use crate::proxy::{Limit, Protocol, Upstream};
use crate::units::{NotADuration, parse_bytes, parse_duration};

/// Flags and variables of `sidescale run`, as typed.
#[derive(Args, Clone, Debug)]
pub struct Given {
    /// Address that takes requests; repeatable, in pairs with --upstream
    #[arg(
        long,
        env = "SIDESCALE_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "0.0.0.0:8080"
    )]
    pub listen: Vec<SocketAddr>,

    /// Inference server to pass them to, `ip:port` or `unix:/path`; repeatable, in pairs with --listen
    #[arg(
        long,
        env = "SIDESCALE_UPSTREAM",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "127.0.0.1:8000"
    )]
    pub upstream: Vec<Upstream>,

    /// By which HTTP requests go to the inference server: `auto` (the client's, where the server speaks it), `http1`, `h2c`
    #[arg(
        long,
        env = "SIDESCALE_UPSTREAM_PROTOCOL",
        value_name = "PROTOCOL",
        default_value = "auto"
    )]
    pub upstream_protocol: String,

    /// When the inference server counts as ready, by the first --upstream alone: `tcp`, or `http:/path` for a 2xx answer
    #[arg(
        long,
        env = "SIDESCALE_UPSTREAM_READY",
        value_name = "PROBE",
        default_value = "tcp"
    )]
    pub upstream_ready: String,

    /// Where the server shows its own metrics, `http://ip:port/path` or `unix:/path`; default: /metrics of the first --upstream, which
    /// is read where the policy says dataPath: passive
    #[arg(long, env = "SIDESCALE_SERVER_METRICS", value_name = "URL")]
    pub server_metrics: Option<engine::Address>,

    /// Requests that the server has at once; more wait in the sidecar, in their order; default: no limit
    #[arg(long, env = "SIDESCALE_MAX_CONCURRENT", value_name = "NUMBER")]
    pub max_concurrent: Option<u32>,

    /// Requests that wait at most, more get 429; default: ten for each of --max-concurrent
    #[arg(long, env = "SIDESCALE_MAX_QUEUED", value_name = "NUMBER")]
    pub max_queued: Option<u32>,

    /// How long a request waits at most before it gets 503; default: 30s
    #[arg(long, env = "SIDESCALE_QUEUE_TIMEOUT", value_name = "TIME", value_parser = parse_duration)]
    pub queue_timeout: Option<Duration>,

    /// What every process that takes part in an election has.
    #[command(flatten)]
    pub agent: Agent,

    /// Never leads, and needs no right to write: somebody runs `sidescale lead`
    #[arg(long, env = "SIDESCALE_FOLLOW")]
    pub follow: bool,

    /// Proxy, measuring and metrics alone
    #[arg(long, env = "SIDESCALE_NO_CLUSTER")]
    pub no_cluster: bool,

    /// GPUs of this pod by index or UUID, comma-separated; default: all that NVML shows here
    #[arg(
        long,
        env = "SIDESCALE_GPU_DEVICES",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub gpu_devices: Vec<String>,

    /// Memory that this container may take, as in `128Mi`; default: the limit of its control group
    #[arg(long, env = "SIDESCALE_MEMORY_LIMIT", value_name = "BYTES", value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,

    /// How long requests may still arrive after the pod turned unready, until every endpoint list has dropped it
    #[arg(long, env = "SIDESCALE_PROPAGATION", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub propagation: Duration,

    /// How long a drain waits for requests and streams to end; keep it below the pod's grace period
    #[arg(long, env = "SIDESCALE_GRACE", value_name = "TIME", default_value = "25s", value_parser = parse_duration)]
    pub grace: Duration,
}

/// What a sidecar was told to be, complete and valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it is to the election.
    pub part: Part,
    /// Who it stands in front of.
    pub routes: Vec<Route>,
    /// By which HTTP requests go to it.
    pub upstream_protocol: Protocol,
    /// When the inference server counts as ready.
    pub upstream_ready: UpstreamReady,
    /// Where it shows its own metrics, which are read whatever the policy says; `None`: at the first route's upstream, if the
    /// policy asks for them.
    pub server_metrics: Option<engine::Address>,
    /// How many requests it has at once; `None`: all that come.
    pub limit: Option<Limit>,
    /// Admin listener.
    pub admin: SocketAddr,
    /// Member channel listener.
    pub member: SocketAddr,
    /// Policy file.
    pub policy: PathBuf,
    /// The cluster to work in; `None`: carry and measure only.
    pub cluster: Option<Cluster>,
    /// Memory that its container may take, in bytes; `None`: what its control group says.
    pub memory_limit: Option<usize>,
    /// Pods that go are marked by their deletion cost.
    pub deletion_costs: bool,
    /// GPUs to read; empty: all that are visible.
    pub gpu_devices: Vec<String>,
    /// Election timing.
    pub election: Election,
    /// From unready until no endpoint list names the pod any more.
    pub propagation: Duration,
    /// The longest a drain waits for what is in flight.
    pub grace: Duration,
    /// Who this is.
    pub pod: Pod,
}

/// One listener and its upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Takes requests.
    pub listen: SocketAddr,
    /// Gets them.
    pub upstream: Upstream,
}

/// When the inference server counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamReady {
    /// It accepts connections.
    Tcp,
    /// It answers a GET of this path with 2xx.
    Http(String),
}

/// Where the Kubernetes API is and what to scale there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Given by flag; `None`: in-cluster account, else the default kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Given by flag; `None`: the pod's own, else the account's.
    pub namespace: Option<String>,
    /// Given by flag; `None`: the policy's, else the pod's owner.
    pub target: Option<String>,
}

/// Election timing; the rules between the three are checked where they are explained, in `leader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// See [`Agent::lease_duration`].
    pub lease_duration: Duration,
    /// See [`Agent::renew_deadline`].
    pub renew_deadline: Duration,
    /// See [`Agent::retry_period`].
    pub retry_period: Duration,
}

/// Who this is, from the downward API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's name; outside a pod a name made up from the listener.
    pub name: String,
    /// The pod's address, where it is known.
    pub ip: Option<IpAddr>,
}

/// A flag that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Listeners and upstreams come in pairs.
    #[error(
        "{listen} of --listen but {upstream} of --upstream (give one upstream for each listener, in the same order)"
    )]
    Unpaired {
        /// Listeners given.
        listen: usize,
        /// Upstreams given.
        upstream: usize,
    },
    /// Two listeners on one address.
    #[error("{first} and {second} are both {address} (give each listener a port of its own)")]
    SameAddress {
        /// A flag.
        first: &'static str,
        /// Another flag.
        second: &'static str,
        /// What both have.
        address: SocketAddr,
    },
    /// A request would be passed to the proxy itself, for ever.
    #[error(
        "--upstream {0} is where --listen takes requests (name the inference server's own port)"
    )]
    Loop(SocketAddr),
    /// An upstream protocol that is not spoken.
    #[error("--upstream-protocol `{0}` is not spoken (auto, http1 or h2c)")]
    Protocol(String),
    /// A readiness probe that is none.
    #[error("--upstream-ready `{0}` is no probe (tcp, or http:/path such as http:/health)")]
    Probe(String),
    /// A queue, and nothing that fills it.
    #[error("--max-queued and --queue-timeout say nothing without --max-concurrent (set it, too)")]
    Queue,
    /// No request at all.
    #[error("--max-concurrent 0 would let no request pass (leave it out for no limit)")]
    NothingPasses,
    /// Nobody to follow.
    #[error(
        "--follow says nothing with --no-cluster, which takes no part at all (leave one of them out)"
    )]
    FollowsNobody,
    /// A lead cannot find its Deployment by itself.
    #[error(
        "--target is missing (name the Deployment to scale; a lead is no pod of it, so it cannot find it by itself)"
    )]
    NoTarget,
    /// No pod can be labelled as its lead.
    #[error(
        "--target {0} has more than 63 characters: its lead cannot be found, since the label {LABEL_LEAD} would be too long \
         (let the sidecars lead, or give the Deployment a shorter name)"
    )]
    LongTarget(String),
    /// A duration out of its range.
    #[error("{flag} {given:?} is out of range ({range})")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: Duration,
        /// What is allowed.
        range: &'static str,
    },
    /// A duration that is none.
    #[error(transparent)]
    Duration(#[from] NotADuration),
}

// === impl Given ===

impl Given {
    /// Checks what was typed; everything wrong is named at once.
    pub fn into_config(self) -> Result<Config, Vec<ConfigError>> {
        let mut wrong = Vec::new();
        if self.listen.len() != self.upstream.len() {
            wrong.push(ConfigError::Unpaired {
                listen: self.listen.len(),
                upstream: self.upstream.len(),
            });
        }
        self.check_addresses(&mut wrong);
        let upstream_protocol = self.upstream_protocol.parse().unwrap_or_else(|_unknown| {
            wrong.push(ConfigError::Protocol(self.upstream_protocol.clone()));
            Protocol::default()
        });
        let upstream_ready = upstream_ready(&self.upstream_ready).unwrap_or_else(|error| {
            wrong.push(error);
            UpstreamReady::Tcp
        });
        let limit = self.limit(&mut wrong);
        self.check_times(&mut wrong);
        if self.follow && self.no_cluster {
            wrong.push(ConfigError::FollowsNobody);
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let pairs = self.listen.iter().zip(&self.upstream);
        let first = self.listen.first().copied().unwrap_or(self.agent.admin);
        Ok(Config {
            part: if self.follow {
                Part::Follower
            } else {
                Part::Sidecar
            },
            routes: pairs
                .map(|(&listen, upstream)| Route {
                    listen,
                    upstream: upstream.clone(),
                })
                .collect(),
            upstream_protocol,
            upstream_ready,
            server_metrics: self.server_metrics,
            limit,
            admin: self.agent.admin,
            member: self.agent.member,
            cluster: (!self.no_cluster).then(|| self.agent.cluster()),
            gpu_devices: self.gpu_devices,
            memory_limit: self.memory_limit,
            deletion_costs: self.agent.deletion_costs,
            election: self.agent.election(),
            propagation: self.propagation,
            grace: self.grace,
            pod: self.agent.pod(first),
            policy: self.agent.policy,
        })
    }

    fn limit(&self, wrong: &mut Vec<ConfigError>) -> Option<Limit> {
        let Some(concurrent) = self.max_concurrent else {
            if self.max_queued.is_some() || self.queue_timeout.is_some() {
                wrong.push(ConfigError::Queue);
            }
            return None;
        };
        if concurrent == 0 {
            wrong.push(ConfigError::NothingPasses);
        }
        let default = Limit::new(concurrent);
        Some(Limit {
            queued: self.max_queued.unwrap_or(default.queued),
            wait: self.queue_timeout.unwrap_or(default.wait),
            ..default
        })
    }

    fn check_addresses(&self, wrong: &mut Vec<ConfigError>) {
        let listeners = self.listen.iter().map(|&address| ("--listen", address));
        let listeners: Vec<_> = listeners.chain(self.agent.listeners()).collect();
        check_addresses(&listeners, wrong);
        for upstream in self.upstream.iter().filter_map(Upstream::address) {
            let meets = |listen: &SocketAddr| {
                listen.port() == upstream.port()
                    && (listen.ip() == upstream.ip()
                        || listen.ip().is_unspecified() && upstream.ip().is_loopback())
            };
            if self.listen.iter().any(meets) {
                wrong.push(ConfigError::Loop(upstream));
            }
        }
    }

    fn check_times(&self, wrong: &mut Vec<ConfigError>) {
        self.agent.check_times(wrong);
        let wait = self
            .queue_timeout
            .map(|wait| in_range("--queue-timeout", wait, 1, 3_600, "1ms to 1h"));
        let others = [
            in_range("--propagation", self.propagation, 0, 300, "0s to 5m"),
            in_range("--grace", self.grace, 0, 86_400, "0s to 1d"),
        ];
        wrong.extend(wait.into_iter().chain(others).filter_map(Result::err));
    }
}

/// No two listeners have one address.
fn check_addresses(listeners: &[(&'static str, SocketAddr)], wrong: &mut Vec<ConfigError>) {
    for (index, &(second, address)) in listeners.iter().enumerate() {
        // Port 0 asks the system for a free one: two of them never meet.
        let twin = listeners
            .iter()
            .take(index)
            .find(|(_, other)| *other == address && address.port() != 0);
        if let Some(&(first, _)) = twin {
            wrong.push(ConfigError::SameAddress {
                first,
                second,
                address,
            });
        }
    }
}

/// Whether a duration lies between so many milliseconds and so many seconds.
fn in_range(
    flag: &'static str,
    given: Duration,
    least_millis: u64,
    most_secs: u64,
    range: &'static str,
) -> Result<(), ConfigError> {
    let allowed = Duration::from_millis(least_millis)..=Duration::from_secs(most_secs);
    if allowed.contains(&given) {
        Ok(())
    } else {
        Err(ConfigError::Range { flag, given, range })
    }
}

fn upstream_ready(text: &str) -> Result<UpstreamReady, ConfigError> {
    match text.split_once(':') {
        None if text == "tcp" => Ok(UpstreamReady::Tcp),
        Some(("http", path)) if path.starts_with('/') && path.parse::<http::Uri>().is_ok() => {
            Ok(UpstreamReady::Http(path.to_owned()))
        }
        _ => Err(ConfigError::Probe(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
