//! The binary as its users run it: signals, exit codes, and every verb once against the real thing.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::support::{
    Backend, Client, Finished, Instance, Plan, Reply, TOKEN, deadline, get, post, request, understudy,
};

const LIVE: &str = "flag: NEW_SHOP\n";
const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";
const OFF: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: false }\n";

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

async fn side(instance: &Instance) -> String {
    get(instance.address, "/", &[("x-shopper-id", "anna")])
        .await
        .text()
        .to_owned()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_files_again() {
    let (legacy, new) = backends().await;
    let instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(OFF)).await;
    assert_eq!(side(&instance).await, "legacy");
    std::fs::write(instance.folder().join("features.yaml"), ON).unwrap();
    instance.signal("HUP");
    instance
        .wait_for_log("a reload", |line| {
            line["message"] == "new rules serve" && line["actor"] == "signal"
        })
        .await;
    assert_eq!(side(&instance).await, "new");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_in_place_of_a_file_is_refused_and_holds_up_neither_the_next_reload_nor_the_end() {
    let (legacy, new) = backends().await;
    let mut instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(OFF)).await;
    let file = instance.folder().join("features.yaml");
    let pipe_in_its_place = || {
        std::fs::remove_file(&file).unwrap();
        mknodat(CWD, &file, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        instance.signal("HUP");
    };
    pipe_in_its_place();
    instance
        .wait_for_log("the refusal", |line| {
            let problems = line["problems"].as_str().unwrap_or_default();
            problems.contains("features.yaml") && problems.contains("it is no regular file")
        })
        .await;
    assert_eq!(side(&instance).await, "legacy");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, ON).unwrap();
    instance
        .wait_for_log("a reload", |line| line["message"] == "new rules serve")
        .await;
    assert_eq!(side(&instance).await, "new");
    pipe_in_its_place();
    instance.signal("TERM");
    assert_eq!(instance.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_requests_under_way_finish_and_exits_with_0() {
    let legacy = Backend::answering(|_| Reply::text("legacy").after(Duration::from_secs(1))).await;
    let new = Backend::saying("new").await;
    let mut instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(OFF)).await;
    let address = instance.address;
    let under_way = tokio::spawn(async move { get(address, "/", &[("x-shopper-id", "anna")]).await });
    legacy.wait_for(1).await;
    instance.signal("TERM");
    let answer = under_way.await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "legacy"));
    assert_eq!(instance.ended().await.code(), Some(0));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let last = instance
        .wait_for_log("the last line", |line| line["message"] == "stopped")
        .await;
    assert_eq!(last["level"], "INFO");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_that_was_acknowledged_survives_sigkill() {
    let (legacy, new) = backends().await;
    let mut instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(ON)).await;
    for round in 0..10 {
        assert_eq!(side(&instance).await, "new", "round {round}");
        let killed = instance.kill("shop").await;
        assert_eq!(
            (killed.status, &killed.json()["stored"]),
            (200, &json!(true)),
            "round {round}"
        );
        let folder = instance.crash();
        instance = Instance::start_in(folder, &[]).await;
        assert_eq!(
            side(&instance).await,
            "legacy",
            "round {round}: the first request after the crash"
        );
        assert_eq!(instance.rearm("shop").await.status, 200, "round {round}");
    }
}

