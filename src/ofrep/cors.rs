//! Which pages may ask from a browser (the Fetch standard's CORS protocol).
//!
//! Pure. Credentials of the browser are never asked for: a page sends its token itself.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

/// The pages that may.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
    anybody: bool,
}

impl Cors {
    /// Pages of these origins, such as `https://shop.example`; `*` is every page.
    #[must_use]
    pub fn new(origins: &[String]) -> Self {
        Self {
            origins: origins.iter().filter_map(|origin| origin.parse().ok()).collect(),
            anybody: origins.iter().any(|origin| origin == "*"),
        }
    }

    /// The answer to a browser that asks whether a page may ask; `None` if this is no such question.
    #[must_use]
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut answer = StatusCode::NO_CONTENT.into_response();
        if self.allow(headers, answer.headers_mut()) {
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            headers.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, content-type, if-none-match, x-api-key"),
            );
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        Some(answer)
    }

    /// Lets the page that asked read an answer.
    pub fn dress(&self, asked: Option<&HeaderValue>, answer: &mut Response) {
        let mut headers = HeaderMap::new();
        if let Some(origin) = asked {
            headers.insert(ORIGIN, origin.clone());
        }
        if self.allow(&headers, answer.headers_mut()) {
            answer.headers_mut().insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("etag, retry-after"),
            );
        }
    }

    fn allow(&self, asked: &HeaderMap, answer: &mut HeaderMap) -> bool {
        if self.anybody {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return true;
        }
        if self.origins.is_empty() {
            return false;
        }
        // A cache between us must not show one page the answer that another one may read.
        answer.append(VARY, HeaderValue::from_static("origin"));
        let known = asked.get(ORIGIN).filter(|origin| self.origins.contains(origin));
        let Some(origin) = known else { return false };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        true
    }
}
