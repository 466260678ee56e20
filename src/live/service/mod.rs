//! The replicas of a backend: where they are, which of them take requests, and when to look at the others.
//!
//! Workers pick from a list that they read without a lock, and say what connecting came to. Looking names up, probing
//! what was taken out and asking for health is left to the task behind `proxy::upstream`; it is told when there
//! is something to do and says here what it found. Nothing here waits or does I/O. Every moment comes in as `now`, of the
//! monotonic clock.

mod spec;
mod target;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::tally::Label as _;
use crate::engine::vocab::Side;

pub use spec::{Ejected, Ejection, Endpoint, Found, Health, Protocol, ServiceTally, Spec, Tls};
pub use target::{Place, Target};

use target::Fitness;

/// The most addresses of one backend; a name that has more is cut, and the rest is not used.
pub const ADDRESSES: usize = 256;

/// The replicas in the order in which they were found: of every endpoint the preferred family first.
#[derive(Debug, Default)]
pub struct Targets {
    list: Vec<Arc<Target>>,
    preferred: usize,
}

impl Targets {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Target>] {
        &self.list
    }
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Pick {
    /// This one; whether there was a choice.
    One(Arc<Target>, bool),
    /// Nobody is left that could be reached; whether because nobody answers.
    Nobody {
        /// Connecting would only run out of time.
        silent: bool,
    },
    /// Nothing is known yet.
    Unknown,
}

/// A backend's replicas.
#[derive(Debug)]
pub struct Service {
    /// What is configured.
    pub spec: Spec,
    /// What is counted.
    pub tally: Arc<ServiceTally>,
    targets: ArcSwap<Targets>,
    book: Mutex<Book>,
    known: watch::Sender<bool>,
    nudge: Notify,
    lookup_wanted: AtomicBool,
    // Answers for which one still listens to what is said before them.
    listens: AtomicU32,
}

/// So many answers without an interim one before them, and it is taken that there will be none.
const LISTENS: u32 = 1_000;

/// What is under TLS cannot be seen from outside: there one goes on listening, as where something was said.
const FOR_GOOD: u32 = u32::MAX;

#[derive(Debug)]
struct Book {
    // By endpoint: what the last look-up that succeeded gave.
    found: Vec<Option<Vec<Arc<Target>>>>,
    failing: Vec<bool>,
}

impl Service {
    /// The replicas as far as they are known without asking anybody: addresses that are written, and what an earlier
    /// configuration knew of the same endpoints.
    #[must_use]
    pub fn new(spec: Spec, before: Option<&Self>, tally: Arc<ServiceTally>) -> Arc<Self> {
        let endpoints = spec.endpoints.len();
        let secured = spec.tls.is_some();
        let said = before.is_some_and(|before| before.listens.load(Relaxed) == FOR_GOOD);
        let service = Self {
            listens: AtomicU32::new(if secured || said { FOR_GOOD } else { LISTENS }),
            spec,
            tally,
            targets: ArcSwap::default(),
            book: Mutex::new(Book {
                found: vec![None; endpoints],
                failing: vec![false; endpoints],
            }),
            known: watch::Sender::new(false),
            nudge: Notify::new(),
            lookup_wanted: AtomicBool::new(false),
        };
        let localhost: Arc<str> = "localhost".into();
        let mut book = service.book();
        for (at, endpoint) in service.spec.endpoints.iter().enumerate() {
            let known = before.and_then(|before| before.known_of(endpoint));
            book.found[at] = known.or_else(|| match endpoint {
                Endpoint::Host(host, port) => {
                    let place = Place::Ip(SocketAddr::new(host.parse().ok()?, *port));
                    Some(vec![service.target(place, host)])
                }
                Endpoint::Socket(path) => Some(vec![service.target(Place::Socket(Arc::clone(path)), &localhost)]),
            });
        }
        service.show(&book);
        drop(book);
        Arc::new(service)
    }

    /// Whether interim answers (1xx) are to be listened for.
    #[must_use]
    pub fn may_say_interim(&self) -> bool {
        self.listens.load(Relaxed) > 0
    }

