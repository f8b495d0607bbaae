//! What one file of the decision list says when it recognises an exchange.

use super::Cause;
use crate::model::verdict::Confidence;

/// A recognised cause, before the exchange's own figures are added.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The cause; none where the exchange turns out to have ended well.
    pub(super) cause: Option<Cause>,
    pub(super) confidence: Confidence,
    /// The error nginx met, by name.
    pub(super) errno: Option<String>,
    /// What nginx logs.
    pub(super) error_log: Option<String>,
    pub(super) explanation: String,
    pub(super) advice: String,
}

impl Finding {
    /// A finding with both ends seen and no error.
    pub(super) fn proven(cause: Cause, explanation: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            cause: Some(cause),
            confidence: Confidence::Proven,
            errno: None,
            error_log: None,
            explanation: explanation.into(),
            advice: advice.into(),
        }
    }

    /// The same, from one end only.
    pub(super) fn inferred(cause: Cause, explanation: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { confidence: Confidence::Inferred, ..Self::proven(cause, explanation, advice) }
    }

    /// An exchange that ended well after all.
    pub(super) fn well() -> Self {
        Self { cause: None, ..Self::proven(Cause::NotEnoughFacts, "", "") }
    }

    /// The same where which exchange nginx spoke of is a conclusion.
    pub(super) fn at_most_inferred(self) -> Self {
        let confidence =
            if self.confidence == Confidence::Proven { Confidence::Inferred } else { self.confidence };
        Self { confidence, ..self }
    }

    /// With the error nginx met and the line it logs.
    pub(super) fn logged(self, errno: impl Into<String>, line: impl Into<String>) -> Self {
        Self { errno: Some(errno.into()), error_log: Some(line.into()), ..self }
    }

    /// With the error nginx met; its line depends on what it was doing.
    pub(super) fn met(self, errno: impl Into<String>) -> Self {
        Self { errno: Some(errno.into()), ..self }
    }
}