const BROKEN: &str =
    "features:\n  NEW_SHOP: { type: boolen, enabled: true }\n  OTHER: { type: boolean, percentage: 101 }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_problems_exits_with_2_and_names_each_with_its_place() {
    let (legacy, new) = backends().await;
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(&legacy, &new)
        .route("flag: NEW_SHOP\nshaddow: true")
        .features(BROKEN);
    let config = plan.write(folder.path()).display().to_string();
    let features = path(folder.path(), "features.yaml");
    let written = std::fs::read_to_string(&config).unwrap();
    let misspelt = 1 + written.lines().position(|line| line.contains("shaddow")).unwrap();
    for verb in ["run", "check"] {
        let Finished { code, stdout, stderr } = understudy(&[verb, "--config", &config], &[]).await;
        assert_eq!(code, 2, "{verb}: {stdout}{stderr}");
        let told = if verb == "run" { stderr } else { stdout };
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{verb}: {told}");
        let has = |place: String, word: &str| lines.iter().any(|line| line.starts_with(&place) && line.contains(word));
        assert!(has(format!("{config}:{misspelt}:5: "), "`shadow`"), "{verb}: {told}");
        assert!(has(format!("{features}:2:21: "), "boolean"), "{verb}: {told}");
        assert!(has(format!("{features}:3:39: "), "101"), "{verb}: {told}");
    }
    let checked = understudy(&["check", "--config", &config, "--output", "json"], &[]).await;
    assert_eq!(checked.code, 2);
    let problems: Vec<Value> = checked
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(problems.len(), 3);
    for problem in &problems {
        for member in ["file", "line", "column", "path", "what", "remedy"] {
            assert!(!problem[member].is_null(), "{member}: {problem}");
        }
    }
    assert!(
        problems
            .iter()
            .any(|p| p["file"] == *features && p["line"] == 2 && p["column"] == 21),
        "{problems:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_passes_what_would_start_and_can_deny_warnings() {
    let (legacy, new) = backends().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(ON)
        .write(folder.path())
        .display()
        .to_string();
    let fine = understudy(&["check", "--config", &config, "--deny-warnings"], &[]).await;
    assert_eq!(fine.code, 0, "{fine:?}");
    assert!(fine.stdout.contains("1 route and 1 flag"), "{fine:?}");
    Plan::new(&legacy, &new)
        .route("flag: NOBODY_SET_THIS")
        .features(ON)
        .write(folder.path());
    let warned = understudy(&["check", "--config", &config], &[]).await;
    assert_eq!(warned.code, 0, "{warned:?}");
    assert!(warned.stdout.contains("NOBODY_SET_THIS"), "{warned:?}");
    assert_eq!(
        understudy(&["check", "--config", &config, "--deny-warnings"], &[])
            .await
            .code,
        2
    );
    let absent = understudy(&["check", "--config", "/nowhere/understudy.yaml"], &[]).await;
    assert_eq!(absent.code, 2, "{absent:?}");
    assert!(absent.stdout.contains("/nowhere/understudy.yaml"), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_and_rearm_from_the_command_line() {
    let (legacy, new) = backends().await;
    let instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(ON)).await;
    let killed = instance.ask(&["kill", "shop", "--reason", "errors at night"]).await;
    assert_eq!(killed.code, 0, "{killed:?}");
    assert!(
        killed.stdout.contains("route shop is killed: in force, on disk"),
        "{killed:?}"
    );
    assert_eq!(side(&instance).await, "legacy");
    let status = instance.ask(&["status"]).await;
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status.stdout.contains("shop") && status.stdout.contains("errors at night"),
        "{status:?}"
    );
    let rearmed = instance.ask(&["rearm", "shop", "--reason", "repaired"]).await;
    assert_eq!(rearmed.code, 0, "{rearmed:?}");
    assert_eq!(side(&instance).await, "new");
    assert_eq!(instance.ask(&["rearm", "shop", "--reason", "again"]).await.code, 1);

    let unknown = instance.ask(&["kill", "shopp", "--reason", "a typing error"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("shop"), "{unknown:?}");
    let admin = format!("http://{}", instance.admin);
    let stranger = understudy(
        &["kill", "shop", "--reason", "x", "--admin", &admin, "--token", "wrong"],
        &[],
    )
    .await;
    assert_eq!(stranger.code, 1, "{stranger:?}");
    assert_eq!(side(&instance).await, "new");
    let all = instance
        .ask(&["kill", "--all", "--reason", "x", "--output", "json"])
        .await;
    assert_eq!(all.json()["in_force"], true);
    assert_eq!(side(&instance).await, "legacy");
    instance.stop().await;
    let nobody = understudy(
        &["kill", "shop", "--reason", "x", "--admin", &admin, "--token", TOKEN],
        &[],
    )
    .await;
    assert_eq!(nobody.code, 1, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_divergences_from_the_command_line() {
    let legacy = Backend::answering(|_| Reply::json(r#"{"total":1}"#)).await;
    let new = Backend::answering(|_| Reply::json(r#"{"total":"1"}"#)).await;
    let route = "shadow: { flag: true, methods: [POST] }\ndual_run: true";
    let instance = Instance::start(&Plan::new(&legacy, &new).route(route)).await;
    let none = instance.ask(&["divergences"]).await;
    assert_eq!((none.code, &*none.stdout), (0, "no two answers differed\n"));
    post(instance.address, "/", &[("x-shopper-id", "anna")], "{}").await;
    instance
        .wait_for_metric("divergence_count", &["severity=\"critical\""], 1.0)
        .await;
    let found = instance.ask(&["divergences", "--route", "shop"]).await;
    assert_eq!(found.code, 0, "{found:?}");
    assert!(found.stdout.contains("critical type          /total"), "{found:?}");
    let found = instance.ask(&["divergences", "--output", "json"]).await.json();
    assert_eq!(found["items"][0]["places"][0]["pointer"], "/total");
    let status = instance.ask(&["status", "--output", "json"]).await.json();
    assert_eq!(status["routes"][0]["compared"]["severities"]["critical"], 1);
    assert_eq!(instance.ask(&["status", "--route", "nothing"]).await.code, 2);
    let details = instance.ask(&["status", "--details"]).await;
    assert!(details.code == 0 && details.stdout.contains("/total"), "{details:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_from_the_command_line() {
    let (legacy, new) = backends().await;
    let folder = tempfile::tempdir().unwrap();
    let features = "features:\n  NEW_SHOP: { type: boolean, denylist: [bert] }\n";
    let config = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(features)
        .write(folder.path())
        .display()
        .to_string();
    let env = [("NEW_SHOP_PERCENT", "25")];
    let explained = understudy(
        &[
            "explain",
            "--config",
            &config,
            "--flag",
            "NEW_SHOP",
            "--subject",
            "anna",
        ],
        &env,
    )
    .await;
    assert_eq!(explained.code, 0, "{explained:?}");
    for word in ["percent", "bucket", "NEW_SHOP_PERCENT"] {
        assert!(explained.stdout.contains(word), "{word}: {explained:?}");
    }
    let requests = path(folder.path(), "requests.jsonl");
    let lines = [
        json!({ "flag": "NEW_SHOP", "targetingKey": "anna" }),
        json!({ "flag": "NEW_SHOP", "targetingKey": "bert" }),
        json!({ "flag": "NOTHING", "targetingKey": "anna" }),
    ];
    std::fs::write(&requests, lines.map(|line| line.to_string() + "\n").concat()).unwrap();
    let answered = understudy(&["explain", "--config", &config, "--requests", &requests], &env).await;
    assert_eq!(answered.code, 0, "{answered:?}");
    let lines: Vec<Value> = answered
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let bucket = |subject: &str| {
        let hash = xxhash_rust::xxh64::xxh64(format!("{subject}NEW_SHOP").as_bytes(), 0);
        (hash % 100) * 10_000 + (hash / 100) % 10_000
    };
    assert_eq!(lines.len(), 3, "{answered:?}");
    assert_eq!(lines[0]["bucket"], bucket("anna"));
    assert_eq!(lines[0]["value"], bucket("anna") < 250_000);
    assert_eq!(
        lines[0]["reason"],
        if bucket("anna") < 250_000 {
            "percent"
        } else {
            "percent_miss"
        }
    );
    assert_eq!(
        (&lines[1]["value"], &lines[1]["reason"]),
        (&json!(false), &json!("denylist"))
    );
    assert_eq!(
        (&lines[2]["value"], &lines[2]["reason"]),
        (&json!(false), &json!("flag_not_found"))
    );
    for line in &lines {
        let members: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            members,
            ["flag", "value", "variant", "reason", "rule", "bucket", "origin"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_takes_attributes_and_tells_rule_and_variant() {
    let (legacy, new) = backends().await;
    let folder = tempfile::tempdir().unwrap();
    let features = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n  steps:\n    type: variant\n    variants: { \
                    control: { weight: 50, config: { n: 1.0 } }, b: { weight: 50, config: { n: 2 } } }\n    rules:\n      - { \
                    type: location, name: abroad, conditions: { country: [PT, BR], score: 9007199254740993 }, value: b }\n";
    let plan = Plan::new(&legacy, &new).route(LIVE).features(features);
    let config = plan.write(folder.path()).display().to_string();
    let abroad = r#"{"country":"BR","score":9007199254740993}"#;
    let near = r#"{"country":"BR","score":9007199254740992}"#;
    let explain = async |attributes: &str, output: &str| {
        let asked = [
            "explain",
            "--config",
            &config,
            "--flag",
            "steps",
            "--subject",
            "anna",
            "--output",
            output,
        ];
        let asked: Vec<&str> = asked.into_iter().chain(["--attributes", attributes]).collect();
        understudy(&asked, &[]).await
    };
    let told = explain(abroad, "json").await.json();
    assert_eq!(
        (
            &told["value"],
            &told["variant"],
            &told["reason"],
            &told["rule"],
            &told["line"]
        ),
        (
            &json!({ "n": 2 }),
            &json!("b"),
            &json!("targeting"),
            &json!("abroad"),
            &json!(9)
        )
    );
    assert_eq!(explain(near, "json").await.json()["reason"], "split");
    let table = explain(abroad, "table").await;
    for words in ["steps is b: targeting by rule abroad", "rule abroad matches: `b`"] {
        assert!(table.stdout.contains(words), "{words}: {table:?}");
    }
    assert_eq!(explain("[1]", "json").await.code, 2);

    let requests = path(folder.path(), "requests.jsonl");
    let lines = [
        format!(r#"{{"flag":"steps","targetingKey":"anna","attributes":{abroad}}}"#),
        format!(r#"{{"flag":"steps","targetingKey":"anna","attributes":{near},"at":"2026-01-01T00:00:00Z"}}"#),
        r#"{"flag":"steps","attributes":{}}"#.to_owned(),
    ];
    std::fs::write(&requests, lines.join("\n")).unwrap();
    let answered = understudy(&["explain", "--config", &config, "--requests", &requests], &[]).await;
    assert_eq!(answered.code, 0, "{answered:?}");
    let lines: Vec<&str> = answered.stdout.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"flag":"steps","value":{"n":2},"variant":"b","reason":"targeting","rule":"abroad","bucket":null,"origin":"file"}"#
    );
    assert!(lines[1].contains(r#""reason":"split","rule":null"#), "{}", lines[1]);
    assert_eq!(
        lines[2],
        r#"{"flag":"steps","value":{"n":1.0},"variant":"control","reason":"identity_unknown","rule":null,"bucket":null,"origin":"default"}"#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diff_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = path(folder.path(), "pairs.jsonl");
    let lines = [
        json!({ "id": "1", "legacy": "{\"total\":1.0}", "twin": null, "new": "{\"total\":1}" }),
        json!({ "id": "2", "legacy": "{\"total\":1}", "twin": null, "new": "{\"total\":null}" }),
    ];
    std::fs::write(&pairs, lines.map(|line| line.to_string() + "\n").concat()).unwrap();
    let told = understudy(&["diff", "--pairs", &pairs], &[]).await;
    assert_eq!(told.code, 0, "{told:?}");
    let lines: Vec<Value> = told
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0], json!({ "id": "1", "verdict": "same", "divergences": [] }));
    let critical = json!([{ "pointer": "/total", "kind": "null", "severity": "critical" }]);
    assert_eq!(
        lines[1],
        json!({ "id": "2", "verdict": "diverged", "divergences": critical })
    );
    assert_eq!(understudy(&["diff", "--pairs", "/nowhere"], &[]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_opens_what_its_role_may() {
    let (legacy, new) = backends().await;
    let made = understudy(
        &[
            "token",
            "new",
            "--role",
            "viewer",
            "--name",
            "night-watch",
            "--output",
            "json",
        ],
        &[],
    )
    .await;
    assert_eq!(made.code, 0, "{made:?}");
    let made = made.json();
    let folder = tempfile::tempdir().unwrap();
    Plan::new(&legacy, &new).route(LIVE).features(ON).write(folder.path());
    let hash = made["sha256"].as_str().unwrap();
    let tokens = format!("tokens: [ {{ name: night-watch, role: viewer, sha256: {hash} }} ]\n");
    std::fs::write(folder.path().join("tokens.yaml"), tokens).unwrap();
    let instance = Instance::start_in(folder, &[]).await;
    let env = [
        ("UNDERSTUDY_ADMIN", &*format!("http://{}", instance.admin)),
        ("UNDERSTUDY_TOKEN", made["token"].as_str().unwrap()),
    ];
    assert_eq!(understudy(&["status"], &env).await.code, 0);
    let refused = understudy(&["kill", "shop", "--reason", "x"], &env).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("viewer") || refused.stderr.contains("operator"),
        "{refused:?}"
    );
    assert_eq!(understudy(&["status"], &env[..1]).await.code, 1);
    assert_eq!(understudy(&["token", "new", "--role", "king"], &[]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_at_once() {
    let legacy = Backend::answering(|_| Reply::text("legacy").after(Duration::from_secs(60))).await;
    let new = Backend::saying("new").await;
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(OFF)
        .legacy_more("timeout: 100s");
    let mut instance = Instance::start(&plan).await;
    let mut client = Client::connect(instance.address).await;
    let stuck = tokio::spawn(async move {
        client
            .try_send(request(http::Method::GET, "/", &[("x-shopper-id", "anna")], ""))
            .await
            .is_err()
    });
    legacy.wait_for(1).await;
    instance.signal("TERM");
    instance
        .wait_for_log("draining", |line| line["message"] == "draining")
        .await;
    instance.signal("TERM");
    assert_eq!(instance.ended().await.code(), Some(1));
    assert!(stuck.await.unwrap());
    deadline("legacy's connection to close", || legacy.open() == 0).await;
}
