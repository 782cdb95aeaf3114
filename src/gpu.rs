//! What the GPUs of this pod are doing, once a second, through NVIDIA's management library (NVML).
//!
//! The signal is an `Option`: a pod without a GPU, a missing library or a driver in trouble make it absent, say so once,
//! and hold nothing else up. NVML's calls are blocking and can hang for seconds while a driver resets, so they run on a
//! thread of their own; the task that publishes samples waits for that thread no longer than `ANSWER_LIMIT`.

mod describe;
mod nvml;
mod selector;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::describe::{Listed, Listing, describe};
pub use self::nvml::Error;
use self::nvml::{Reading, Session};
pub use self::selector::{NotADevice, Selector};
use crate::clock::Clock;
use crate::lifecycle::Tasks;

/// One reading a second: NVML itself averages utilisation over 1 s to 1/6 s, depending on the card, so twice as often
/// would read the same number again, and half as often would miss short work.
const PERIOD: Duration = Duration::from_secs(1);

/// How long a reading may take before the signal counts as absent. A reset takes seconds; with half of this a busy node
/// would look like one, with twice this the fleet would plan with a frozen value for longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to start NVML again. Starting it attaches every GPU and costs the driver some
/// hundred milliseconds; with half of this a broken node is bothered more, with twice this a mended one waits longer.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// Which GPUs to read, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The devices to read; `None`: every device that the container shows.
    pub devices: Option<Vec<Selector>>,
    /// The library to load; `None`: `libnvidia-ml.so.1` as the loader finds it.
    pub library: Option<PathBuf>,
}

/// The GPUs of one pod at one moment, over the devices that report utilisation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Devices read.
    pub devices: u32,
    /// Mean utilisation of the devices, 0 to 1.
    pub utilization: f64,
    /// Memory in use over all devices, bytes; a device that does not tell adds nothing.
    pub memory_used_bytes: u64,
    /// Memory of all devices, bytes; a device that does not tell adds nothing.
    pub memory_total_bytes: u64,
    /// Power drawn by all devices, watts; a device that does not tell adds nothing.
    pub power_watts: f64,
}

/// Asks the thread that holds NVML for a reading.
type Request = oneshot::Sender<Result<Reading, Error>>;

/// What was last said about the signal, so that each change is one line in the log.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// Nothing yet.
    Nothing,
    /// That it is there, and which devices it lacks, with the reason.
    Present(BTreeMap<String, String>),
    /// That it is absent.
    Absent,
}

/// Publishes samples, and what becomes of the signal to the log.
#[derive(Debug)]
struct Sampler {
    clock: Clock,
    requests: mpsc::Sender<Request>,
    signal: watch::Sender<Option<Sample>>,
    told: Told,
    failures: u32,
}

/// Starts sampling in `tasks` and returns the signal: the latest sample, or `None` while there is none.
///
/// The sender lives as long as `tasks`, also where there is no GPU: a receiver may wait for a change without harm.
pub fn sample(settings: Settings, clock: Clock, tasks: &Tasks) -> watch::Receiver<Option<Sample>> {
    let (signal, receiver) = watch::channel(None);
    tasks.spawn(async move {
        match open_on_thread(settings) {
            Ok(requests) => Sampler::new(clock, requests, signal).run().await,
            Err(error) => {
                tracing::warn!(%error, "the GPU signal is absent: its thread does not start");
                std::future::pending::<()>().await;
            }
        }
    });
    receiver
}

// === impl Sampler ===

impl Sampler {
    fn new(
        clock: Clock,
        requests: mpsc::Sender<Request>,
        signal: watch::Sender<Option<Sample>>,
    ) -> Self {
        Self {
            clock,
            requests,
            signal,
            told: Told::Nothing,
            failures: 0,
        }
    }

    #[expect(clippy::infinite_loop, reason = "it samples until it is dropped")]
    async fn run(mut self) {
        loop {
            match self.read().await {
                Ok(reading) => self.publish(reading),
                // A library that was never there does not come later: the container runtime mounts it at the start.
                Err(error @ Error::Library { .. }) => {
                    let reason = nvml::with_source(&error);
                    tracing::info!("the GPU signal is absent, everything else works: {reason}");
                    std::future::pending::<()>().await;
                }
                Err(error) => self.lose(&error),
            }
            let pause = if self.failures == 0 {
                PERIOD
            } else {
                PERIOD
                    .saturating_mul(1 << self.failures.min(6))
                    .min(LONGEST_BACK_OFF)
            };
            self.clock.sleep(pause).await;
        }
    }

    /// One reading. A thread that hangs in the driver is waited for, not doubled, but the signal is absent meanwhile.
    async fn read(&mut self) -> Result<Reading, Error> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(reply).await.is_err() {
            return Err(Error::Gone);
        }
        tokio::pin!(answer);
        if let Ok(answered) = self.clock.timeout(ANSWER_LIMIT, &mut answer).await {
            return answered.unwrap_or(Err(Error::Gone));
        }
        self.lose(&Error::Silent(ANSWER_LIMIT));
        answer.await.unwrap_or(Err(Error::Gone))
    }

    fn publish(&mut self, reading: Reading) {
        self.failures = 0;
        self.signal.send_replace(reading.sample);
        let told = Told::Present(reading.silent);
        if self.told == told {
            return;
        }
        let silent = match &told {
            Told::Present(silent) => silent,
            Told::Nothing | Told::Absent => return,
        };
        match reading.sample {
            Some(sample) => tracing::info!(devices = sample.devices, "the GPU signal is there"),
            None if silent.is_empty() => {
                tracing::info!("the GPU signal is absent: NVML shows no GPU in this container");
            }
            None => tracing::info!("the GPU signal is absent: no GPU reports its utilisation"),
        }
        for (device, reason) in silent {
            tracing::info!(device, "this GPU is left out of the signal: {reason}");
        }
        self.told = told;
    }

    fn lose(&mut self, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        self.signal.send_replace(None);
        if self.told != Told::Absent {
            let reason = nvml::with_source(error);
            tracing::warn!("the GPU signal is absent until NVML answers again: {reason}");
            self.told = Told::Absent;
        }
    }
}

/// Starts the thread that holds NVML; it ends when the returned sender is dropped.
fn open_on_thread(settings: Settings) -> Result<mpsc::Sender<Request>, std::io::Error> {
    // One request at a time: the sampler waits for each answer.
    let (requests, mut asked) = mpsc::channel::<Request>(1);
    std::thread::Builder::new()
        .name("nvml".to_owned())
        .spawn(move || {
            let mut session = Session::new(settings);
            while let Some(request) = asked.blocking_recv() {
                if request.send(session.read()).is_err() {
                    // The sampler was dropped while the driver took its time.
                    return;
                }
            }
        })?;
    Ok(requests)
}
