//! Who is let in, and to what: tokens, roles, and the patience with those who fail.
//!
//! In: the tokens of the configuration, the `authorization` of a request, the address it came from, an instant. Out: a
//! [`Visitor`], or a refusal. Deterministic; the only state is how often each address failed lately.
//!
//! A token is compared by its SHA-256 with every token there is, in constant time: 256 random bits need no slow hash. A
//! right token is let in however often its address has failed: a kill must not wait for somebody else's guesses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::dto::Fault;
use super::refusal::Refusal;
use crate::config::{Role, Token};
use crate::control::Actor;
use crate::engine::ruleset::problem::quote;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Change a flag, or lift a freeze.
    Change,
    /// Freeze something.
    Freeze,
    /// Kill.
    Kill,
    /// Read the metrics page, where it is closed.
    Metrics,
    /// Read what happened.
    Read,
    /// Lift a kill.
    Rearm,
    /// Take a flag's last change back.
    Rollback,
    /// Read the status.
    Status,
}

impl Need {
    const fn is_change(self) -> bool {
        matches!(
            self,
            Need::Change | Need::Freeze | Need::Kill | Need::Rearm | Need::Rollback
        )
    }

    const fn phrase(self) -> &'static str {
        match self {
            Need::Change => "change flags",
            Need::Freeze => "freeze",
            Need::Kill => "kill",
            Need::Metrics => "read metrics",
            Need::Read => "read this",
            Need::Rearm => "re-arm",
            Need::Rollback => "roll back",
            Need::Status => "read the status",
        }
    }
}

