//! Who is served by whom: the lines of the table, the sources of flags, and the traps, where a user meets them.

use std::collections::BTreeSet;

use http::Method;

use crate::support::{Backend, Client, Finished, Instance, Plan, Sidecar, get, post, request, understudy};

const LIVE: &str = "flag: NEW_SHOP\n";

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

fn flag(members: &str) -> String {
    format!("features:\n  NEW_SHOP: {{ {members} }}\n")
}

async fn side(sidecar: &Sidecar, shopper: &str) -> String {
    get(sidecar.address, "/", &[("x-shopper-id", shopper)])
        .await
        .text()
        .to_owned()
}

async fn reason(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar
        .metric("understudy_decisions_total", &[&format!("reason=\"{reason}\"")])
        .await
}

/// Who of `user_0..` is served by new.
async fn on_new(sidecar: &Sidecar, shoppers: usize) -> BTreeSet<usize> {
    let mut client = Client::connect(sidecar.address).await;
    let mut on = BTreeSet::new();
    for at in 0..shoppers {
        let shopper = format!("user_{at}");
        let answer = client
            .send(request(Method::GET, "/", &[("x-shopper-id", &shopper)], ""))
            .await;
        assert_eq!(answer.status, 200);
        if answer.text() == "new" {
            on.insert(at);
        }
    }
    on
}

/// The same, reckoned apart from the code under test: XXH64 of subject and `key`, in millionths.
fn below(millionths: u64, key: &str, shoppers: usize) -> BTreeSet<usize> {
    let bucket = |at: &usize| {
        let hash = xxhash_rust::xxh64::xxh64(format!("user_{at}{key}").as_bytes(), 0);
        (hash % 100) * 10_000 + (hash / 100) % 10_000
    };
    (0..shoppers).filter(|at| bucket(at) < millionths).collect()
}

/// `check` over these flags and variables.
async fn check(features: Option<&str>, env: &[(&str, &str)]) -> Finished {
    let (legacy, new) = backends().await;
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(&legacy, &new).route(LIVE);
    let plan = match features {
        Some(features) => plan.features(features),
        None => plan.no_flag_file(),
    };
    let config = plan.write(folder.path()).display().to_string();
    let checked = understudy(&["check", "--config", &config], env).await;
    let run = if checked.code == 0 {
        None
    } else {
        Some(understudy(&["run", "--config", &config], env).await)
    };
    if let Some(run) = run {
        assert_eq!(
            (run.code, &run.stderr),
            (checked.code, &checked.stdout),
            "a start says what `check` says"
        );
    }
    checked
}

/// Between two backends, with these variables and no flag file.
struct World {
    sidecar: Sidecar,
    _backends: (Backend, Backend),
}

impl std::ops::Deref for World {
    type Target = Sidecar;

    fn deref(&self) -> &Sidecar {
        &self.sidecar
    }
}

