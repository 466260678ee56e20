//! What is killed: the state that forces legacy, as everybody in a fleet can join it.
//!
//! Pure. In: kills and re-arms by people, [`Trip`]s of the guards, entries read back from the store or received from peers.
//! Out: what is in force now. Publishing and storing belong to the caller.
//!
//! Every target has an epoch that only a re-arm raises. Of two entries for one target the higher epoch wins, and within an
//! epoch the kill wins; hence joining is commutative, associative and idempotent, and a state from before a re-arm cannot
//! undo it, however late it arrives. A held subject lives in the epochs of its route: an entry below the route's epoch is void
//! and dropped, which is how a re-arm of the route lifts all of them without listing any.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use super::HELD_LIMIT;
use super::trip::{Effect, Trip};
use crate::engine::vocab::{Epoch, FlagKey, RouteKey, SubjectHash};

/// What can be killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KillTarget {
    /// Every flag and every constant.
    All,
    /// One flag, wherever it is used.
    Flag(FlagKey),
    /// One route.
    Route(RouteKey),
    /// One subject on one route: it is held.
    Subject(RouteKey, SubjectHash),
}

impl fmt::Display for KillTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillTarget::All => f.write_str("everything"),
            KillTarget::Flag(flag) => write!(f, "flag {flag}"),
            KillTarget::Route(route) => write!(f, "route {route}"),
            KillTarget::Subject(route, subject) => write!(f, "subject {subject} on route {route}"),
        }
    }
}

/// The last word on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The life that this entry belongs to.
    pub epoch: Epoch,
    /// Killed, or re-armed.
    pub killed: bool,
    /// Why, in the words of whoever did it.
    pub reason: Arc<str>,
    /// Who did it.
    pub actor: Arc<str>,
    /// When, in milliseconds since 1970. Shown, and breaks ties; an epoch, not a clock, decides what holds.
    pub at_unix_ms: i64,
}

impl Kill {
    /// A total order, so that the greater of two entries is the same wherever they meet. Within an epoch a kill beats its
    /// absence, and the earliest kill keeps its reason.
    fn rank(&self) -> (Epoch, bool, Reverse<i64>, &str, &str) {
        (
            self.epoch,
            self.killed,
            Reverse(self.at_unix_ms),
            &self.reason,
            &self.actor,
        )
    }

    /// Becomes the greater of both; true if that changed anything.
    fn join(&mut self, other: &Kill) -> bool {
        let wins = other.rank() > self.rank();
        if wins {
            self.clone_from(other);
        }
        wins
    }
}

/// What a kill came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// What is in force: the target, or its route where no more subjects can be held.
    pub target: KillTarget,
    /// Its epoch.
    pub epoch: Epoch,
    /// False if it was killed already; then the first reason stands.
    pub changed: bool,
}

/// What a re-arm came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rearmed {
    /// Lifted; a new epoch began.
    Lifted {
        /// The new epoch.
        epoch: Epoch,
        /// How many held subjects of a route this lifted as well.
        subjects: usize,
    },
    /// It was not killed, so nothing changed. Something else that covers it may be.
    NotKilled,
}

/// A route's own entry, and those of its subjects at or above its epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RouteKills {
    own: Option<Kill>,
    subjects: BTreeMap<SubjectHash, Kill>,
    /// How many of the subjects are killed.
    held_count: usize,
}

impl RouteKills {
    fn epoch(&self) -> Epoch {
        self.own.as_ref().map_or(Epoch::default(), |kill| kill.epoch)
    }

    fn held(&self) -> impl Iterator<Item = SubjectHash> {
        self.subjects
            .iter()
            .filter(|(_, kill)| kill.killed)
            .map(|(subject, _)| *subject)
    }

    fn join_own(&mut self, kill: &Kill) -> bool {
        let changed = join_into(&mut self.own, kill);
        let epoch = self.epoch();
        self.subjects.retain(|_, subject| subject.epoch >= epoch);
        self.held_count = self.held().count();
        changed
    }

