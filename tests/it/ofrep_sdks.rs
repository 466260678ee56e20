//! Clients that others wrote: what the OpenFeature SDKs with their OFREP providers ask for, they get. `tests/run` installs
//! them beside what is built.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Backend, Plan, Sidecar, eventually, sha256};

const FEATURES: &str = "features:
  switch: { type: boolean, enabled: true }
  off: { type: boolean, enabled: false }
  listed: { type: boolean, enabled: true, allowlist: [anna] }
  rule: { type: targeted, rules: [ { type: property, name: payers, conditions: { plan: pro } } ] }
  hidden: { type: boolean, enabled: true, metadata: { exposed: 'false' } }
  text: { type: variant, enabled: true, variants: { control: { weight: 0, value: red }, blue: { weight: 1, value: TEXT } } }
  whole: { type: variant, enabled: true, variants: { control: { weight: 0, value: 1 }, seven: { weight: 1, value: 7 } } }
  float: { type: variant, enabled: true, variants: { control: { weight: 0, value: 0.5 }, one: { weight: 1, value: 1.0 } } }
  object: { type: variant, enabled: true, variants: { control: { weight: 0, config: {} }, b: { weight: 1, config: { steps: 3, of: [a, 1.5, null] } } } }
  named: { type: variant, enabled: true, variants: { control: { weight: 0 }, treatment: { weight: 1 } } }
";

fn features(text: &str) -> String {
    FEATURES.replace("TEXT", text)
}

/// An instance with tokens for each of the roles that SDKs have.
async fn start(more: &str) -> (Sidecar, Backend) {
    let backend = Backend::saying("legacy").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sdks.yaml");
    let entry = |name: &str, role: &str| format!("  - {{ name: {name}, role: {role}, sha256: {} }}\n", sha256(name));
    let tokens = format!(
        "tokens:\n{}{}{}",
        entry("web", "client"),
        entry("server", "viewer"),
        entry("limited", "client")
    );
    std::fs::write(&file, tokens).unwrap();
    let ofrep = format!(
        "ofrep: {{ address: 127.0.0.1:0, tokens_file: {}{more} }}",
        file.display()
    );
    Plan::new(&backend, &backend)
        .route("flag: false")
        .more(&ofrep)
        .features(&features("blue"))
        .write(folder.path());
    (Sidecar::start_in(folder, BTreeMap::default()), backend)
}

/// Beside what is built.
fn installed(path: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_understudy"));
    built.ancestors().nth(2).unwrap().join(path)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdks").join(name)
}

/// An SDK's program; none where it is not installed, which a passing test must not hide.
fn sdk(name: &str, arguments: &[&str]) -> Option<Command> {
    let (program, probe) = if name.ends_with(".py") {
        let probe = ["-c", "import openfeature.contrib.provider.ofrep"];
        (installed("venv/bin/python"), probe)
    } else {
        let needed = if name == "web.cjs" {
            "require('eventsource'), require('@openfeature/web-sdk'), require('@openfeature/ofrep-web-provider')"
        } else {
            "require('@openfeature/server-sdk'), require('@openfeature/ofrep-provider')"
        };
        (PathBuf::from("node"), ["-e", needed])
    };
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("NODE_PATH", installed("sdks/node_modules"))
            .stdin(Stdio::null());
        command
    };
    if !command(&probe).output().is_ok_and(|output| output.status.success()) {
        let told = format!("\nSKIPPED: the SDK of {name} is not installed, so nothing is asked with it\n");
        std::io::stderr().write_all(told.as_bytes()).unwrap();
        return None;
    }
    let script = script(name).display().to_string();
    let arguments: Vec<&str> = [&*script].into_iter().chain(arguments.iter().copied()).collect();
    Some(command(&arguments))
}

/// What a program that ends by itself says.
async fn said(mut command: Command) -> Value {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{error}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{error}"))
}

/// The first three are the same for every SDK for servers: value, variant, reason.
fn expected() -> Vec<(&'static str, Value)> {
    vec![
        ("switch", json!([true, "on", "STATIC"])),
        ("off", json!([false, "off", "DISABLED"])),
        ("text", json!(["blue", "blue", "SPLIT"])),
        ("whole", json!([7, "seven", "SPLIT"])),
        ("float", json!([1.0, "one", "SPLIT"])),
        ("object", json!([{ "steps": 3, "of": ["a", 1.5, null] }, "b", "SPLIT"])),
        ("named", json!(["treatment", "treatment", "SPLIT"])),
        ("rule", json!([true, "on", "TARGETING_MATCH"])),
        ("listed", json!([true, "on", "TARGETING_MATCH"])),
        ("nobody needed", json!([true, "on", "STATIC"])),
    ]
}

