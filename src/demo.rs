//! A whole fleet on one machine: real sidecars, an embedded cluster, model servers with a cold start, a real trace.
//!
//! What stands in for the world outside of sidescale lives here: [`arrivals`] draws requests from a measured trace,
//! [`load`] sends them over real sockets and says what became of each, [`model`] answers them as a GPU server with a cold
//! start would. [`run`] puts a fleet of complete sidecars between them and kills its leader half-way; [`summary`] is what
//! it came to. One clock at `speed` drives all of it, election and timeouts included.

pub mod arrivals;
mod browser;
mod fleet;
pub mod load;
pub mod model;
mod objects;
mod page;
mod past;
mod pods;
mod scenery;
mod score;
mod stage;
pub mod summary;
mod terminal;
pub mod waves;

use std::net::SocketAddr;
use std::time::Duration;

use self::arrivals::Trace;
use self::summary::Summary;
use crate::policy::Mode;

/// How long a headless demo goes on unless told otherwise: half an hour of the fleet's life at the default speed.
pub const HEADLESS: Duration = Duration::from_secs(90);
/// Where in the built-in trace the demo begins: its thirteenth day at 01:15, a quarter of an hour before the client that the
/// trace was taken from comes to work, as on the twelve days before.
pub const BEGIN: Duration = Duration::from_secs(12 * 86_400 + 75 * 60);

/// What a demo is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Demo seconds in a second of life.
    pub speed: f64,
    /// Ends after this time of life; `None`: when it is interrupted.
    pub length: Option<Duration>,
    /// Where the page is; `None`: nowhere.
    pub page: Option<SocketAddr>,
    /// Whether a browser is to show it.
    pub open: bool,
    /// The policy's mode.
    pub mode: Mode,
    /// The load.
    pub trace: Trace,
    /// Where in the trace it begins; what is before is history.
    pub begin: Duration,
    /// Repeats arrivals, names and lengths.
    pub seed: u64,
}

/// Why a demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was asked for something it cannot do.
    #[error("{0}")]
    Input(String),
    /// Something of this machine failed.
    #[error("the demo failed: {what}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

// === impl Error ===

impl Error {
    fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        what: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed {
            what,
            source: source.into(),
        }
    }
}

/// Plays a demo to its end.
///
/// Traffic, servers and clients have two threads of their own, everything that decides has this one: as in a pod, nothing
/// that the control half does can hold a request up.
pub fn run(settings: Settings) -> Result<Summary, Error> {
    if settings.begin + Duration::from_secs(60) > settings.trace.end() {
        return Err(Error::Input(format!(
            "--from {:?} is at or after the end of the trace, {:?} (begin earlier)",
            settings.begin,
            settings.trace.end()
        )));
    }
    let traffic = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("demo-traffic")
        .enable_all()
        .build()
        .map_err(Error::failed("starting the traffic's threads"))?;
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::failed("starting the control half"))?;
    let handle = traffic.handle().clone();
    let done = control.block_on(stage::play(settings, handle));
    // Whatever still runs there belongs to nobody any more.
    traffic.shutdown_background();
    done
}
