//! A request that was not done: the problem document, and what the audit trail learns of it.
//!
//! Pure. Every error of the admin API becomes a [`Refusal`]; nothing else makes an answer that is no success.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::dto::{Fault, Finding, Problem};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub fault: Fault,
    pub problem: Problem,
    retry_after: Option<Duration>,
    /// The detail repeats what was sent, which may be a subject's key.
    repeats: bool,
}

/// What the audit trail learns, carried in the extensions of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Audited {
    pub why: String,
    /// Told of those without a token, too.
    pub of_anybody: bool,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(fault: Fault, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            fault,
            problem: Problem::new(fault, detail, remedy),
            retry_after: None,
            repeats: false,
        }
    }

    /// The same, its detail for the sender alone and for no log.
    pub fn repeating(mut self) -> Self {
        self.repeats = true;
        self
    }

    /// The same with names that look like the one that was not found.
    pub fn near(mut self, near: Vec<String>) -> Self {
        self.problem.near = near;
        self
    }

    /// The same with everything that is wrong with what was sent.
    pub fn findings(mut self, findings: Vec<Finding>) -> Self {
        self.problem.problems = findings;
        self
    }

    /// The same with the time after which trying again makes sense.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What the audit trail learns of it, if anything: attempts without a right token, which the gate bounds, and whatever
    /// else somebody known got wrong. More would let anybody fill the disk.
    fn audited(&self) -> Option<Audited> {
        let of_anybody = match self.fault {
            Fault::ForeignHost
            | Fault::MethodNotAllowed
            | Fault::NotFound
            | Fault::Timeout
            | Fault::TooManyFailures
            | Fault::TooManyRequests => {
                return None;
            }
            fault => fault == Fault::Unauthorized,
        };
        let detail = if self.repeats {
            &self.problem.title
        } else {
            &self.problem.detail
        };
        Some(Audited {
            why: format!("{}: {detail}", self.fault.word()),
            of_anybody,
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is texts and a number, which always serialise.
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut answer = (status, body).into_response();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.fault == Fault::Unauthorized {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"understudy\""),
            );
        }
        if let Some(wait) = self.retry_after {
            // Rounded up: a client that comes at the second it was told must not come too early.
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            );
        }
        if let Some(audited) = self.audited() {
            answer.extensions_mut().insert(audited);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_a_problem_document_with_its_headers() {
        let answer = Refusal::new(Fault::Unauthorized, "no token", "").into_response();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer realm=\"understudy\"");
        let audited = Audited {
            why: "unauthorized: no token".into(),
            of_anybody: true,
        };
        assert_eq!(answer.extensions().get::<Audited>(), Some(&audited));
    }

    #[test]
    fn what_was_sent_goes_back_to_the_sender_and_into_no_log() {
        let refusal = Refusal::new(Fault::BadRequest, "invalid type: integer `33639980123`", "").repeating();
        let audited = refusal.audited().unwrap();
        assert!(
            !audited.why.contains("33639980123") && !audited.of_anybody,
            "{audited:?}"
        );
    }

    #[test]
    fn wait_is_rounded_up_and_a_flood_is_not_audited() {
        let refusal = Refusal::new(Fault::TooManyFailures, "", "").retry_after(Duration::from_millis(1_200));
        let answer = refusal.into_response();
        assert_eq!(answer.headers()[RETRY_AFTER], "2");
        assert!(answer.extensions().get::<Audited>().is_none());
    }
}