fn check(answers: &Value) {
    for (name, expected) in expected() {
        let told = answers[name].as_array().unwrap();
        let (told, error) = told.split_at(3);
        let numbers_alike = |told: &Value, expected: &Value| {
            told == expected || (told.as_f64().is_some() && told.as_f64() == expected.as_f64())
        };
        let expected = expected.as_array().unwrap();
        assert!(
            told.iter()
                .zip(expected)
                .all(|(told, expected)| numbers_alike(told, expected)),
            "{name}: {told:?}, expected {expected:?}"
        );
        assert_eq!(error, [Value::Null, Value::Null], "{name}");
    }
    for (name, default, code) in [
        ("of another type", json!(7), "TYPE_MISMATCH"),
        ("unknown", json!(true), "FLAG_NOT_FOUND"),
        ("nobody", json!(true), "TARGETING_KEY_MISSING"),
        ("wrong token", json!(false), "GENERAL"),
        ("too often", json!(false), "GENERAL"),
        ("paused", json!(false), "GENERAL"),
    ] {
        let told = &answers[name];
        assert_eq!((&told[0], &told[3]), (&default, &json!(code)), "{name}: {told}");
    }
    let metadata = &answers["metadata"];
    assert_eq!(
        *metadata,
        json!({ "reason": "global", "origin": "file", "revision": 1 })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk_for_python_gets_every_type_reason_and_error() {
    let (sidecar, _backend) = start(", requests_per_client: 20").await;
    let url = format!("http://{}", sidecar.ofrep());
    let Some(command) = sdk("server.py", &[&url, "server"]) else {
        return;
    };
    let answers = said(command).await;
    check(&answers);
    assert!(
        answers["too often"][4].as_str().unwrap().contains("Rate limited"),
        "{}",
        answers["too often"]
    );
    assert!(
        answers["paused"][4].as_str().unwrap().contains("paused"),
        "{}",
        answers["paused"]
    );
    assert!(
        answers["wrong token"][4].as_str().unwrap().contains("unauthorized"),
        "{}",
        answers["wrong token"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk_for_servers_on_node_gets_every_type_reason_and_error() {
    let (sidecar, _backend) = start(", requests_per_client: 20").await;
    let url = format!("http://{}", sidecar.ofrep());
    let Some(command) = sdk("server.cjs", &[&url, "server"]) else {
        return;
    };
    check(&said(command).await);
}

/// A page that goes on.
struct Page {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Page {
    fn open(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines }
    }

    /// The next state that it tells of.
    async fn told(&mut self) -> Value {
        let mut lines = self.lines.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            (lines, line)
        });
        let read = tokio::time::timeout(std::time::Duration::from_secs(30), read).await;
        let (lines, line) = read.expect("the page tells of something").unwrap();
        self.lines = Some(lines);
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// The state of this context; a page that polls may tell of changes in between.
    async fn state(&mut self, name: &str) -> Value {
        loop {
            let told = self.told().await;
            if !told[0].is_array() {
                assert_eq!(told[0], name);
                return told;
            }
        }
    }

    /// The states of the four contexts that it begins with.
    async fn begins(&mut self) {
        let ready = self.state("ready").await;
        assert_eq!(
            ready,
            json!([
                "ready",
                [true, "on", "STATIC", null],
                ["blue", "blue", "SPLIT", null],
                [7, "seven", "SPLIT", null],
                [1, "one", "SPLIT", null],
                [{ "steps": 3, "of": ["a", 1.5, null] }, "b", "SPLIT", null],
                [true, "on", "TARGETING_MATCH", null],
                [true, null, "ERROR", "FLAG_NOT_FOUND"],
                // Not exposed to the role of a page.
                [false, null, "ERROR", "FLAG_NOT_FOUND"]
            ])
        );
        let listed = |state: &Value| state[6].clone();
        assert_eq!(
            listed(&self.state("bert").await),
            json!([false, "off", "TARGETING_MATCH", null]),
            "bert"
        );
        assert_eq!(
            listed(&self.state("nobody").await),
            json!([false, null, "ERROR", "TARGETING_KEY_MISSING"]),
            "nobody"
        );
        assert_eq!(
            listed(&self.state("anna").await),
            json!([true, "on", "TARGETING_MATCH", null]),
            "anna"
        );
    }

    async fn ends(mut self) {
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        assert!(ended.await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk_for_browsers_asks_again_when_the_event_stream_says_so() {
    let (sidecar, _backend) = start("").await;
    let url = format!("http://{}", sidecar.ofrep());
    let Some(command) = sdk("web.cjs", &[&url, "web", "sse"]) else {
        return;
    };
    let mut page = Page::open(command);
    page.begins().await;
    eventually("an open stream", || async {
        sidecar.metric("understudy_ofrep_streams", &[]).await >= 1.0
    })
    .await;
    sidecar.reload(&features("green")).await.unwrap();
    let changed = page.told().await;
    assert_eq!((&changed[0], &changed[2][0]), (&json!(["text"]), &json!("green")));
    // Rules that change nothing for this page are asked for and not sent.
    let unchanged = sidecar
        .metric("understudy_ofrep_requests_total", &["result=\"not_modified\""])
        .await;
    sidecar
        .reload(&features("green").replace("[anna]", "[anna, carla]"))
        .await
        .unwrap();
    sidecar
        .wait_for_metric(
            "understudy_ofrep_requests_total",
            &["result=\"not_modified\""],
            unchanged + 1.0,
        )
        .await;
    sidecar.reload(&features("last")).await.unwrap();
    assert_eq!(page.told().await[2][0], "last");
    page.ends().await;
    sidecar.wait_for_zero("understudy_ofrep_streams", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sdk_for_browsers_polls_where_it_is_told_to_and_is_sent_nothing_twice() {
    let (sidecar, _backend) = start("").await;
    let url = format!("http://{}", sidecar.ofrep());
    let Some(command) = sdk("web.cjs", &[&url, "web", "polling"]) else {
        return;
    };
    let mut page = Page::open(command);
    page.begins().await;
    sidecar
        .wait_for_metric("understudy_ofrep_requests_total", &["result=\"not_modified\""], 3.0)
        .await;
    sidecar.reload(&features("last")).await.unwrap();
    let mut changed = page.told().await;
    // What it asked for in one context it may tell of in the next.
    while changed[2][0] != "last" {
        changed = page.told().await;
    }
    page.ends().await;
    assert_eq!(sidecar.metric("understudy_ofrep_streams", &[]).await, 0.0);
}
