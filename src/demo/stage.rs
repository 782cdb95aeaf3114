//! The demo's course: the cluster comes up, the load begins, the leader is killed half-way, the score is taken.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::fleet::{FleetSeen, watch_fleet};
use super::load::{self, Load, Outcome};
use super::model;
use super::page::{self, DemoSource};
use super::past::{self, Days};
use super::pods::{Pods, Sidecars};
use super::scenery::{BOUNDS, PolicyFile, TARGET, factor, policy, start_kubelet};
use super::score::Score;
use super::summary::Summary;
use super::terminal::{Progress, Terminal};
use super::{Error, Settings, browser, objects};
use crate::admin;
use crate::clock::{Clock, Instant, Timestamp};
use crate::controller::Shadows;
use crate::fleet::watch::Event;
use crate::lifecycle::Tasks;
use crate::local;
use crate::local::kubelet::{Addresses, Kubelet};

/// The wall clock at the trace's zero: a Monday, as good as any.
const ZERO: Timestamp = Timestamp::from_secs(1_767_571_200);
/// A small model on one GPU: four minutes, twelve seconds of life at the default speed.
const COLD_START: Duration = Duration::from_secs(240);
/// From a change of the endpoints until clients know it: what kube-proxy takes on a calm node.
const PROPAGATION: Duration = Duration::from_secs(1);
/// When the leader is killed in a demo without an end.
const KILL_AFTER: Duration = Duration::from_secs(45);
/// How long the last requests may take; what has no end by then has failed.
const LAST: Duration = Duration::from_secs(60);
/// A fleet that is not up by then never will be.
const UP_WITHIN: Duration = Duration::from_secs(1_200);
/// The step in which the score is kept.
const SECOND: Duration = Duration::from_secs(1);

/// A demo that has come up.
struct Stage {
    settings: Settings,
    clock: Clock,
    server: model::Settings,
    factor: f64,
    tasks: Tasks,
    traffic: Tasks,
    sidecars: Sidecars,
    cluster: Arc<local::Cluster>,
    events: mpsc::Receiver<Event>,
    seen: FleetSeen,
    terminal: Terminal,
    _kubelet: Kubelet,
    _policy: PolicyFile,
}

/// The load under way.
struct Playing {
    source: DemoSource,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    done: oneshot::Receiver<()>,
    endpoints: watch::Sender<Vec<SocketAddr>>,
    /// Changes that clients do not know yet, with the time when they will.
    changes: VecDeque<(Instant, Vec<SocketAddr>)>,
    arrived: Arc<AtomicU32>,
    /// All requests that were sent.
    sent: Arc<AtomicU64>,
    /// Nothing more is sent.
    over: Arc<AtomicBool>,
    next_second: Instant,
    next_line: Instant,
    kill_at: Option<Instant>,
    end_at: Option<Instant>,
}

/// Plays the demo on the runtime of the caller, its traffic on `traffic`.
pub(super) async fn play(settings: Settings, traffic: Handle) -> Result<Summary, Error> {
    // Before anything starts: a port in use is told at once, not after a fleet has come up.
    let page = page::listen(settings.page).await?;
    let mut stage = Stage::set(settings, traffic).await?;
    stage.come_up().await?;
    let mut playing = stage.begin();
    if let Some(page) = page {
        stage.serve_page(page, &playing)?;
    }
    stage.watch_it(&mut playing).await;
    Ok(stage.end(playing).await)
}

// === impl Stage ===

impl Stage {
    async fn set(settings: Settings, traffic: Handle) -> Result<Self, Error> {
        let clock = Clock::scaled(ZERO + settings.begin, settings.speed);
        let server = model::Settings {
            cold_start: COLD_START,
            ..model::Settings::default()
        };
        let tasks = Tasks::here();
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let factor = factor(&settings, &server);
        let policy = policy(settings.mode, &server);
        let file = PolicyFile::write(&policy)?;
        let days = Days {
            zero: ZERO,
            end: settings.begin,
            factor,
            service_seconds: server.service_time().as_secs_f64(),
            cold_start: COLD_START,
            pod_rps: TARGET * server.requests_per_second(),
            least_pods: BOUNDS.0,
        };
        let checkpoint =
            past::checkpoint(&settings.trace, days, policy.prediction.history, &mut rng);
        let cluster = Arc::new(local::Cluster::start(local::Settings::new(
            clock.clone(),
            settings.seed,
        )));
        let client = cluster.client("demo");
        objects::apply(&client, BOUNDS.0, checkpoint)
            .await
            .map_err(Error::failed("filling the embedded cluster"))?;
        let sidecars = Sidecars::default();
        let pods = Pods {
            cluster: Arc::clone(&cluster),
            clock: clock.clone(),
            traffic: traffic.clone(),
            policy: file.path().to_owned(),
            server: server.clone(),
            seed: settings.seed,
            sidecars: sidecars.clone(),
        };
        let addresses =
            Addresses::claim(&mut rng).map_err(Error::failed("taking loopback addresses"))?;
        let kubelet = start_kubelet(&cluster, &clock, pods, addresses);
        Ok(Self {
            events: watch_fleet(client, &tasks),
            traffic: Tasks::on(traffic),
            _policy: file,
            _kubelet: kubelet,
            terminal: Terminal::new(),
            seen: FleetSeen::default(),
            settings,
            clock,
            server,
            factor,
            tasks,
            sidecars,
            cluster,
        })
    }

