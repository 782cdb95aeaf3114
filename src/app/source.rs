//! What this pod's admin port shows.

use std::net::SocketAddr;
use std::sync::Arc;

use super::board::Board;
use super::shared::Shared;
use crate::admin::{Decision, History, Metrics, Overview, Source};
use crate::cgroup::CpuGroup;
use crate::fleet::member::Counts;
use crate::forecast::Forecast;
use crate::leader::Part;
use crate::report::Report;
use crate::telemetry::{self, Connections, Leadership, Readings, Requests};

/// What this pod's admin port shows.
#[derive(Debug)]
pub(super) struct PodSource {
    shared: Arc<Shared>,
}

// === impl PodSource ===

impl PodSource {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn readings(&self) -> Readings {
        let shared = &self.shared;
        let board = shared.board();
        let (conflicts, errors) = board
            .as_ref()
            .map_or((0, 0), |board| (board.conflicts, board.errors));
        let seen = shared.leader().clone();
        Readings {
            is_ready: shared.ready().is_ok(),
            phase: shared.phase(),
            requests: (shared.config.part != Part::Lead).then(|| self.requests()),
            connections: shared.connections().map(|now| Connections {
                open: now.open(),
                retired: now.retired(),
            }),
            server: shared.server_shown(),
            gpu: (*shared.gpu.borrow()).map(Into::into),
            cpu_limit: shared.cpu.as_ref().and_then(CpuGroup::limit),
            cpu_throttled: shared.cpu.as_ref().and_then(CpuGroup::throttled),
            member: shared.member_counts().map(Counts::read).unwrap_or_default(),
            leadership: Leadership {
                is_leader: board.is_some(),
                term: board.as_ref().map_or(seen.term, Board::term),
                changes: seen.changes,
            },
            api_conflicts: conflicts,
            api_errors: errors,
            faults: shared.faults.counts(),
            fleet: board.as_ref().and_then(Board::fleet),
        }
    }

    /// With what is this process's own to say.
    fn about(&self, overview: Overview) -> Overview {
        let shared = &self.shared;
        Overview {
            speed: shared.clock.speed(),
            version: env!("CARGO_PKG_VERSION"),
            workload: shared.workload().get().cloned().unwrap_or_default(),
            leader_changes: shared.leader().changes,
            conditions: shared.faults.conditions(),
            ..overview
        }
    }

    fn requests(&self) -> Requests {
        let read = self.shared.accounts.read(self.shared.clock.instant());
        Requests {
            arrivals: read.arrivals,
            completed: read.completions,
            client_gone: read.client_gone,
            upstream_failed: read.upstream_failed,
            refused: read.refused,
            refused_heads: self.shared.accounts.refused_heads(),
            in_flight: read.in_flight,
            waiting: self.shared.admission.waiting(),
            responses: read.statuses,
            request_bytes: read.bytes_in,
            response_bytes: read.bytes_out,
            response_frames: read.frames_out,
            in_flight_seconds: read.busy.as_secs_f64(),
            took: self.shared.accounts.latencies(),
        }
    }
}

impl Source for PodSource {
    fn metrics(&self) -> Metrics {
        Metrics {
            content_type: telemetry::CONTENT_TYPE,
            text: telemetry::render(self.readings()),
        }
    }

    fn ready(&self) -> Result<(), String> {
        self.shared.ready()
    }

    fn report(&self) -> Report {
        self.shared.report()
    }

    fn overview(&self) -> Option<Overview> {
        let shared = &self.shared;
        let led = shared.board().as_ref()?.overview()?;
        Some(Overview {
            leader: Some(shared.config.pod.name.clone()),
            ..self.about(led)
        })
    }

    fn standing(&self) -> Overview {
        let shared = &self.shared;
        let candidacy = shared.candidacy().borrow().clone();
        let holder = candidacy.and_then(|candidacy| {
            let holder = candidacy.leadership().borrow().holder()?.to_owned();
            Some(holder)
        });
        // A lock taken in the call's arguments would be held while the call takes it again.
        let term = shared.leader().term;
        self.about(Overview {
            now: shared.clock.now().timestamp,
            term,
            // An identity is the pod's name and its process.
            leader: holder.map(|holder| match holder.rsplit_once('_') {
                Some((pod, _process)) => pod.to_owned(),
                None => holder,
            }),
            ..Overview::default()
        })
    }

    fn decisions(&self) -> Option<Vec<Decision>> {
        self.shared.board().as_ref().map(Board::decisions)
    }

    fn history(&self) -> Option<History> {
        self.shared.board().as_ref().map(Board::history)
    }

    fn forecast(&self) -> Option<Forecast> {
        self.shared.board().as_ref()?.forecast()
    }

    fn leader_admin(&self) -> Option<SocketAddr> {
        self.shared.leader().admin
    }

    async fn drained(&self) {
        self.shared.drained().await;
    }
}
