//! Three candidates and one Lease, in simulated time. You will see one of them win, be killed without a goodbye, and another
//! take over when it has seen the Lease unchanged for the lease duration (15 s).
//!
//! `cargo run --example election`
#![expect(clippy::print_stdout, reason = "an example speaks to a person")]

use std::time::Duration;

use rand::{SeedableRng as _, rngs::StdRng};
use sidescale::clock::{Instant, Now, Timestamp};
use sidescale::leader::machine::{Action, Answer, Beacon, Event, Machine};
use sidescale::leader::{Part, Record, Timings};

/// The API server: a Lease that is replaced only at the version that was read.
struct Lease {
    record: Record,
    version: u32,
}

impl Lease {
    fn answer(&mut self, action: Action) -> Answer {
        match action {
            Action::Get => {
                let (record, version) = (self.record.clone(), self.version.to_string());
                Answer::Found { record, version }
            }
            Action::Put { record, version } if version == self.version.to_string() => {
                self.version += 1;
                self.record = record;
                let version = self.version.to_string();
                Answer::Written { version }
            }
            Action::Put { .. } | Action::Create(_) => Answer::Conflict,
        }
    }
}

/// Tells `machine` what happened, and answers what it then asks for.
fn give(machine: &mut Machine, event: Event, now: Now, rng: &mut StdRng, lease: &mut Lease) {
    machine.handle(event, now, rng);
    while let Some(action) = machine.poll_action() {
        let answer = lease.answer(action);
        machine.handle(Event::Answer(answer), now, rng);
    }
}

fn main() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut lease = Lease {
        record: Record::default(),
        version: 1,
    };
    let mut fleet = ["ann", "bob", "cai"]
        .map(|name| {
            (
                name,
                Machine::new(
                    name.to_owned(),
                    Part::Sidecar,
                    Timings::default(),
                    Instant::default(),
                ),
            )
        })
        .into_iter()
        .collect::<Vec<_>>();
    let mut leader = String::new();
    for millis in (0..40_000).step_by(10) {
        let now = Now::at(Timestamp::default(), Duration::from_millis(millis));
        for (_name, machine) in &mut fleet {
            give(machine, Event::Tick, now, &mut rng, &mut lease);
        }
        let leads = |machine: &Machine| machine.leadership().valid_claim(now.instant).cloned();
        let claim = fleet.iter().find_map(|(_name, machine)| leads(machine));
        let holder = claim
            .as_ref()
            .map_or("nobody", |claim| &claim.holder)
            .to_owned();
        if leader != holder {
            println!(
                "{:6.2} s  {holder} leads",
                now.instant.offset().as_secs_f64()
            );
            leader = holder;
        }
        // Once a second the leader tells the others, over the member channel.
        if let Some(claim) = claim.filter(|_claim| millis % 1_000 == 0) {
            let beacon = Event::Beacon(Beacon {
                holder: claim.holder,
                term: claim.after_term + 1,
                renewed: claim.renewed,
                members: 3,
                standby: true,
                defers: false,
            });
            for (_name, machine) in &mut fleet {
                give(machine, beacon.clone(), now, &mut rng, &mut lease);
            }
        }
        if millis == 9_500 {
            fleet.retain(|(name, _machine)| *name != leader);
            println!("  9.50 s  {leader} is killed");
        }
    }
}
