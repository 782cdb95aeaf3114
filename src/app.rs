//! One whole sidecar, or a lead, which is one without a server: the only place that knows every part and joins them.
//!
//! Traffic runs in tasks of its own (`run` gives them a thread, the demo a runtime), everything else is the control half.
//! They share counters and nothing that either could wait for. Whatever goes wrong in the control half is a [`faults`]
//! entry; requests flow.

mod board;
mod checkpoint;
mod connect;
mod faults;
mod member;
mod pacer;
mod participant;
mod policy_file;
mod reign;
mod server;
mod shared;
mod source;
mod unheard;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use self::connect::{ConnectError, Connection, Connector};
pub use self::pacer::pace_under;
pub use self::policy_file::PolicyFileError;
use self::shared::Shared;
use crate::admin;
use crate::admin::Source as _;
use crate::clock::Clock;
use crate::config::{Config, UpstreamReady};
use crate::fleet::member::{HEARD_BOUND, Member};
use crate::gpu;
use crate::leader::{BadTimings, Part, Timings};
use crate::lifecycle::{Lifecycle, Tasks};
use crate::policy::Policy;
use crate::proxy;
use crate::report::meter::Meter;

/// Connections that wait to be accepted, as far as the kernel allows (4,096, unless it was told otherwise). When a pod turns
/// ready a whole fleet's clients may come at once: of the ones that find the queue full, the handshake is repeated after a
/// second.
const BACKLOG: i32 = 4_096;

/// All that a sidecar is started from.
#[derive(Debug)]
pub struct Sidecar {
    /// What it was told to be.
    pub config: Config,
    /// What a server with a [`CountLayer`](crate::layer::CountLayer) counts in; `None`: the proxies of the config's routes
    /// count.
    pub accounts: Option<Arc<proxy::Accounts>>,
    /// The way to the API; `None`: carry and measure only.
    pub connector: Option<Connector>,
    /// Where time comes from.
    pub clock: Clock,
    /// Identity, tokens and delays are drawn from it: seed it from the operating system, except where a run must be
    /// replayable.
    pub seed: u64,
    /// The tasks of the traffic half, on a runtime of their own.
    pub traffic: Tasks,
    /// The runtime of the control half.
    pub control: Handle,
}

/// A sidecar that runs. Dropping it ends it without a goodbye.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    routes: Vec<SocketAddr>,
    admin: SocketAddr,
    _traffic: Tasks,
    _control: Tasks,
}

