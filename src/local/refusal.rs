//! What the server answers when it does not do as asked: the reasons, codes and words of the real one.
//!
//! The words were taken from a kube-apiserver 1.36; clients and people match on them.

use serde_json::{Value, json};

use super::kind::Kind;

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{} \"{name}\" not found", kind.qualified())]
    NotFound { kind: Kind, name: String },
    #[error("the server could not find the requested resource")]
    NoSuchResource,
    #[error("{} \"{name}\" already exists", kind.qualified())]
    AlreadyExists { kind: Kind, name: String },
    /// `subject` is the resource as this message writes it, such as `deployments.apps` or `deployments/scale.apps`.
    #[error("Operation cannot be fulfilled on {subject} \"{name}\": {why}")]
    Conflict {
        kind: Kind,
        subject: String,
        name: String,
        why: String,
    },
    #[error("{subject} \"{name}\" is invalid: {}", listed(causes))]
    Invalid {
        subject: String,
        name: String,
        causes: Vec<Cause>,
    },
    #[error("{}{} is forbidden: {why}", kind.qualified(), quoted(name))]
    Forbidden {
        kind: Kind,
        name: String,
        why: String,
    },
    #[error("Unauthorized")]
    Unauthorized,
    #[error("{0}")]
    BadRequest(String),
    #[error("415: Unsupported Media Type")]
    UnsupportedPatch,
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json"
    )]
    UnsupportedBody,
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    #[error("too old resource version: {asked} ({oldest})")]
    Expired { asked: u64, oldest: u64 },
    #[error("Timeout: Too large resource version: {asked}, current: {current}")]
    TooLargeVersion { asked: u64, current: u64 },
    #[error("{0}")]
    Internal(String),
    /// Asked for by a fault of a test.
    #[error("the server is made to answer {0} here")]
    Injected(u16),
}

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    reason: &'static str,
    field: &'static str,
    message: String,
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        Self::NotFound {
            kind,
            name: name.to_owned(),
        }
    }

    /// The version on which the write was based is not the present one.
    pub(super) fn stale(kind: Kind, name: &str) -> Self {
        Self::Conflict {
            kind,
            subject: kind.qualified(),
            name: name.to_owned(),
            why: "the object has been modified; please apply your changes to the latest version and try again"
                .to_owned(),
        }
    }

    /// Fields of an object that fail its kind's validation.
    pub(super) fn invalid(kind: Kind, name: &str, causes: Vec<Cause>) -> Self {
        Self::Invalid {
            subject: kind.qualified_kind(),
            name: name.to_owned(),
            causes,
        }
    }

    /// The HTTP status.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden { .. } => 403,
            Self::NotFound { .. } | Self::NoSuchResource => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists { .. } | Self::Conflict { .. } => 409,
            Self::Expired { .. } => 410,
            Self::UnsupportedPatch | Self::UnsupportedBody => 415,
            Self::Invalid { .. } => 422,
            Self::Internal(_) => 500,
            Self::TooLargeVersion { .. } => 504,
            Self::Injected(code) => *code,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden { .. } => "Forbidden",
            Self::NotFound { .. } | Self::NoSuchResource => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } => "Conflict",
            Self::Expired { .. } => "Expired",
            Self::UnsupportedPatch | Self::UnsupportedBody => "UnsupportedMediaType",
            Self::Invalid { .. } => "Invalid",
            Self::TooLargeVersion { .. } => "Timeout",
            Self::Internal(_) => "",
            Self::Injected(code) => match code {
                401 => "Unauthorized",
                403 => "Forbidden",
                409 => "Conflict",
                410 => "Expired",
                429 => "TooManyRequests",
                500 => "InternalError",
                503 => "ServiceUnavailable",
                504 => "Timeout",
                _ => "",
            },
        }
    }

    fn details(&self) -> Option<Value> {
        let of = |kind: &Kind, name: &str| {
            let facts = kind.facts();
            let mut details = json!({"name": name, "kind": facts.plural});
            if !facts.group.is_empty() {
                details["group"] = facts.group.into();
            }
            details
        };
        match self {
            Self::NotFound { kind, name }
            | Self::AlreadyExists { kind, name }
            | Self::Conflict { kind, name, .. }
            | Self::Forbidden { kind, name, .. } => Some(of(kind, name)),
            Self::Invalid {
                subject,
                name,
                causes,
            } => {
                let (kind, group) = subject.split_once('.').unwrap_or((subject, ""));
                let causes: Vec<Value> = causes
                    .iter()
                    .map(|cause| json!({"reason": cause.reason, "field": cause.field, "message": cause.message}))
                    .collect();
                Some(json!({"name": name, "kind": kind, "group": group, "causes": causes}))
            }
            Self::TooLargeVersion { .. } => Some(json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            })),
            Self::NoSuchResource
            | Self::Unauthorized
            | Self::BadRequest(_)
            | Self::UnsupportedPatch
            | Self::UnsupportedBody
            | Self::MethodNotAllowed
            | Self::Expired { .. }
            | Self::Internal(_)
            | Self::Injected(_) => None,
        }
    }

    /// The `Status` object of the answer.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": self.reason(),
            "code": self.code(),
        });
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status
    }
}

// === impl Cause ===

impl Cause {
    /// A value that the field cannot have.
    pub(super) fn value(field: &'static str, given: &impl std::fmt::Display, rule: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field,
            message: format!("Invalid value: {given}: {rule}"),
        }
    }

    /// A field that must be there.
    pub(super) fn required(field: &'static str, rule: &str) -> Self {
        Self {
            reason: "FieldValueRequired",
            field,
            message: format!("Required value: {rule}"),
        }
    }

    /// A change that is not allowed.
    pub(super) fn forbidden(field: &'static str, rule: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            field,
            message: format!("Forbidden: {rule}"),
        }
    }
}

fn quoted(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!(" \"{name}\"")
    }
}

fn listed(causes: &[Cause]) -> String {
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    match texts.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_the_real_ones() {
        let stale = Refusal::stale(Kind::Lease, "x").status();
        assert_eq!(
            stale["message"],
            "Operation cannot be fulfilled on leases.coordination.k8s.io \"x\": the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        assert_eq!(
            stale["details"],
            json!({"name": "x", "group": "coordination.k8s.io", "kind": "leases"})
        );
        let two = Refusal::invalid(
            Kind::Lease,
            "neg",
            vec![
                Cause::value("spec.leaseDurationSeconds", &0, "must be greater than 0"),
                Cause::value(
                    "spec.leaseTransitions",
                    &-1,
                    "must be greater than or equal to 0",
                ),
            ],
        );
        assert_eq!(
            two.to_string(),
            "Lease.coordination.k8s.io \"neg\" is invalid: [spec.leaseDurationSeconds: Invalid value: 0: must be \
             greater than 0, spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0]"
        );
        let nameless = Refusal::Forbidden {
            kind: Kind::Lease,
            name: String::new(),
            why: "User \"u\" cannot list".to_owned(),
        };
        assert_eq!(
            nameless.to_string(),
            "leases.coordination.k8s.io is forbidden: User \"u\" cannot list"
        );
    }
}
