//! Who follows a leader: told to everybody once a turn, and named at the goodbye.

use tracing::info;

use super::{Farewell, Throne};
use crate::clock::Now;
use crate::fleet::Snapshot;
use crate::leader::Part;
use crate::leader::preference::Candidate;

/// How many processes watch the Lease beside the leader: one may go with the leader's node.
const STANDBYS: usize = 2;

// === impl Throne ===

impl Throne {
    /// Keeps the channels to members and leads, tells them who lives and who should watch the Lease, and looks whether somebody
    /// else should lead.
    pub(super) fn follow_and_tell(&mut self, snapshot: &Snapshot, now: Now) {
        let leads = self.gathered.leads(now);
        let me = &self.reign.shared.config.pod.name;
        // A leader hears its own load by its own channel; a lead has none.
        let others = leads.iter().filter(|lead| lead.name != *me);
        self.channels.follow(snapshot.pods.iter().chain(others));
        let mut heirs = self.heirs(snapshot, now);
        let heir = self
            .preference
            .heir(self.reign.shared.config.part, &heirs, now.instant);
        self.heir = heir.map(str::to_owned);
        heirs.truncate(STANDBYS);
        let is_lead = |heir: &&Candidate| heir.part == Part::Lead;
        let leads = heirs.iter().take_while(is_lead).count();
        let standbys: Vec<String> = heirs.into_iter().map(|heir| heir.identity).collect();
        let members = u32::try_from(snapshot.pods.len()).unwrap_or(u32::MAX);
        self.beacon.send_if_modified(|beacon| {
            let changed =
                beacon.standbys != standbys || beacon.members != members || beacon.leads != leads;
            beacon.standbys = standbys;
            beacon.members = members;
            beacon.leads = leads;
            changed
        });
    }

    fn heirs(&mut self, snapshot: &Snapshot, now: Now) -> Vec<Candidate> {
        let leads = self.gathered.leads(now);
        let me = &self.reign.shared.identity;
        self.gathered.succession(snapshot, &leads, me)
    }

    /// Saves, gives the Lease up, and tells everybody who may take it at once.
    pub(super) async fn abdicate(mut self, farewell: Farewell) {
        self.save_at_last().await;
        let now = self.reign.shared.clock.now();
        let snapshot = self
            .gathered
            .view
            .snapshot(now, self.gathered.deployment.spec_replicas);
        let heirs = self.heirs(&snapshot, now).into_iter();
        let mut heirs = heirs.map(|heir| heir.identity);
        let successor = match farewell {
            // Not any lead: the one that has been there for a while.
            Farewell::Yield => self.heir.or_else(|| heirs.next()),
            Farewell::ForGood => heirs.next(),
        };
        let candidacy = &self.reign.candidacy;
        match farewell {
            Farewell::Yield => candidacy.yield_lease().await,
            Farewell::ForGood => candidacy.release().await,
        }
        info!(successor, "reign handed over");
        self.channels.goodbye(successor).await;
    }
}
