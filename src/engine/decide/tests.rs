//! The truth table of flag, shadow, dual run and shadow mode, and who decides for a body with several shoppers.

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::engine::flags::model::Percent;
use crate::engine::flags::schedule::Period;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::{Flag, NoAttributes};
use crate::engine::vocab::{FlagKey, Now};
use std::time::Duration;

const NOW: Now = Now {
    monotonic: Duration::ZERO,
    unix_ms: 1_000,
};

fn flag(key: &str, change: impl FnOnce(&mut Flag)) -> Flag {
    let mut flag = Flag::unknown(FlagKey::parse(key).unwrap());
    flag.defined = true;
    change(&mut flag);
    flag
}

fn on(key: &str) -> Flag {
    flag(key, |flag| flag.enabled = Some(true))
}

fn off(key: &str) -> Flag {
    flag(key, |flag| flag.enabled = Some(false))
}

fn allow(key: &str, ids: &[&str]) -> Flag {
    flag(key, |flag| {
        flag.enabled = Some(true);
        flag.allowlist = Some(SubjectSet::collect(ids.iter().copied()));
    })
}

fn percent(key: &str, text: &str) -> Flag {
    flag(key, |flag| {
        flag.percent = Some(Percent::Fixed(Threshold::parse(text).unwrap()));
    })
}

/// One route and its flags: `new`, `shadow`, `dual` and `mode`, of which only what the test adds exists.
#[derive(Clone)]
struct Scene {
    flags: Vec<Flag>,
    system: bool,
    policy: Policy,
    method: Method,
    tenant: Option<&'static str>,
    kills: KillBits,
    held: bool,
    now: Now,
}

/// A route whose every switch is the constant `false`, copying everything that is to be copied.
fn scene() -> Scene {
    Scene {
        flags: Vec::new(),
        system: true,
        policy: Policy {
            replies_when_off: false,
            asks_attributes: false,
            flag: Ask::Constant(false),
            shadow: Ask::Constant(false),
            dual_run: Ask::Constant(false),
            shadow_mode: None,
            without_identity: WithoutIdentity::Legacy,
            when_killed: WhenKilled::Continue,
            methods: [Method::GET, Method::POST].into(),
            sample: Threshold::ALL,
            sample_name: "shadow/whatsapp".into(),
            copies: [Copies::DryRun; 2],
        },
        method: Method::POST,
        tenant: None,
        kills: KillBits::NONE,
        held: false,
        now: NOW,
    }
}

impl Scene {
    fn flags(&self) -> Flags {
        Flags::new(self.flags.clone(), self.system, Revision(7))
    }

    fn with(mut self, flag: Flag, place: impl FnOnce(&mut Policy) -> &mut Ask) -> Self {
        // Positions follow the order of the keys, so every flag is added before its position is asked.
        let key = flag.key.clone();
        let before = self.flags();
        self.flags.push(flag);
        let after = self.flags();
        let moved = |ask: &mut Ask| {
            if let Ask::Flag(at) = ask {
                let key = &before.at(*at).unwrap().key;
                *at = after.find(key.as_str()).unwrap();
            }
        };
        moved(&mut self.policy.flag);
        moved(&mut self.policy.shadow);
        moved(&mut self.policy.dual_run);
        if let Some(mode) = &mut self.policy.shadow_mode {
            moved(mode);
        }
        *place(&mut self.policy) = Ask::Flag(after.find(key.as_str()).unwrap());
        self
    }

    fn routed(self, flag: Flag) -> Self {
        self.with(flag, |policy| &mut policy.flag)
    }

    fn mode(self, flag: Flag) -> Self {
        self.with(flag, |policy| policy.shadow_mode.insert(Ask::Constant(false)))
    }

    fn dual(self, flag: Flag) -> Self {
        self.with(flag, |policy| &mut policy.dual_run)
    }

    fn kill(mut self, kills: KillBits) -> Self {
        self.kills = kills;
        self
    }

    fn decide(&self, subjects: &[&str]) -> Decision {
        self.decide_exchange(subjects, ExchangeId(7))
    }

