//! The admin API of a running instance, asked from the command line.
//!
//! In: `--admin`, `--token`, a request. Out: the answer as a `dto` type, or a [`CallError`] that says what to look at. Plain
//! HTTP on one connection per call; nothing is retried: whoever kills by hand must see what happened to the one attempt.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::terminal::plain;
use super::{BAD_INPUT, FAILED};
use crate::admin::dto::{Fault, Finding, Problem};
use crate::telemetry::spawn;

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For the whole call: a kill that waits for a stalled disk takes two seconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// Which instance, and who asks.
#[derive(Clone, Debug, Args)]
pub(super) struct Remote {
    /// The admin listener of the instance
    #[arg(long, value_name = "URL", env = "UNDERSTUDY_ADMIN", default_value = "http://127.0.0.1:9090", value_parser = Admin::parse)]
    pub admin: Admin,
    /// The token that opens it; better in the environment, where other users of the machine do not see it
    #[arg(long, value_name = "TOKEN", env = "UNDERSTUDY_TOKEN", hide_env_values = true, value_parser = Secret::parse)]
    pub token: Option<Secret>,
}

/// Where an admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admin {
    host: String,
    port: u16,
}

impl Admin {
    /// Reads `http://HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, String> {
        const REMEDY: &str = "write http://HOST:PORT, for example http://127.0.0.1:9090";
        let uri: Uri = text.parse().map_err(|_| REMEDY.to_owned())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(REMEDY.to_owned());
        };
        if scheme == "https" {
            return Err("https: not in this version; reach it through a tunnel, or on its own machine".to_owned());
        }
        if scheme != "http" || uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(REMEDY.to_owned());
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            host,
            port: authority.port_u16().unwrap_or(80),
        })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A token, which is never shown.
#[derive(Clone)]
pub(super) struct Secret(HeaderValue);

impl Secret {
    /// Reads a token as it was printed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| "a token is printable ASCII".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why there is no answer of the wanted kind.
#[derive(Debug)]
pub(super) enum CallError {
    /// The instance said no.
    Refused(Box<Problem>),
    /// Nothing answered, or something else did.
    Unreachable(String),
}

impl CallError {
    /// Says it on standard error; the code that goes with it.
    pub fn report(&self) -> ExitCode {
        match self {
            CallError::Refused(problem) => {
                let Problem {
                    detail,
                    remedy,
                    problems,
                    ..
                } = &**problem;
                let remedy = if remedy.is_empty() {
                    String::new()
                } else {
                    format!(". {remedy}")
                };
                eprintln!("{}", plain(&format!("refused: {detail}{remedy}")));
                for finding in problems {
                    eprintln!("  {}", plain(&found(finding)));
                }
            }
            CallError::Unreachable(what) => eprintln!("{}", plain(what)),
        }
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            CallError::Unreachable(_) => FAILED,
            CallError::Refused(problem) => match problem.fault() {
                Some(
                    Fault::AmbiguousName
                    | Fault::BadRequest
                    | Fault::BodyTooDeep
                    | Fault::BodyTooLarge
                    | Fault::Unfit
                    | Fault::UnknownName
                    | Fault::UnsupportedMediaType,
                ) => BAD_INPUT,
                _ => FAILED,
            },
        }
    }
}

/// One thing that is wrong with what was sent, on one line.
fn found(finding: &Finding) -> String {
    let Finding {
        source,
        line,
        column,
        path,
        what,
        remedy,
    } = finding;
    // What was sent was made here, so its lines mean nothing to whoever typed the command; its members do.
    let place = match (source.as_str(), line, column) {
        ("body", ..) if path.is_empty() => String::new(),
        ("body", ..) => format!("{path}: "),
        (source, Some(line), Some(column)) => format!("{source}:{line}:{column}: "),
        (source, ..) => format!("{source}: "),
    };
    let remedy = if remedy.is_empty() {
        String::new()
    } else {
        format!(". {remedy}")
    };
    format!("{place}{what}{remedy}")
}