    /// Until the first pods are ready.
    async fn come_up(&mut self) -> Result<(), Error> {
        self.terminal.say(&format!(
            "sidescale {}: {} pods of {} start, {} s of cold start at {} times the speed of life",
            env!("CARGO_PKG_VERSION"),
            BOUNDS.0,
            super::pods::workload(),
            COLD_START.as_secs(),
            self.settings.speed
        ));
        let (events, seen, clock) = (&mut self.events, &mut self.seen, self.clock.clone());
        let ready = async {
            while seen.ready < BOUNDS.0 {
                let Some(event) = events.recv().await else {
                    return;
                };
                seen.take(event, clock.now());
            }
        };
        let up = self.clock.timeout(UP_WITHIN, ready).await;
        up.map_err(Error::failed("waiting for the first pods to be ready"))
    }

    /// The load begins.
    fn begin(&mut self) -> Playing {
        let begun = self.clock.instant();
        let offset = self.clock.now().timestamp.since(ZERO);
        let length = self
            .settings
            .length
            .map(|length| length.mul_f64(self.settings.speed));
        let start = Instant::default();
        let end_at = length.map(|length| start + length);
        let until = end_at.map_or(self.settings.trace.end(), |end| offset + end.since(begun));
        let arrived = Arc::new(AtomicU32::new(0));
        let (sent, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, all, closed) = (Arc::clone(&arrived), Arc::clone(&sent), Arc::clone(&over));
        let rng = StdRng::seed_from_u64(self.settings.seed.wrapping_add(1));
        let arrivals = self
            .settings
            .trace
            .arrivals(offset, until, self.factor, rng);
        let (endpoints, endpoints_seen) = watch::channel(self.seen.endpoints.clone());
        let settings = load::Settings {
            seed: self.settings.seed,
            tokens: self.server.tokens,
            ..load::Settings::default()
        };
        let (load, outcomes) = Load::new(settings, endpoints_seen, self.clock.clone());
        let (ended, done) = oneshot::channel();
        self.traffic.spawn(async move {
            let open = arrivals.take_while(|_due| !closed.load(Ordering::Relaxed));
            let counted = open.inspect(|_due| {
                count.fetch_add(1, Ordering::Relaxed);
                all.fetch_add(1, Ordering::Relaxed);
            });
            load.play(begun, counted).await;
            if ended.send(()).is_err() {
                tracing::debug!("the demo ended before its load");
            }
        });
        let first_token = self.server.prefill + self.server.time_per_token;
        let mut score = Score::new(first_token);
        let cold_start = self.seen.cold_start().unwrap_or(COLD_START);
        let pod_rps = self.server.requests_per_second();
        score.shadow(Shadows::new(self.seen.ready, BOUNDS, pod_rps, cold_start));
        score.stamped(self.seen.term, begun);
        let kill_after =
            length.map_or(KILL_AFTER.mul_f64(self.settings.speed), |length| length / 2);
        Playing {
            source: DemoSource {
                clock: self.clock.clone(),
                begun,
                sidecars: self.sidecars.clone(),
                score: Arc::new(Mutex::new(score)),
                decisions: Arc::default(),
            },
            outcomes,
            done,
            endpoints,
            changes: VecDeque::new(),
            arrived,
            sent,
            over,
            next_second: begun + SECOND,
            next_line: begun,
            kill_at: Some(start + kill_after),
            end_at,
        }
    }

    fn serve_page(&self, listener: TcpListener, playing: &Playing) -> Result<(), Error> {
        let address = listener
            .local_addr()
            .map_err(Error::failed("serving the page"))?;
        let source = Arc::new(playing.source.clone());
        self.tasks.spawn(admin::serve(
            listener,
            source,
            self.clock.clone(),
            self.tasks.handle(),
        ));
        let url = format!("http://{address}/");
        self.terminal.say(&format!("page: {url}"));
        if self.settings.open && !browser::open(&url) {
            self.terminal
                .say("no browser was found; open the page yourself");
        }
        Ok(())
    }

    /// Until the end, or until somebody interrupts.
    async fn watch_it(&mut self, playing: &mut Playing) {
        let clock = self.clock.clone();
        loop {
            let next_change = playing.changes.front().map(|(at, _)| *at);
            tokio::select! {
                Some(event) = self.events.recv() => self.seen_event(event, playing),
                Some(outcome) = playing.outcomes.recv() => playing.source.score().ended(outcome),
                () = at(&clock, next_change) => playing.publish(clock.instant()),
                () = at(&clock, playing.kill_at) => self.kill_leader(playing),
                () = clock.sleep_until(playing.next_second) => self.second(playing),
                () = at(&clock, playing.end_at) => return,
                _interrupted = tokio::signal::ctrl_c() => return,
            }
        }
    }