    fn join_subject(&mut self, subject: SubjectHash, kill: &Kill) -> bool {
        let held = |subjects: &BTreeMap<_, Kill>| usize::from(subjects.get(&subject).is_some_and(|kill| kill.killed));
        let before = held(&self.subjects);
        let changed = join_entry(self.subjects.entry(subject), kill);
        self.held_count = self.held_count - before + held(&self.subjects);
        changed
    }
}

/// Everything that is killed, and every target's epoch.
///
/// Bounded by what people do and by [`HELD_LIMIT`] held subjects a route; a join may bring in that many of each peer.
/// Cloned to be published: texts are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillSet {
    all: Option<Kill>,
    flags: BTreeMap<FlagKey, Kill>,
    routes: BTreeMap<RouteKey, RouteKills>,
}

impl KillSet {
    /// Is everything killed.
    #[must_use]
    pub fn everything_killed(&self) -> bool {
        self.all.as_ref().is_some_and(|kill| kill.killed)
    }

    /// Is this flag itself killed.
    #[must_use]
    pub fn flag_killed(&self, flag: &FlagKey) -> bool {
        self.flags.get(flag).is_some_and(|kill| kill.killed)
    }

    /// The flags that are killed themselves.
    pub fn killed_flags(&self) -> impl Iterator<Item = &FlagKey> {
        self.flags.iter().filter(|(_, kill)| kill.killed).map(|(flag, _)| flag)
    }

    /// Is this route itself killed.
    #[must_use]
    pub fn route_killed(&self, route: &RouteKey) -> bool {
        self.routes
            .get(route)
            .and_then(|kills| kills.own.as_ref())
            .is_some_and(|kill| kill.killed)
    }

    /// Is this subject held on this route.
    #[must_use]
    pub fn is_held(&self, route: &RouteKey, subject: SubjectHash) -> bool {
        self.routes
            .get(route)
            .and_then(|kills| kills.subjects.get(&subject))
            .is_some_and(|kill| kill.killed)
    }

    /// The subjects held on this route, in the order of their hashes.
    pub fn held(&self, route: &RouteKey) -> impl Iterator<Item = SubjectHash> {
        self.routes.get(route).into_iter().flat_map(RouteKills::held)
    }

    /// How many subjects are held on this route.
    #[must_use]
    pub fn held_count(&self, route: &RouteKey) -> usize {
        self.routes.get(route).map_or(0, |kills| kills.held_count)
    }

    /// The route's epoch, which its outcomes carry.
    #[must_use]
    pub fn epoch(&self, route: &RouteKey) -> Epoch {
        self.routes.get(route).map_or(Epoch::default(), RouteKills::epoch)
    }

    /// The last word on this target, if there was any.
    #[must_use]
    pub fn find(&self, target: &KillTarget) -> Option<&Kill> {
        match target {
            KillTarget::All => self.all.as_ref(),
            KillTarget::Flag(flag) => self.flags.get(flag),
            KillTarget::Route(route) => self.routes.get(route)?.own.as_ref(),
            KillTarget::Subject(route, subject) => self.routes.get(route)?.subjects.get(subject),
        }
    }

    /// Every entry, killed or re-armed, in the order of the targets. Joining them one by one, in any order, gives this state
    /// again.
    pub fn iter(&self) -> impl Iterator<Item = (KillTarget, &Kill)> {
        let all = self.all.iter().map(|kill| (KillTarget::All, kill));
        let flags = self
            .flags
            .iter()
            .map(|(flag, kill)| (KillTarget::Flag(flag.clone()), kill));
        let own = self
            .routes
            .iter()
            .filter_map(|(route, kills)| kills.own.as_ref().map(|kill| (KillTarget::Route(route.clone()), kill)));
        let subjects = self.routes.iter().flat_map(|(route, kills)| {
            kills
                .subjects
                .iter()
                .map(|(subject, kill)| (KillTarget::Subject(route.clone(), *subject), kill))
        });
        all.chain(flags).chain(own).chain(subjects)
    }

    /// Everything that is killed now.
    pub fn killed(&self) -> impl Iterator<Item = (KillTarget, &Kill)> {
        self.iter().filter(|(_, kill)| kill.killed)
    }