    /// A replica has answered, and on that connection it has said something before, then or earlier, or it has not.
    pub fn answered(&self, said_interim: bool) {
        match self.listens.load(Relaxed) {
            FOR_GOOD => {}
            _ if said_interim => self.listens.store(FOR_GOOD, Relaxed),
            0 => {}
            // Workers may count past each other: what counts is that it comes to an end.
            left => self.listens.store(left - 1, Relaxed),
        }
    }

    fn target(&self, place: Place, host: &Arc<str>) -> Arc<Target> {
        // Whoever is to be asked is asked at once; all others only when there is a reason.
        let asked = self.spec.health.is_some();
        Target::new(place, host, if asked { Duration::ZERO } else { Duration::MAX })
    }

    fn known_of(&self, endpoint: &Endpoint) -> Option<Vec<Arc<Target>>> {
        let at = self.spec.endpoints.iter().position(|known| known == endpoint)?;
        self.book().found[at].clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // One family first: a replica with an address of each would be asked twice as often, and the other family's may be
    // unreachable from here or somebody else's.
    fn show(&self, book: &Book) {
        let mut targets = Targets::default();
        let mut others = Vec::new();
        for found in book.found.iter().flatten() {
            let first = found.first().map(|target| target.place.clone());
            for target in found {
                let same = match (&first, &target.place) {
                    (Some(Place::Ip(first)), Place::Ip(this)) => first.is_ipv4() == this.is_ipv4(),
                    _ => true,
                };
                if same { &mut targets.list } else { &mut others }.push(Arc::clone(target));
            }
        }
        targets.preferred = targets.list.len();
        targets.list.append(&mut others);
        targets.list.truncate(ADDRESSES);
        targets.preferred = targets.preferred.min(ADDRESSES);
        let known = !targets.list.is_empty() || book.failing.iter().all(|failing| *failing);
        self.targets.store(Arc::new(targets));
        self.known
            .send_if_modified(|before| std::mem::replace(before, known) != known);
    }

    /// The replicas known now.
    #[must_use]
    pub fn targets(&self) -> Arc<Targets> {
        self.targets.load_full()
    }

    /// Turns true when it is known where the backend is, or that nobody knows.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<bool> {
        self.known.subscribe()
    }

    /// A replica that was not `tried` yet: of two whose `turn` it is the one with less to do. Where none is in
    /// service, all are, for a wrong guess of ours must not be an outage; only what would cost a request to new its
    /// time, while legacy waits to answer it, is not tried at all.
    #[must_use]
    pub fn pick(&self, tried: &[u64], turn: impl FnOnce() -> usize) -> Pick {
        let targets = self.targets.load();
        match &*targets.list {
            [] if *self.known.borrow() => Pick::Nobody { silent: false },
            [] => Pick::Unknown,
            [only] if tried.is_empty() => {
                if only.is_out() && self.gives_up(only) {
                    return Pick::Nobody { silent: true };
                }
                Pick::One(Arc::clone(only), false)
            }
            list => self.pick_of(list, targets.preferred, tried, turn()),
        }
    }

    fn pick_of(&self, list: &[Arc<Target>], preferred: usize, tried: &[u64], turn: usize) -> Pick {
        let (first, second) = list.split_at(preferred);
        for family in [first, second] {
            let mut usable = rotated(family, turn).filter(|target| !target.is_out() && !tried.contains(&target.id));
            let Some(one) = usable.next() else { continue };
            let other = usable.next();
            let busy = |target: &&Arc<Target>| target.in_flight.load(Relaxed);
            let chosen = other.filter(|other| busy(other) < busy(&one)).unwrap_or(one);
            return Pick::One(Arc::clone(chosen), list.len() > 1);
        }
        let mut left = rotated(list, turn).filter(|target| !tried.contains(&target.id));
        let mut silent = false;
        let one = left.find(|target| {
            let gives_up = self.gives_up(target);
            silent |= gives_up;
            !gives_up
        });
        match one {
            Some(one) => Pick::One(Arc::clone(one), list.len() > 1),
            None => Pick::Nobody { silent },
        }
    }

    fn gives_up(&self, target: &Target) -> bool {
        self.spec.side == Side::New && {
            let fitness = target.fitness();
            fitness.ejected && fitness.silent
        }
    }