    fn decide_exchange(&self, subjects: &[&str], exchange: ExchangeId) -> Decision {
        let request = Request {
            method: &self.method,
            subjects: subjects.iter().copied(),
            tenant: self.tenant,
            exchange,
            attributes: &NoAttributes,
            kills: self.kills,
            flag_kills: FlagKills::NONE,
            held: self.held,
            now: self.now,
        };
        decide(&self.flags(), &self.policy, &request)
    }
}

/// Served side, reason, copy and whether the two are compared, in one line.
fn line(decision: &Decision) -> String {
    let copy = match decision.copy {
        CopyTo::Nobody => "-".to_owned(),
        CopyTo::Skipped(side, skip) => format!("{side}:{}", skip.as_str()),
        CopyTo::To(side) => side.to_string(),
    };
    let compared = if decision.compared { "compared" } else { "-" };
    format!("{} {} {copy} {compared}", decision.served, decision.reason)
}

#[test]
fn truth_table_of_flag_shadow_and_dual_run() {
    for (flag, shadow, dual_run, expected) in [
        (false, false, false, "legacy constant - -"),
        (false, true, false, "legacy constant new -"),
        (false, false, true, "legacy constant new compared"),
        (false, true, true, "legacy constant new compared"),
        (true, false, false, "new constant - -"),
        (true, true, false, "new constant legacy -"),
        (true, false, true, "new constant legacy compared"),
        (true, true, true, "new constant legacy compared"),
    ] {
        let mut scene = scene();
        scene.policy.flag = Ask::Constant(flag);
        scene.policy.shadow = Ask::Constant(shadow);
        scene.policy.dual_run = Ask::Constant(dual_run);
        assert_eq!(line(&scene.decide(&["s"])), expected, "{flag} {shadow} {dual_run}");
    }
}

#[test]
fn shadow_mode_serves_legacy_and_copies_those_for_whom_the_flag_is_on() {
    let scene = scene()
        .routed(allow("new", &["shopper_test_001"]))
        .mode(on("mode"))
        .dual(on("dual"));
    let test = scene.decide(&["shopper_test_001"]);
    assert_eq!(line(&test), "legacy allowlist new compared");
    assert!(!test.shadow_inactive && !test.shadow_mode_assumed && !test.by_percent);
    assert_eq!(line(&scene.decide(&["shopper_2"])), "legacy not_allowlisted - -");
}

#[test]
fn shadow_mode_replaces_shadow_and_dual_run_as_reasons_to_copy() {
    let mut scene = scene().routed(off("new")).mode(on("mode"));
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.dual_run = Ask::Constant(true);
    assert_eq!(line(&scene.decide(&["s"])), "legacy disabled - -");
    let mut scene = self::scene().routed(on("new")).mode(on("mode"));
    scene.policy.shadow = Ask::Constant(true);
    assert_eq!(line(&scene.decide(&["s"])), "legacy global new -");
}

#[test]
fn c16_shadow_mode_with_the_flag_off_copies_nothing_and_says_so() {
    let decision = scene().routed(off("new")).mode(on("mode")).decide(&["s"]);
    assert_eq!(line(&decision), "legacy disabled - -");
    assert!(decision.shadow_inactive);

    let mut shadow_alone = scene().routed(off("new"));
    shadow_alone.policy.shadow = Ask::Constant(true);
    assert!(
        !shadow_alone.decide(&["s"]).shadow_inactive,
        "it concerns shadow_mode only"
    );
}

#[test]
fn shadow_mode_of_the_flag_itself_counts() {
    let shadowed = flag("new", |flag| {
        flag.enabled = Some(true);
        flag.shadow_mode = Some(true);
    });
    assert_eq!(
        line(&scene().routed(shadowed.clone()).decide(&["s"])),
        "legacy global new -"
    );
    assert_eq!(
        line(&scene().routed(shadowed).mode(off("mode")).decide(&["s"])),
        "legacy global new -"
    );
}

