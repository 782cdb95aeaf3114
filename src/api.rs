//! One request about one object on the API server: its time limit, and what its failure means to whoever runs the fleet.
//!
//! Each right that a sidecar needs is missing in somebody's Role, so the answer to a refusal is the rule to add. Whoever
//! asks decides what a missing object or a conflict means to it; everything else reads the same wherever it happens.

use std::fmt;
use std::time::Duration;

use kube::api::PostParams;

use crate::causes::chain;
use crate::clock::Clock;

/// Who we are in `managedFields`.
pub const FIELD_MANAGER: &str = "sidescale";

/// An object that is asked about, and what every request about it shares. Cheap enough to clone.
#[derive(Clone, Debug)]
pub struct Object {
    /// `namespace/name`.
    full_name: String,
    /// The rules that the Role needs for it, as YAML.
    rules: String,
    clock: Clock,
    limit: Duration,
}

/// Why a request brought nothing. Cheap to clone, so that it can be shown as a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was tried.
    pub verb: &'static str,
    /// On which resource, with its subresource.
    pub resource: &'static str,
    /// The object, as `namespace/name`.
    pub object: String,
    /// What went wrong.
    pub kind: Kind,
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The account lacks a right.
    Forbidden {
        /// The API server's words.
        answer: String,
        /// The rules to add, as YAML.
        rules: String,
    },
    /// The API server does not accept who we are.
    Unauthorized {
        /// The API server's words.
        answer: String,
    },
    /// There is no such object.
    Missing,
    /// It has changed since it was read, or it is there already.
    Conflict,
    /// No answer within this time, by this process's clock. A write may or may not have been done.
    TimedOut(Duration),
    /// Anything else, in the API server's words or as the chain of errors.
    Failed(String),
}

// === impl Object ===

impl Object {
    /// The object `namespace/name`, for which the Role needs `rules`; no answer is waited for longer than `limit`.
    pub fn new(namespace: &str, name: &str, rules: String, clock: Clock, limit: Duration) -> Self {
        Self {
            full_name: format!("{namespace}/{name}"),
            rules,
            clock,
            limit,
        }
    }

    /// The answer to `request`, within the time limit.
    pub async fn ask<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Fault> {
        match self.clock.timeout(self.limit, request).await {
            Ok(answer) => answer.map_err(|error| self.fault(verb, resource, &error)),
            Err(elapsed) => Err(self.fault_of(verb, resource, Kind::TimedOut(elapsed.0))),
        }
    }

    /// What an error means that came otherwise: in the middle of a watch.
    pub fn fault(&self, verb: &'static str, resource: &'static str, error: &kube::Error) -> Fault {
        let kube::Error::Api(status) = error else {
            return self.fault_of(verb, resource, Kind::Failed(chain(error)));
        };
        let answer = status.message.clone();
        let kind = match status.code {
            401 => Kind::Unauthorized { answer },
            403 => Kind::Forbidden {
                answer,
                rules: self.rules.clone(),
            },
            404 => Kind::Missing,
            409 => Kind::Conflict,
            code => Kind::Failed(format!("{code} {answer}")),
        };
        self.fault_of(verb, resource, kind)
    }

    fn fault_of(&self, verb: &'static str, resource: &'static str, kind: Kind) -> Fault {
        Fault {
            verb,
            resource,
            object: self.full_name.clone(),
            kind,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// Whether the account lacks the right.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.kind, Kind::Forbidden { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            resource,
            object,
            kind,
        } = self;
        match kind {
            Kind::Forbidden { answer, rules } => write!(
                f,
                "may not {verb} {resource} {object} ({answer}); the Role of this service account needs:\n{rules}"
            ),
            Kind::Unauthorized { answer } => write!(
                f,
                "the API server does not accept this account's token to {verb} {resource} {object} ({answer}); it is \
                 void once the pod or the account is deleted"
            ),
            Kind::Missing => write!(f, "could not {verb} {resource} {object}: it does not exist"),
            Kind::Conflict => write!(
                f,
                "could not {verb} {resource} {object}: it has changed meanwhile"
            ),
            Kind::TimedOut(limit) => write!(
                f,
                "no answer within {limit:?} when trying to {verb} {resource} {object}"
            ),
            Kind::Failed(answer) => write!(f, "could not {verb} {resource} {object}: {answer}"),
        }
    }
}

impl std::error::Error for Fault {}

// === impl Kind ===

impl Kind {
    /// A stable word for metrics and Events.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::TimedOut(_) => "timed_out",
            Self::Failed(_) => "failed",
        }
    }
}

/// For creating and replacing under our name.
pub fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// A rule of a Role, as YAML. Without `names` it holds for all objects of the resources.
pub fn rule(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> String {
    let names = if names.is_empty() {
        String::new()
    } else {
        format!("\n  resourceNames: {names:?}")
    };
    format!("- apiGroups: [{group:?}]\n  resources: {resources:?}{names}\n  verbs: {verbs:?}")
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn object() -> Object {
        let rules = rule("apps", &["deployments"], &["bert"], &["get", "watch"]);
        Object::new("ml", "bert", rules, Clock::real(), Duration::from_secs(5))
    }

    fn refused(code: u16) -> String {
        let status = Status::failure("not for you", "Refused").with_code(code);
        let error = kube::Error::Api(status.boxed());
        object().fault("get", "deployments", &error).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_to_fail_says_what_was_tried_on_what_and_the_remedy() {
        assert_eq!(
            refused(403),
            "may not get deployments ml/bert (not for you); the Role of this service account needs:\n\
             - apiGroups: [\"apps\"]\n  resources: [\"deployments\"]\n  resourceNames: [\"bert\"]\n  verbs: [\"get\", \
             \"watch\"]"
        );
        let rows = [
            (
                401,
                "does not accept this account's token to get deployments ml/bert (not for you)",
            ),
            (404, "could not get deployments ml/bert: it does not exist"),
            (
                409,
                "could not get deployments ml/bert: it has changed meanwhile",
            ),
            (500, "could not get deployments ml/bert: 500 not for you"),
        ];
        for (code, words) in rows {
            assert!(refused(code).contains(words), "{code}: {}", refused(code));
        }
        let never = std::future::pending::<Result<(), kube::Error>>();
        let fault = object().ask("patch", "deployments/scale", never).await;
        assert_eq!(
            fault.expect_err("no answer").to_string(),
            "no answer within 5s when trying to patch deployments/scale ml/bert"
        );
    }
}
