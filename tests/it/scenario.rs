//! The rollout guide of a WhatsApp service, phase by phase and with each of its rollbacks: variables alone set the flags, every
//! step is a restart over the same state, and both services check the signature of every message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Backend, Case, Client, Instance, Plan, Received, Reply, deadline, signature_holds};

const EVENTS: &str = "WHATSAPP_CANONICAL_EVENTS_ENABLED";
const ALLOWLIST: &str = "WHATSAPP_CANONICAL_EVENTS_ENABLED_ALLOWLIST";
const DENYLIST: &str = "WHATSAPP_CANONICAL_EVENTS_ENABLED_DENYLIST";
const PERCENT: &str = "WHATSAPP_CANONICAL_EVENTS_ENABLED_PERCENT";
const SHADOW_MODE: &str = "WHATSAPP_CANONICAL_SHADOW_MODE";
const DUAL_RUN: &str = "WHATSAPP_DUAL_RUN";

const SHOPPERS: usize = 300;
const TESTER: &str = "33639980123";

const ROUTE: &str = r#"
  - name: whatsapp
    match: { path: /webhooks/whatsapp, methods: [GET, POST] }
    identity:
      - all:
          - { json: ["/entry/*/changes/*/value/messages/*/from", "/entry/*/changes/*/value/messages/*/from_user_id"], normalise: digits }
          - { json: /entry/*/changes/*/value/statuses/*/recipient_id, normalise: digits }
    flag: WHATSAPP_CANONICAL_EVENTS_ENABLED
    shadow_mode: WHATSAPP_CANONICAL_SHADOW_MODE
    shadow: { flag: false, methods: [POST] }
    dual_run: WHATSAPP_DUAL_RUN
"#;

type Set = BTreeSet<String>;

fn set<'a>(shoppers: impl IntoIterator<Item = &'a str>) -> Set {
    shoppers.into_iter().map(str::to_owned).collect()
}

/// Those whom `hash % 100 < percent` takes, reckoned apart from the code under test.
fn below(percent: u64) -> Set {
    let takes =
        |shopper: &String| xxhash_rust::xxh64::xxh64(format!("{shopper}{EVENTS}").as_bytes(), 0) % 100 < percent;
    shoppers().filter(takes).collect()
}

fn shoppers() -> impl Iterator<Item = String> {
    (0..SHOPPERS).map(|at| format!("3363998{at:04}"))
}

/// Two services, the files between them, and what everybody says.
struct Rollout {
    legacy: Backend,
    new: Backend,
    unsigned: Arc<AtomicUsize>,
    messages: BTreeMap<String, Case>,
    folder: Option<TempDir>,
}

/// What a step came to, once every shopper had sent a message and the instance had ended.
struct Step {
    /// Answered by new.
    live: Set,
    /// Copied to new.
    copied: Set,
    /// For whom the flag was on, by the log.
    on: Set,
    logs: Vec<Value>,
    metrics: String,
}

impl Step {
    fn reasons(&self) -> Set {
        self.checks(EVENTS)
            .map(|line| line["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    fn checks(&self, flag: &str) -> impl Iterator<Item = &Value> {
        self.logs
            .iter()
            .filter(move |line| line["event"] == "feature_flag_check" && line["flag_name"] == flag)
    }

    fn counted(&self, name: &str, label: &str) -> u64 {
        let lines = self
            .metrics
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }
}

impl Rollout {
    async fn begin() -> Self {
        let unsigned = Arc::new(AtomicUsize::new(0));
        let service = |name: &'static str, body: &'static str| {
            let unsigned = Arc::clone(&unsigned);
            move |message: &Received| {
                if message.method == "GET" {
                    let challenge = message.target.rsplit_once("hub.challenge=").unwrap().1;
                    return Reply::text(challenge.to_owned()).header("x-by", name);
                }
                if !signature_holds(message) {
                    unsigned.fetch_add(1, Ordering::SeqCst);
                    return Reply::status(401);
                }
                Reply::json(body).header("x-by", name)
            }
        };
        let legacy = Backend::answering(service("legacy", r#"{"status":"received"}"#)).await;
        let new = Backend::answering(service("new", r#"{"status":"received","version":2}"#)).await;
        let plan = Plan::new(&legacy, &new).no_flag_file().routes(ROUTE);
        let folder = tempfile::tempdir().unwrap();
        plan.more("logs: { subject: clear, decisions: 100% }")
            .write(folder.path());
        let messages = shoppers()
            .map(|shopper| (shopper.clone(), Case::text_from(&shopper)))
            .collect();
        Self {
            legacy,
            new,
            unsigned,
            messages,
            folder: Some(folder),
        }
    }

    /// Runs the instance with these variables, has every shopper send one message, and ends it.
    async fn step(&mut self, variables: &[(&str, &str)]) -> Step {
        let env = [&[("WHATSAPP_PROVIDER", "simulated")], variables].concat();
        let instance = Instance::start_in(self.folder.take().unwrap(), &env).await;
        let before = (self.legacy.count(), self.new.count());
        let mut live = Set::new();
        let mut client = Client::connect(instance.address).await;
        for (shopper, message) in &self.messages {
            let answer = client.send(message.request()).await;
            assert_eq!(answer.status, 200, "{shopper}: {}", answer.text());
            if answer.header("x-by") == "new" {
                live.insert(shopper.clone());
            }
        }
        let decided = |line: &Value| line["flag_name"] == EVENTS;
        deadline("a line for every decision", || {
            instance.logs().iter().filter(|line| decided(line)).count() == SHOPPERS
        })
        .await;
        let logs = instance.logs();
        let enabled = logs.iter().filter(|line| decided(line) && line["enabled"] == true);
        let on: Set = enabled
            .map(|line| line["shopper_id"].as_str().unwrap().to_owned())
            .collect();
        // Whoever is on is answered by new or copied to it; both are runs on new.
        instance
            .wait_for_metric("canonical_events_published_count", &[], on.len() as f64)
            .await;
        if variables.contains(&(DUAL_RUN, "true")) {
            instance
                .wait_for_metric("understudy_compared_total", &[], (on.len() - live.len()) as f64)
                .await;
        }
        let metrics = instance.metrics().await;
        // After an orderly end nothing is on its way any more: what has not been copied never will be.
        self.folder = Some(instance.stop().await);
        let copied = self.look(before.0, before.1, &live);
        Step {
            live,
            copied,
            on,
            logs,
            metrics,
        }
    }

    /// Checks that each service got every message byte for byte; gives who was copied.
    fn look(&self, legacy: usize, new: usize, live: &Set) -> Set {
        assert_eq!(self.unsigned.load(Ordering::SeqCst), 0, "a signature did not hold");
        let sender = |received: &Received| {
            let from = self.messages.iter().find(|(_, case)| case.body == received.body);
            from.unwrap_or_else(|| panic!("nobody sent {received:?}")).0.clone()
        };
        let (legacy, new) = (&self.legacy.received()[legacy..], &self.new.received()[new..]);
        assert!(legacy.iter().all(|received| !received.is_copy()));
        assert_eq!(legacy.len() + live.len(), SHOPPERS);
        let served: Set = new.iter().filter(|received| !received.is_copy()).map(sender).collect();
        assert_eq!(&served, live);
        let copies: Vec<String> = new.iter().filter(|received| received.is_copy()).map(sender).collect();
        let copied: Set = copies.iter().cloned().collect();
        assert_eq!(copied.len(), copies.len(), "nobody is copied twice");
        copied
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_phases_of_the_guide_and_its_rollbacks_by_variables_alone() {
    let mut rollout = Rollout::begin().await;
    let nobody = Set::new();

    // S1-12, development: everything is as before, and there is no canonical event.
    let step = rollout
        .step(&[(SHADOW_MODE, "true"), (EVENTS, "false"), (DUAL_RUN, "false")])
        .await;
    assert_eq!((&step.live, &step.copied, &step.on), (&nobody, &nobody, &nobody));
    assert_eq!(step.reasons(), set(["disabled"]));
    assert_eq!(step.counted("canonical_events_published_count", ""), 0);
    assert_eq!(step.counted("canonical_publish_fail_count", ""), 0);
    assert_eq!(
        step.counted("routing_assignments_count", "side=\"legacy\""),
        SHOPPERS as u64
    );
    let inactive = step
        .logs
        .iter()
        .filter(|line| line["message"] == "shadow: inactive (flag off)")
        .count();
    assert_eq!(inactive, SHOPPERS);

    // S1-13, staging: only that shopper produces events, they are compared, and nothing critical differs.
    let one = [
        (SHADOW_MODE, "true"),
        (EVENTS, "true"),
        (ALLOWLIST, TESTER),
        (DUAL_RUN, "true"),
    ];
    let step = rollout.step(&one).await;
    assert_eq!((&step.live, &step.copied), (&nobody, &set([TESTER])));
    assert_eq!(step.reasons(), set(["allowlist", "not_allowlisted"]));
    assert_eq!(step.counted("canonical_events_published_count", ""), 1);
    assert_eq!(step.counted("understudy_compared_total", "verdict=\"diverged\""), 1);
    assert_eq!(step.counted("divergence_count", "severity=\"minor\""), 1);
    assert_eq!(step.counted("divergence_count", "severity=\"critical\""), 0);
    let compared = step.checks(DUAL_RUN).find(|line| line["shopper_id"] == TESTER).unwrap();
    assert_eq!(compared["enabled"], true);
    assert_eq!(compared["tags"], "FEATURE_FLAG CANONICAL_EVENT DUAL_RUN");

    // S1-14, canary: the same for three.
    let three = ["33639980001", "33639980002", "33639980003"];
    let canary = [
        (SHADOW_MODE, "true"),
        (EVENTS, "true"),
        (ALLOWLIST, &*three.join(",")),
        (DUAL_RUN, "true"),
    ];
    let step = rollout.step(&canary).await;
    assert_eq!((&step.live, &step.copied), (&nobody, &set(three)));
    assert_eq!(step.counted("understudy_compared_total", ""), 3);

    // S1-21, rollback of the canary: an emptied list is a list of nobody, and the log warns of it.
    let step = rollout
        .step(&[
            (SHADOW_MODE, "true"),
            (EVENTS, "true"),
            (ALLOWLIST, ""),
            (DUAL_RUN, "true"),
        ])
        .await;
    assert_eq!((&step.live, &step.copied), (&nobody, &nobody));
    assert_eq!(step.reasons(), set(["not_allowlisted"]));
    let warned =
        |line: &Value| line["level"] == "WARN" && line["warning"].as_str().is_some_and(|w| w.contains(ALLOWLIST));
    assert!(
        step.logs.iter().any(warned),
        "{:#?}",
        step.logs.iter().filter(|l| l["level"] == "WARN").collect::<Vec<_>>()
    );

    // S1-15, percent steps: each only adds shoppers, and they are always the same ones.
    let mut before = nobody.clone();
    for percent in [5, 10, 25, 25, 50, 100] {
        let text = percent.to_string();
        let step = rollout
            .step(&[
                (SHADOW_MODE, "true"),
                (EVENTS, "true"),
                (PERCENT, &text),
                (DUAL_RUN, "true"),
            ])
            .await;
        assert_eq!(step.live, nobody, "{percent} %: shadow mode keeps everybody on legacy");
        assert_eq!(step.copied, below(percent), "{percent} %");
        assert_eq!(step.on, step.copied, "{percent} %");
        assert!(step.copied.is_superset(&before), "{percent} % takes somebody back");
        assert_eq!(step.counted("understudy_compared_total", ""), step.copied.len() as u64);
        before = step.copied;
    }
    assert_eq!(before.len(), SHOPPERS);

    // S1-16, cutover: new answers everybody, nothing is copied or compared.
    let cutover = [
        (SHADOW_MODE, "false"),
        (EVENTS, "true"),
        (PERCENT, "100"),
        (DUAL_RUN, "false"),
    ];
    let step = rollout.step(&cutover).await;
    assert_eq!((step.live.len(), &step.copied), (SHOPPERS, &nobody));
    assert_eq!(step.counted("canonical_events_published_count", ""), SHOPPERS as u64);
    assert_eq!(step.counted("understudy_compared_total", ""), 0);

    // S1-18, global rollback.
    let step = rollout
        .step(&[
            (SHADOW_MODE, "false"),
            (EVENTS, "false"),
            (PERCENT, "100"),
            (DUAL_RUN, "false"),
        ])
        .await;
    assert_eq!((&step.live, step.reasons()), (&nobody, set(["disabled"])));
    assert_eq!(step.counted("canonical_events_published_count", ""), 0);

    // S1-19, rollback of one shopper: everybody else stays.
    let step = rollout.step(&[&cutover[..], &[(DENYLIST, TESTER)]].concat()).await;
    assert_eq!(step.live.len(), SHOPPERS - 1);
    assert!(!step.live.contains(TESTER));
    assert_eq!(step.reasons(), set(["denylist", "percent"]));

    // S1-20, rollback of the percent: a flag that is on does not outweigh it.
    let step = rollout
        .step(&[
            (SHADOW_MODE, "false"),
            (EVENTS, "true"),
            (PERCENT, "0"),
            (DUAL_RUN, "false"),
        ])
        .await;
    assert_eq!((&step.live, step.reasons()), (&nobody, set(["percent_miss"])));

    // S1-21 once more, where it matters most: live, and with the flag on.
    let step = rollout.step(&[&cutover[..], &[(ALLOWLIST, "")]].concat()).await;
    assert_eq!((&step.live, step.reasons()), (&nobody, set(["not_allowlisted"])));

    // The subscription check of the sender is nobody's message: legacy answers it with the bare challenge.
    let instance = Instance::start_in(rollout.folder.take().unwrap(), &cutover).await;
    let answer = Case::load("wa-verify-get").send(instance.address).await;
    assert_eq!((answer.text(), answer.header("x-by")), ("1936480127", "legacy"));
}