#[test]
fn only_lines_4_and_7_to_12_switch_shadow_mode_off() {
    let ended = |flag: &mut Flag| {
        flag.period = Period {
            start_ms: None,
            end_ms: Some(0),
        }
    };
    let denied = |flag: &mut Flag| flag.denylist = Some(SubjectSet::collect(["s"].into_iter()));
    for (mode, live) in [
        (off("mode"), true),
        (flag("mode", denied), true),
        (allow("mode", &[]), true),
        (percent("mode", "0"), true),
        (flag("mode", |_| {}), true),
        (Flag::unknown(FlagKey::parse("mode").unwrap()), false),
        (flag("mode", |flag| flag.listed_here = false), false),
        (flag("mode", ended), false),
        (flag("mode", |flag| flag.kill_switch = true), false),
    ] {
        let decision = scene().routed(on("new")).mode(mode.clone()).decide(&["s"]);
        let expected = if live { "new global - -" } else { "legacy global new -" };
        assert_eq!(line(&decision), expected, "{mode:?}");
        assert_eq!(decision.shadow_mode_assumed, !live, "{mode:?}");
    }
    let killed = scene()
        .routed(on("new"))
        .mode(off("mode"))
        .kill(KillBits::SHADOW_MODE)
        .decide(&["s"]);
    assert_eq!(line(&killed), "legacy global new -");
    assert!(killed.shadow_mode_assumed);
}

#[test]
fn killed_route_serves_legacy_and_goes_on_copying() {
    let mut scene = scene().routed(on("new")).kill(KillBits::ROUTE);
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.dual_run = Ask::Constant(true);
    assert_eq!(line(&scene.decide(&["s"])), "legacy killed new compared");
    scene.policy.when_killed = WhenKilled::Stop;
    assert_eq!(line(&scene.decide(&["s"])), "legacy killed new:killed -");
}

#[test]
fn killed_route_in_shadow_mode_copies_whom_the_flag_would_choose() {
    let mut scene = scene()
        .routed(allow("new", &["a"]))
        .mode(on("mode"))
        .kill(KillBits::ROUTE);
    assert_eq!(line(&scene.decide(&["a"])), "legacy killed new -");
    assert_eq!(line(&scene.decide(&["b"])), "legacy killed - -");
    scene.policy.when_killed = WhenKilled::Stop;
    assert_eq!(line(&scene.decide(&["a"])), "legacy killed new:killed -");
}

#[test]
fn held_subject_is_served_by_legacy_as_if_its_route_were_killed() {
    let mut scene = scene().routed(on("new"));
    scene.held = true;
    scene.policy.shadow = Ask::Constant(true);
    assert_eq!(line(&scene.decide(&["s"])), "legacy killed new -");
}

#[test]
fn killed_flag_is_off_wherever_it_is_used() {
    let route = || {
        let mut scene = scene().routed(on("new")).dual(on("dual"));
        scene.policy.shadow = Ask::Constant(false);
        scene
    };
    assert_eq!(
        line(&route().kill(KillBits::FLAG).decide(&["s"])),
        "legacy killed new compared"
    );
    assert_eq!(line(&route().kill(KillBits::DUAL_RUN).decide(&["s"])), "new global - -");
    let mut in_mode = scene().routed(on("new")).mode(on("mode")).kill(KillBits::FLAG);
    in_mode.policy.shadow = Ask::Constant(true);
    assert_eq!(line(&in_mode.decide(&["s"])), "legacy killed - -");
}

#[test]
fn c7_what_was_killed_or_lowered_stays_so_however_far_the_clock_jumps() {
    const CENTURY_MS: i64 = 36_525 * 86_400_000;
    for unix_ms in [-CENTURY_MS, 0, CENTURY_MS] {
        let now = Now { unix_ms, ..NOW };
        let killed = scene().routed(on("new")).kill(KillBits::FLAG);
        let lowered = scene().routed(percent("new", "0"));
        for (scene, reason) in [(killed, "killed"), (lowered, "percent_miss")] {
            let decision = Scene { now, ..scene }.decide(&["s"]);
            assert_eq!(line(&decision), format!("legacy {reason} - -"), "at {unix_ms}");
        }
    }
}