    /// Joins one entry, from the store or a peer; true if anything changed.
    pub fn admit(&mut self, target: KillTarget, kill: &Kill) -> bool {
        match target {
            KillTarget::All => join_into(&mut self.all, kill),
            KillTarget::Flag(flag) => join_entry(self.flags.entry(flag), kill),
            KillTarget::Route(route) => self.routes.entry(route).or_default().join_own(kill),
            KillTarget::Subject(route, _) if kill.epoch < self.epoch(&route) => false,
            KillTarget::Subject(route, subject) => self.routes.entry(route).or_default().join_subject(subject, kill),
        }
    }

    /// Joins another state; true if anything changed.
    pub fn join(&mut self, other: &KillSet) -> bool {
        other
            .iter()
            .fold(false, |changed, (target, kill)| self.admit(target, kill) || changed)
    }

    /// Kills in the target's present epoch. Never refused: where a route already holds [`HELD_LIMIT`] subjects, one more kills
    /// the route. Whether the target exists is for the caller to know.
    pub fn kill(
        &mut self,
        target: KillTarget,
        reason: impl Into<Arc<str>>,
        actor: impl Into<Arc<str>>,
        at_unix_ms: i64,
    ) -> Killed {
        let known = self.find(&target);
        let epoch = known.map_or(Epoch::default(), |kill| kill.epoch);
        let killed = known.is_some_and(|kill| kill.killed);
        let (target, epoch, killed) = match target {
            KillTarget::Subject(route, _) if !killed && self.held_count(&route) >= HELD_LIMIT => {
                let (epoch, killed) = (self.epoch(&route), self.route_killed(&route));
                (KillTarget::Route(route), epoch, killed)
            }
            KillTarget::Subject(route, subject) => {
                let epoch = epoch.max(self.epoch(&route));
                (KillTarget::Subject(route, subject), epoch, killed)
            }
            target => (target, epoch, killed),
        };
        if !killed {
            self.admit(
                target.clone(),
                &Kill {
                    epoch,
                    killed: true,
                    reason: reason.into(),
                    actor: actor.into(),
                    at_unix_ms,
                },
            );
        }
        Killed {
            target,
            epoch,
            changed: !killed,
        }
    }

    /// Lifts the kill of exactly this target and starts its next epoch. A route's re-arm lifts its held subjects too, also
    /// where only they were kept away.
    pub fn rearm(
        &mut self,
        target: &KillTarget,
        reason: impl Into<Arc<str>>,
        actor: impl Into<Arc<str>>,
        at_unix_ms: i64,
    ) -> Rearmed {
        let known = self.find(target);
        let mut epoch = known.map_or(Epoch::default(), |kill| kill.epoch);
        let mut lifts = known.is_some_and(|kill| kill.killed);
        let mut subjects = 0;
        if let KillTarget::Route(route) = target
            && let Some(kills) = self.routes.get(route)
        {
            subjects = kills.held_count;
            lifts |= subjects > 0;
            // Above its subjects as well, or those re-armed one by one before would outlive it.
            epoch = kills.subjects.values().map(|kill| kill.epoch).fold(epoch, Epoch::max);
        }
        if !lifts {
            return Rearmed::NotKilled;
        }
        let epoch = Epoch(epoch.0.saturating_add(1));
        let kill = Kill {
            epoch,
            killed: false,
            reason: reason.into(),
            actor: actor.into(),
            at_unix_ms,
        };
        self.admit(target.clone(), &kill);
        Rearmed::Lifted { epoch, subjects }
    }

    /// Puts a trip in force and answers what it newly killed. An alert kills nothing, and so does a trip whose evidence is
    /// from before the route's last re-arm.
    pub fn apply(&mut self, trip: &Trip, at_unix_ms: i64) -> Vec<KillTarget> {
        let subject = |subject: &SubjectHash| KillTarget::Subject(trip.route.clone(), *subject);
        let targets = match trip.effect {
            _ if trip.epoch < self.epoch(&trip.route) => Vec::new(),
            Effect::Alert => Vec::new(),
            Effect::Hold => trip.subjects.iter().map(subject).collect(),
            Effect::Kill => vec![KillTarget::Route(trip.route.clone())],
        };
        // Shared by all subjects of a trip.
        let (reason, actor): (Arc<str>, Arc<str>) = (trip.to_string().into(), "guard".into());
        let killed = targets
            .into_iter()
            .map(|target| self.kill(target, Arc::clone(&reason), Arc::clone(&actor), at_unix_ms));
        killed
            .filter(|killed| killed.changed)
            .map(|killed| killed.target)
            .collect()
    }
}

