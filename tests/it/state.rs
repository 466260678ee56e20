//! What is on disk, when the disk does not do its part: deleted, corrupted, unreadable, full. And what the audit trail tells.

use std::path::Path;

use http::Method;
use serde_json::json;
use understudy::store::{self, AuditQuery, AuditRecord, Chain, Timing};

use crate::support::{Backend, Door, Finished, Instance, Plan, Sidecar, eventually, get, send, understudy};

const LIVE: &str = "flag: NEW_SHOP\n";
const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

async fn side(sidecar: &Sidecar) -> String {
    get(sidecar.address, "/", &[("x-shopper-id", "anna")])
        .await
        .text()
        .to_owned()
}

async fn reasons(door: &Door) -> Vec<String> {
    let readiness = door.readiness().await;
    let reasons = readiness["reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|reason| reason["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Nothing is served by new, nothing is copied, it says why, and a kill works all the same.
async fn is_legacy_only(sidecar: &Sidecar, new: &Backend, what: &str) {
    let before = new.count();
    for _ in 0..5 {
        assert_eq!(side(sidecar).await, "legacy", "{what}");
    }
    assert!(
        reasons(sidecar).await.contains(&"state_unreadable".to_owned()),
        "{what}"
    );
    assert_eq!(sidecar.readiness().await["status"], "degraded", "{what}");
    assert_eq!(sidecar.metric("understudy_state_readable", &[]).await, 0.0, "{what}");
    assert!(
        sidecar.status().await["store"]["unreadable"]
            .as_str()
            .unwrap()
            .contains("understudy.db"),
        "{what}"
    );
    let killed = sidecar.kill("shop").await;
    assert_eq!(
        (killed.status, &killed.json()["in_force"]),
        (200, &json!(true)),
        "{what}: {}",
        killed.text()
    );
    assert_eq!(new.count(), before, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_deleted_is_a_fresh_start() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    assert_eq!(sidecar.kill("shop").await.status, 200);
    let folder = sidecar.folder.path().to_owned();
    let delete = || {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("understudy.db") {
                std::fs::remove_file(path).unwrap();
            }
        }
    };
    let sidecar = sidecar.restart_after(delete).await;
    assert_eq!(side(&sidecar).await, "new");
    assert_eq!(sidecar.readiness().await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_read_means_legacy_only() {
    type Spoil = fn(&Path);
    let ways: [(&str, Spoil); 5] = [
        ("pages overwritten", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let from = bytes.len() / 3;
            bytes[from..].iter_mut().for_each(|byte| *byte = 0xa5);
            std::fs::write(path, bytes).unwrap();
        }),
        ("cut in the middle", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2 + 7]).unwrap();
        }),
        ("something else", |path| {
            std::fs::write(path, "a letter, and no database").unwrap();
        }),
        ("a folder", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("another program's database", |path| {
            std::fs::remove_file(path).unwrap();
            let other = rusqlite::Connection::open(path).unwrap();
            other
                .execute_batch("PRAGMA application_id = 77; CREATE TABLE kills (who TEXT)")
                .unwrap();
        }),
    ];
    let (legacy, new) = backends().await;
    for (what, spoil) in ways {
        let sidecar = Plan::new(&legacy, &new).route("flag: true\nshadow: true").start();
        let path = sidecar.folder.path().join("understudy.db");
        assert_eq!(side(&sidecar).await, "new", "{what}");
        let sidecar = sidecar.restart_after(|| spoil(&path)).await;
        is_legacy_only(&sidecar, &new, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_of_kills_that_cannot_be_read_means_legacy_only_too() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route("flag: true\nshadow: true").start();
    let path = sidecar.folder.path().join("understudy.db.kills");
    assert!(path.exists());
    let sidecar = sidecar
        .restart_after(|| std::fs::write(&path, "not what it should be").unwrap())
        .await;
    is_legacy_only(&sidecar, &new, "the journal").await;
}

const TWO_ROUTES: &str = r"
  - { name: filler, match: { path: /filler }, flag: false }
  - name: shop
    match: { path: / }
    identity: [ { header: x-shopper-id } ]
    flag: NEW_SHOP
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_on_a_full_disk_is_in_force_and_survives_a_crash() {
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new).routes(TWO_ROUTES).features(ON);
    let folder = Instance::start(&plan).await.stop().await;
    // No file of the process may grow beyond this: what writes then fails, as on a full disk.
    let instance = Instance::start_under(folder, "ulimit -f 512").await;
    let anna = [("x-shopper-id", "anna")];
    let side = |address| async move { get(address, "/", &anna).await.text().to_owned() };
    assert_eq!(side(instance.address).await, "new");
    let mut filled = false;
    for _ in 0..200 {
        let killed = instance.kill("filler").await;
        assert_eq!(killed.json()["in_force"], true);
        filled = killed.json()["stored"] == false || instance.rearm("filler").await.status == 503;
        if filled {
            break;
        }
    }
    assert!(filled, "the disk did not become full");

    let killed = instance
        .ask(&["kill", "shop", "--reason", "errors, and the disk is full"])
        .await;
    let Finished { code, stdout, .. } = &killed;
    assert_eq!(*code, 3, "{killed:?}");
    assert!(
        stdout.contains("in force") && stdout.contains("NOT on disk"),
        "{killed:?}"
    );
    assert_eq!(side(instance.address).await, "legacy");
    assert!(reasons(&instance).await.contains(&"kills_unstored".to_owned()));
    assert!(instance.metric("understudy_kills_unstored", &[]).await >= 1.0);
    let loud = instance.wait_for_log("an ERROR line", |line| {
        line["level"] == "ERROR" && line["target"].as_str().unwrap().contains("store")
    });
    loud.await;
    // Legacy's traffic goes on, and so does the status.
    for _ in 0..50 {
        assert_eq!(side(instance.address).await, "legacy");
    }
    assert_eq!(
        instance.rearm("shop").await.status,
        503,
        "what cannot be stored is not lifted"
    );
    assert_eq!(side(instance.address).await, "legacy");

    let folder = instance.crash();
    let instance = Instance::start_in(folder, &[]).await;
    assert_eq!(
        side(instance.address).await,
        "legacy",
        "the first request after the crash"
    );
    // There is room again: what waited is stored, and it can be lifted.
    eventually("everything to be stored", || async {
        reasons(&instance).await.is_empty()
    })
    .await;
    assert_eq!(instance.rearm("shop").await.status, 200);
    assert_eq!(side(instance.address).await, "new");
}

async fn trail(folder: &Path) -> Vec<AuditRecord> {
    let path = folder.join("understudy.db");
    let opened = tokio::task::spawn_blocking(move || store::open(&path, Timing::default()))
        .await
        .unwrap();
    let patience = std::time::Duration::from_secs(5);
    let mut records = opened
        .store
        .audit_tail(AuditQuery::newest(None, 1_000))
        .within(patience)
        .await
        .unwrap();
    records.sort_by_key(|record| record.seq);
    let chain = opened.store.verify_audit().within(patience).await.unwrap();
    assert_eq!(chain, Chain::Whole(records.len() as u64));
    assert!(opened.store.close(patience).await);
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_tells_who_did_what_and_who_was_refused() {
    let (legacy, new) = backends().await;
    let instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(ON)).await;
    assert_eq!(instance.ask(&["kill", "shop", "--reason", "errors"]).await.code, 0);
    assert_eq!(instance.ask(&["rearm", "shop", "--reason", "repaired"]).await.code, 0);
    assert_eq!(instance.ask(&["kill", "NEW_SHOP", "--reason", "again"]).await.code, 0);
    let admin = format!("http://{}", instance.admin);
    let stranger = understudy(
        &[
            "kill",
            "shop",
            "--reason",
            "x",
            "--admin",
            &admin,
            "--token",
            "secret-guess",
        ],
        &[],
    )
    .await;
    assert_eq!(stranger.code, 1);
    let host = instance.admin.to_string();
    let nobody = send(
        instance.admin,
        Method::POST,
        "/api/v1/kill",
        &[("host", &*host)],
        r#"{"reason":"x"}"#,
    )
    .await;
    assert_eq!(nobody.status, 401);
    let folder = instance.stop().await;

    let records = trail(folder.path()).await;
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            (
                &*record.entry.actor,
                &*record.entry.action,
                &*record.entry.target,
                &*record.entry.reason,
            )
        })
        .collect();
    assert_eq!(
        told[..3],
        [
            ("tester", "kill", "route:shop", "errors"),
            ("tester", "rearm", "route:shop", "repaired"),
            ("tester", "kill", "flag:NEW_SHOP", "again"),
        ]
    );
    for record in &records[..3] {
        assert_eq!(record.entry.role.as_deref(), Some("admin"));
        assert!(record.entry.from.as_deref().unwrap().starts_with("127.0.0.1:"));
        let after: serde_json::Value = serde_json::from_str(record.entry.after.as_deref().unwrap()).unwrap();
        assert_eq!(after["killed"], record.entry.action == "kill");
    }
    let refused: Vec<_> = told[3..]
        .iter()
        .map(|(_, action, target, _)| (*action, *target))
        .collect();
    assert_eq!(
        refused,
        [
            ("refused", "POST /api/v1/targets/shop/kill"),
            ("refused", "POST /api/v1/kill")
        ],
        "{told:#?}"
    );
    assert!(!format!("{records:?}").contains("secret-guess"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_does_not_exist_is_no_reason_to_stop_legacys_traffic() {
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new).route("flag: true\nshadow: true");
    let folder = tempfile::tempdir().unwrap();
    let config = plan.write(folder.path());
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, written.replace("understudy.db", "nowhere/understudy.db")).unwrap();
    let sidecar = Sidecar::start_in(folder, plan.env);
    is_legacy_only(&sidecar, &new, "no folder").await;
}