#[test]
fn kill_of_everything_leaves_nothing_to_new_and_copies_nothing() {
    for mode in [None, Some(on("mode")), Some(off("mode"))] {
        let mut scene = scene();
        scene.policy.flag = Ask::Constant(true);
        scene.policy.shadow = Ask::Constant(true);
        scene.policy.dual_run = Ask::Constant(true);
        let scene = match mode {
            Some(mode) => scene.mode(mode),
            None => scene,
        };
        assert_eq!(
            line(&scene.kill(KillBits::EVERYTHING).decide(&["s"])),
            "legacy killed - -"
        );
    }
}

#[test]
fn without_state_everything_is_legacy_and_nothing_is_copied() {
    let mut scene = scene().routed(on("new")).kill(KillBits::NO_STATE);
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.dual_run = Ask::Constant(true);
    for subjects in [&[][..], &["s"], &["s", "t"]] {
        let decision = scene.decide(subjects);
        assert_eq!(line(&decision), "legacy no_state - -");
        assert_eq!(decision.checks.iter().count(), 0);
    }
}

#[test]
fn switched_off_as_a_whole_turns_constants_off_too() {
    let mut scene = scene();
    scene.system = false;
    scene.policy.flag = Ask::Constant(true);
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.dual_run = Ask::Constant(true);
    assert_eq!(line(&scene.decide(&["s"])), "legacy system_disabled - -");
}

#[test]
fn copy_that_is_not_sent_is_skipped_with_its_reason() {
    let mut scene = scene();
    scene.policy.shadow = Ask::Constant(true);
    scene.method = Method::PUT;
    assert_eq!(line(&scene.decide(&["s"])), "legacy constant new:method -");
    scene.method = Method::POST;
    scene.policy.copies = [Copies::DryRun, Copies::SafeMethods];
    assert_eq!(line(&scene.decide(&["s"])), "legacy constant new:not_declared -");
    scene.policy.flag = Ask::Constant(true);
    assert_eq!(
        line(&scene.decide(&["s"])),
        "new constant legacy -",
        "the other side takes them"
    );
    scene.method = Method::GET;
    scene.policy.flag = Ask::Constant(false);
    assert_eq!(
        line(&scene.decide(&["s"])),
        "legacy constant new -",
        "safe methods need no declaration"
    );
    scene.policy.sample = Threshold::NONE;
    scene.policy.dual_run = Ask::Constant(true);
    assert_eq!(line(&scene.decide(&["s"])), "legacy constant new:sampled_out -");
}

#[test]
fn sampling_is_by_subject_and_by_route() {
    let mut scene = scene();
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.sample = Threshold::parse("30").unwrap();
    for n in 0..200 {
        let subject = format!("user_{n}");
        let sampled = scene.policy.sample.takes(Bucket::of(&subject, "shadow/whatsapp"));
        let expected = if sampled {
            CopyTo::To(Side::New)
        } else {
            CopyTo::Skipped(Side::New, Skip::SampledOut)
        };
        for exchange in [1, 2] {
            assert_eq!(
                scene.decide_exchange(&[&subject], ExchangeId(exchange)).copy,
                expected,
                "{subject}"
            );
        }
    }
}

#[test]
fn request_without_subject_is_sampled_by_its_exchange() {
    let mut scene = scene();
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.sample = Threshold::parse("30").unwrap();
    let copied = (0..1_000).filter(|n| {
        let decision = scene.decide_exchange(&[], ExchangeId(*n));
        let by_id = scene
            .policy
            .sample
            .takes(Bucket::of(&ExchangeId(*n).to_string(), "shadow/whatsapp"));
        assert_eq!(decision.copy == CopyTo::To(Side::New), by_id);
        by_id
    });
    assert!((250..350).contains(&copied.count()));
}

#[test]
fn mixed_body_is_new_only_if_every_subject_is() {
    let scene = scene().routed(allow("new", &["a", "b"]));
    assert_eq!(line(&scene.decide(&["a", "b"])), "new allowlist - -");
    for subjects in [&["a", "c"][..], &["c", "a"], &["a", "b", "c"]] {
        assert_eq!(line(&scene.decide(subjects)), "legacy mixed - -", "{subjects:?}");
    }
    assert_eq!(
        line(&scene.decide(&["c", "d"])),
        "legacy not_allowlisted - -",
        "nobody is held back"
    );
    assert_eq!(
        line(&scene.kill(KillBits::ROUTE).decide(&["a", "c"])),
        "legacy killed - -"
    );
}

