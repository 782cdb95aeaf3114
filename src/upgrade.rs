//! Gives running pods a new sidecar without restarting their model servers.
//!
//! A model takes minutes to load, and a rollout loads it again in every pod. The image of a container can be changed in a
//! pod that runs, and then the kubelet starts that one container anew. So, pod by pod: drained and unready, the sidecar's
//! image patched, ready again; the leader's pod last, as its end is a handover.
//!
//! The first pod shows whether the image is any good; if not, it gets its old one back and nothing else was touched. Then
//! the Deployment's template follows, so that new pods have the new sidecar, and without a rollout: while the Deployment is
//! paused its ReplicaSet gets the same template, which makes it the newest one by the controller's own rule (equal
//! templates). All of it is done with the rights of whoever runs it.

mod fleet;
mod template;

use std::time::Duration;

use kube::Client;

use self::fleet::{Fleet, Member};
use crate::clock::Clock;

/// A new sidecar for the pods of one Deployment.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The Deployment.
    pub target: String,
    /// The new image.
    pub image: String,
    /// How long a pod may take to drain, and then to be ready again.
    pub patience: Duration,
    /// Also where there is one pod alone, whose requests fail meanwhile.
    pub alone: bool,
}

/// Why it ended early. What was done until then stays, and another try goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request, or did not answer.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: String,
        /// The server's words.
        #[source]
        source: kube::Error,
    },
    /// Pods come and go already.
    #[error(
        "{target} is not settled: {why} (wait for its rollout: kubectl rollout status {target})"
    )]
    Unsettled {
        /// `deployment/bert`.
        target: String,
        /// What is under way.
        why: String,
    },
    /// There is nobody to take the requests.
    #[error(
        "{0} has one pod, whose requests would fail while its sidecar is changed (give it a second one first, or say --alone)"
    )]
    Alone(String),
    /// A pod that has no sidecar.
    #[error("pod {0} has no container called sidescale (was it injected?)")]
    NoSidecar(String),
    /// A pod did not get ready with the new image and has its old one again.
    #[error("pod {pod} was not ready with {image} within {patience:?} and has {old} again: {why}")]
    NotReady {
        /// The pod.
        pod: String,
        /// The new image.
        image: String,
        /// The old image.
        old: String,
        /// How long it was given.
        patience: Duration,
        /// What it said last.
        why: String,
    },
    /// A pod did not drain.
    #[error(
        "pod {pod} has not drained within {patience:?} (let its requests end, or give it longer: --patience)"
    )]
    NotDrained {
        /// The pod.
        pod: String,
        /// How long it was given.
        patience: Duration,
    },
}

// === impl Upgrade ===

impl Upgrade {
    /// Does it, and says each step to `say`.
    pub async fn run(
        &self,
        client: Client,
        namespace: &str,
        clock: &Clock,
        mut say: impl FnMut(String),
    ) -> Result<(), Error> {
        let fleet = Fleet::new(client, namespace, &self.target);
        fleet.check_settled().await?;
        let pods = fleet.members().await?;
        if pods.len() == 1 && !self.alone {
            return Err(Error::Alone(fleet.place()));
        }
        let mut is_template_done = false;
        // Listed again each time: a leader may scale meanwhile.
        while let Some(member) = self.next(&fleet).await? {
            let took = self.change(&fleet, &member, clock).await?;
            say(format!(
                "pod {}: a new sidecar is ready after {:.1} s",
                member.name,
                took.as_secs_f64()
            ));
            if !is_template_done {
                self.follow(&fleet, &mut say).await?;
                is_template_done = true;
            }
        }
        if !is_template_done {
            self.follow(&fleet, &mut say).await?;
        }
        Ok(())
    }

    async fn follow(&self, fleet: &Fleet, say: &mut impl FnMut(String)) -> Result<(), Error> {
        if template::follow(fleet, &self.image).await? {
            say(format!(
                "{}: its template has {}, without a rollout; write it into its manifest, too",
                fleet.place(),
                self.image
            ));
        }
        Ok(())
    }

    /// A pod with another image; the leader's when there is no other.
    async fn next(&self, fleet: &Fleet) -> Result<Option<Member>, Error> {
        let leader = fleet.leader().await?;
        let mut old = fleet.members().await?;
        old.retain(|member| member.image != self.image);
        old.sort_by_key(|member| leader.as_ref() == Some(&member.name));
        Ok(old.into_iter().next())
    }

    async fn change(
        &self,
        fleet: &Fleet,
        member: &Member,
        clock: &Clock,
    ) -> Result<Duration, Error> {
        fleet.others_are_ready(member, self.patience, clock).await?;
        let drained = fleet.drain(member);
        match clock.timeout(self.patience, drained).await {
            Ok(drained) => drained?,
            Err(_elapsed) => {
                return Err(Error::NotDrained {
                    pod: member.name.clone(),
                    patience: self.patience,
                });
            }
        }
        let began = clock.instant();
        fleet.set_image(member, &self.image).await?;
        let ready = fleet.ready_again(member, self.patience, clock).await?;
        let Err(why) = ready else {
            return Ok(clock.instant().since(began));
        };
        fleet.set_image(member, &member.image).await?;
        Err(Error::NotReady {
            pod: member.name.clone(),
            image: self.image.clone(),
            old: member.image.clone(),
            patience: self.patience,
            why,
        })
    }
}
