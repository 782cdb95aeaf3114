//! The Deployment: read, stamped with the leader's term, and scaled; nothing else is ever written to it. Where it is wanted,
//! [`Costs`] marks the pods that go.
//!
//! A Lease does not fence: its version and the Deployment's are unrelated, and a patch of a deposed leader may still lie
//! in a socket when the next one has taken over. So a new leader first stamps its term on the Deployment, and only then
//! reads what it decides on. Every scale patch names the uid and the resourceVersion of a Deployment that carries the
//! writer's own stamp. The stamp of the next leader moves that version, so whatever an older leader still has under way
//! is refused with 409. [`fence`] holds these rules without input or output, and the simulation runs them; [`Scaler`]
//! carries them out.

mod announcer;
mod costs;
mod error;
pub mod fence;
mod owner;
mod scaler;
pub(crate) mod view;

pub use announcer::{Announcement, Announcer};
pub use costs::Costs;
pub use error::ScaleError;
pub use owner::{NoOwner, Owner, owner_of_pod};
pub use scaler::{Scaled, Scaler, Stamp};
pub use view::{BadDeployment, DeploymentView};