#[test]
fn mixed_body_is_copied_if_any_of_its_subjects_is_sampled() {
    let mut scene = scene();
    scene.policy.shadow = Ask::Constant(true);
    scene.policy.sample = Threshold::parse("50").unwrap();
    let sampled = |id: &String| scene.policy.sample.takes(Bucket::of(id, "shadow/whatsapp"));
    let (inside, outside): (Vec<String>, Vec<String>) = (0..20).map(|n| format!("user_{n}")).partition(sampled);
    let (a, b, c) = (&*inside[0], &*outside[0], &*outside[1]);
    assert_eq!(scene.decide(&[b, a]).copy, CopyTo::To(Side::New));
    assert_eq!(scene.decide(&[b, c]).copy, CopyTo::Skipped(Side::New, Skip::SampledOut));
}

#[test]
fn mixed_body_is_copied_for_the_subject_in_shadow_mode() {
    let decision = scene()
        .routed(allow("new", &["a"]))
        .mode(on("mode"))
        .decide(&["a", "b"]);
    assert_eq!(line(&decision), "legacy mixed new -");
    assert!(!decision.shadow_inactive);
}

#[test]
fn request_that_names_nobody_goes_to_legacy_by_default() {
    let mut constant = scene();
    constant.policy.flag = Ask::Constant(true);
    assert_eq!(line(&constant.decide(&[])), "legacy identity_unknown - -");
    assert_eq!(
        line(&scene().routed(on("new")).decide(&[])),
        "legacy identity_unknown - -"
    );
    assert_eq!(
        line(&scene().routed(percent("new", "100")).decide(&[])),
        "legacy identity_unknown - -"
    );
    assert_eq!(line(&scene().routed(off("new")).decide(&[])), "legacy disabled - -");
    assert_eq!(
        line(&scene().routed(on("new")).kill(KillBits::FLAG).decide(&[])),
        "legacy killed - -"
    );
}

#[test]
fn follow_serves_new_as_soon_as_the_flag_is_on_for_everybody() {
    let follow = |flag| {
        let mut scene = scene().routed(flag);
        scene.policy.without_identity = WithoutIdentity::Follow;
        scene
    };
    assert_eq!(line(&follow(on("new")).decide(&[])), "new global - -");
    let all = follow(percent("new", "100")).decide(&[]);
    assert_eq!(line(&all), "new percent - -");
    assert!(!all.by_percent, "nobody's bucket was asked");
    assert_eq!(
        line(&follow(percent("new", "99.9999")).decide(&[])),
        "legacy identity_unknown - -"
    );
    assert_eq!(
        line(&follow(allow("new", &["a"])).decide(&[])),
        "legacy identity_unknown - -"
    );
    let denies = |ids: &'static [&'static str]| {
        flag("new", |flag| {
            flag.enabled = Some(true);
            flag.denylist = Some(SubjectSet::collect(ids.iter().copied()));
        })
    };
    assert_eq!(line(&follow(denies(&["a"])).decide(&[])), "legacy identity_unknown - -");
    assert_eq!(
        line(&follow(denies(&[])).decide(&[])),
        "new global - -",
        "an empty denylist denies nobody"
    );
    assert_eq!(
        line(&follow(on("new")).kill(KillBits::ROUTE).decide(&[])),
        "legacy killed - -"
    );
    assert_eq!(
        line(&follow(on("new")).kill(KillBits::EVERYTHING).decide(&[])),
        "legacy killed - -"
    );
    let mut constant = scene();
    constant.policy.flag = Ask::Constant(true);
    constant.policy.without_identity = WithoutIdentity::Follow;
    assert_eq!(line(&constant.decide(&[])), "new constant - -");
}