/// Why a sidecar cannot start: only what its own flags say can stop it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is taken or not ours.
    #[error(
        "cannot listen on {address} ({flag}) (is another process on that port? `ss -ltnp` shows which)"
    )]
    Listen {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The three durations of the election do not fit together.
    #[error("the election's timing is wrong (--lease-duration, --renew-deadline, --retry-period)")]
    Timings(#[from] BadTimings),
    /// A device was named that is none.
    #[error("--gpu-devices")]
    Gpu(#[from] gpu::NotADevice),
    /// The proxy's listener cannot be used.
    #[error("the proxy cannot start")]
    Proxy(#[from] proxy::StartError),
}

// === impl Sidecar ===

impl Sidecar {
    /// Binds every listener, then starts. Nothing runs if one of them is taken.
    pub fn start(self) -> Result<Running, StartError> {
        let election = self.config.election;
        let timings = Timings::new(
            election.lease_duration,
            election.renew_deadline,
            election.retry_period,
        )?;
        let gpu = self.gpu_settings()?;
        let listeners: Vec<TcpListener> = self
            .config
            .routes
            .iter()
            .map(|route| listen("--listen", route.listen))
            .collect::<Result<_, _>>()?;
        let admin_listener = listen("--admin", self.config.admin)?;
        let member_listener = match self.connector {
            Some(_) => Some(listen("--member", self.config.member)?),
            None => None,
        };
        let admin = local(&admin_listener, self.config.admin);
        let control = Tasks::on(self.control.clone());
        let shared = self.share(gpu, listeners, admin, &control)?;
        let routes = shared.proxies.iter().map(proxy::Proxy::address).collect();
        self.start_control(&shared, admin_listener, member_listener, timings, &control);
        Ok(Running {
            shared,
            routes,
            admin,
            _traffic: self.traffic,
            _control: control,
        })
    }

    fn gpu_settings(&self) -> Result<gpu::Settings, gpu::NotADevice> {
        let names = &self.config.gpu_devices;
        let devices = names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(gpu::Settings {
            devices: (!devices.is_empty()).then_some(devices),
            ..gpu::Settings::default()
        })
    }

    /// Starts the traffic half, and puts together what all parts look at.
    fn share(
        &self,
        gpu: gpu::Settings,
        listeners: Vec<TcpListener>,
        admin: SocketAddr,
        control: &Tasks,
    ) -> Result<Arc<Shared>, StartError> {
        let clock = self.clock.clone();
        let given = self.accounts.clone();
        let accounts = given.unwrap_or_else(|| Arc::new(proxy::Accounts::new(clock.clone())));
        let admission = Arc::new(proxy::Admission::new(self.config.limit));
        let connections = Arc::<proxy::Connections>::default();
        let mut proxies = Vec::new();
        for (index, (route, listener)) in self.config.routes.iter().zip(listeners).enumerate() {
            let settings = proxy::Settings {
                protocol: self.config.upstream_protocol,
                // The path is the first server's, whose answer is the pod's readiness.
                probe: if index == 0 {
                    self.probe()
                } else {
                    proxy::Probe::Tcp
                },
                admission: Arc::clone(&admission),
                connections: Arc::clone(&connections),
                propagation: self.config.propagation,
                grace: self.config.grace,
                ..proxy::Settings::new(route.upstream.clone())
            };
            proxies.push(proxy::serve(
                settings,
                listener,
                Arc::clone(&accounts),
                Lifecycle::default(),
                clock.clone(),
                &self.traffic,
            )?);
        }
        let mut rng = StdRng::seed_from_u64(self.seed);
        let epoch = rand::RngExt::random(&mut rng);
        let pod = self.config.pod.name.clone();
        let meter = Meter::new(pod, epoch, Arc::clone(&accounts), clock.now());
        let gpu = match self.config.part {
            // Whatever GPU it sees is not its own.
            Part::Lead => watch::channel(None).1,
            Part::Sidecar | Part::Follower => gpu::sample(gpu, clock.clone(), control),
        };
        Ok(Arc::new(Shared::new(
            self.config.clone(),
            clock,
            accounts,
            admission,
            proxies,
            meter,
            gpu,
            epoch,
            admin,
        )))
    }

    fn probe(&self) -> proxy::Probe {
        match &self.config.upstream_ready {
            UpstreamReady::Tcp => proxy::Probe::Tcp,
            UpstreamReady::Http(path) => {
                let path = path.parse().expect("config checked that it is a path");
                proxy::Probe::Http(path)
            }
        }
    }

    fn start_control(
        &self,
        shared: &Arc<Shared>,
        admin: TcpListener,
        member: Option<TcpListener>,
        timings: Timings,
        control: &Tasks,
    ) {
        let clock = &self.clock;
        let source = Arc::new(source::PodSource::new(Arc::clone(shared)));
        let handle = control.handle();
        let (time, tasks) = (clock.clone(), handle.clone());
        control.spawn(serve_on(admin, "admin", move |listener| {
            admin::serve(listener, source, time, tasks)
        }));
        let has_server = self.config.part != Part::Lead;
        if has_server {
            control.spawn(shared::keep_meter(Arc::clone(shared)));
            control.spawn(server::follow(Arc::clone(shared)));
        }
        let (Some(connector), Some(listener)) = (self.connector.clone(), member) else {
            return;
        };
        let (path, policy) = (self.config.policy.clone(), shared.policy_sender());
        control.spawn(policy_file::follow(
            path,
            policy,
            shared.policy_sought_sender(),
            shared.faults.clone(),
            clock.clone(),
        ));
        let (heard_sender, heard) = mpsc::channel(HEARD_BOUND);
        let overrun = Arc::clone(&shared.overrun);
        if has_server {
            control.spawn(shared::watch_overrun(
                Arc::clone(&shared.accounts),
                shared.policy(),
                Arc::clone(&overrun),
            ));
        }
        let member = Member::new(
            clock.clone(),
            member::Reporter(Arc::clone(shared)),
            member::LeaseVerifier::new(Arc::clone(shared), self.seed),
            heard_sender,
            overrun,
        );
        shared.set_member_counts(member.counts());
        let tasks = handle.clone();
        control.spawn(serve_on(listener, "member", move |listener| {
            member.serve(listener, tasks)
        }));
        let participant = participant::Participant {
            shared: Arc::clone(shared),
            connector,
            timings,
            seed: self.seed,
            tasks: handle,
        };
        control.spawn(participant.run(heard));
    }
}

// === impl Running ===

impl Running {
    /// Where it takes requests, in the order of its routes.
    pub fn routes(&self) -> &[SocketAddr] {
        &self.routes
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Under which name it takes part in the election.
    pub fn identity(&self) -> &str {
        &self.shared.identity
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.source().ready().is_ok()
    }

    /// Turns it unready, hands the lead over if it has it, and waits until nothing is in flight any more, by the server's own word
    /// where the policy says passive. Without either it waits until nobody sends new requests: then the server ends its
    /// connections.
    pub async fn drain(&self) {
        self.source().drained().await;
        self.shared.retired().await;
    }

    /// What its admin port shows.
    pub fn source(&self) -> impl admin::Source + use<> {
        source::PodSource::new(Arc::clone(&self.shared))
    }
}

/// Reads a policy file, as `run --check` does.
pub async fn check_policy(path: &Path) -> Result<Policy, PolicyFileError> {
    policy_file::read(path).await.map(|(_text, policy)| policy)
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen {
        flag,
        address,
        source,
    };
    bind(address).map_err(failed)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As std does: a restarted sidecar must not wait for the connections of the one before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The address with the port that the system chose, where it was asked to.
fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Serves on a listener that was bound before there were tasks.
async fn serve_on<F: Future<Output = ()>>(
    listener: TcpListener,
    what: &'static str,
    serve: impl FnOnce(tokio::net::TcpListener) -> F,
) {
    // Here and not where it was bound: the socket belongs to the runtime of the control half.
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => serve(listener).await,
        Err(error) => tracing::error!(%error, "the {what} listener cannot be used"),
    }
}

#[cfg(test)]
mod tests;
