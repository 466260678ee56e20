//! Kill switches by hand: never refused, never waiting, never forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::support::{Backend, Client, Plan, Reply, Sidecar, get, request};

const LIVE: &str = "flag: NEW_SHOP\n";
const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";

async fn side(sidecar: &Sidecar) -> String {
    get(sidecar.address, "/", &[("x-shopper-id", "anna")])
        .await
        .text()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_acknowledgement_not_one_request_is_served_by_new() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    // Odd from an acknowledgement to the re-arm after it.
    let (stop, phase) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let late = Arc::new(AtomicU64::new(0));
    let sent = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (stop, phase) = (Arc::clone(&stop), Arc::clone(&phase));
            let (late, sent, address) = (Arc::clone(&late), Arc::clone(&sent), sidecar.address);
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !stop.load(Ordering::SeqCst) {
                    let before = phase.load(Ordering::SeqCst);
                    let answer = client
                        .send(request(Method::GET, "/", &[("x-shopper-id", "anna")], ""))
                        .await;
                    assert_eq!(answer.status, 200);
                    sent.fetch_add(1, Ordering::SeqCst);
                    let killed = before % 2 == 1 && phase.load(Ordering::SeqCst) == before;
                    late.fetch_add(u64::from(killed && answer.text() == "new"), Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..5 {
        let before = new.count();
        crate::support::deadline("traffic on new", || new.count() > before + 50).await;
        let answer = sidecar.kill("shop").await;
        phase.fetch_add(1, Ordering::SeqCst);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["in_force"], true);
        assert_eq!(answer.json()["stored"], true);
        let before = sent.load(Ordering::SeqCst);
        crate::support::deadline("traffic after the kill", || sent.load(Ordering::SeqCst) > before + 200).await;
        assert_eq!(late.load(Ordering::SeqCst), 0, "round {round}");
        phase.fetch_add(1, Ordering::SeqCst);
        assert_eq!(sidecar.rearm("shop").await.status, 200);
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_survives_a_restart_and_a_rearm_too() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    assert_eq!(side(&sidecar).await, "new");
    assert_eq!(sidecar.kill("shop").await.status, 200);
    assert_eq!(side(&sidecar).await, "legacy");
    let sidecar = sidecar.restart().await;
    assert_eq!(side(&sidecar).await, "legacy");
    assert_eq!(sidecar.rearm("shop").await.status, 200);
    assert_eq!(side(&sidecar).await, "new");
    let sidecar = sidecar.restart().await;
    assert_eq!(side(&sidecar).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kill_is_lifted_by_the_rearm_of_the_same_thing_only() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    let reason = r#"{"reason":"a test"}"#;
    let call = |path: &'static str| sidecar.admin(Method::POST, path, reason);
    for (kill, others) in [
        (
            "/api/v1/kill",
            ["/api/v1/routes/shop/rearm", "/api/v1/feature-flags/NEW_SHOP/rearm"],
        ),
        (
            "/api/v1/feature-flags/NEW_SHOP/kill",
            ["/api/v1/routes/shop/rearm", "/api/v1/rearm"],
        ),
        (
            "/api/v1/routes/shop/kill",
            ["/api/v1/rearm", "/api/v1/feature-flags/NEW_SHOP/rearm"],
        ),
    ] {
        assert_eq!(call(kill).await.status, 200, "{kill}");
        for other in others {
            assert_eq!(call(other).await.status, 409, "{other}");
        }
        assert_eq!(side(&sidecar).await, "legacy", "{kill}");
        let answer = sidecar
            .admin(Method::POST, &kill.replace("kill", "rearm"), reason)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(side(&sidecar).await, "new", "{kill}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c13_a_kill_of_an_unknown_name_is_an_error_with_near_names() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    let answer = sidecar.kill("shopp").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("shop"), "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(side(&sidecar).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_kill_of_everything_puts_constants_off_and_copies_nothing() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: true\nshadow: true\ndual_run: true")
        .start();
    assert_eq!(side(&sidecar).await, "new");
    let killed = sidecar
        .admin(Method::POST, "/api/v1/kill", r#"{"reason":"all of it"}"#)
        .await;
    assert_eq!(killed.status, 200, "{}", killed.text());
    let before = new.count();
    for _ in 0..20 {
        assert_eq!(side(&sidecar).await, "legacy");
    }
    assert_eq!(new.count(), before);
}

/// Locks the state file as a stalled disk would: whoever wants to write waits.
fn stall(sidecar: &Sidecar) -> rusqlite::Connection {
    let blocker = rusqlite::Connection::open(sidecar.folder.path().join("understudy.db")).unwrap();
    blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    blocker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_with_a_stalled_disk_is_in_force_within_two_seconds_and_survives() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    assert_eq!(side(&sidecar).await, "new");
    let blocker = stall(&sidecar);
    let before = Instant::now();
    let answer = sidecar.kill("shop").await;
    let took = before.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["in_force"], true);
    assert_eq!(answer.json()["stored"], false);
    assert_eq!(side(&sidecar).await, "legacy");
    let ready = get(sidecar.admin, "/readyz", &[("host", &sidecar.admin.to_string())]).await;
    assert!(
        ready.text().contains("stored") || ready.text().contains("kill"),
        "{}",
        ready.text()
    );
    sidecar.wait_for_metric("understudy_kills_unstored", &[], 1.0).await;
    // The process dies before the disk recovers: the journal has it.
    let sidecar = sidecar.restart().await;
    drop(blocker);
    assert_eq!(side(&sidecar).await, "legacy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rearm_that_cannot_be_stored_is_refused_and_the_kill_stays() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    assert_eq!(sidecar.kill("shop").await.status, 200);
    let blocker = stall(&sidecar);
    let answer = sidecar.rearm("shop").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(side(&sidecar).await, "legacy");
    drop(blocker);
    assert_eq!(sidecar.rearm("shop").await.status, 200);
    assert_eq!(side(&sidecar).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_state_means_legacy_only_and_is_loud() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: true\nshadow: true")
        .features(ON)
        .start();
    let path = sidecar.folder.path().join("understudy.db");
    assert_eq!(side(&sidecar).await, "new");
    let sidecar = sidecar
        .restart_after(|| std::fs::write(&path, b"this is no database, it is a letter").unwrap())
        .await;
    let path = sidecar.folder.path().join("understudy.db");
    let copies = new.count();
    for _ in 0..10 {
        assert_eq!(side(&sidecar).await, "legacy");
    }
    assert_eq!(new.count(), copies, "nothing is copied either");
    assert_eq!(sidecar.metric("understudy_state_readable", &[]).await, 0.0);
    assert!(
        sidecar
            .metric("understudy_decisions_total", &["reason=\"no_state\""])
            .await
            >= 10.0
    );
    let ready = get(sidecar.admin, "/readyz", &[("host", &sidecar.admin.to_string())]).await;
    assert!(ready.text().contains("state"), "{}", ready.text());
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"this is no database, it is a letter",
        "the file is evidence"
    );
    // Deleted, it is just as unknown: its journal tells that there was one. Without either it is a first start.
    let sidecar = sidecar.restart_after(|| std::fs::remove_file(&path).unwrap()).await;
    assert_eq!(side(&sidecar).await, "legacy");
    let journal = path.with_extension("db.kills");
    let sidecar = sidecar.restart_after(|| std::fs::remove_file(&journal).unwrap()).await;
    assert_eq!(side(&sidecar).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_route_goes_on_being_copied_so_that_one_sees_it_recover() {
    let legacy = Backend::answering(|_| Reply::text("legacy")).await;
    let new = Backend::answering(|_| Reply::text("new")).await;
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: true\nshadow: true\nwithout_identity: follow")
        .start();
    assert_eq!(sidecar.kill("shop").await.status, 200);
    assert_eq!(side(&sidecar).await, "legacy");
    assert!(new.wait_for(1).await[0].is_copy());
    let sidecar = {
        let routes = "flag: true\nwithout_identity: follow\nshadow: { flag: true, when_killed: stop }";
        let plan = Plan::new(&legacy, &new).route(routes);
        drop(sidecar);
        plan.start()
    };
    assert_eq!(sidecar.kill("shop").await.status, 200);
    let before = new.count();
    assert_eq!(side(&sidecar).await, "legacy");
    assert_eq!(
        sidecar
            .metric("understudy_copies_skipped_total", &["reason=\"killed\""])
            .await,
        1.0
    );
    assert_eq!(new.count(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_that_was_acknowledged_is_not_undone_by_a_rearm_that_was_asked_before() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let sidecar = Arc::new(Plan::new(&legacy, &new).route(LIVE).features(ON).start());
    assert_eq!(sidecar.kill("shop").await.status, 200);
    let blocker = stall(&sidecar);
    let waiting = tokio::spawn({
        let sidecar = Arc::clone(&sidecar);
        async move { sidecar.rearm("shop").await }
    });
    // The re-arm waits for the disk; how long it has done so does not matter.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sidecar.kill("shop").await.json()["in_force"], true);
    drop(blocker);
    let answer = waiting.await.unwrap();
    assert!([409, 503].contains(&answer.status), "{}", answer.text());
    assert_eq!(side(&sidecar).await, "legacy");
    assert_eq!(sidecar.rearm("shop").await.status, 200);
    assert_eq!(side(&sidecar).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_began_under_earlier_rules_obeys_the_kills_of_their_flags() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let route = |flag: &str| {
        format!("  - name: shop\n    match: {{ path: / }}\n    identity: [ {{ json: /who }} ]\n    flag: {flag}\n")
    };
    let other = format!("{ON}  OTHER: {{ type: percentage, percentage: 0 }}\n");
    let sidecar = Plan::new(&legacy, &new)
        .routes(&route("NEW_SHOP"))
        .features(&other)
        .start();
    let path = sidecar.folder.path().join("understudy.yaml");
    let mut client = tokio::net::TcpStream::connect(sidecar.address).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 14\r\n\r\n{\"who\":")
        .await
        .unwrap();
    crate::support::deadline("the request to be under way", || sidecar.captured() > 0).await;
    let killed = sidecar
        .admin(
            Method::POST,
            "/api/v1/feature-flags/NEW_SHOP/kill",
            r#"{"reason":"a test"}"#,
        )
        .await;
    assert_eq!(killed.status, 200, "{}", killed.text());
    let config = std::fs::read_to_string(&path)
        .unwrap()
        .replace("flag: NEW_SHOP", "flag: OTHER");
    std::fs::write(&path, config).unwrap();
    sidecar.reload(&other).await.unwrap();
    client.write_all(b"\"anna\"}").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("legacy"), "{answer}");
    assert_eq!(new.count(), 0);
}
