//! What the leader gathers: the pods and the Deployment by their watches, members and leads by their channels.

use std::collections::BTreeMap;

use super::turns::Turns;
use crate::app::shared::identity;
use crate::clock::{Instant, Now};
use crate::fleet::channel::{MemberLine, Said};
use crate::fleet::view::View;
use crate::fleet::watch::{Event, Pods};
use crate::fleet::{Member, Pod, Snapshot};
use crate::leader::Part;
use crate::leader::preference::{Candidate, succession};
use crate::report::Past;
use crate::scale::DeploymentView;

/// What is known of the fleet right now.
pub(super) struct Gathered {
    pub(super) view: View,
    /// The pods of `sidescale lead`: no capacity, and nobody misses what they do not carry.
    leads: View,
    pub(super) deployment: DeploymentView,
    /// The process behind each pod's reports, which its identity in the election is made of.
    epochs: BTreeMap<String, u64>,
}

// === impl Gathered ===

impl Gathered {
    pub(super) fn new(deployment: DeploymentView) -> Self {
        Self {
            view: View::default(),
            leads: View::default(),
            deployment,
            epochs: BTreeMap::new(),
        }
    }

    pub(super) fn watched(&mut self, event: Event, now: Now) {
        match event {
            Event::Pods(pods) => {
                self.forget(&pods);
                self.view.watched(&pods, now);
            }
            Event::Leads(pods) => {
                self.forget(&pods);
                self.leads.watched(&pods, now);
            }
            Event::Deployment(object) => match DeploymentView::from_object(&object) {
                Ok(view) => self.deployment = view,
                Err(error) => tracing::warn!(%error, "the deployment cannot be read"),
            },
            // What was seen last stands until it is back; a write to a deleted one is refused by its uid.
            Event::DeploymentDeleted | Event::Lost(_) => {}
        }
    }

    fn forget(&mut self, pods: &Pods) {
        if let Pods::Deleted(pod) = pods
            && let Some(name) = &pod.metadata.name
        {
            self.epochs.remove(name);
        }
    }

    /// The leads' pods, as they are now.
    pub(super) fn leads(&mut self, now: Now) -> Vec<Pod> {
        self.leads.snapshot(now, 0).pods
    }

    /// Takes a line in; gives a member's past, where that was sent. A member's overrun is news for `turns`. Of a lead only the
    /// sign of life counts.
    pub(super) fn heard(
        &mut self,
        line: MemberLine,
        now: Instant,
        turns: &mut Turns,
    ) -> Option<Past> {
        let pod = line.pod;
        let is_lead = self.leads.knows(&pod);
        let view = if is_lead {
            &mut self.leads
        } else {
            &mut self.view
        };
        match line.said {
            Said::Report(report) => {
                view.reported(&pod, &report, now);
                self.epochs.insert(pod, report.epoch);
            }
            Said::Overrun(report) => {
                view.reported(&pod, &report, now);
                turns.news();
            }
            Said::Past(past) => return (!is_lead).then_some(past),
            Said::Foreign { .. } => view.foreign(&pod),
            Said::Ended => view.ended(&pod),
        }
        None
    }

    /// Those who may follow this leader, `me`, in their order.
    pub(super) fn succession(
        &self,
        snapshot: &Snapshot,
        leads: &[Pod],
        me: &str,
    ) -> Vec<Candidate> {
        let sidecars = snapshot
            .pods
            .iter()
            .filter_map(|pod| self.candidate(pod, Part::Sidecar));
        let leads = leads
            .iter()
            .filter_map(|pod| self.candidate(pod, Part::Lead));
        let able = leads.chain(sidecars).filter(|able| able.identity != me);
        succession(able.collect())
    }

