//! A request that was not done: the problem document, and what the audit trail learns of it.
//!
//! Pure. Every error of the admin API becomes a [`Refusal`]; nothing else makes an answer that is no success.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::dto::{Fault, Problem};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub fault: Fault,
    pub problem: Problem,
    retry_after: Option<Duration>,
}

/// What the audit trail learns, carried in the extensions of the answer.
#[derive(Clone, Debug)]
pub(super) struct Audited(pub String);

impl Refusal {
    /// A refusal of this kind.
    pub fn new(fault: Fault, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault, problem: Problem::new(fault, detail, remedy), retry_after: None }
    }

    /// The same with names that look like the one that was not found.
    pub fn near(mut self, near: Vec<String>) -> Self {
        self.problem.near = near;
        self
    }

    /// The same with the time after which trying again makes sense.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether it is an attempt that the audit trail tells of: at something that needs a token, by somebody who got it wrong.
    /// Repeated failures of one address are left out, or whoever guesses would fill the disk.
    fn is_audited(&self) -> bool {
        !matches!(
            self.fault,
            Fault::ForeignHost | Fault::MethodNotAllowed | Fault::NotFound | Fault::Timeout | Fault::TooManyFailures
        )
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
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"understudy\""));
        }
        if let Some(wait) = self.retry_after {
            // Rounded up: a client that comes at the second it was told must not come too early.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
        }
        if self.is_audited() {
            let why = format!("{}: {}", self.fault.word(), self.problem.detail);
            answer.extensions_mut().insert(Audited(why));
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
        assert_eq!(answer.extensions().get::<Audited>().unwrap().0, "unauthorized: no token");
    }

    #[test]
    fn wait_is_rounded_up_and_a_flood_is_not_audited() {
        let refusal = Refusal::new(Fault::TooManyFailures, "", "").retry_after(Duration::from_millis(1_200));
        let answer = refusal.into_response();
        assert_eq!(answer.headers()[RETRY_AFTER], "2");
        assert!(answer.extensions().get::<Audited>().is_none());
    }
}
