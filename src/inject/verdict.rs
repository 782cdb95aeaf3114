//! What is said to the person who injects: what was done, and what was not and why.

use std::fmt;

use super::edits::Malformed;

/// Something that the person who applies the result should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whose: `deployment/bert`, or a file.
    pub place: String,
    /// A sentence.
    pub text: String,
}

/// Why a workload was not injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}; {remedy}")]
pub struct Refusal {
    /// The file, the workload and the way to the field.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

// === impl Note ===

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(
        place: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }

    /// The same, with the document that its workload stands in.
    pub(super) fn within(mut self, document: &str) -> Self {
        self.place = format!("{document}: {}", self.place);
        self
    }

    pub(super) fn malformed(place: &str, malformed: &Malformed) -> Self {
        Self::new(
            place,
            malformed.to_string(),
            "see `kubectl explain` for the shape of its kind",
        )
    }
}
