//! Who may ask for flags, how often, and which flags they may see.
//!
//! In: the tokens of the configuration, the headers of a request, the address it came from, an instant. Out: a
//! [`Visitor`], or why not. Deterministic; the only state is who asked and who failed how often lately.
//!
//! - A token is sent as `authorization: Bearer TOKEN` or as `x-api-key: TOKEN`. Without any token configured everybody who
//!   reaches the listener may ask, which the configuration allows on loopback only.
//! - The role `client` sees nothing but this, and no flag whose `metadata.exposed` is `"false"`; `viewer`, `operator` and
//!   `admin` see every flag. `emergency` may not ask.
//! - An event stream is opened by a URL alone, for browsers send no header with it. Its ticket is made from the token and
//!   opens nothing else; it ends with the token.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::{Role, Token};
use crate::engine::flags::Flag;

/// The metadata of a flag that a client must not see.
const EXPOSED: &str = "exposed";

/// What a ticket is made over.
const TICKET: &[u8] = b"understudy event stream";

/// Failures of one address that are answered as what they are, and the time after which one more is.
const FAILURES: u32 = 20;
const PARDON: Duration = Duration::from_secs(3);

/// So many clients are remembered; one more replaces the one who has been quiet for longest.
const REMEMBERED: usize = 4_096;

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Whose token it is; none where none is configured.
    token: Option<Arc<Known>>,
}

