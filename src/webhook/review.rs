//! What the API server asks and is answered: `AdmissionReview` of `admission.k8s.io/v1`.

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

/// A pod that is about to be created.
#[derive(Debug, Deserialize)]
pub(super) struct Question {
    uid: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) object: Value,
}

/// What becomes of it; it is admitted in any case.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Unchanged,
    /// Unchanged, and why.
    Warned(String),
    /// With this JSON patch.
    Injected(Vec<Value>),
}

#[derive(Deserialize)]
struct Review {
    request: Question,
}

impl Question {
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body).map(|review: Review| review.request)
    }

    pub(super) fn answer(&self, verdict: &Verdict) -> Value {
        let mut response = json!({"uid": self.uid, "allowed": true});
        match verdict {
            Verdict::Unchanged => {}
            Verdict::Warned(warning) => response["warnings"] = json!([warning]),
            Verdict::Injected(patch) => {
                let patch = Value::from(patch.as_slice()).to_string();
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(ByteString(patch.into_bytes()));
            }
        }
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_admits_whatever_it_says() {
        let question = json!({"kind": "AdmissionReview", "request": {"uid": "7", "object": {"kind": "Pod"}, "other": 1}});
        let question = Question::read(question.to_string().as_bytes()).expect("it is one");
        let answer = |verdict| question.answer(&verdict)["response"].clone();
        assert_eq!(
            answer(Verdict::Unchanged),
            json!({"uid": "7", "allowed": true})
        );
        assert_eq!(
            answer(Verdict::Warned("why".to_owned())),
            json!({"uid": "7", "allowed": true, "warnings": ["why"]})
        );
        // `[{"op":"remove"}]` in base64.
        assert_eq!(
            answer(Verdict::Injected(vec![json!({"op": "remove"})])),
            json!({"uid": "7", "allowed": true, "patchType": "JSONPatch", "patch": "W3sib3AiOiJyZW1vdmUifV0="})
        );
    }
}