fn join_into(slot: &mut Option<Kill>, kill: &Kill) -> bool {
    match slot {
        Some(present) => present.join(kill),
        None => {
            *slot = Some(kill.clone());
            true
        }
    }
}

fn join_entry<K: Ord>(entry: Entry<'_, K, Kill>, kill: &Kill) -> bool {
    match entry {
        Entry::Occupied(mut present) => present.get_mut().join(kill),
        Entry::Vacant(slot) => {
            slot.insert(kill.clone());
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(name: &str) -> RouteKey {
        RouteKey::parse(name).expect("a key")
    }

    fn flag(name: &str) -> FlagKey {
        FlagKey::parse(name).expect("a key")
    }

    fn subject(n: u64) -> KillTarget {
        KillTarget::Subject(route("r"), SubjectHash(n))
    }

    fn kill(set: &mut KillSet, target: KillTarget) -> Killed {
        set.kill(target, "because", "anna", 1)
    }

    fn rearm(set: &mut KillSet, target: &KillTarget) -> Rearmed {
        set.rearm(target, "repaired", "anna", 2)
    }

    #[test]
    fn each_kill_is_lifted_only_by_the_rearm_of_the_same_thing() {
        let targets = [
            KillTarget::All,
            KillTarget::Flag(flag("r")),
            KillTarget::Route(route("r")),
            KillTarget::Route(route("s")),
        ];
        for lifted in &targets {
            let mut set = KillSet::default();
            for target in &targets {
                assert!(kill(&mut set, target.clone()).changed);
            }
            assert_eq!(
                rearm(&mut set, lifted),
                Rearmed::Lifted {
                    epoch: Epoch(1),
                    subjects: 0
                }
            );
            for target in &targets {
                assert_eq!(
                    set.find(target).is_some_and(|kill| kill.killed),
                    target != lifted,
                    "{target} {lifted}"
                );
            }
        }
    }

    #[test]
    fn rearm_of_what_is_not_killed_says_so_and_starts_no_epoch() {
        let mut set = KillSet::default();
        let target = KillTarget::Route(route("r"));
        assert_eq!(rearm(&mut set, &target), Rearmed::NotKilled);
        kill(&mut set, KillTarget::All);
        assert_eq!(rearm(&mut set, &target), Rearmed::NotKilled);
        kill(&mut set, target.clone());
        rearm(&mut set, &target);
        assert_eq!(rearm(&mut set, &target), Rearmed::NotKilled);
        assert_eq!(set.epoch(&route("r")), Epoch(1));
        assert!(set.everything_killed());
    }

    #[test]
    fn first_reason_of_a_kill_stands() {
        let mut set = KillSet::default();
        set.kill(KillTarget::All, "first", "anna", 5);
        assert!(!set.kill(KillTarget::All, "second", "bob", 4).changed);
        assert_eq!(set.find(&KillTarget::All).map(|kill| &*kill.reason), Some("first"));
    }

    #[test]
    fn route_rearm_lifts_its_held_subjects_and_subject_rearm_one() {
        let mut set = KillSet::default();
        (1..=3).for_each(|n| assert!(kill(&mut set, subject(n)).changed));
        kill(&mut set, KillTarget::Subject(route("s"), SubjectHash(1)));
        assert_eq!(
            rearm(&mut set, &subject(2)),
            Rearmed::Lifted {
                epoch: Epoch(1),
                subjects: 0
            }
        );
        assert_eq!(
            set.held(&route("r")).collect::<Vec<_>>(),
            [SubjectHash(1), SubjectHash(3)]
        );
        assert!(!set.route_killed(&route("r")));
        let before = set.clone();
        assert_eq!(
            rearm(&mut set, &KillTarget::Route(route("r"))),
            Rearmed::Lifted {
                epoch: Epoch(2),
                subjects: 2
            }
        );
        assert_eq!(set.held_count(&route("r")), 0);
        assert!(set.is_held(&route("s"), SubjectHash(1)));
        assert!(!set.join(&before), "a slower peer undid the re-arm");
        kill(&mut set, subject(1));
        assert_eq!(set.find(&subject(1)).map(|kill| kill.epoch), Some(Epoch(2)));
    }

    #[test]
    fn ten_thousand_subjects_are_held_and_one_more_kills_the_route() {
        let mut set = KillSet::default();
        for n in 0..HELD_LIMIT as u64 {
            kill(&mut set, subject(n));
        }
        assert!(!set.route_killed(&route("r")));
        assert_eq!(kill(&mut set, subject(0)).target, subject(0));
        let killed = kill(&mut set, subject(u64::MAX));
        assert_eq!(
            killed,
            Killed {
                target: KillTarget::Route(route("r")),
                epoch: Epoch(0),
                changed: true
            }
        );
        assert_eq!(set.held_count(&route("r")), HELD_LIMIT);
        assert!(set.route_killed(&route("r")) && !kill(&mut set, subject(u64::MAX)).changed);
    }

    fn targets() -> impl Strategy<Value = KillTarget> {
        prop_oneof![
            Just(KillTarget::All),
            Just(KillTarget::Flag(flag("f"))),
            Just(KillTarget::Route(route("r"))),
            Just(KillTarget::Route(route("s"))),
            (0..3_u64).prop_map(subject),
            (0..2_u64).prop_map(|n| KillTarget::Subject(route("s"), SubjectHash(n))),
        ]
    }

    fn kills() -> impl Strategy<Value = Kill> {
        (0..4_u64, any::<bool>(), "[ab]", "[cd]", 0..3_i64).prop_map(|(epoch, killed, reason, actor, at_unix_ms)| {
            Kill {
                epoch: Epoch(epoch),
                killed,
                reason: reason.into(),
                actor: actor.into(),
                at_unix_ms,
            }
        })
    }

    fn sets() -> impl Strategy<Value = KillSet> {
        proptest::collection::vec((targets(), kills()), 0..20).prop_map(|entries| {
            let mut set = KillSet::default();
            for (target, kill) in entries {
                set.admit(target, &kill);
            }
            set
        })
    }

    fn joined(a: &KillSet, b: &KillSet) -> KillSet {
        let mut both = a.clone();
        both.join(b);
        both
    }

    proptest! {
        #[test]
        fn joining_is_commutative_associative_and_idempotent(a in sets(), b in sets(), c in sets()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(&joined(&a, &a), &a);
            prop_assert!(!joined(&a, &b).join(&b));
            for route in [route("r"), route("s")] {
                prop_assert_eq!(a.held_count(&route), a.held(&route).count());
            }
        }

        #[test]
        fn entries_rebuild_the_state_in_any_order(a in sets()) {
            let mut entries: Vec<_> = a.iter().collect();
            entries.reverse();
            let mut set = KillSet::default();
            for (target, kill) in entries {
                prop_assert!(set.admit(target, kill));
            }
            prop_assert_eq!(set, a);
        }

        #[test]
        fn kill_is_in_force_at_once_and_survives_every_older_state(a in sets(), b in sets(), target in targets()) {
            let old = joined(&a, &b);
            let mut set = old.clone();
            set.kill(target.clone(), "r", "x", 0);
            prop_assert!(set.find(&target).is_some_and(|kill| kill.killed));
            prop_assert!(!set.join(&a) && !set.join(&b) && !set.join(&old));
        }

        #[test]
        fn rearm_survives_every_older_state(a in sets(), b in sets(), target in targets()) {
            let mut set = joined(&a, &b);
            let before = set.clone();
            let rearmed = set.rearm(&target, "r", "x", 0);
            prop_assert_eq!(rearmed == Rearmed::NotKilled, set == before);
            prop_assert!(!set.find(&target).is_some_and(|kill| kill.killed));
            prop_assert!(!set.join(&before) && !set.join(&a));
        }
    }
}
