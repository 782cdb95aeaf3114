//! A Deployment, as far as scaling it needs to know.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::leader::ANNOTATION_TERM;

/// A person's wish that nothing be written to the Deployment for now: `kubectl annotate deployment NAME
/// sidescale.dev/paused=true`, and `sidescale.dev/paused-` to go on.
const ANNOTATION_PAUSED: &str = "sidescale.dev/paused";

/// A Deployment at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another Deployment of the same name is another one.
    pub uid: String,
    /// Its version. It moves with every change, also of the status: each time a pod turns ready.
    pub resource_version: String,
    /// Moves with every change of the spec.
    pub generation: i64,
    /// The generation that the status speaks of; the status below may be older than the spec.
    pub observed_generation: i64,
    /// `spec.replicas`: what was last asked for, by whomever. Kubernetes' default is 1.
    pub spec_replicas: u32,
    /// Pods that exist.
    pub replicas: u32,
    /// Ready pods.
    pub ready_replicas: u32,
    /// Pods of the newest template; fewer than `replicas` while a rollout runs.
    pub updated_replicas: u32,
    /// Pods that are missing or not available.
    pub unavailable_replicas: u32,
    /// A person has annotated it `sidescale.dev/paused`. Nothing to do with `spec.paused`, which holds rollouts and lets
    /// the replicas change.
    pub paused: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The highest term that was stamped on it; zero: none.
    pub stamp: u64,
    /// Its pods' label selector, as a query (`app=bert,tier in (a,b)`).
    pub selector: String,
}

/// A Deployment that cannot be worked with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDeployment {
    /// The API server always sends these.
    #[error("deployment {name} came without metadata.{field}")]
    Incomplete {
        /// Its name.
        name: String,
        /// What is missing.
        field: &'static str,
    },
    /// Somebody wrote something else there: to overwrite it could break another leader's fence.
    #[error(
        "annotation {ANNOTATION_TERM} of deployment {name} is `{value}`, not a whole number (remove it: \
         `kubectl annotate deployment {name} {ANNOTATION_TERM}-`)"
    )]
    Stamp {
        /// The Deployment.
        name: String,
        /// The annotation's value.
        value: String,
    },
}

// === impl DeploymentView ===

impl DeploymentView {
    /// Reads what the API server sent.
    pub fn from_object(object: &Deployment) -> Result<Self, BadDeployment> {
        let metadata = &object.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let needed = |value: &Option<String>, field| {
            value.clone().ok_or_else(|| BadDeployment::Incomplete {
                name: name.clone(),
                field,
            })
        };
        let annotations = metadata.annotations.clone().unwrap_or_default();
        let stamp = match annotations.get(ANNOTATION_TERM) {
            None => 0,
            Some(value) => value
                .parse()
                .map_err(|_not_a_number| BadDeployment::Stamp {
                    name: name.clone(),
                    value: value.clone(),
                })?,
        };
        let spec = object.spec.as_ref();
        let status = object.status.clone().unwrap_or_default();
        Ok(Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            uid: needed(&metadata.uid, "uid")?,
            resource_version: needed(&metadata.resource_version, "resourceVersion")?,
            generation: metadata.generation.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
            spec_replicas: count(spec.and_then(|spec| spec.replicas).or(Some(1))),
            replicas: count(status.replicas),
            ready_replicas: count(status.ready_replicas),
            updated_replicas: count(status.updated_replicas),
            unavailable_replicas: count(status.unavailable_replicas),
            // Only the plain opposite is no pause: whoever wrote `yes` or nothing at all meant one.
            paused: annotations
                .get(ANNOTATION_PAUSED)
                .is_some_and(|value| value != "false"),
            deleting: metadata.deletion_timestamp.is_some(),
            stamp,
            selector: spec.map(|spec| query(&spec.selector)).unwrap_or_default(),
            name,
        })
    }

    /// Whether pods of two templates exist, or the controller has not yet looked at the newest spec.
    pub fn is_rolling_out(&self) -> bool {
        self.observed_generation < self.generation || self.updated_replicas < self.replicas
    }
}

fn count(value: Option<i32>) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or(0)
}

/// A label selector in the form that a list request takes.
pub(crate) fn query(selector: &LabelSelector) -> String {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"));
    let others = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|expression| {
            let (key, values) = (
                &expression.key,
                expression.values.clone().unwrap_or_default().join(","),
            );
            match expression.operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                // `Exists`: the API server admits no fifth.
                _ => key.clone(),
            }
        });
    equal.chain(others).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(value: serde_json::Value) -> Deployment {
        serde_json::from_value(value).expect("a Deployment")
    }

    #[test]
    fn a_deployment_is_read_with_its_stamp_counts_and_selector() {
        let object = deployment(json!({
            "metadata": {
                "name": "bert", "namespace": "ml", "uid": "u", "resourceVersion": "41", "generation": 3,
                "annotations": {"sidescale.dev/term": "7", "sidescale.dev/paused": "true", "team": "search"},
            },
            "spec": {
                "replicas": 4, "template": {},
                "selector": {
                    "matchLabels": {"app": "bert"},
                    "matchExpressions": [
                        {"key": "tier", "operator": "In", "values": ["a", "b"]},
                        {"key": "canary", "operator": "DoesNotExist"},
                        {"key": "gpu", "operator": "Exists"},
                        {"key": "zone", "operator": "NotIn", "values": ["z"]},
                    ],
                },
            },
            "status": {"observedGeneration": 3, "replicas": 4, "readyReplicas": 3, "updatedReplicas": 4,
                       "unavailableReplicas": 1},
        }));
        let view = DeploymentView::from_object(&object).expect("complete");
        assert_eq!(
            (view.stamp, view.spec_replicas, view.ready_replicas),
            (7, 4, 3)
        );
        assert_eq!(
            view.selector,
            "app=bert,tier in (a,b),!canary,gpu,zone notin (z)"
        );
        assert!(view.paused);
        assert!(!view.is_rolling_out());
    }

    #[test]
    fn a_new_deployment_has_kubernetes_defaults_and_its_rollout_runs() {
        let object = deployment(json!({
            "metadata": {"name": "bert", "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {"selector": {}, "template": {}},
        }));
        let view = DeploymentView::from_object(&object).expect("complete");
        assert_eq!((view.stamp, view.spec_replicas, view.replicas), (0, 1, 0));
        assert!(view.is_rolling_out());
    }

    #[test]
    fn only_our_own_annotation_pauses_and_false_is_no_pause() {
        let paused = |annotations: serde_json::Value| {
            let object = deployment(json!({
                "metadata": {"name": "bert", "uid": "u", "resourceVersion": "1", "annotations": annotations},
                "spec": {"paused": true, "selector": {}, "template": {}},
            }));
            let view = DeploymentView::from_object(&object).expect("complete");
            view.paused
        };
        assert!(!paused(json!({})), "a held rollout may be scaled");
        assert!(!paused(json!({"sidescale.dev/paused": "false"})));
        for value in ["true", "", "until friday"] {
            assert!(paused(json!({"sidescale.dev/paused": value})), "{value}");
        }
    }

    #[test]
    fn a_stamp_that_is_no_number_is_refused_with_the_command_that_removes_it() {
        let object = deployment(json!({
            "metadata": {"name": "bert", "uid": "u", "resourceVersion": "1",
                         "annotations": {"sidescale.dev/term": "-1"}},
        }));
        let error = DeploymentView::from_object(&object)
            .expect_err("no number")
            .to_string();
        assert!(
            error.contains("`-1`")
                && error.contains("kubectl annotate deployment bert sidescale.dev/term-"),
            "{error}"
        );
    }
}
