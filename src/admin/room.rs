//! What every handler of the API stands in: the instance, the gate, and the extractors that let a request in and read it.
//!
//! The order in which a handler names its extractors is the order of the refusals: first who asks, then what about, then the
//! body, so that nobody without a token has a body read.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Request};
use axum::http::Method;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::answers::Answers;
use super::body;
use super::dto::Fault;
use super::gate::{Gate, Need, Visitor};
use super::refusal::Refusal;
use crate::config::{Role, TOKEN_PREFIX, begins_with_one_of};
use crate::control::{Actor, Control};
use crate::engine::ruleset::document::Instant;
use crate::engine::ruleset::problem::quote;
use crate::telemetry::clock;

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    pub control: Control,
    pub gate: Gate,
    pub answers: Answers,
    /// In milliseconds since 1970.
    pub started_unix_ms: i64,
}

/// The address that a request came from, in its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Who a request is from, once that is known, in its extensions: for the audit of whatever is refused later.
#[derive(Clone, Debug, Default)]
pub(super) struct Who(pub Arc<OnceLock<Actor>>);

/// What a handler needs the visitor to be allowed to do.
pub(super) trait Needs {
    /// It.
    const NEED: Need;
}

macro_rules! needs {
    ($($name:ident),*) => {
        $(
            /// The need of this name.
            #[derive(Debug)]
            pub(super) struct $name;
            impl Needs for $name {
                const NEED: Need = Need::$name;
            }
        )*
    };
}

needs!(Change, Freeze, Kill, Metrics, Read, Rearm, Rollback, Status);

/// A visitor who may do what `N` says.
#[derive(Debug)]
pub(super) struct May<N> {
    pub actor: Actor,
    pub role: Option<Role>,
    flags: Option<Arc<[String]>>,
    need: PhantomData<N>,
}

impl<N> May<N> {
    /// Whether the visitor's token is for the flag of this name.
    pub fn sees(&self, flag: &str) -> bool {
        begins_with_one_of(self.flags.as_deref(), flag)
    }

    /// Refuses what is about a flag that the visitor's token is not for.
    pub fn flag(&self, flag: &str) -> Result<(), Refusal> {
        if self.sees(flag) { Ok(()) } else { Err(out_of_scope()) }
    }

    /// Refuses what is about more than the flags that the visitor's token is for.
    pub fn everything(&self) -> Result<(), Refusal> {
        if self.flags.is_none() {
            Ok(())
        } else {
            Err(out_of_scope())
        }
    }
}

fn out_of_scope() -> Refusal {
    let remedy = "use a token without `flags`, or with a beginning of the name among them";
    Refusal::new(
        Fault::Forbidden,
        "the token is for certain flags, and this is about more or others",
        remedy,
    )
}

/// What a token for certain flags may ask besides what has a flag's name in its path. Handlers of the first two look at
/// the name in the body, and the list shows what fits.
const SCOPED: [&str; 7] = [
    "/api/v1/feature-flags",
    "/api/internal/flags/update",
    "/api/v1/freeze",
    "/api/v1/unfreeze",
    "/api/v1/status",
    "/status",
    "/metrics",
];

/// Paths whose name is a flag's.
const OF_A_FLAG: [&str; 3] = ["/api/v1/feature-flags/{name}", "/flags/{name}", "/api/features/{name}"];

/// Refuses what a token for certain flags is not for. Whatever path is not known here is none for it.
async fn within(prefixes: Option<&[String]>, parts: &mut Parts) -> Result<(), Refusal> {
    if prefixes.is_none() {
        return Ok(());
    }
    let path = parts
        .extensions
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_default();
    if SCOPED.contains(&&*path) {
        return Ok(());
    }
    if OF_A_FLAG.iter().any(|beginning| path.starts_with(beginning)) {
        let Name(name) = Name::from_request_parts(parts, &()).await?;
        if begins_with_one_of(prefixes, &name) {
            return Ok(());
        }
    }
    Err(out_of_scope())
}

