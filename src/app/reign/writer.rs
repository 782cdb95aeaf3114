//! The leader's writes to the Deployment, and the Events that tell of them.

use tokio::sync::mpsc;

use super::Reign;
use crate::causes::chain;
use crate::controller::Turn;
use crate::lifecycle::TasksHandle;
use crate::plan::Plan;
use crate::scale::{Announcement, Announcer, DeploymentView, ScaleError, Scaled, Scaler};

/// Events that wait to be written. One is written in milliseconds; when the API server is away the oldest are of least
/// use, and those beyond the bound are dropped: the log has them.
const ANNOUNCEMENTS: usize = 16;

/// Writes through the fence.
pub(super) struct Writer {
    scaler: Scaler,
    announcements: mpsc::Sender<(DeploymentView, Announcement)>,
    candidacy: crate::leader::Candidacy,
    /// What `observe` said last, so that the same wish is one Event.
    wished: Option<(u32, u32)>,
}

/// How a reign begins.
pub(super) struct Begun {
    /// Its number.
    pub(super) term: u64,
    /// The Deployment, as it is.
    pub(super) view: DeploymentView,
    /// No leader has ever stamped this Deployment: there is no history that could be missing.
    pub(super) is_first: bool,
    /// The stamp was refused, in these words: the reign measures and shows, and writes nothing.
    pub(super) refused: Option<String>,
}

/// How a write ended.
pub(super) enum Written {
    /// The Deployment has this version now.
    Scaled(String),
    /// It had moved on; this is what it is now.
    Moved(Box<DeploymentView>),
    /// A newer leader has stamped it.
    Deposed,
    /// Not before somebody grants the right.
    Forbidden(String),
    /// Not now, for this reason.
    Failed(String),
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(reign: &Reign, tasks: &TasksHandle) -> Self {
        let connection = &reign.connection;
        let clock = &reign.shared.clock;
        let leadership = reign.candidacy.leadership();
        let (client, namespace) = (connection.client.clone(), &connection.namespace);
        let scaler = Scaler::new(
            client.clone(),
            namespace,
            &reign.target,
            clock.clone(),
            leadership,
        );
        let (announcements, waiting) = mpsc::channel(ANNOUNCEMENTS);
        let announcer = Announcer::new(client, &reign.shared.identity, clock.clone());
        tasks.spawn(announce(announcer, waiting));
        Self {
            scaler,
            announcements,
            candidacy: reign.candidacy.clone(),
            wished: None,
        }
    }

    /// The reign's term, and the Deployment as it is. Only a reign that may scale stamps it: `observe` writes nothing.
    pub(super) async fn begin(&mut self, acts: bool) -> Result<Begun, ScaleError> {
        let view = self.scaler.read().await?;
        let is_first = view.stamp == 0;
        let stamped = if acts {
            self.stamp().await.map(Some)
        } else {
            Ok(None)
        };
        let refused = match stamped {
            Ok(Some((term, view))) => {
                return Ok(Begun {
                    term,
                    view,
                    is_first,
                    refused: None,
                });
            }
            Ok(None) => None,
            // Without its stamp it can write nothing. It can measure, and say on page, API and Deployment what is missing.
            Err(error) if error.is_forbidden() => {
                self.refused(&view, "StampForbidden", &error);
                Some(chain(&error))
            }
            Err(error) => return Err(error),
        };
        Ok(Begun {
            term: self.unstamped_term(&view),
            view,
            is_first,
            refused,
        })
    }

    /// The number of a reign that does not stamp: what its channels are told.
    fn unstamped_term(&self, view: &DeploymentView) -> u64 {
        let leadership = self.candidacy.leadership();
        let after = leadership
            .borrow()
            .claim()
            .map_or(0, |claim| claim.after_term);
        after.max(view.stamp) + 1
    }

    /// Asks for the plan's replicas, of exactly the Deployment it was made for.
    pub(super) async fn scale(&mut self, view: &DeploymentView, turn: &Turn) -> Written {
        match self.scaler.set_replicas(view, turn.plan.desired).await {
            Ok(Scaled::Changed {
                from,
                to,
                resource_version,
            }) => {
                let why = words(&turn.plan);
                tracing::info!(from, to, why, "scaled");
                self.announce(view, Announcement::Scaled { from, to, why });
                Written::Scaled(resource_version)
            }
            Ok(Scaled::Unchanged) => Written::Scaled(view.resource_version.clone()),
            Err(ScaleError::Conflict { .. }) => match self.scaler.read().await {
                Ok(view) => Written::Moved(Box::new(view)),
                Err(error) => self.failed(view, &error),
            },
            // The mode was `observe` when the reign began; or the Deployment was made anew, or lost its annotation. A
            // stamp above this one's is another leader's, and no reason to stamp again.
            Err(error) if error.is_unstamped() => match self.stamp().await {
                Ok((_term, view)) => Written::Moved(Box::new(view)),
                Err(error) => self.failed(view, &error),
            },
            Err(error) => self.failed(view, &error),
        }
    }

    fn failed(&self, view: &DeploymentView, error: &ScaleError) -> Written {
        if error.is_deposed() {
            return Written::Deposed;
        }
        if error.is_forbidden() {
            self.refused(view, "ScaleForbidden", error);
            return Written::Forbidden(chain(error));
        }
        Written::Failed(chain(error))
    }

    fn refused(&self, view: &DeploymentView, reason: &str, error: &ScaleError) {
        self.trouble(view, reason, chain(error));
    }

    /// Tells of something that is wrong; what goes on is not said again for a while.
    pub(super) fn trouble(&self, view: &DeploymentView, reason: &str, note: String) {
        let reason = reason.to_owned();
        self.announce(view, Announcement::Trouble { reason, note });
    }

    /// What would have been asked for, in `observe`.
    pub(super) fn would_scale(&mut self, view: &DeploymentView, turn: &Turn) {
        let (from, to) = (view.spec_replicas, turn.plan.desired);
        if self.wished.replace((from, to)) != Some((from, to)) {
            let why = words(&turn.plan);
            self.announce(view, Announcement::WouldScale { from, to, why });
        }
    }

    async fn stamp(&mut self) -> Result<(u64, DeploymentView), ScaleError> {
        let stamp = self.scaler.stamp().await?;
        self.candidacy.stamped(stamp.term).await;
        self.announce(&stamp.view, Announcement::Leads { term: stamp.term });
        Ok((stamp.term, stamp.view))
    }

    fn announce(&self, view: &DeploymentView, announcement: Announcement) {
        if self
            .announcements
            .try_send((view.clone(), announcement))
            .is_err()
        {
            tracing::debug!("an Event was dropped: too many wait to be written");
        }
    }
}

/// A plan's reasons as one text.
fn words(plan: &Plan) -> String {
    let texts: Vec<&str> = plan
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect();
    texts.join("; ")
}

async fn announce(
    mut announcer: Announcer,
    mut waiting: mpsc::Receiver<(DeploymentView, Announcement)>,
) {
    while let Some((view, announcement)) = waiting.recv().await {
        announcer.announce(&view, &announcement).await;
    }
}