    /// A connection was made.
    pub fn connected(&self, target: &Target, now: Duration) {
        // Read before it is locked: this is said with every connection, and there is hardly ever anything to change.
        if target.is_out() {
            let mut fitness = target.fitness();
            self.bring_back(target, &mut fitness, now);
        }
    }

    fn bring_back(&self, target: &Target, fitness: &mut Fitness, now: Duration) {
        if fitness.ejected {
            fitness.ejected = false;
            fitness.silent = false;
            fitness.back_since = now;
            fitness.next_look = self
                .spec
                .health
                .as_ref()
                .map_or(Duration::MAX, |health| now + health.interval);
            target.show(fitness);
            tracing::info!(backend = self.spec.side.as_str(), address = %target.place, "an address is in service again");
        }
    }

    /// No connection could be made for a request.
    pub fn failed(&self, target: &Target, why: Ejected, now: Duration) {
        // What is wrong may be that it has moved.
        self.want_lookup();
        // The only address stays in service, except that nobody waits for new in vain time and again.
        let spare = self.targets.load().list.len() > 1;
        if spare || (self.spec.side == Side::New && why == Ejected::Timeout) {
            let mut fitness = target.fitness();
            // Requests that have no other choice meet it too: only a look from time to time moves the next one.
            if !fitness.ejected {
                self.eject(target, &mut fitness, why, now);
            }
        }
    }

    fn eject(&self, target: &Target, fitness: &mut Fitness, why: Ejected, now: Duration) {
        let Ejection { first, longest } = self.spec.ejection;
        if !fitness.ejected {
            // Whoever had been well for long begins anew.
            if now.saturating_sub(fitness.back_since) > longest {
                fitness.failures = 0;
            }
            self.tally.ejections.add(why);
            tracing::warn!(
                backend = self.spec.side.as_str(),
                address = %target.place,
                reason = why.label(),
                "an address is out of service until it can be connected to"
            );
        }
        fitness.ejected = true;
        fitness.silent = why == Ejected::Timeout;
        fitness.looking = false;
        fitness.next_look = now + first.saturating_mul(1 << fitness.failures.min(16)).min(longest);
        fitness.failures = fitness.failures.saturating_add(1);
        target.show(fitness);
        self.nudge.notify_one();
    }

    /// It took a request and did not answer in time: worth a look, if there are others to go to.
    pub fn suspect(&self, target: &Target) {
        if self.targets.load().list.len() > 1 {
            let mut fitness = target.fitness();
            if !fitness.ejected && !fitness.looking {
                fitness.next_look = Duration::ZERO;
                drop(fitness);
                self.nudge.notify_one();
            }
        }
    }

    /// What a health check came to.
    pub fn checked(&self, target: &Target, good: bool, now: Duration) {
        self.tally.checks.add(if good { Found::Good } else { Found::Bad });
        let Some(health) = &self.spec.health else { return };
        let mut fitness = target.fitness();
        fitness.looking = false;
        fitness.next_look = now + health.interval;
        if good {
            fitness.bad_checks = 0;
            fitness.good_checks = fitness.good_checks.saturating_add(1);
        } else {
            fitness.good_checks = 0;
            fitness.bad_checks = fitness.bad_checks.saturating_add(1);
        }
        let (backend, address) = (self.spec.side.as_str(), &target.place);
        if !fitness.unhealthy && fitness.bad_checks >= health.unhealthy {
            fitness.unhealthy = true;
            self.tally.ejections.add(Ejected::Health);
            tracing::warn!(backend, %address, "an address is out of service until its health checks pass");
        } else if fitness.good_checks >= health.healthy {
            if fitness.unhealthy {
                fitness.unhealthy = false;
                tracing::info!(backend, %address, "an address passes its health checks again");
            }
            self.bring_back(target, &mut fitness, now);
        }
        target.show(&fitness);
    }

    /// What connecting to a replica came to that nobody asked for anything.
    pub fn probed(&self, target: &Target, failed: Option<Ejected>, now: Duration) {
        let mut fitness = target.fitness();
        if let Some(why) = failed {
            self.eject(target, &mut fitness, why, now);
            return;
        }
        fitness.looking = false;
        if self.spec.health.is_none() {
            fitness.next_look = Duration::MAX;
        }
        self.bring_back(target, &mut fitness, now);
    }