impl<N: Needs> FromRequestParts<Arc<Room>> for May<N> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, room: &Arc<Room>) -> Result<Self, Refusal> {
        let Some(Peer(peer)) = parts.extensions.get::<Peer>().copied() else {
            return Err(Refusal::new(Fault::BadRequest, "nobody knows where this came from", ""));
        };
        let who = parts.extensions.get::<Who>();
        let snapshot = room.control.live().snapshot();
        let environment = snapshot.as_deref().map_or("", |snapshot| snapshot.rules.environment());
        let admitted = room
            .gate
            .admit(N::NEED, &parts.headers, peer, environment, clock::monotonic());
        let actor = match &admitted {
            Ok(visitor) => visitor.actor.clone(),
            // A known token with a lesser role has a name all the same.
            Err(_) => room.gate.actor_of(&parts.headers, peer),
        };
        if let Some(who) = who {
            // Whoever was noted first stays: a request has one sender.
            let _ = who.0.set(actor);
        }
        let Visitor { actor, role, flags } = admitted?;
        within(flags.as_deref(), parts).await?;
        Ok(Self {
            actor,
            role,
            flags,
            need: PhantomData,
        })
    }
}

/// The name in a path.
#[derive(Debug)]
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_: PathRejection| {
            Refusal::new(
                Fault::BadRequest,
                "the name in the path cannot be read",
                "encode it as UTF-8 with percent signs",
            )
        })
    }
}

/// The body of a request, read by [`body::read`].
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        body::read(&parts.headers, body).await.map(Self)
    }
}

/// The JSON that a request brings, as it was written; read by [`body::text`].
#[derive(Debug)]
pub(super) struct Body(pub String);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        body::text(&parts.headers, body).await.map(Self)
    }
}

/// The members of a query, each at most once and none beside those that are known.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let refuse =
            |detail: String| Refusal::new(Fault::BadRequest, detail, format!("known are {}", known.join(", ")));
        let mut members: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(refuse("the query has a member that is not known".to_owned()));
            }
            if members.iter().any(|(first, _)| *first == name) {
                return Err(refuse(format!("the query has `{name}` twice")));
            }
            members.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(members))
    }

    /// A member as it was sent.
    pub fn text(&self, name: &str) -> Option<&str> {
        let mut members = self.0.iter();
        members
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number from 1 to `most`.
    pub fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|n| digits && (1..=most).contains(n));
        number.map(Some).ok_or_else(|| {
            let detail = format!("`{name}` is {}, not a whole number of at least 1", quote(text));
            Refusal::new(Fault::BadRequest, detail, format!("{name} is at most {most}"))
        })
    }

    /// One of these words.
    pub fn word(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let word = words.iter().find(|word| **word == text);
        word.copied().map(Some).ok_or_else(|| {
            let detail = format!("`{name}` is {}", quote(text));
            Refusal::new(
                Fault::BadRequest,
                detail,
                format!("{name} is one of {}", words.join(", ")),
            )
        })
    }

    /// An instant as RFC 3339 has it, in milliseconds since 1970.
    pub fn instant(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let instant = Instant::parse(text).map(|instant| instant.0);
        instant.map(Some).ok_or_else(|| {
            let detail = format!("`{name}` is {}, not a date with time and offset", quote(text));
            Refusal::new(Fault::BadRequest, detail, "write it as in 2026-01-01T00:00:00Z")
        })
    }

    /// `true` or `false`; false where it is not sent.
    pub fn truth(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.word(name, &["false", "true"])? == Some("true"))
    }
}

/// The longest reason that is kept, in characters.
pub(super) const REASON_CHARS: usize = 1_000;

/// A reason as it is kept.
pub(super) fn short(reason: &str) -> String {
    reason.trim().chars().take(REASON_CHARS).collect()
}

/// How the audit trail names what was asked: without the query, and never at a length that a client can choose.
pub(super) fn asked(method: &Method, path: &str) -> String {
    const LONGEST: usize = 300;
    // A method may be any word.
    let mut asked = without_tokens(&format!("{method} {path}"));
    asked.truncate(asked.floor_char_boundary(LONGEST));
    asked
}

/// The same without what looks like a token: whoever puts one where it does not belong must not find it in the audit trail.
pub(super) fn without_tokens(text: &str) -> String {
    // A name may begin like a token; this much of one gives nothing away.
    const TELLING: usize = 8;
    let mut parts = text.split(TOKEN_PREFIX);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        clean.push_str(TOKEN_PREFIX);
        if digits > TELLING {
            clean.push('\u{2026}');
            clean.push_str(&part[digits..]);
        } else {
            clean.push_str(part);
        }
    }
    clean
}
