//! What the leader gathers: the pods and the Deployment by their watches, the members by their channels.

use std::collections::BTreeMap;

use super::turns::Turns;
use crate::app::shared::identity;
use crate::clock::{Instant, Now};
use crate::fleet::channel::{MemberLine, Said};
use crate::fleet::view::View;
use crate::fleet::watch::{Event, Pods};
use crate::fleet::{Member, Reading, Snapshot};
use crate::report::Past;
use crate::scale::DeploymentView;

/// What is known of the fleet right now.
pub(super) struct Gathered {
    pub(super) view: View,
    pub(super) deployment: DeploymentView,
    /// The process behind each pod's reports, which its identity in the election is made of.
    epochs: BTreeMap<String, u64>,
}

// === impl Gathered ===

impl Gathered {
    pub(super) fn new(deployment: DeploymentView) -> Self {
        Self {
            view: View::default(),
            deployment,
            epochs: BTreeMap::new(),
        }
    }

    pub(super) fn watched(&mut self, event: Event, now: Now) {
        match event {
            Event::Pods(pods) => {
                if let Pods::Deleted(pod) = &pods
                    && let Some(name) = &pod.metadata.name
                {
                    self.epochs.remove(name);
                }
                self.view.watched(&pods, now);
            }
            Event::Deployment(object) => match DeploymentView::from_object(&object) {
                Ok(view) => self.deployment = view,
                Err(error) => tracing::warn!(%error, "the deployment cannot be read"),
            },
            // What was seen last stands until it is back; a write to a deleted one is refused by its uid.
            Event::Leads(_) | Event::DeploymentDeleted | Event::Lost(_) => {}
        }
    }

    /// Takes a member's line in; gives its past, where that was sent. An overrun is news for `turns`.
    pub(super) fn heard(
        &mut self,
        line: MemberLine,
        now: Instant,
        turns: &mut Turns,
    ) -> Option<Past> {
        let pod = line.pod;
        match line.said {
            Said::Report(report) => {
                self.epochs.insert(pod.clone(), report.epoch);
                self.view.reported(&pod, &report, now);
            }
            Said::Overrun(report) => {
                self.view.reported(&pod, &report, now);
                turns.news();
            }
            Said::Past(past) => return Some(past),
            Said::Foreign { .. } => self.view.foreign(&pod),
            Said::Ended => self.view.ended(&pod),
        }
        None
    }

    /// The identities of those who may follow this leader, the oldest ready member first.
    pub(super) fn successors(&self, snapshot: &Snapshot, me: &str, most: usize) -> Vec<String> {
        let mut able: Vec<_> = snapshot
            .pods
            .iter()
            .filter(|pod| pod.is_capacity())
            .filter(|pod| {
                matches!(
                    pod.member,
                    Member::Reporting(Reading {
                        draining: false,
                        ..
                    })
                )
            })
            .filter_map(|pod| {
                Some((
                    pod.created,
                    identity(&pod.name, *self.epochs.get(&pod.name)?),
                ))
            })
            .filter(|(_, identity)| identity != me)
            .collect();
        able.sort();
        able.into_iter()
            .take(most)
            .map(|(_, identity)| identity)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::Report;

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
}
