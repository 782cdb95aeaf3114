//! Carries the fence out against an API server.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::sync::watch;

use super::fence::{self, Refusal, Term};
use super::{DeploymentView, ScaleError};
use crate::api::{FIELD_MANAGER, Fault, Kind, Object, rule};
use crate::clock::Clock;
use crate::leader::Leadership;

/// The longest wait for one answer. Half of a renew deadline: a turn that waits longer decides on what has been.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a stamp is tried again when the Deployment changed between its read and its patch.
///
/// In a ramp the version moves as often as pods turn ready, some times a second at worst, and a try takes milliseconds:
/// ten in a row mean that something writes in a loop, which the caller should say rather than join.
const STAMP_ATTEMPTS: u32 = 10;

/// Reads, stamps and scales one Deployment. Owned by the one loop that decides.
pub struct Scaler {
    api: Api<Deployment>,
    name: String,
    object: Object,
    clock: Clock,
    leadership: watch::Receiver<Leadership>,
    term: Option<Term>,
}

/// A term is on the Deployment, and this is the Deployment right after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The term of this reign.
    pub term: u64,
    /// The first thing that may be decided on.
    pub view: DeploymentView,
}

/// How a wish for replicas ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaled {
    /// They were so many already. Nothing was sent: an equal value can erase who owns the field.
    Unchanged,
    /// Accepted.
    Changed {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
        /// The Deployment's version now.
        resource_version: String,
    },
}

// === impl Scaler ===

impl Scaler {
    /// The Deployment `namespace/name`, written only under a claim that `leadership` shows at the moment of writing. The
    /// client must not retry by itself: see [`crate::leader::without_retries`].
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        clock: Clock,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            object: Object::new(namespace, name, rules(name), clock.clone(), REQUEST_TIMEOUT),
            clock,
            leadership,
            term: None,
        }
    }

    /// The term that this process has stamped in its present reign.
    pub fn term(&self) -> Option<u64> {
        let leadership = self.leadership.borrow();
        let claim = leadership.claim()?;
        let term = self.term.as_ref()?;
        (term.token == claim.token).then_some(term.number)
    }

    /// Reads the Deployment.
    pub async fn read(&self) -> Result<DeploymentView, ScaleError> {
        let request = self.api.get(&self.name);
        let object = self.object.ask("get", "deployments", request).await;
        self.view(&object.map_err(|fault| self.error(fault, None))?)
    }

    /// Stamps the term of the present claim on the Deployment, once per reign: further calls read, and stamp again only
    /// where the stamp was lost. Then tell the election ([`crate::leader::Candidacy::stamped`]).
    pub async fn stamp(&mut self) -> Result<Stamp, ScaleError> {
        let mut attempts = 0;
        loop {
            let view = self.read().await?;
            let Some(term) = self.next_term(&view)? else {
                return Ok(Stamp {
                    term: view.stamp,
                    view,
                });
            };
            attempts += 1;
            match self.write_stamp(&term, &view).await {
                Ok(view) => {
                    let number = term.number;
                    self.term = Some(term);
                    return Ok(Stamp { term: number, view });
                }
                // Read and decide again: the one who wrote may be a newer leader.
                Err(ScaleError::Conflict { .. }) if attempts < STAMP_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for `desired` replicas of exactly the Deployment that `view` shows.
    pub async fn set_replicas(
        &self,
        view: &DeploymentView,
        desired: u32,
    ) -> Result<Scaled, ScaleError> {
        let refused = |source| ScaleError::Refused {
            name: self.name.clone(),
            source,
        };
        let held = self.term.as_ref().ok_or_else(|| {
            let stamp = view.stamp;
            refused(Refusal::Unstamped { stamp, term: 0 })
        })?;
        let patch = Patch::Merge(fence::scale_patch(view, desired));
        let params = PatchParams::apply(FIELD_MANAGER);
        // The last thing before the request goes out.
        let now = self.clock.instant();
        fence::may_scale(self.leadership.borrow().claim(), held, view, now).map_err(refused)?;
        if view.spec_replicas == desired {
            return Ok(Scaled::Unchanged);
        }
        let request = self.api.patch_scale(&self.name, &params, &patch);
        let scale = self.object.ask("patch", "deployments/scale", request).await;
        let scale = scale.map_err(|fault| self.error(fault, Some(view)))?;
        Ok(Scaled::Changed {
            from: view.spec_replicas,
            to: desired,
            resource_version: scale.metadata.resource_version.unwrap_or_default(),
        })
    }

    fn next_term(&self, view: &DeploymentView) -> Result<Option<Term>, ScaleError> {
        let leadership = self.leadership.borrow();
        let next = match leadership.claim() {
            Some(claim) => fence::next_term(claim, self.term.as_ref(), view, self.clock.instant()),
            None => Err(Refusal::NotLeading),
        };
        next.map_err(|source| ScaleError::Refused {
            name: self.name.clone(),
            source,
        })
    }

    async fn write_stamp(
        &self,
        term: &Term,
        view: &DeploymentView,
    ) -> Result<DeploymentView, ScaleError> {
        let patch = Patch::Merge(fence::stamp_patch(term, view));
        let params = PatchParams::apply(FIELD_MANAGER);
        let request = self.api.patch_status(&self.name, &params, &patch);
        let object = self
            .object
            .ask("patch", "deployments/status", request)
            .await;
        self.view(&object.map_err(|fault| self.error(fault, Some(view)))?)
    }

    fn view(&self, object: &Deployment) -> Result<DeploymentView, ScaleError> {
        DeploymentView::from_object(object).map_err(|source| ScaleError::Bad {
            name: self.name.clone(),
            source,
        })
    }

    /// `view`: what a write was decided on.
    fn error(&self, fault: Fault, view: Option<&DeploymentView>) -> ScaleError {
        match (&fault.kind, view) {
            (Kind::Conflict, Some(view)) => ScaleError::Conflict {
                name: self.name.clone(),
                resource_version: view.resource_version.clone(),
            },
            (Kind::Missing, _) => ScaleError::Missing {
                deployment: fault.object,
            },
            _ => ScaleError::Api(fault),
        }
    }
}

impl fmt::Debug for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scaler")
            .field("object", &self.object)
            .field("term", &self.term)
            .finish_non_exhaustive()
    }
}

/// The rules that the Role needs for the Deployment `name`, as YAML.
fn rules(name: &str) -> String {
    let read = rule("apps", &["deployments"], &[name], &["get", "list", "watch"]);
    let written = ["deployments/status", "deployments/scale"];
    format!("{read}\n{}", rule("apps", &written, &[name], &["patch"]))
}