const fn may(role: Role, need: Need) -> bool {
    match role {
        Role::Admin | Role::Operator => true,
        Role::Viewer => !need.is_change(),
        Role::Emergency => matches!(need, Need::Freeze | Need::Kill | Need::Rollback | Need::Status),
        Role::Client => false,
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// Who, for the audit trail.
    pub actor: Actor,
    /// As what; none for a reader where no token is configured.
    pub role: Option<Role>,
    /// How the keys of the flags begin that their token is for; all if `None`.
    pub flags: Option<Arc<[String]>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    tokens: Vec<Token>,
    metrics_token: bool,
    failures: Mutex<Failures>,
    paces: Mutex<HashMap<Arc<str>, Patience>>,
}

impl Gate {
    /// A gate for these tokens. Without any, everybody may read and nobody may write.
    pub fn new(tokens: Vec<Token>, metrics_token: bool) -> Self {
        Self {
            tokens,
            metrics_token,
            failures: Mutex::default(),
            paces: Mutex::default(),
        }
    }

    /// Lets a request in, or says why not. `now` is a monotonic instant.
    /// `environment` is that of the rules in force.
    pub fn admit(
        &self,
        need: Need,
        headers: &HeaderMap,
        peer: SocketAddr,
        environment: &str,
        now: Duration,
    ) -> Result<Visitor, Refusal> {
        let is_open = match need {
            Need::Metrics => !self.metrics_token,
            need => self.tokens.is_empty() && !need.is_change(),
        };
        if is_open {
            return Ok(Visitor {
                actor: nobody(peer),
                role: None,
                flags: None,
            });
        }
        match self.known(headers) {
            Ok(token) if !token.is_for(environment) => {
                let detail = format!("the token is not for the environment {}", quote(environment));
                let remedy = "use one whose `environments` lists it";
                Err(self.count(Refusal::new(Fault::Forbidden, detail, remedy), peer, now))
            }
            Ok(token) if may(token.role, need) => {
                // A kill must not wait for anything.
                if need != Need::Kill {
                    self.pace(token, now)?;
                }
                Ok(Visitor {
                    actor: actor(token, peer),
                    role: Some(token.role),
                    flags: token.flags.clone(),
                })
            }
            Ok(token) => {
                let (role, phrase) = (token.role.as_str(), need.phrase());
                let detail = format!("a token with the role {role} may not {phrase}");
                Err(self.count(Refusal::new(Fault::Forbidden, detail, self.who_may(need)), peer, now))
            }
            Err(detail) => {
                let remedy = if self.tokens.is_empty() {
                    "no token is configured: make one with `understudy token new --role operator`, put the entry that it \
                     prints into the file that `admin.tokens_file` names, and restart"
                } else {
                    "send `authorization: Bearer TOKEN`, on the command line by --token or UNDERSTUDY_TOKEN; one that was added to the \
                     tokens file since the start counts after a restart"
                };
                Err(self.count(Refusal::new(Fault::Unauthorized, detail, remedy), peer, now))
            }
        }
    }

    /// Books one more request of a token.
    fn pace(&self, token: &Token, now: Duration) -> Result<(), Refusal> {
        let rate = u32::try_from(token.rate).unwrap_or(u32::MAX).max(1);
        let each = Duration::from_secs(60) / rate;
        let most = each * (rate / 6).max(1);
        // As many entries as there are tokens.
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = paces.entry(Arc::clone(&token.name)).or_insert(Patience {
            used: Duration::ZERO,
            at: now,
        });
        patience.used = patience.used.saturating_sub(now.saturating_sub(patience.at));
        patience.at = now;
        let after = patience.used + each;
        if after > most {
            let detail = format!("the token {} asks more than {rate} times a minute", quote(&token.name));
            let remedy = "wait; a kill is let in at any time";
            return Err(Refusal::new(Fault::TooManyRequests, detail, remedy).retry_after(after - most));
        }
        patience.used = after;
        Ok(())
    }

    /// Who holds the token that a request shows, if it shows one that is known, whatever they may do.
    pub fn actor_of(&self, headers: &HeaderMap, peer: SocketAddr) -> Actor {
        self.known(headers)
            .map_or_else(|_| nobody(peer), |token| actor(token, peer))
    }

    fn known(&self, headers: &HeaderMap) -> Result<&Token, &'static str> {
        let shown = shown(headers)?;
        let digest: [u8; 32] = Sha256::digest(shown).into();
        // Every token is looked at, whichever fits: the time tells nothing.
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.sha256.ct_eq(&digest)) {
                found = Some(token);
            }
        }
        found.ok_or("the token is not known here")
    }

    fn who_may(&self, need: Need) -> String {
        let roles = [Role::Viewer, Role::Operator, Role::Admin, Role::Emergency];
        let names: Vec<&str> = roles
            .into_iter()
            .filter(|role| may(*role, need))
            .map(Role::as_str)
            .collect();
        format!("use a token with one of the roles {}", names.join(", "))
    }

    /// Books a failure; one too many becomes a refusal of its own.
    fn count(&self, refusal: Refusal, peer: SocketAddr, now: Duration) -> Refusal {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.add(peer.ip(), now) {
            Ok(()) => refusal,
            Err(wait) => {
                let detail = "too many requests from this address had no token, a wrong one, or a lesser role";
                let remedy = "wait, then send a right token; a right one is let in at any time";
                Refusal::new(Fault::TooManyFailures, detail, remedy).retry_after(wait)
            }
        }
    }
}

fn nobody(peer: SocketAddr) -> Actor {
    Actor {
        name: "anonymous".into(),
        role: None,
        from: Some(peer),
    }
}

fn actor(token: &Token, peer: SocketAddr) -> Actor {
    Actor {
        name: token.name.clone(),
        role: Some(token.role.as_str()),
        from: Some(peer),
    }
}

fn shown(headers: &HeaderMap) -> Result<&[u8], &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or("no token was sent")?;
    if values.next().is_some() {
        return Err("more than one `authorization` was sent");
    }
    let (scheme, token) = value
        .as_bytes()
        .split_at_checked("bearer ".len())
        .ok_or("`authorization` is no bearer token")?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") || token.trim_ascii().is_empty() {
        return Err("`authorization` is no bearer token");
    }
    Ok(token.trim_ascii())
}

/// So many failures are answered as what they are.
const BURST: u32 = 20;

/// One more is, after each of these.
const PARDON: Duration = Duration::from_secs(3);

/// So many addresses are remembered; one more replaces the one that failed longest ago.
const ADDRESSES: usize = 4_096;

/// How much patience is left with whom. An address that is not there has all of it.
#[derive(Debug, Default)]
struct Failures(HashMap<IpAddr, Patience>);