async fn with_variables(variables: &[(&str, &str)]) -> World {
    let backends = backends().await;
    let sidecar = Plan::new(&backends.0, &backends.1)
        .route(LIVE)
        .no_flag_file()
        .env(variables)
        .start();
    World {
        sidecar,
        _backends: backends,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_percentage_that_is_set_is_terminal() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(&flag("type: boolean, enabled: true, percentage: 5"))
        .start();
    assert_eq!(on_new(&sidecar, 2_000).await, below(50_000, "NEW_SHOP", 2_000));
    let hits = below(50_000, "NEW_SHOP", 2_000).len() as f64;
    assert_eq!(
        (
            reason(&sidecar, "percent").await,
            reason(&sidecar, "percent_miss").await
        ),
        (hits, 2_000.0 - hits)
    );
    assert_eq!(reason(&sidecar, "global").await, 0.0);
    sidecar
        .reload(&flag("type: boolean, enabled: true, percentage: 0"))
        .await
        .unwrap();
    assert!(on_new(&sidecar, 300).await.is_empty(), "0 % is a rollback");
    sidecar.reload(&flag("type: boolean, enabled: true")).await.unwrap();
    assert_eq!(on_new(&sidecar, 300).await.len(), 300, "an unset one falls through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_an_emptied_allowlist_turns_everybody_off_and_warns() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(&flag("type: boolean, enabled: true, allowlist: [user_7]"))
        .start();
    assert_eq!(on_new(&sidecar, 20).await, BTreeSet::from([7]));
    sidecar
        .reload(&flag("type: boolean, enabled: true, allowlist: []"))
        .await
        .unwrap();
    assert!(on_new(&sidecar, 20).await.is_empty());
    let warnings = sidecar.status().await["rules"]["warnings"].to_string();
    assert!(warnings.contains("allowlist"), "{warnings}");
    sidecar.reload(&flag("type: boolean, enabled: true")).await.unwrap();
    assert_eq!(on_new(&sidecar, 20).await.len(), 20, "without a list everybody is on");
    let sidecar = with_variables(&[("NEW_SHOP", "true"), ("NEW_SHOP_ALLOWLIST", " , ")]).await;
    assert!(on_new(&sidecar, 20).await.is_empty(), "items that are empty are none");
    let checked = check(None, &[("NEW_SHOP", "true"), ("NEW_SHOP_ALLOWLIST", "")]).await;
    assert!(
        checked.code == 0 && checked.stdout.contains("NEW_SHOP_ALLOWLIST: warning: "),
        "{checked:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_words_are_boolean_and_numbers_are_percentages() {
    for (word, on) in [
        ("true", 300),
        ("ON", 300),
        ("Yes", 300),
        ("false", 0),
        ("off", 0),
        ("No", 0),
        ("100", 300),
        ("0", 0),
    ] {
        let sidecar = with_variables(&[("NEW_SHOP", word)]).await;
        assert_eq!(on_new(&sidecar, 300).await.len(), on, "{word}");
    }
    let sidecar = with_variables(&[("FEATURE_FLAG_NEW_SHOP", "1")]).await;
    assert_eq!(
        on_new(&sidecar, 2_000).await,
        below(10_000, "NEW_SHOP", 2_000),
        "1 is one percent"
    );
    let warned = check(None, &[("NEW_SHOP", "1")]).await;
    assert!(
        warned.code == 0 && warned.stdout.contains("NEW_SHOP: warning: ") && warned.stdout.contains("1 %"),
        "{warned:?}"
    );
    for bad in ["maybe", "101", "-1", "12.34567", "5%"] {
        let refused = check(None, &[("NEW_SHOP", bad)]).await;
        assert_eq!(refused.code, 2, "{bad}: {refused:?}");
        assert!(
            refused.stdout.contains("environment variable NEW_SHOP"),
            "{bad}: {refused:?}"
        );
    }
    let empty = check(None, &[("NEW_SHOP", ""), ("NEW_SHOP_PERCENT", "")]).await;
    assert!(
        empty.stdout.contains("NEW_SHOP") && empty.stdout.contains("NEW_SHOP_PERCENT"),
        "{empty:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_both_conventions_work_and_a_disagreement_stops_the_start() {
    for name in ["NEW_SHOP", "FEATURE_FLAG_NEW_SHOP"] {
        let sidecar = with_variables(&[(name, "true")]).await;
        assert_eq!(side(&sidecar, "anna").await, "new", "{name}");
    }
    let agreed = with_variables(&[("NEW_SHOP", "true"), ("FEATURE_FLAG_NEW_SHOP", "on")]).await;
    assert_eq!(side(&agreed, "anna").await, "new");
    for (one, other) in [
        (("NEW_SHOP", "true"), ("FEATURE_FLAG_NEW_SHOP", "false")),
        (("NEW_SHOP_PERCENT", "5"), ("FEATURE_FLAG_NEW_SHOP", "25")),
    ] {
        let refused = check(None, &[one, other]).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(
            refused.stdout.contains(one.0) && refused.stdout.contains(other.0),
            "{refused:?}"
        );
    }
    let features = "features:\n  NEW_SHOP: { type: boolean, env: [SHOP_SWITCH] }\n";
    let named = check(Some(features), &[("SHOP_SWITCH", "true"), ("NEW_SHOP", "false")]).await;
    assert!(named.code == 2 && named.stdout.contains("SHOP_SWITCH"), "{named:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_kill_is_looked_at_before_everything_else() {
    let (legacy, new) = backends().await;
    for members in [
        "type: boolean, enabled: true",
        "type: boolean, enabled: true, allowlist: [user_0]",
        "type: percentage, percentage: 100",
        "type: boolean, default: true",
    ] {
        let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&flag(members)).start();
        let call = |verb| {
            let path = format!("/api/v1/feature-flags/NEW_SHOP/{verb}");
            let sidecar = &sidecar;
            async move {
                sidecar
                    .admin(Method::POST, &path, r#"{"reason":"a test"}"#)
                    .await
                    .status
            }
        };
        for _ in 0..3 {
            assert_eq!(side(&sidecar, "user_0").await, "new", "{members}");
            assert_eq!(call("kill").await, 200);
            // Neither what was decided a moment ago nor new rules count against it.
            assert_eq!(side(&sidecar, "user_0").await, "legacy", "{members}");
            sidecar.reload(&format!("{}# edited\n", flag(members))).await.unwrap();
            assert_eq!(side(&sidecar, "user_0").await, "legacy", "{members}");
            assert_eq!(call("rearm").await, 200);
        }
        assert_eq!(reason(&sidecar, "killed").await, 6.0, "{members}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c10_fractions_of_a_percent_count_and_more_percent_only_adds() {
    let (legacy, new) = backends().await;
    let percent = |text: &str| flag(&format!("type: percentage, enabled: true, percentage: {text}"));
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&percent("0")).start();
    let mut before = BTreeSet::new();
    for (text, millionths) in [
        ("0.05", 500),
        ("0.5", 5_000),
        ("25", 250_000),
        ("25.5", 255_000),
        ("99.9999", 999_999),
    ] {
        sidecar.reload(&percent(text)).await.unwrap();
        let on = on_new(&sidecar, 2_000).await;
        assert_eq!(on, below(millionths, "NEW_SHOP", 2_000), "{text} %");
        assert!(on.is_superset(&before), "{text} % takes somebody back");
        before = on;
    }
    let shares = |millionths| below(millionths, "NEW_SHOP", 2_000).len();
    assert!(
        shares(500) < shares(5_000) && shares(250_000) < shares(255_000),
        "the test can tell"
    );
    let refused = sidecar.reload(&percent("25.00001")).await.unwrap_err();
    assert!(
        refused[0].contains("25.00001") && refused[0].contains(":2:"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c14_an_over_long_key_is_refused_not_cut() {
    let longest = "k".repeat(200);
    let fine = check(Some(&format!("features:\n  {longest}: {{ type: boolean }}\n")), &[]).await;
    assert_eq!(fine.code, 0, "{fine:?}");
    let refused = check(
        Some(&format!(
            "features:\n  {longest}a: {{ type: boolean }}\n  {longest}b: {{ type: boolean }}\n"
        )),
        &[],
    )
    .await;
    assert_eq!(refused.code, 2, "{refused:?}");
    for place in ["features.yaml:2:3: ", "features.yaml:3:3: "] {
        assert!(refused.stdout.contains(place), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c15_every_spelling_works_and_a_folding_collision_is_refused() {
    let (legacy, new) = backends().await;
    for key in ["new_shop", "new-shop", "NEW_SHOP", "new.shop"] {
        let plan = Plan::new(&legacy, &new).route(&format!("flag: {key}")).no_flag_file();
        let sidecar = plan.env(&[("NEW_SHOP", "true")]).start();
        assert_eq!(side(&sidecar, "anna").await, "new", "{key}");
    }
    for (one, other) in [
        ("new-shop", "NEW_SHOP"),
        ("a.b", "a_b"),
        ("shop", "shop_percent"),
        ("shop", "SHOP-ALLOWLIST"),
    ] {
        let features = format!("features:\n  {one}: {{ type: boolean }}\n  {other}: {{ type: boolean }}\n");
        let refused = check(Some(&features), &[]).await;
        assert_eq!(refused.code, 2, "{one} and {other}: {refused:?}");
        let line = refused
            .stdout
            .lines()
            .find(|line| line.contains("features.yaml:3:3: "))
            .unwrap_or_default();
        assert!(
            line.contains(one) && line.contains(other),
            "{one} and {other}: {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c16_shadow_mode_with_the_flag_off_copies_nothing_and_says_so() {
    let (legacy, new) = backends().await;
    let route = "flag: NEW_SHOP\nshadow_mode: SHADOW_MODE\nshadow: { flag: true, methods: [POST] }\ndual_run: true";
    let plan = Plan::new(&legacy, &new)
        .route(route)
        .no_flag_file()
        .more("logs: { decisions: 100% }");
    let instance = Instance::start(&plan.env(&[("NEW_SHOP", "false"), ("SHADOW_MODE", "true")])).await;
    for _ in 0..20 {
        let answer = post(instance.address, "/", &[("x-shopper-id", "anna")], "{}").await;
        assert_eq!(answer.text(), "legacy");
    }
    let said = |line: &serde_json::Value| line["message"] == "shadow: inactive (flag off)";
    instance.wait_for_log("the line", said).await;
    assert_eq!(instance.metric("understudy_copies_skipped_total", &[]).await, 0.0);
    let folder = instance.stop().await;
    assert_eq!((new.count(), legacy.count()), (0, 20));
    // With the flag on it copies, and legacy serves; without shadow mode it is live.
    let instance = Instance::start_in(folder, &[("NEW_SHOP", "true"), ("SHADOW_MODE", "true")]).await;
    assert_eq!(
        post(instance.address, "/", &[("x-shopper-id", "anna")], "{}")
            .await
            .text(),
        "legacy"
    );
    assert!(new.wait_for(1).await[0].is_copy());
    let instance = Instance::start_in(instance.stop().await, &[("NEW_SHOP", "true"), ("SHADOW_MODE", "false")]).await;
    assert_eq!(
        post(instance.address, "/", &[("x-shopper-id", "anna")], "{}")
            .await
            .text(),
        "new"
    );
    assert!(!instance.logs().iter().any(said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c19_the_hash_is_xxh64_of_subject_and_key_or_cohort() {
    let (legacy, new) = backends().await;
    // The published vector of the empty text: what the test reckons with is XXH64 indeed.
    assert_eq!(xxhash_rust::xxh64::xxh64(b"", 0), 0xef46_db37_51d8_e999);
    let half = flag("type: percentage, percentage: 50");
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&half).start();
    assert_eq!(on_new(&sidecar, 2_000).await, below(500_000, "NEW_SHOP", 2_000));
    sidecar
        .reload(&flag("type: percentage, percentage: 50, cohort: spring"))
        .await
        .unwrap();
    assert_eq!(on_new(&sidecar, 2_000).await, below(500_000, "spring", 2_000));
    assert_ne!(below(500_000, "spring", 2_000), below(500_000, "NEW_SHOP", 2_000));
    let share = below(500_000, "NEW_SHOP", 2_000).len();
    assert!((930..=1_070).contains(&share), "{share} of 2,000 at 50 %");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_the_table_decide_in_their_order() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(&flag("type: boolean"))
        .start();
    let rows: [(&str, &str, &str, &str); 13] = [
        (
            "type: boolean, enabled: false, allowlist: [anna]",
            "anna",
            "legacy",
            "disabled",
        ),
        ("type: boolean, status: DISABLED", "anna", "legacy", "disabled"),
        (
            "type: boolean, enabled: true, environments: [staging]",
            "anna",
            "legacy",
            "environment",
        ),
        (
            "type: boolean, enabled: true, environments: []",
            "anna",
            "legacy",
            "environment",
        ),
        (
            "type: boolean, enabled: true, end_date: \"2020-01-01T00:00:00Z\"",
            "anna",
            "legacy",
            "schedule",
        ),
        (
            "type: boolean, enabled: true, start_date: \"2999-01-01T00:00:00Z\"",
            "anna",
            "legacy",
            "schedule",
        ),
        (
            "type: boolean, enabled: true, denylist: [anna], allowlist: [anna]",
            "anna",
            "legacy",
            "denylist",
        ),
        (
            "type: boolean, allowlist: [anna], percentage: 0",
            "anna",
            "new",
            "allowlist",
        ),
        (
            "type: boolean, enabled: true, allowlist: [anna], percentage: 100",
            "bert",
            "legacy",
            "not_allowlisted",
        ),
        (
            "type: boolean, enabled: true, percentage: 0",
            "anna",
            "legacy",
            "percent_miss",
        ),
        ("type: boolean, enabled: true", "anna", "new", "global"),
        ("type: boolean, default: true", "anna", "new", "default"),
        ("type: boolean", "anna", "legacy", "default"),
    ];
    for (members, shopper, served_by, why) in rows {
        sidecar.reload(&flag(members)).await.unwrap();
        let before = reason(&sidecar, why).await;
        assert_eq!(side(&sidecar, shopper).await, served_by, "{members}");
        assert_eq!(reason(&sidecar, why).await, before + 1.0, "{members}: {why}");
    }
    sidecar.reload("features: {}\n").await.unwrap();
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    assert_eq!(reason(&sidecar, "flag_not_found").await, 1.0);
    assert_eq!(
        sidecar.metric("feature_flag_errors_total", &["flag=\"unknown\""]).await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn constants_need_no_flag() {
    let (legacy, new) = backends().await;
    for (constant, expected) in [("true", "new"), ("false", "legacy")] {
        let sidecar = Plan::new(&legacy, &new)
            .route(&format!("flag: {constant}"))
            .no_flag_file()
            .start();
        assert_eq!(side(&sidecar, "anna").await, expected);
        assert_eq!(reason(&sidecar, "constant").await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_stronger_than_the_environment_member_by_member() {
    let (legacy, new) = backends().await;
    let plan = |members: &str| Plan::new(&legacy, &new).route(LIVE).features(&flag(members));
    let off = [("NEW_SHOP", "false"), ("NEW_SHOP_DENYLIST", "anna")];
    let sidecar = plan("type: boolean, enabled: true").env(&off).start();
    assert_eq!(side(&sidecar, "bert").await, "new", "the file's word holds");
    assert_eq!(
        side(&sidecar, "anna").await,
        "legacy",
        "what it leaves out comes from the variables"
    );
    // Unset here and below.
    sidecar
        .reload(&flag("type: boolean, enabled: true, denylist: null"))
        .await
        .unwrap();
    assert_eq!(side(&sidecar, "anna").await, "new");
    // A key that the file lacks.
    sidecar.reload("features: {}\n").await.unwrap();
    assert_eq!(side(&sidecar, "bert").await, "legacy");
    assert_eq!(reason(&sidecar, "disabled").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_as_a_whole_every_flag_and_constant_is_off() {
    let (legacy, new) = backends().await;
    for (route, features) in [
        ("flag: true\nshadow: true", ""),
        (
            "flag: NEW_SHOP\nshadow: true",
            "type: boolean, enabled: true, allowlist: [anna]",
        ),
    ] {
        let plan = Plan::new(&legacy, &new).route(route);
        let plan = if features.is_empty() {
            plan.no_flag_file()
        } else {
            plan.features(&flag(features))
        };
        let sidecar = plan.env(&[("FEATURE_FLAGS_ENABLED", "false")]).start();
        assert_eq!(side(&sidecar, "anna").await, "legacy", "{route}");
        assert_eq!(reason(&sidecar, "system_disabled").await, 1.0, "{route}");
    }
    assert_eq!(new.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_environment_is_another_answer() {
    let (legacy, new) = backends().await;
    let features = flag("type: boolean, enabled: true, environments: [staging]");
    for (environment, expected) in [("staging", "new"), ("production", "legacy")] {
        let plan = Plan::new(&legacy, &new).route(LIVE).features(&features);
        let sidecar = plan.more(&format!("environment: {environment}")).start();
        assert_eq!(side(&sidecar, "anna").await, expected, "{environment}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_version_does_not_have_is_refused_by_name() {
    let refused = check(Some("features: {}\nexperiments: { checkout: {} }\n"), &[]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stdout.contains("not in this version"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_beta_users_decide_who_is_served_by_new() {
    let (legacy, new) = backends().await;
    let features = "segments:\n  staff: { user_ids: [anna, ben] }\nfeatures:\n  NEW_SHOP:\n    type: targeted\n    \
                    enabled: true\n    beta_users: [tester]\n    rules:\n      - { type: user, priority: 1, conditions: { \
                    user_ids: [ben] }, value: false }\n      - { type: user_segment, priority: 2, conditions: { segment: \
                    staff } }\n";
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(features).start();
    for (shopper, expected) in [
        ("anna", "new"),
        ("ben", "legacy"),
        ("tester", "new"),
        ("carl", "legacy"),
    ] {
        assert_eq!(side(&sidecar, shopper).await, expected, "{shopper}");
    }
    assert_eq!(reason(&sidecar, "targeting").await, 2.0);
    assert_eq!(reason(&sidecar, "beta_user").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_reaches_the_flags_that_ask_the_killed_one() {
    let (legacy, new) = backends().await;
    let features = "features:\n  NEW_SHOP: { type: boolean, enabled: true, prerequisites: [ { flag: near } ] }\n  near: { \
                    type: boolean, enabled: true, prerequisites: [ { flag: base } ] }\n  base: { type: boolean, enabled: \
                    true }\n";
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(features).start();
    assert_eq!(side(&sidecar, "anna").await, "new");
    for (verb, expected) in [("kill", "legacy"), ("rearm", "new")] {
        let path = format!("/api/v1/feature-flags/base/{verb}");
        let answer = sidecar.admin(Method::POST, &path, r#"{"reason":"a test"}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(side(&sidecar, "anna").await, expected, "after a {verb}");
    }
    assert_eq!(reason(&sidecar, "prerequisite").await, 1.0);
}
