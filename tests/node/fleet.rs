//! Who leads a fleet, and whether all of it is known to whoever does.

use k8s_openapi::api::coordination::v1::Lease;

use crate::cluster::{Cluster, SOON};
use crate::doors::Door;
use crate::manifests::TARGET;
use crate::wait::eventually;

/// A term of a leader: it holds the Lease and has stamped the Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reign {
    pub(crate) pod: String,
    /// The process within the pod is part of who it is.
    pub(crate) holder: String,
    pub(crate) term: u64,
}

/// Who leads now, or why nobody does.
pub(crate) async fn reign(cluster: &Cluster) -> Result<Reign, String> {
    let leases = cluster.api::<Lease>();
    let lease = leases.get(&format!("sidescale-{TARGET}")).await;
    let spec = lease.map_err(|error| error.to_string())?.spec;
    let holder = spec.and_then(|spec| spec.holder_identity);
    let holder = holder.unwrap_or_default();
    let Some((pod, _process)) = holder.split_once('_') else {
        return Err(format!("the Lease is held by `{holder}`"));
    };
    let annotations = cluster.deployment(TARGET).await.metadata.annotations;
    let stamp = annotations.unwrap_or_default();
    let stamp = stamp.get("sidescale.dev/term");
    let term = stamp.and_then(|stamp| stamp.parse().ok());
    let Some(term) = term else {
        return Err(format!("{pod} has not stamped the Deployment: {stamp:?}"));
    };
    Ok(Reign {
        pod: pod.to_owned(),
        holder,
        term,
    })
}

/// Waits until all of these pods report to one leader, and each of them knows its term: then two of them watch the Lease.
pub(crate) async fn settled(cluster: &Cluster, doors: &[Door]) -> Reign {
    eventually("all report to one leader", SOON, async || {
        let reign = reign(cluster).await?;
        let leads = doors.iter().find(|door| door.pod == reign.pod);
        let leads = leads.ok_or_else(|| format!("{reign:?} is none of {doors:?}"))?;
        let plan = leads.plan().await?;
        let of = |what: &str| plan["replicas"][what].as_u64();
        if of("ready") != u64::try_from(doors.len()).ok() || of("unknown") != Some(0) {
            return Err(plan["replicas"].to_string());
        }
        for door in doors {
            let knows = door.metric("sidescale_term").await?;
            if knows != Some(reign.term as f64) {
                return Err(format!("{} knows of {knows:?}, not of {reign:?}", door.pod));
            }
        }
        Ok(reign)
    })
    .await
}