#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How much is used up, in time: one failure is [`PARDON`].
    used: Duration,
    /// When that was.
    at: Duration,
}

impl Failures {
    /// Books one more; the error says how long to wait.
    fn add(&mut self, from: IpAddr, now: Duration) -> Result<(), Duration> {
        let from = neighbourhood(from);
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&from) {
            let oldest = self
                .0
                .iter()
                .min_by_key(|(_, patience)| patience.at)
                .map(|(address, _)| *address);
            oldest.map(|address| self.0.remove(&address));
        }
        let patience = self.0.entry(from).or_insert(Patience {
            used: Duration::ZERO,
            at: now,
        });
        patience.used = patience.used.saturating_sub(now.saturating_sub(patience.at));
        patience.at = now;
        let after = patience.used + PARDON;
        let most = PARDON * BURST;
        if after > most {
            return Err(after - most);
        }
        patience.used = after;
        Ok(())
    }
}

/// Who shares a patience: an IPv4 address, or the 64 bits of an IPv6 network, in which one host may take any address.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn peer() -> SocketAddr {
        "192.0.2.7:5000".parse().unwrap()
    }

    fn token(name: &str, role: Role) -> Token {
        Token {
            name: name.into(),
            role,
            sha256: Sha256::digest(format!("secret of {name}")).into(),
            environments: None,
            flags: None,
            rate: 600,
        }
    }

    fn gate() -> Gate {
        let tokens = vec![
            token("ann", Role::Admin),
            token("olga", Role::Operator),
            token("vic", Role::Viewer),
            token("eve", Role::Emergency),
            token("cli", Role::Client),
        ];
        Gate::new(tokens, true)
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn enter(gate: &Gate, name: &str, need: Need) -> Result<Visitor, Fault> {
        let headers = with(&format!("Bearer secret of {name}"));
        gate.admit(need, &headers, peer(), "production", NOW)
            .map_err(|refusal| refusal.fault)
    }

    #[test]
    fn each_role_may_do_exactly_its_part() {
        let gate = gate();
        let needs = [
            Need::Status,
            Need::Read,
            Need::Metrics,
            Need::Kill,
            Need::Rollback,
            Need::Freeze,
            Need::Rearm,
            Need::Change,
        ];
        for (name, allowed) in [
            ("ann", [true; 8]),
            ("olga", [true; 8]),
            ("vic", [true, true, true, false, false, false, false, false]),
            ("eve", [true, false, false, true, true, true, false, false]),
            ("cli", [false; 8]),
        ] {
            for (need, allowed) in needs.into_iter().zip(allowed) {
                let entered = enter(&gate, name, need);
                assert_eq!(entered.is_ok(), allowed, "{name} {need:?}");
                assert!(entered.is_ok() || entered.is_err_and(|fault| fault == Fault::Forbidden));
            }
        }
    }

    #[test]
    fn visitor_is_known_by_name_role_and_address() {
        let visitor = enter(&gate(), "olga", Need::Kill).unwrap();
        assert_eq!(&*visitor.actor.name, "olga");
        assert_eq!(visitor.actor.role, Some("operator"));
        assert_eq!(visitor.actor.from, Some(peer()));
    }

    #[test]
    fn anything_but_one_known_bearer_token_is_401() {
        let gate = gate();
        let mut twice = with("Bearer secret of ann");
        twice.append(AUTHORIZATION, "Bearer secret of ann".parse().unwrap());
        let bad = [
            with("Bearer secret of nobody"),
            with("Basic secret of ann"),
            with("Bearer "),
            with("secret of ann"),
        ];
        for headers in bad.iter().chain([&twice, &HeaderMap::new()]) {
            let refusal = gate
                .admit(Need::Status, headers, peer(), "production", NOW)
                .unwrap_err();
            assert_eq!(refusal.fault, Fault::Unauthorized, "{headers:?}");
            assert!(!format!("{refusal:?}").contains("secret"), "a token is never repeated");
        }
        assert!(
            gate.admit(Need::Status, &with("bEARER   secret of ann"), peer(), "production", NOW)
                .is_ok()
        );
    }

    #[test]
    fn without_any_token_everybody_reads_and_nobody_writes() {
        let gate = Gate::new(Vec::new(), false);
        for need in [Need::Status, Need::Read, Need::Metrics] {
            assert!(gate.admit(need, &HeaderMap::new(), peer(), "production", NOW).is_ok());
        }
        for need in [Need::Kill, Need::Rearm, Need::Change, Need::Rollback, Need::Freeze] {
            let refusal = gate
                .admit(need, &with("Bearer x"), peer(), "production", NOW)
                .unwrap_err();
            assert_eq!(refusal.fault, Fault::Unauthorized);
            assert!(refusal.problem.remedy.contains("understudy token new --role operator"));
        }
    }

    #[test]
    fn metrics_are_open_unless_closed() {
        let open = Gate::new(vec![token("ann", Role::Admin)], false);
        assert!(
            open.admit(Need::Metrics, &HeaderMap::new(), peer(), "production", NOW)
                .is_ok()
        );
        assert!(
            gate()
                .admit(Need::Metrics, &HeaderMap::new(), peer(), "production", NOW)
                .is_err()
        );
    }

    #[test]
    fn address_that_fails_too_often_is_told_to_wait_and_a_right_token_still_enters() {
        let gate = gate();
        let fail = |now| {
            gate.admit(Need::Kill, &with("Bearer guess"), peer(), "production", now)
                .unwrap_err()
        };
        for _ in 0..BURST {
            assert_eq!(fail(NOW).fault, Fault::Unauthorized);
        }
        let refusal = fail(NOW);
        assert_eq!(refusal, refusal.clone().retry_after(PARDON));
        assert_eq!(refusal.fault, Fault::TooManyFailures);
        assert!(enter(&gate, "eve", Need::Kill).is_ok());
        assert_eq!(fail(NOW + PARDON).fault, Fault::Unauthorized);
        assert_eq!(fail(NOW + PARDON).fault, Fault::TooManyFailures);
        let elsewhere = "192.0.2.8:5000".parse().unwrap();
        let refusal = gate
            .admit(Need::Kill, &with("Bearer guess"), elsewhere, "production", NOW)
            .unwrap_err();
        assert_eq!(refusal.fault, Fault::Unauthorized);
    }

    #[test]
    fn remembered_addresses_are_bounded_and_a_network_shares_its_patience() {
        let mut failures = Failures::default();
        for n in 0..=u32::try_from(ADDRESSES).unwrap() {
            failures
                .add(IpAddr::V4(n.into()), NOW + Duration::from_millis(n.into()))
                .unwrap();
        }
        assert_eq!(failures.0.len(), ADDRESSES);
        assert!(!failures.0.contains_key(&IpAddr::V4(0.into())));
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
    }

    #[test]
    fn token_that_asks_too_often_is_told_when_to_come_again_and_kills_all_the_same() {
        let hasty = Token {
            rate: 60,
            ..token("olga", Role::Operator)
        };
        let gate = Gate::new(vec![hasty, token("ann", Role::Admin)], false);
        let ask = |need, now| gate.admit(need, &with("Bearer secret of olga"), peer(), "production", now);
        for _ in 0..10 {
            assert!(ask(Need::Read, NOW).is_ok());
        }
        let refusal = ask(Need::Change, NOW).unwrap_err();
        assert_eq!(refusal.fault, Fault::TooManyRequests);
        assert_eq!(refusal, refusal.clone().retry_after(Duration::from_secs(1)));
        assert!(ask(Need::Kill, NOW).is_ok());
        assert!(
            enter(&gate, "ann", Need::Read).is_ok(),
            "another token has its own pace"
        );
        assert!(ask(Need::Read, NOW + Duration::from_secs(1)).is_ok());
        assert!(ask(Need::Read, NOW + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn token_of_another_environment_opens_nothing_not_even_a_kill() {
        let elsewhere = Token {
            environments: Some(["staging".to_owned()].into()),
            ..token("olga", Role::Admin)
        };
        let gate = Gate::new(vec![elsewhere], false);
        for need in [Need::Read, Need::Kill] {
            assert_eq!(enter(&gate, "olga", need).map(|_| ()), Err(Fault::Forbidden));
        }
    }
}