#[test]
fn tenant_takes_the_place_of_a_missing_subject() {
    let mut scene = scene().routed(allow("new", &["shop_1"]));
    scene.policy.without_identity = WithoutIdentity::Tenant;
    scene.tenant = Some("shop_1");
    assert_eq!(line(&scene.decide(&[])), "new allowlist - -");
    assert_eq!(
        line(&scene.decide(&["s"])),
        "legacy not_allowlisted - -",
        "a subject comes first"
    );
    scene.tenant = None;
    assert_eq!(line(&scene.decide(&[])), "legacy identity_unknown - -");
}

#[test]
fn by_percent_means_that_only_the_bucket_decided() {
    let decide = |scene: Scene| scene.decide(&["s"]).by_percent;
    assert!(decide(scene().routed(percent("new", "100"))));
    assert!(decide(scene().routed(percent("new", "0"))));
    assert!(!decide(scene().routed(on("new"))));
    assert!(!decide(scene().routed(percent("new", "100")).kill(KillBits::ROUTE)));
    assert!(!decide(scene().routed(percent("new", "100")).mode(on("mode"))));
    assert!(!scene().routed(percent("new", "100")).decide(&["s", "t"]).by_percent);
}

#[test]
fn every_flag_that_was_asked_is_named_once() {
    let scene = scene()
        .routed(percent("new", "100"))
        .mode(off("mode"))
        .dual(on("dual"))
        .with(on("dual"), |p| &mut p.shadow);
    let flags = scene.flags();
    let named = |decision: &Decision| -> Vec<String> {
        let key = |check: &Check| flags.at(check.flag).unwrap().key.to_string();
        decision
            .checks
            .iter()
            .map(|check| format!("{} {} {}", key(check), check.enabled, check.reason))
            .collect()
    };
    assert_eq!(
        named(&scene.decide(&["s"])),
        ["new true percent", "mode false disabled", "dual true global"]
    );
    let killed = scene.kill(KillBits::ROUTE);
    assert_eq!(named(&killed.decide(&["s"]))[0], "new false killed");
}

#[test]
fn each_subject_of_a_mixed_body_has_its_own_checks() {
    let scene = scene().routed(allow("new", &["a"]));
    let request = Request {
        method: &scene.method,
        subjects: ["a", "b"].into_iter(),
        tenant: None,
        exchange: ExchangeId(1),
        attributes: &NoAttributes,
        kills: KillBits::NONE,
        flag_kills: FlagKills::NONE,
        held: false,
        now: NOW,
    };
    let reason = |subject| {
        checks(&scene.flags(), &scene.policy, &request, subject)
            .iter()
            .next()
            .unwrap()
            .reason
    };
    assert_eq!([reason("a"), reason("b")], [Reason::Allowlist, Reason::NotAllowlisted]);
}

proptest! {
    #[test]
    fn no_kill_ever_gives_new_a_request(
        bits in 0_u32..128, flag in any::<bool>(), mode in prop::option::of(any::<bool>()), held in any::<bool>(), count in 0_usize..3,
    ) {
        let mut scene = scene();
        scene.policy.flag = Ask::Constant(flag);
        scene.policy.shadow_mode = mode.map(Ask::Constant);
        scene.policy.without_identity = WithoutIdentity::Follow;
        let free = scene.decide(&["a", "b"][..count.min(2)]);
        scene.held = held;
        let scene = scene.kill(KillBits::from_bits(bits));
        let decision = scene.decide(&["a", "b"][..count.min(2)]);
        prop_assert!(decision.served == Side::Legacy || free.served == Side::New);
        let stops = KillBits::EVERYTHING.with(KillBits::ROUTE).with(KillBits::NO_STATE);
        if held || scene.kills.has(stops) {
            prop_assert_eq!(decision.served, Side::Legacy);
        }
        if scene.kills.has(KillBits::EVERYTHING.with(KillBits::NO_STATE)) {
            prop_assert_eq!(decision.copy, CopyTo::Nobody);
        }
        prop_assert!(!decision.compared || matches!(decision.copy, CopyTo::To(_)));
    }
}

mod when_off {
    use super::*;

    fn list(ids: &[&str]) -> Option<SubjectSet> {
        Some(SubjectSet::collect(ids.iter().copied()))
    }