/// Why somebody was not let in.
#[derive(Clone, Debug)]
pub enum Turned {
    /// A token is needed, and none that is known was sent.
    Unknown,
    /// The token is for other environments.
    Elsewhere(Arc<str>, &'static str),
    /// The holder of this token may not ask.
    Role(Arc<str>, &'static str),
    /// Too often; the time after which to come again.
    TooOften(Duration),
}

/// See the module.
pub struct Gate {
    tokens: Vec<Arc<Known>>,
    per_second: Option<u32>,
    asked: Mutex<Pace<Client>>,
    failed: Mutex<Pace<IpAddr>>,
}

/// A token, and its ticket.
struct Known {
    token: Token,
    ticket: [u8; 32],
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("tokens", &self.tokens)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

impl Visitor {
    /// Whether this visitor may see a flag. Whoever may not is answered as if there were none.
    #[must_use]
    pub fn sees(&self, flag: &Flag) -> bool {
        let hidden = flag.about.metadata.get(EXPOSED).is_some_and(|text| text == "false");
        let token = self.token.as_ref().map(|known| &known.token);
        let is_client = token.is_some_and(|token| token.role == Role::Client);
        let is_for_it = token.is_none_or(|token| token.is_for_flag(flag.key.as_str()));
        flag.defined && is_for_it && !(hidden && is_client)
    }

    /// The secret part of the URL at which the visitor's event stream is; `None` where no token is needed.
    #[must_use]
    pub fn ticket(&self) -> Option<String> {
        let ticket = self.token.as_ref()?.ticket;
        Some(ticket.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Gate {
    /// A gate for these tokens. Each of their holders, or without tokens each address, may ask `per_second` times in a
    /// second and as often at once.
    #[must_use]
    pub fn new(tokens: &[Token], per_second: Option<usize>) -> Self {
        let tokens = tokens.iter().map(|token| {
            Arc::new(Known {
                token: token.clone(),
                ticket: ticket(token),
            })
        });
        Self {
            tokens: tokens.collect(),
            per_second: per_second.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
            asked: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Lets a request in, or says why not. `environment` is that of the rules in force, `now` a monotonic instant.
    ///
    /// # Errors
    /// [`Turned`].
    pub fn admit(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        environment: &str,
        now: Duration,
    ) -> Result<Visitor, Turned> {
        if self.tokens.is_empty() {
            return self.counted(Visitor { token: None }, peer, now);
        }
        let digest: Option<[u8; 32]> = shown(headers).map(|token| Sha256::digest(token).into());
        let known = digest.and_then(|digest| self.find(|known| known.token.sha256.ct_eq(&digest).into()));
        self.let_in(known, peer, environment, now)
    }

    /// The same for whoever comes by the URL of an event stream.
    ///
    /// # Errors
    /// [`Turned`].
    pub fn admit_ticket(
        &self,
        shown: Option<&str>,
        peer: IpAddr,
        environment: &str,
        now: Duration,
    ) -> Result<Visitor, Turned> {
        if self.tokens.is_empty() {
            return self.counted(Visitor { token: None }, peer, now);
        }
        let shown = shown.and_then(bytes_of_hex);
        let known = shown.and_then(|shown| self.find(|known| known.ticket.ct_eq(&shown).into()));
        self.let_in(known, peer, environment, now)
    }

    /// Every token is looked at, whichever fits: the time tells nothing.
    fn find(&self, fits: impl Fn(&Known) -> bool) -> Option<&Arc<Known>> {
        self.tokens
            .iter()
            .fold(None, |found, known| if fits(known) { Some(known) } else { found })
    }

    fn let_in(
        &self,
        known: Option<&Arc<Known>>,
        peer: IpAddr,
        environment: &str,
        now: Duration,
    ) -> Result<Visitor, Turned> {
        let turned = match known {
            Some(known) if !known.token.is_for(environment) => {
                Turned::Elsewhere(Arc::clone(&known.token.name), known.token.role.as_str())
            }
            Some(known) if known.token.role != Role::Emergency => {
                let visitor = Visitor {
                    token: Some(Arc::clone(known)),
                };
                return self.counted(visitor, peer, now);
            }
            Some(known) => Turned::Role(Arc::clone(&known.token.name), known.token.role.as_str()),
            None => Turned::Unknown,
        };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.take(neighbourhood(peer), PARDON, FAILURES, now) {
            Ok(()) => Err(turned),
            Err(wait) => Err(Turned::TooOften(wait)),
        }
    }

    fn counted(&self, visitor: Visitor, peer: IpAddr, now: Duration) -> Result<Visitor, Turned> {
        let Some(most) = self.per_second else {
            return Ok(visitor);
        };
        let client = match &visitor.token {
            Some(known) => Client::Token(Arc::clone(&known.token.name)),
            None => Client::Address(neighbourhood(peer)),
        };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let every = Duration::from_secs(1) / most.max(1);
        match asked.take(client, every, most, now) {
            Ok(()) => Ok(visitor),
            Err(wait) => Err(Turned::TooOften(wait)),
        }
    }
}

fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.as_bytes();
        values.next().is_none().then_some(value)
    };
    let token = match one(AUTHORIZATION.as_str()) {
        Some(value) => {
            let (scheme, token) = value.split_at_checked("bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)?
        }
        None => one("x-api-key")?,
    };
    Some(token.trim_ascii()).filter(|token| !token.is_empty())
}

fn ticket(token: &Token) -> [u8; 32] {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&token.sha256) else {
        return token.sha256;
    };
    mac.update(TICKET);
    mac.finalize().into_bytes().into()
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let bytes: Vec<u8> = digits?
        .chunks(2)
        .filter_map(|pair| u8::try_from(pair.iter().fold(0, |byte, digit| byte << 4 | digit)).ok())
        .collect();
    bytes.try_into().ok().filter(|_| text.len() == 64)
}

/// Who shares a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    Address(IpAddr),
    Token(Arc<str>),
}

/// How often each has come lately: the generic cell rate algorithm (ITU-T I.371), one instant for each.
#[derive(Debug)]
struct Pace<K>(HashMap<K, Duration>);

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Pace<K> {
    /// Takes one more, of which one is due `every` so often and `burst` may come at once; the error says how long to wait.
    fn take(&mut self, who: K, every: Duration, burst: u32, now: Duration) -> Result<(), Duration> {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&who) {
            self.0.retain(|_, due| *due > now);
            if self.0.len() >= REMEMBERED {
                let quiet = self.0.iter().min_by_key(|(_, due)| **due).map(|(who, _)| who.clone());
                quiet.map(|who| self.0.remove(&who));
            }
        }
        let due = self.0.entry(who).or_insert(now);
        let next = (*due).max(now) + every;
        let ahead = next.saturating_sub(now);
        let most = every.saturating_mul(burst);
        if ahead > most {
            return Err(ahead - most);
        }
        *due = next;
        Ok(())
    }
}

/// Who shares a limit by address: an IPv4 address, or the 64 bits of an IPv6 network, in which one host may take any.
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
    const HERE: &str = "production";
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

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

    fn gate(per_second: Option<usize>) -> Gate {
        let tokens = [
            token("cli", Role::Client),
            token("vic", Role::Viewer),
            token("eve", Role::Emergency),
        ];
        Gate::new(&tokens, per_second)
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn token_opens_in_either_header_and_emergency_does_not() {
        let gate = gate(None);
        for headers in [
            with("authorization", "Bearer secret of cli"),
            with("authorization", "bEARER  secret of cli "),
            with("x-api-key", "secret of vic"),
        ] {
            assert!(gate.admit(&headers, PEER, HERE, NOW).is_ok(), "{headers:?}");
        }
        let mut twice = with("x-api-key", "secret of cli");
        twice.append("x-api-key", "secret of cli".parse().unwrap());
        for headers in [
            HeaderMap::new(),
            twice,
            with("authorization", "secret of cli"),
            with("authorization", "Basic secret of cli"),
            with("x-api-key", "secret of nobody"),
            with("x-api-key", ""),
        ] {
            assert!(
                matches!(gate.admit(&headers, PEER, HERE, NOW), Err(Turned::Unknown)),
                "{headers:?}"
            );
        }
        let eve = gate.admit(&with("x-api-key", "secret of eve"), PEER, HERE, NOW);
        assert!(matches!(eve, Err(Turned::Role(name, "emergency")) if &*name == "eve"));
        assert!(Gate::new(&[], None).admit(&HeaderMap::new(), PEER, HERE, NOW).is_ok());
    }

    #[test]
    fn ticket_opens_its_own_holders_stream_and_nothing_else() {
        let gate = gate(None);
        let visitor = gate
            .admit(&with("x-api-key", "secret of cli"), PEER, HERE, NOW)
            .unwrap();
        let ticket = visitor.ticket().unwrap();
        assert_eq!(ticket.len(), 64);
        let entered = gate.admit_ticket(Some(&ticket), PEER, HERE, NOW).unwrap();
        assert_eq!(entered.ticket(), Some(ticket.clone()));
        assert!(gate.admit(&with("x-api-key", &ticket), PEER, HERE, NOW).is_err());
        for wrong in [
            None,
            Some(""),
            Some("zz"),
            Some(&ticket[2..]),
            Some(&*format!("00{}", &ticket[2..])),
        ] {
            assert!(gate.admit_ticket(wrong, PEER, HERE, NOW).is_err(), "{wrong:?}");
        }
        let open = Gate::new(&[], None);
        assert_eq!(open.admit_ticket(None, PEER, HERE, NOW).unwrap().ticket(), None);
    }

    #[test]
    fn token_for_certain_flags_and_environments_sees_no_others() {
        let narrow = Token {
            environments: Some(["production".to_owned()].into()),
            flags: Some(["shop-".to_owned()].into()),
            ..token("nia", Role::Client)
        };
        let gate = Gate::new(&[narrow], None);
        let headers = with("x-api-key", "secret of nia");
        let visitor = gate.admit(&headers, PEER, HERE, NOW).unwrap();
        let sees = |key: &str| {
            let mut flag = Flag::unknown(crate::engine::vocab::FlagKey::parse(key).unwrap());
            flag.defined = true;
            visitor.sees(&flag)
        };
        assert_eq!((sees("shop-new"), sees("pay"), sees("a-shop-")), (true, false, false));
        let elsewhere = gate.admit(&headers, PEER, "staging", NOW);
        assert!(matches!(elsewhere, Err(Turned::Elsewhere(name, "client")) if &*name == "nia"));
        let ticket = visitor.ticket().unwrap();
        assert!(gate.admit_ticket(Some(&ticket), PEER, "staging", NOW).is_err());
    }

    #[test]
    fn flag_that_is_not_exposed_is_hidden_from_clients_alone() {
        let gate = gate(None);
        let mut flag = Flag::unknown(crate::engine::vocab::FlagKey::parse("pay").unwrap());
        let visitor = |name: &str| {
            gate.admit(&with("x-api-key", &format!("secret of {name}")), PEER, HERE, NOW)
                .unwrap()
        };
        assert!(!visitor("vic").sees(&flag), "nobody defines it");
        flag.defined = true;
        assert!(visitor("cli").sees(&flag));
        flag.about.metadata.insert("exposed".into(), "false".into());
        assert!(!visitor("cli").sees(&flag));
        assert!(visitor("vic").sees(&flag));
        assert!(
            Gate::new(&[], None)
                .admit(&HeaderMap::new(), PEER, HERE, NOW)
                .unwrap()
                .sees(&flag)
        );
    }

    #[test]
    fn each_holder_has_a_limit_of_its_own() {
        let gate = gate(Some(2));
        let ask = |name: &str, now| gate.admit(&with("x-api-key", &format!("secret of {name}")), PEER, HERE, now);
        assert!(ask("cli", NOW).is_ok() && ask("cli", NOW).is_ok());
        let Err(Turned::TooOften(wait)) = ask("cli", NOW) else {
            panic!("the third")
        };
        assert_eq!(wait, Duration::from_millis(500));
        assert!(ask("vic", NOW).is_ok());
        assert!(ask("cli", NOW + wait).is_ok());
        assert!(ask("cli", NOW + wait).is_err());
    }

    #[test]
    fn guesses_are_bounded_and_a_right_token_enters_all_the_same() {
        let gate = gate(None);
        let guess = |now| gate.admit(&with("x-api-key", "guess"), PEER, HERE, now).unwrap_err();
        for _ in 0..FAILURES {
            assert!(matches!(guess(NOW), Turned::Unknown));
        }
        assert!(matches!(guess(NOW), Turned::TooOften(wait) if wait == PARDON));
        assert!(gate.admit(&with("x-api-key", "secret of cli"), PEER, HERE, NOW).is_ok());
        assert!(matches!(guess(NOW + PARDON), Turned::Unknown));
    }

    #[test]
    fn remembered_clients_are_bounded() {
        let mut pace = Pace::default();
        for n in 0..REMEMBERED + 10 {
            let now = NOW + Duration::from_millis(n as u64);
            pace.take(n, Duration::from_secs(60), 1, now).unwrap();
        }
        assert_eq!(pace.0.len(), REMEMBERED);
        assert!(!pace.0.contains_key(&0), "the quietest went");
    }
}