    fn seen_event(&mut self, event: Event, playing: &mut Playing) {
        let now = self.clock.now();
        self.seen.take(event, now);
        playing.source.score().stamped(self.seen.term, now.instant);
        let known = playing
            .changes
            .back()
            .map(|(_, endpoints)| endpoints.clone());
        let known = known.unwrap_or_else(|| playing.endpoints.borrow().clone());
        if known != self.seen.endpoints {
            let at = now.instant + PROPAGATION;
            playing.changes.push_back((at, self.seen.endpoints.clone()));
        }
    }

    /// Its sidecar ends without a goodbye; its pod and its server stay.
    fn kill_leader(&self, playing: &mut Playing) {
        playing.kill_at = None;
        let leader = playing.source.leader().and_then(|overview| overview.leader);
        let sidecars = self.sidecars.all();
        let running = sidecars.iter().find(|running| {
            leader.as_deref() == running.identity().split_once('_').map(|(pod, _)| pod)
        });
        let (Some(leader), Some(address)) =
            (leader, running.and_then(|running| running.routes().first()))
        else {
            self.terminal.say("nobody leads: there is nobody to kill");
            return;
        };
        playing.source.keep_decisions();
        let in_flight = running.map_or(0, |running| {
            admin::Source::report(&running.source()).in_flight
        });
        if self.sidecars.kill(&leader) {
            playing
                .source
                .score()
                .killed(self.clock.instant(), *address, in_flight);
            self.terminal.say(&format!(
                "killed the leader's sidecar, in pod {leader}, without a goodbye"
            ));
        }
    }

    fn second(&mut self, playing: &mut Playing) {
        let now = self.clock.instant();
        let late = now.since(playing.next_second);
        let passed = late.as_secs() + 1;
        playing.next_second =
            playing.next_second + SECOND * u32::try_from(passed).unwrap_or(u32::MAX);
        let arrived = playing.arrived.swap(0, Ordering::Relaxed);
        let mut score = playing.source.score();
        score.noticed(late);
        for second in 0..passed {
            // A stall of this machine: what came in it came in its first second as far as the score knows.
            let arrived = if second == 0 { arrived } else { 0 };
            score.passed(
                now,
                self.seen.ready,
                self.seen.desired,
                self.seen.pods,
                arrived,
            );
        }
        drop(score);
        if now >= playing.next_line {
            playing.next_line = now + Duration::from_secs_f64(self.settings.speed);
            playing.source.keep_decisions();
            let progress = self.progress(playing);
            self.terminal.progress(&progress);
        }
    }

    fn progress(&self, playing: &Playing) -> Progress {
        let led = playing.source.leader();
        let score = playing.source.score();
        let shadows = score.shadows();
        let forecast = admin::Source::forecast(&playing.source).unwrap_or_default();
        let lead = led
            .as_ref()
            .and_then(|overview| overview.lead_time_seconds)
            .unwrap_or_default();
        let at = self.clock.now().timestamp + Duration::from_secs_f64(lead.max(0.0));
        let expected = forecast
            .points
            .iter()
            .find(|point| point.at >= at)
            .map(|point| point.upper);
        Progress {
            life: self.clock.real_time(self.clock.instant().offset()),
            now: self.clock.now().timestamp,
            arrivals_per_second: score.loads().last().copied().unwrap_or_default(),
            expected,
            desired: self.seen.desired,
            ready: self.seen.ready,
            hpa: shadows.map(|shadows| shadows.hpa.desired),
            kpa: shadows.map(|shadows| shadows.kpa.desired),
            leader: led.and_then(|overview| overview.leader),
            late: score.violations,
            late_hpa: shadows.map_or(0, |shadows| shadows.hpa.slo_violations),
            late_kpa: shadows.map_or(0, |shadows| shadows.kpa.slo_violations),
        }
    }

    /// The last requests end, and the score is taken.
    async fn end(self, mut playing: Playing) -> Summary {
        // An interrupted load would go on for ever.
        playing.over.store(true, Ordering::Relaxed);
        let waited = self.clock.timeout(LAST, &mut playing.done).await;
        let mut score = playing.source.score();
        while let Ok(outcome) = playing.outcomes.try_recv() {
            score.ended(outcome);
        }
        if waited.is_err() {
            let (sent, ended) = (playing.sent.load(Ordering::Relaxed), score.requests);
            score.unfinished(sent.saturating_sub(ended));
        }
        self.terminal.say("");
        let cold_start = self.seen.cold_start().unwrap_or(COLD_START);
        let requests = self.cluster.faults().requests();
        tracing::debug!(?requests, "requests to the embedded API server");
        Summary {
            speed: self.settings.speed,
            mode: self.settings.mode.label().to_owned(),
            cold_start_seconds: cold_start.as_secs_f64(),
            seed: self.settings.seed,
            ..score.summary(self.server.requests_per_second())
        }
    }
}

// === impl Playing ===

impl Playing {
    /// Clients learn of the next change.
    fn publish(&mut self, now: Instant) {
        if let Some((_, endpoints)) = self.changes.pop_front() {
            self.source.score().endpoints(now, &endpoints);
            self.endpoints.send_replace(endpoints);
        }
    }
}

async fn at(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