    /// A pod's process, if it can lead by its own word and by Kubernetes'.
    fn candidate(&self, pod: &Pod, part: Part) -> Option<Candidate> {
        let Member::Reporting(reading) = pod.member else {
            return None;
        };
        // A sidecar leads as well while its server loads; a lead has nothing else to be ready for.
        let is_able =
            pod.is_capacity() && !reading.follows && (reading.ready || part != Part::Lead);
        let epoch = *self.epochs.get(&pod.name)?;
        is_able.then(|| Candidate {
            identity: identity(&pod.name, epoch),
            part,
            since: pod.created,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1 as core;

    use super::*;
    use crate::clock::Timestamp;
    use crate::report::{Report, WIRE_VERSION};

    #[test]
    fn an_overrun_is_news_and_a_report_in_time_is_none() {
        let now = Instant::from_offset(Duration::from_secs(10));
        let mut gathered = Gathered::new(DeploymentView::default());
        let mut next_after = |said| {
            let mut turns = Turns::starting(now);
            turns.begin(now);
            let line = MemberLine {
                pod: "llm-0".to_owned(),
                said,
            };
            assert_eq!(gathered.heard(line, now, &mut turns), None);
            turns.next().since(now)
        };
        let in_time = next_after(Said::Report(Report::default()));
        let ahead_of_time = next_after(Said::Overrun(Report::default()));
        assert!(ahead_of_time < in_time, "{ahead_of_time:?}, {in_time:?}");
    }

    fn pod(name: &str) -> core::Pod {
        let pod = serde_json::json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn report(epoch: u64) -> Report {
        Report {
            v: WIRE_VERSION,
            epoch,
            ready: true,
            ..Report::default()
        }
    }

    #[test]
    fn a_lead_may_follow_first_and_is_no_member() {
        let now = Now::at(Timestamp::from_secs(1_800_000_000), Duration::from_secs(10));
        let mut gathered = Gathered::new(DeploymentView::default());
        let members = vec![pod("llm-0"), pod("llm-1"), pod("llm-2"), pod("llm-3")];
        gathered.watched(Event::Pods(Pods::Listed(members)), now);
        let leads = vec![pod("lead-0"), pod("lead-1"), pod("lead-2")];
        gathered.watched(Event::Leads(Pods::Listed(leads)), now);
        let mut say = |pod: &str, said| {
            let line = MemberLine {
                pod: pod.to_owned(),
                said,
            };
            gathered.heard(line, now.instant, &mut Turns::starting(now.instant))
        };
        say("llm-0", Said::Report(report(1)));
        let follows = Report {
            follows: true,
            ..report(2)
        };
        say("llm-1", Said::Report(follows));
        say("llm-2", Said::Report(report(3)));
        say("lead-0", Said::Report(report(4)));
        // Alive, and by its own word not fit to lead.
        let unfit = Report {
            ready: false,
            ..report(5)
        };
        say("lead-1", Said::Report(unfit));
        // Nobody asked a lead for a past, and what it says is none of the fleet's.
        assert_eq!(say("lead-0", Said::Past(Past::default())), None);
        assert!(say("llm-0", Said::Past(Past::default())).is_some());
        let snapshot = gathered.view.snapshot(now, 4);
        assert_eq!((snapshot.ready(), snapshot.unknown()), (4, 1));
        assert!(snapshot.pods.iter().all(|pod| pod.name.starts_with("llm")));
        let leads = gathered.leads(now);
        let order = gathered.succession(&snapshot, &leads, &identity("llm-2", 3));
        let order: Vec<_> = order
            .into_iter()
            .map(|one| (one.identity, one.part))
            .collect();
        let expected = [
            (identity("lead-0", 4), Part::Lead),
            (identity("llm-0", 1), Part::Sidecar),
        ];
        assert_eq!(order, expected);
        // A lead that is gone is named no more.
        gathered.watched(Event::Leads(Pods::Deleted(Box::new(pod("lead-0")))), now);
        let leads = gathered.leads(now);
        assert_eq!(gathered.succession(&snapshot, &leads, "").len(), 2);
    }
}