impl Remote {
    /// Reads.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, path, None, Bytes::new())
    }

    /// Asks for a change.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        // Texts always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.call(Method::POST, path, None, body.into())
    }

    /// Asks for a change of what has this revision, if one is given; of anything, if none is.
    pub fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        revision: Option<u64>,
        body: String,
    ) -> Result<T, CallError> {
        self.call(method, path, revision, body.into())
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        revision: Option<u64>,
        body: Bytes,
    ) -> Result<T, CallError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| CallError::Unreachable(format!("the operating system refused: {error}")))?;
        let (status, bytes) = runtime.block_on(async {
            match tokio::time::timeout(TIMEOUT, self.exchange(method, path, revision, body)).await {
                Ok(answered) => answered,
                Err(_) => Err(self.silent(TIMEOUT)),
            }
        })?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| self.strange());
        }
        let problem: Problem = serde_json::from_slice(&bytes).map_err(|_| self.strange())?;
        Err(CallError::Refused(Box::new(problem)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        revision: Option<u64>,
        body: Bytes,
    ) -> Result<(http::StatusCode, Bytes), CallError> {
        let address = (self.admin.host.as_str(), self.admin.port);
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(CallError::Unreachable(format!(
                    "cannot connect to {}: {error}. is understudy running, and is this its `admin.address`? `--admin URL` \
                     or UNDERSTUDY_ADMIN names another",
                    self.admin.authority()
                )));
            }
            Err(_) => return Err(self.silent(CONNECT_TIMEOUT)),
        };
        let broken = |error: hyper::Error| {
            CallError::Unreachable(format!(
                "{} broke the connection: {error}. look into its log",
                self.admin.authority()
            ))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        drop(spawn::task("admin client", async move {
            // What goes wrong here shows where the answer is awaited.
            let _ = connection.await;
        }));
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(HOST, self.admin.authority())
            .header(ACCEPT, "application/json");
        if method != Method::GET {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(revision) = revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        // An empty variable is how a shell unsets one.
        if let Some(Secret(token)) = self.token.as_ref().filter(|token| token.0 != "Bearer ") {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body)).map_err(|_| self.strange())?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT_BYTES)
            .collect()
            .await
            .map_err(|_| self.strange())?;
        Ok((head.status, body.to_bytes()))
    }

    fn silent(&self, after: Duration) -> CallError {
        let (authority, seconds) = (self.admin.authority(), after.as_secs());
        let what = format!("{authority} did not answer within {seconds} s; whether anything was done is not known");
        CallError::Unreachable(format!("{what}. look into its log, then at its status"))
    }

    fn strange(&self) -> CallError {
        let authority = self.admin.authority();
        CallError::Unreachable(format!(
            "what answers at {authority} is no admin listener of understudy. `admin.address` of the configuration names it; \
             the `listeners` are for clients"
        ))
    }
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_is_a_plain_http_address_and_nothing_else() {
        assert_eq!(
            Admin::parse("http://127.0.0.1:9090").unwrap().authority(),
            "127.0.0.1:9090"
        );
        assert_eq!(Admin::parse("http://[::1]:9090/").unwrap().authority(), "[::1]:9090");
        assert_eq!(Admin::parse("http://localhost").unwrap().authority(), "localhost:80");
        let bad = [
            "127.0.0.1:9090",
            "https://a:1",
            "http://u:p@a:1",
            "http://a/x",
            "http://a/?x",
            "ftp://a",
            "",
        ];
        for bad in bad {
            assert!(Admin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn token_is_not_shown_by_accident() {
        let remote = Remote {
            admin: Admin::parse("http://a:1").unwrap(),
            token: Some(Secret::parse("us_1 ").unwrap()),
        };
        assert!(!format!("{remote:?}").contains("us_1"));
    }

    #[test]
    fn wrong_input_and_failure_have_codes_of_their_own() {
        let code = |fault| CallError::Refused(Box::new(Problem::new(fault, "", ""))).code();
        assert_eq!(code(Fault::UnknownName), BAD_INPUT);
        assert_eq!(code(Fault::AmbiguousName), BAD_INPUT);
        assert_eq!(code(Fault::Unauthorized), FAILED);
        assert_eq!(code(Fault::NotKilled), FAILED);
        assert_eq!(CallError::Unreachable(String::new()).code(), FAILED);
    }

    #[test]
    fn nothing_listens_is_told_with_what_to_look_at() {
        // Bound and dropped, so that the port is free.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let remote = Remote {
            admin: Admin::parse(&format!("http://{free}")).unwrap(),
            token: None,
        };
        let error = remote.get::<Problem>("/api/v1/status").unwrap_err();
        assert!(
            matches!(&error, CallError::Unreachable(what) if what.contains("is understudy running")),
            "{error:?}"
        );
    }

    #[test]
    fn name_cannot_leave_its_segment() {
        assert_eq!(segment("a/../b?c#d%"), "a%2F%2E%2E%2Fb%3Fc%23d%25");
    }
}
