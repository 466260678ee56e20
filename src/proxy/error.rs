//! Answers that the sidecar gives itself: one place turns what went wrong into a status and a reason.
//!
//! Their bodies name no address, path or version; what an operator needs is in the counter and in
//! `x-understudy-error`.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::body::Broken;
use super::forward;
use super::upstream::CallError;
use crate::live::tally::{ClientError, Label as _, Made, RunFailure};

impl Made {
    /// The status that this reason is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Made::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Made::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Made::BodyBroken | Made::TrailersTooLarge => StatusCode::BAD_REQUEST,
            Made::ConnectTimeout | Made::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Made::ConnectFailed | Made::Malformed | Made::Reset => StatusCode::BAD_GATEWAY,
            Made::Method => StatusCode::METHOD_NOT_ALLOWED,
            Made::Overload => StatusCode::SERVICE_UNAVAILABLE,
            Made::TargetTooLong => StatusCode::URI_TOO_LONG,
            // Its route says it: see `Stage::reply`.
            Made::WhenOff => StatusCode::NOT_FOUND,
        }
    }
}

impl Made {
    /// Whether this is for what the client asked, and for more than having left.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Made::BodyTimeout | Made::BodyTooLarge | Made::Method | Made::TargetTooLong | Made::TrailersTooLarge
        )
    }
}

impl From<Broken> for Made {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Client | Broken::Superseded => Made::BodyBroken,
            Broken::Idle => Made::BodyTimeout,
            Broken::TooLarge => Made::BodyTooLarge,
            Broken::Trailers => Made::TrailersTooLarge,
        }
    }
}

impl From<CallError> for Made {
    fn from(error: CallError) -> Self {
        match error.failure {
            RunFailure::Connect if error.timed_out => Made::ConnectTimeout,
            RunFailure::Connect | RunFailure::Local | RunFailure::Tls => Made::ConnectFailed,
            RunFailure::Malformed => Made::Malformed,
            RunFailure::Overload => Made::Overload,
            RunFailure::Timeout => Made::Timeout,
            RunFailure::Cut | RunFailure::Reset => Made::Reset,
        }
    }
}

impl ClientError {
    /// The status that this reason is answered with, where it is answered and not only closed.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            ClientError::BadChunk
            | ClientError::BadCoding
            | ClientError::BadHost
            | ClientError::BadLength
            | ClientError::BadProxyHeader
            | ClientError::BadTarget
            | ClientError::ChunkExtensions
            | ClientError::Http2Connection
            | ClientError::Http2Continuation
            | ClientError::Http2Empty
            | ClientError::Http2Other
            | ClientError::Http2Ping
            | ClientError::Http2Priority
            | ClientError::Http2Reset
            | ClientError::Http2Settings
            | ClientError::Http2Stream
            | ClientError::Http2Streams
            | ClientError::Http2Window
            | ClientError::Malformed
            | ClientError::TrailersTooLarge
            | ClientError::TwoFramings => StatusCode::BAD_REQUEST,
            ClientError::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ClientError::HeaderTimeout | ClientError::ProxyHeaderTimeout | ClientError::WriteTimeout => {
                StatusCode::REQUEST_TIMEOUT
            }
            ClientError::TargetTooLong => StatusCode::URI_TOO_LONG,
            ClientError::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            ClientError::TooManyOfClient | ClientError::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ClientError::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
        }
    }
}

/// The answer for a reason.
#[must_use]
pub fn answer(made: Made) -> Response<Bytes> {
    let mut response = compose(made.status(), made.label());
    let headers = response.headers_mut();
    match made {
        Made::Overload => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Made::Method => {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        _ => {}
    }
    // What is left of the request cannot be told from the next one, or is not wanted.
    if matches!(
        made,
        Made::BodyTooLarge
            | Made::BodyTimeout
            | Made::BodyBroken
            | Made::Method
            | Made::TargetTooLong
            | Made::TrailersTooLarge
    ) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a request that is refused for what it is.
#[must_use]
pub fn refusal(reason: ClientError) -> Response<Bytes> {
    let mut response = compose(reason.status(), reason.label());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// The answer to a request that came too soon. Its connection may go on.
#[must_use]
pub fn too_soon() -> Response<Bytes> {
    let reason = ClientError::TooManyRequests;
    let mut response = compose(reason.status(), reason.label());
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn compose(status: StatusCode, reason: &'static str) -> Response<Bytes> {
    let text = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(forward::ERROR, HeaderValue::from_static(reason));
    response
}
