//! The template of a Deployment gets another image of the sidecar, and no pod is replaced for it.

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Error;
use super::fleet::Fleet;
use crate::fleet::sidecar;

/// Sets the image in the Deployment's template and in that of its ReplicaSet, while nobody compares them; `false`: it was
/// there already.
pub(super) async fn follow(fleet: &Fleet, image: &str) -> Result<bool, Error> {
    let deployment = fleet.deployment().await?;
    let pod = deployment
        .spec
        .clone()
        .unwrap_or_default()
        .template
        .spec
        .unwrap_or_default();
    let Some((list, container)) = sidecar::container(&pod) else {
        return Err(Error::NoSidecar(format!("template of {}", fleet.place())));
    };
    let old = container.image.as_deref().unwrap_or_default();
    if old == image {
        return Ok(false);
    }
    let newest = fleet.newest(&deployment).await?;
    let (name, set) = (deployment.name_any(), newest.name_any());
    let template =
        json!({"spec": {"template": {"spec": {list: [{"name": sidecar::NAME, "image": image}]}}}});
    let params = PatchParams::default();
    let deployments = fleet.deployments();
    let change = async |patch: &Value| {
        let patched = deployments
            .patch(&name, &params, &Patch::Strategic(patch))
            .await;
        patched
            .map(drop)
            .map_err(|source| fleet.failed("change the template of", source))
    };
    // One change of the Deployment and its ReplicaSet cannot be had, and whichever came first would look like a rollout.
    change(&json!({"spec": {"paused": true}})).await?;
    let followed = async {
        change(&template).await?;
        let patched = fleet
            .replica_sets()
            .patch(&set, &params, &Patch::Strategic(&template))
            .await;
        patched
            .map(drop)
            .map_err(|source| fleet.failed("change the ReplicaSet of", source))
    };
    let followed = followed.await;
    if followed.is_err() {
        // Released as it is, half of it would be a rollout.
        let back = json!({"spec": {"template": {"spec": {list: [{"name": sidecar::NAME, "image": old}]}}}});
        change(&back).await?;
    }
    change(&json!({"spec": {"paused": null}})).await?;
    followed.map(|()| true)
}