    /// What has to be looked up: the endpoint's number, the name, the port.
    #[must_use]
    pub fn names(&self) -> Vec<(usize, Arc<str>, u16)> {
        let endpoints = self.spec.endpoints.iter().enumerate();
        endpoints
            .filter_map(|(at, endpoint)| match endpoint {
                Endpoint::Host(host, port) if host.parse::<IpAddr>().is_err() => Some((at, Arc::clone(host), *port)),
                _ => None,
            })
            .collect()
    }

    /// Whether somebody has asked for a look-up before its time.
    #[must_use]
    pub fn wants_lookup(&self) -> bool {
        self.lookup_wanted.swap(false, Relaxed)
    }

    fn want_lookup(&self) {
        if !self.names().is_empty() && !self.lookup_wanted.swap(true, Relaxed) {
            self.nudge.notify_one();
        }
    }

    /// What looking a name up gave. Without an answer, or with an empty one, what was known before stays.
    pub fn found(&self, at: usize, addresses: Option<Vec<SocketAddr>>) {
        let Some(Endpoint::Host(host, _)) = self.spec.endpoints.get(at) else {
            return;
        };
        let addresses = addresses.filter(|addresses| !addresses.is_empty());
        self.tally
            .lookups
            .add(if addresses.is_some() { Found::Good } else { Found::Bad });
        let mut book = self.book();
        let was_failing = std::mem::replace(&mut book.failing[at], addresses.is_none());
        let backend = self.spec.side.as_str();
        let Some(mut addresses) = addresses else {
            if !was_failing {
                let known = book.found[at].as_ref().map_or(0, Vec::len);
                tracing::warn!(
                    backend,
                    name = &**host,
                    known,
                    "a name cannot be looked up; what is known of it stays"
                );
            }
            self.show(&book);
            return;
        };
        // In which order an equal set comes means nothing, and each replica keeps what is known of it.
        let family = addresses[0].is_ipv4();
        addresses.sort_by_key(|address| (address.is_ipv4() != family, *address));
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        let before = book.found[at].take().unwrap_or_default();
        let same = before.len() == addresses.len()
            && before
                .iter()
                .zip(&addresses)
                .all(|(target, address)| target.place == Place::Ip(*address));
        if same {
            book.found[at] = Some(before);
        } else {
            tracing::info!(backend, name = &**host, ?addresses, "a name has new addresses");
            let target = |address: &SocketAddr| {
                let place = Place::Ip(*address);
                let known = before.iter().find(|target| target.place == place);
                known.map_or_else(|| self.target(place, host), Arc::clone)
            };
            book.found[at] = Some(addresses.iter().map(target).collect());
        }
        if !same || was_failing {
            self.show(&book);
        }
    }

    /// The replicas to be looked at now, and when the next one will be.
    #[must_use]
    pub fn due(&self, now: Duration) -> (Vec<Arc<Target>>, Duration) {
        let mut due = Vec::new();
        let mut next = Duration::MAX;
        for target in &self.targets.load().list {
            let mut fitness = target.fitness();
            if fitness.looking {
                continue;
            }
            if fitness.next_look <= now {
                fitness.looking = true;
                due.push(Arc::clone(target));
            } else {
                next = next.min(fitness.next_look);
            }
        }
        (due, next)
    }

    /// Nothing was found out about a replica: it is looked at again in a while.
    pub fn unanswered(&self, target: &Target, now: Duration) {
        let mut fitness = target.fitness();
        fitness.looking = false;
        fitness.next_look = now + self.spec.ejection.first;
    }

    /// There may be something new to do.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Waits until there may be something new to do.
    pub async fn nudged(&self) {
        self.nudge.notified().await;
    }
}

fn rotated(list: &[Arc<Target>], by: usize) -> impl Iterator<Item = &Arc<Target>> {
    let (back, front) = list.split_at(if list.is_empty() { 0 } else { by % list.len() });
    front.iter().chain(back)
}
