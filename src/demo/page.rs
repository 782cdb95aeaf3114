//! The demo's page: the pods' own page, with the demo's shadows and score, and alive while the leader changes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;

use super::Error;
use super::pods::{Sidecars, workload};
use super::score::Score;
use crate::admin::{Decision, History, Metrics, Overview, Shadow, ShadowSeries, Source};
use crate::clock::{Clock, Instant};
use crate::controller::ShadowState;
use crate::forecast::Forecast;
use crate::report::Report;
use crate::telemetry;

/// Demo seconds between two rows of the page's columns.
const ROW: usize = 10;

/// What the demo's page shows.
#[derive(Clone, Debug)]
pub(super) struct DemoSource {
    pub(super) clock: Clock,
    pub(super) begun: Instant,
    pub(super) sidecars: Sidecars,
    pub(super) score: Arc<Mutex<Score>>,
    /// All decisions so far: a new leader's own list begins empty.
    pub(super) decisions: Arc<Mutex<Vec<Decision>>>,
}

// === impl DemoSource ===

impl DemoSource {
    /// The leader's overview, by the highest term.
    pub(super) fn leader(&self) -> Option<Overview> {
        let sidecars = self.sidecars.all();
        let overviews = sidecars
            .iter()
            .filter_map(|running| running.source().overview());
        overviews.max_by_key(|overview| overview.term)
    }

    pub(super) fn score(&self) -> MutexGuard<'_, Score> {
        self.score.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the present leader has decided.
    pub(super) fn keep_decisions(&self) {
        let mut kept = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for running in self.sidecars.all() {
            for decision in running.source().decisions().unwrap_or_default() {
                if !kept.contains(&decision) {
                    kept.push(decision);
                }
            }
        }
        kept.sort_by_key(|decision| decision.at);
    }
}

impl Source for DemoSource {
    fn metrics(&self) -> Metrics {
        // Every pod has its own on its own address; the demo itself is none.
        Metrics {
            content_type: telemetry::CONTENT_TYPE,
            text: telemetry::render(telemetry::Readings::default()),
        }
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn report(&self) -> Report {
        Report::default()
    }

    fn overview(&self) -> Option<Overview> {
        let led = self.leader();
        let score = self.score();
        let shadows = score.shadows();
        let shadow = |name, state: ShadowState| Shadow {
            name,
            desired: state.desired,
            ready: state.ready,
            slo_violations: state.slo_violations,
        };
        let shadows =
            shadows.map(|states| vec![shadow("HPA", states.hpa), shadow("KPA", states.kpa)]);
        Some(Overview {
            now: self.clock.now().timestamp,
            speed: self.clock.speed(),
            version: env!("CARGO_PKG_VERSION"),
            workload: workload(),
            leader_changes: score.leader_changes().into(),
            requests: Some(score.requests),
            slo_violations: Some(score.violations),
            shadows: shadows.unwrap_or_default(),
            ..led.unwrap_or_default()
        })
    }

    fn standing(&self) -> Overview {
        self.overview().unwrap_or_default()
    }

    fn decisions(&self) -> Option<Vec<Decision>> {
        let kept = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(kept.clone())
    }

    fn history(&self) -> Option<History> {
        let score = self.score();
        let begun = self.clock.now().timestamp - self.clock.instant().since(self.begun);
        let rows: Vec<(usize, (u32, u32))> = score
            .replicas()
            .enumerate()
            .skip(ROW - 1)
            .step_by(ROW)
            .collect();
        let loads = score.loads();
        let shadow = |name, pick: fn(crate::controller::ShadowStates) -> u32| ShadowSeries {
            name,
            desired: rows
                .iter()
                .map(|(at, _)| score.shadows_at(*at).map(pick))
                .collect(),
        };
        Some(History {
            step_seconds: u32::try_from(ROW).unwrap_or(u32::MAX),
            at: rows
                .iter()
                .map(|(at, _)| begun + Duration::from_secs(*at as u64))
                .collect(),
            arrivals: rows.iter().map(|(at, _)| loads.get(*at).copied()).collect(),
            expected: rows.iter().map(|_row| None).collect(),
            ready: rows.iter().map(|(_, (ready, _))| Some(*ready)).collect(),
            desired: rows
                .iter()
                .map(|(_, (_, desired))| Some(*desired))
                .collect(),
            shadows: vec![
                shadow("HPA", |states| states.hpa.desired),
                shadow("KPA", |states| states.kpa.desired),
            ],
        })
    }

    fn forecast(&self) -> Option<Forecast> {
        let sidecars = self.sidecars.all();
        let forecasts = sidecars
            .iter()
            .filter_map(|running| running.source().forecast());
        Some(
            forecasts
                .max_by_key(|forecast| forecast.made)
                .unwrap_or_default(),
        )
    }

    fn leader_admin(&self) -> Option<SocketAddr> {
        None
    }

    async fn drained(&self) {}
}

/// The page's listener; `None`: there is no page.
pub(super) async fn listen(page: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let Some(address) = page else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.map_err(|source| {
        Error::Input(format!(
            "--page {address} cannot be used: {source} (choose another port, or 0)"
        ))
    })?;
    Ok(Some(listener))
}
