//! The operator of the story: edits the flag file, and talks to the admin API as anybody with a token does.
//!
//! Every wait has a deadline and says what it waited for.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::plan::ROUTE;
use crate::admin::dto::{Rearmed, Route, Status};
use crate::telemetry::{clock, spawn};

/// How long anything that was promised may take.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long one answer of the admin API may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(25);

/// What is being waited for, for whoever watches over the whole.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Mutex<String>>);

impl Awaited {
    /// Something else is waited for from now on.
    pub fn set(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    /// What is waited for.
    #[must_use]
    pub fn what(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The status of the instance, and that of the one route.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The whole.
    pub status: Status,
    /// The route that the story is about.
    pub route: Route,
}

/// The operator.
#[derive(Clone, Debug)]
pub struct Operator {
    admin: SocketAddr,
    token: String,
    flags: PathBuf,
    awaited: Awaited,
}

impl Operator {
    /// An operator of the instance at `admin`, with a token for it, who may edit the flag file.
    #[must_use]
    pub const fn new(admin: SocketAddr, token: String, flags: PathBuf, awaited: Awaited) -> Self {
        Self {
            admin,
            token,
            flags,
            awaited,
        }
    }

    /// Tells whoever watches what is going on.
    pub fn busy_with(&self, what: &str) {
        self.awaited.set(what);
    }

    /// `GET /api/v1/status`.
    ///
    /// # Errors
    /// What the API answered instead.
    pub async fn look(&self) -> Result<Seen, String> {
        let text = self.call(Method::GET, "/api/v1/status", "").await?;
        let status: Status =
            serde_json::from_str(&text).map_err(|error| format!("the status cannot be read: {error}"))?;
        let route = status.routes.iter().find(|route| route.name == ROUTE).cloned();
        let route = route.ok_or_else(|| format!("the status has no route {ROUTE}"))?;
        Ok(Seen { status, route })
    }

    /// Looks at the status until it shows what is waited for.
    ///
    /// # Errors
    /// What was awaited in vain, or what the API answered instead of a status.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> Result<T, String> {
        self.awaited.set(what);
        let end = clock::monotonic() + PATIENCE;
        loop {
            if let Some(found) = found(&self.look().await?) {
                return Ok(found);
            }
            if clock::monotonic() >= end {
                return Err(format!("waited {} s in vain for this: {what}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Replaces the flag file as an editor does, and waits until its rules serve.
    ///
    /// # Errors
    /// When the file cannot be written, or its rules do not come into force.
    pub async fn edit_flags(&self, text: &str) -> Result<Seen, String> {
        let before = self.look().await?.status.rules.revision;
        self.replace(text)
            .map_err(|error| format!("the flag file cannot be written: {error}"))?;
        let newer = |seen: &Seen| {
            let rules = &seen.status.rules;
            (rules.revision > before || !rules.refused.is_empty()).then(|| seen.clone())
        };
        let seen = self.until("the rules of the edited flag file serve", newer).await?;
        match seen.status.rules.refused.first() {
            Some(problem) => Err(format!("the edited flag file was refused: {problem}")),
            None => Ok(seen),
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let beside = self.flags.with_extension("yaml.new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.flags)
    }

    /// Lifts the kill of the route.
    ///
    /// # Errors
    /// What the API answered instead.
    pub async fn rearm(&self, reason: &str) -> Result<Rearmed, String> {
        self.awaited.set("the answer to a re-arm");
        let body = serde_json::json!({ "reason": reason }).to_string();
        let text = self
            .call(Method::POST, &format!("/api/v1/routes/{ROUTE}/rearm"), &body)
            .await?;
        serde_json::from_str(&text).map_err(|error| format!("the answer to a re-arm cannot be read: {error}"))
    }

    /// One call of the admin API: the body of a success.
    ///
    /// # Errors
    /// What went wrong, or what the API answered instead.
    pub async fn call(&self, method: Method, path: &str, body: &str) -> Result<String, String> {
        let asked = tokio::time::timeout(ANSWER, self.ask(method.clone(), path, body)).await;
        let said = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        said.map_err(|error| format!("{method} {path} at the admin API: {error}"))
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> Result<String, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let stream = TcpStream::connect(self.admin).await.map_err(|error| text(&error))?;
        let (mut connection, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
        drop(spawn::task("demo operator", async move {
            // What ends it reaches whoever waits for the answer.
            let _ = driver.await;
        }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.admin.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| text(&error))?;
        let answer = connection.send_request(request).await.map_err(|error| text(&error))?;
        let status = answer.status();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map_err(|error| text(&error))?
            .to_bytes();
        let said = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() {
            Ok(said)
        } else {
            Err(format!("{status}: {said}"))
        }
    }
}