    fn replying(mut scene: Scene) -> Scene {
        scene.policy.replies_when_off = true;
        scene
    }

    #[test]
    fn off_that_somebody_meant_is_replied_to_and_doubt_is_not() {
        let denied = || flag("new", |flag| flag.denylist = list(&["anna"]));
        let meant = [
            scene(),
            scene().routed(flag("new", |_| {})),
            scene().routed(denied()),
            scene().routed(flag("new", |flag| flag.enabled = Some(false))),
            scene().routed(flag("new", |flag| flag.listed_here = false)),
            scene().routed(flag("new", |flag| flag.allowlist = list(&[]))),
            scene().routed(percent("new", "0")),
            scene().routed(flag("new", |flag| flag.period.end_ms = Some(0))),
        ];
        for scene in meant {
            let reason = scene.decide(&["anna"]).reason;
            assert!(
                !scene.decide(&["anna"]).replied,
                "{reason:?}: without `when_off` legacy serves"
            );
            let scene = replying(scene);
            assert!(scene.decide(&["anna"]).replied, "{reason:?}");
            for kill in [KillBits::EVERYTHING, KillBits::ROUTE, KillBits::NO_STATE] {
                let killed = scene.clone().kill(kill);
                let decision = killed.decide(&["anna"]);
                assert_eq!((decision.replied, decision.served), (false, Side::Legacy), "{reason:?}");
            }
            let held = Scene {
                held: true,
                ..scene.clone()
            };
            assert!(!held.decide(&["anna"]).replied, "{reason:?}");
            let switched_off = Scene { system: false, ..scene };
            assert!(!switched_off.decide(&["anna"]).replied, "{reason:?}");
        }
        let unknown = replying(scene().routed(Flag::unknown(FlagKey::parse("new").unwrap())));
        assert!(!unknown.decide(&["anna"]).replied);
        let killed_flag = replying(scene().routed(denied())).kill(KillBits::FLAG);
        assert!(!killed_flag.decide(&["anna"]).replied);
        // Nobody can say whether the flag is off for a shopper whom nobody knows.
        assert!(!replying(scene().routed(denied())).decide(&[]).replied);
        assert!(replying(scene()).decide(&[]).replied);
    }

    #[test]
    fn everybody_in_a_body_must_be_off_to_be_replied_to() {
        let both = flag("new", |flag| {
            flag.denylist = list(&["anna"]);
            flag.percent = Some(Percent::Fixed(Threshold::NONE));
        });
        let scene = replying(scene().routed(both));
        assert!(scene.decide(&["anna", "bert"]).replied);
        let one = replying(super::scene().routed(flag("new", |flag| {
            flag.denylist = list(&["anna"]);
            flag.enabled = Some(true);
        })));
        let mixed = one.decide(&["anna", "bert"]);
        assert_eq!(
            (mixed.replied, mixed.served, mixed.reason),
            (false, Side::Legacy, Reason::Mixed)
        );
        assert_eq!(one.decide(&["bert"]).served, Side::New);
    }

    #[test]
    fn nothing_is_copied_of_what_no_side_serves() {
        let copying = |mut scene: Scene| {
            scene.policy.shadow = Ask::Constant(true);
            replying(scene)
        };
        let off = copying(scene()).decide(&["anna"]);
        assert_eq!(off.copy, CopyTo::Skipped(Side::New, Skip::WhenOff));
        assert!(!off.by_percent && !off.compared);
        // Under a kill legacy serves, and the copies go on.
        let killed = copying(scene()).kill(KillBits::ROUTE).decide(&["anna"]);
        assert_eq!((killed.replied, killed.copy), (false, CopyTo::To(Side::New)));
    }

    #[test]
    fn in_shadow_mode_legacy_serves_everybody() {
        for enabled in [false, true] {
            let mode = scene()
                .routed(flag("new", |flag| flag.enabled = Some(enabled)))
                .mode(flag("mode", |flag| flag.enabled = Some(true)));
            let decision = replying(mode).decide(&["anna"]);
            assert_eq!((decision.replied, decision.served), (false, Side::Legacy));
        }
    }
}
