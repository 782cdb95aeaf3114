//! How the kubelet of these tests runs containers: the sidecar as a process, the model server as a task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kube::ResourceExt as _;
use sidescale::clock::Clock;
use sidescale::local::kubelet::{Running, Runtime, Signal, Start};
use tokio::sync::watch;

use crate::api_server::FIRST_LEAD;
use crate::cluster::Access;
use crate::model_server::ModelServer;
use crate::processes;
use crate::sidecar::{Pod, Sidecar, Surroundings};

/// The sidecar's container in a pod.
const SIDECAR: &str = "sidescale";

/// How often a process is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What a container that could not start exits with, by the shell's convention.
const CANNOT_START: i32 = 127;

/// Runs the containers of the manifest's pod, and hands out their processes to tests.
pub(crate) struct Containers {
    access: Arc<Access>,
    around: Surroundings,
    service_time: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Numbers of pods, in the order they were started: a sidecar that is restarted keeps its token.
    numbers: BTreeMap<String, usize>,
    /// Those of leads' pods.
    leads: BTreeMap<String, usize>,
    /// The process lives in what the kubelet holds, and is killed when the kubelet lets go of it.
    sidecars: BTreeMap<String, Weak<Mutex<Sidecar>>>,
}

// === impl Containers ===

impl Containers {
    /// Every pod gets a sidecar in these surroundings and a server that takes `service_time`.
    pub(crate) fn new(access: Arc<Access>, around: Surroundings, service_time: Duration) -> Self {
        Self {
            access,
            around,
            service_time,
            known: Mutex::default(),
        }
    }

    /// Asks the sidecar of a pod something; `None`: it does not run.
    pub(crate) fn sidecar<T>(&self, pod: &str, ask: impl FnOnce(&mut Sidecar) -> T) -> Option<T> {
        let sidecar = lock(&self.known).sidecars.get(pod)?.upgrade()?;
        let mut sidecar = lock(&sidecar);
        Some(ask(&mut sidecar))
    }

    fn start_sidecar(&self, start: &Start<'_>) -> Running {
        let name = start.pod.name_any();
        let leads = start
            .container
            .args
            .iter()
            .flatten()
            .any(|word| word == "lead");
        let number = {
            let Known {
                numbers,
                leads: of_leads,
                ..
            } = &mut *lock(&self.known);
            let (numbers, first) = if leads {
                (of_leads, FIRST_LEAD)
            } else {
                (numbers, 0)
            };
            let next = first + numbers.len();
            *numbers.entry(name.clone()).or_insert(next)
        };
        let pod = Pod {
            name: name.clone(),
            ip: start.ip,
            number,
            env: start.env.clone(),
            leads,
        };
        let sidecar = Sidecar::start(&self.access, &self.around, &pod);
        let sidecar = Arc::new(Mutex::new(sidecar));
        let known = Arc::downgrade(&sidecar);
        lock(&self.known).sidecars.insert(name, known);
        let signalled = sidecar.clone();
        Running::new(ended(sidecar), move |signal| {
            lock(&signalled).signal(match signal {
                Signal::Terminate => processes::Signal::Term,
                Signal::Kill => processes::Signal::Kill,
            });
        })
    }

    fn start_server(&self, start: &Start<'_>) -> Running {
        let Ok(server) = ModelServer::start(start.ip, self.service_time) else {
            return Running::new(std::future::ready(CANNOT_START), |_signal| {});
        };
        let running = watch::Sender::new(Some(server));
        let mut seen = running.subscribe();
        let exit = async move {
            // The sender is gone only with the container.
            seen.wait_for(Option::is_none).await.ok();
            0
        };
        // As vLLM does: everything in flight is aborted at the first signal.
        Running::new(exit, move |_signal| {
            running.send_replace(None);
        })
    }
}

impl Runtime for Containers {
    fn start(&self, start: Start<'_>) -> Running {
        if start.container.name == SIDECAR {
            self.start_sidecar(&start)
        } else {
            self.start_server(&start)
        }
    }
}

/// The exit code of a process, once it has one.
async fn ended(sidecar: Arc<Mutex<Sidecar>>) -> i32 {
    let clock = Clock::real();
    loop {
        let ended = lock(&sidecar).process().ended();
        if let Some(status) = ended {
            // Killed by a signal: 128 and its number in a shell; here it is enough that it is not 0.
            return status.code().unwrap_or(137);
        }
        clock.sleep(LOOK).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
