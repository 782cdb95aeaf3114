//! One process: the election's machine, and a leader's turn that stamps and scales.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sidescale::clock::{Instant, Now, Timestamp};
use sidescale::leader::machine::{Event, Machine};
use sidescale::leader::preference::Preference;
use sidescale::leader::{Claim, Leadership, Part, Timings};
use sidescale::scale::DeploymentView;
use sidescale::scale::fence::{self, Refusal, Term};

use super::store::Request;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) rng: StdRng,
    pub(crate) identity: String,
    pub(crate) part: Part,
    pub(crate) preference: Preference,
    /// To whom this process gives the Lease up, until it has said so.
    pub(crate) heir: Option<String>,
    /// Seconds of this process's clock in a second of the world.
    rate: f64,
    offset: Duration,
    /// Grows with each restart: what was meant for an earlier life is lost.
    pub(crate) life: u32,
    pub(crate) alive: bool,
    pub(crate) stopped_until: Duration,
    pub(crate) cut_off_until: Duration,
    pub(crate) deaf_until: Duration,
    /// The election's request under way.
    pub(crate) asking: Option<u64>,
    /// The turn's request under way.
    pub(crate) turning: Option<u64>,
    pub(crate) term: Option<Term>,
    /// When the next tick is scheduled, so that it is not scheduled twice.
    pub(crate) wake_at: Option<Duration>,
    pub(crate) said_goodbye: bool,
}

impl Node {
    pub(crate) fn new(
        index: usize,
        part: Part,
        life: u32,
        at: Duration,
        skew: f64,
        world: &mut StdRng,
    ) -> Self {
        let rate = 1.0 + skew * (2.0 * world.random::<f64>() - 1.0);
        let offset = Duration::from_secs(world.random_range(0..1_000_000));
        let identity = format!("pod-{index}_{life}");
        let start = Instant::from_offset(offset + at.mul_f64(rate));
        Self {
            machine: Machine::new(identity.clone(), part, Timings::default(), start),
            rng: StdRng::seed_from_u64(world.random()),
            identity,
            part,
            preference: Preference::new(&Timings::default()),
            heir: None,
            rate,
            offset,
            life,
            alive: true,
            stopped_until: Duration::ZERO,
            cut_off_until: Duration::ZERO,
            deaf_until: Duration::ZERO,
            asking: None,
            turning: None,
            term: None,
            wake_at: None,
            said_goodbye: false,
        }
    }

    /// This process's clocks at the world's `at`. The wall clock is off by as much as the offset is.
    pub(crate) fn now(&self, at: Duration) -> Now {
        let instant = self.offset + at.mul_f64(self.rate);
        Now {
            instant: Instant::from_offset(instant),
            timestamp: Timestamp::from_secs(0) + instant,
        }
    }

    /// The world's time when this process's clock shows `instant`, and a nanosecond more against rounding.
    pub(crate) fn world_time(&self, instant: Instant) -> Duration {
        instant
            .offset()
            .saturating_sub(self.offset)
            .div_f64(self.rate)
            + Duration::from_nanos(2)
    }

    /// How long a stretch of this process's time takes in the world.
    pub(crate) fn in_world(&self, stretch: Duration) -> Duration {
        stretch.div_f64(self.rate)
    }

    pub(crate) fn take(&mut self, event: Event, at: Duration) {
        let now = self.now(at);
        self.machine.handle(event, now, &mut self.rng);
    }

    /// The claim, where this process would act on it at the world's `at`.
    pub(crate) fn claim(&self, at: Duration) -> Option<Claim> {
        match self.machine.leadership() {
            Leadership::Leading(claim) if claim.is_valid(self.now(at).instant) => Some(claim),
            Leadership::Leading(_) | Leadership::Following(_) | Leadership::Unknown => None,
        }
    }

    /// A leader's turn, once it has read the Deployment: stamp first, then scale.
    pub(crate) fn decide(&mut self, view: &DeploymentView, at: Duration) -> Option<Request> {
        let claim = self.claim(at)?;
        let now = self.now(at).instant;
        let version = view.resource_version.clone();
        match fence::next_term(&claim, self.term.as_ref(), view, now) {
            Ok(Some(term)) => Some(Request::Stamp { term, version }),
            Ok(None) => {
                let term = self.term.clone()?;
                fence::may_scale(Some(&claim), &term, view, now).ok()?;
                let replicas = self.rng.random_range(1..20);
                Some(Request::Scale {
                    term,
                    version,
                    replicas,
                })
            }
            Err(Refusal::Deposed { .. }) => {
                self.take(Event::Deposed, at);
                None
            }
            Err(Refusal::NotLeading | Refusal::Unstamped { .. }) => None,
        }
    }
}
