//! Rules that change while they serve: however the file is replaced, whatever is in it, nothing is lost.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Method;
use serde_json::Value;

use crate::support::{Backend, Client, Door, Instance, Plan, Sidecar, deadline, eventually, get, request};

const LIVE: &str = "flag: NEW_SHOP\n";

fn rules(enabled: bool) -> String {
    format!("features:\n  NEW_SHOP: {{ type: boolean, enabled: {enabled} }}\n")
}

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

async fn side(sidecar: &Sidecar) -> String {
    get(sidecar.address, "/", &[("x-shopper-id", "anna")])
        .await
        .text()
        .to_owned()
}

async fn is_served_by(sidecar: &Sidecar, expected: &str) {
    eventually(&format!("the rules that say {expected}"), || async {
        side(sidecar).await == expected
    })
    .await;
}

async fn refused(door: &Door) -> Vec<String> {
    let status = door.status().await;
    let lines = status["rules"]["refused"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_written_anew_is_taken_over() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&rules(false)).start();
    assert_eq!(side(&sidecar).await, "legacy");
    let revision = sidecar.status().await["rules"]["revision"].as_u64().unwrap();
    sidecar.write_features(&rules(true));
    is_served_by(&sidecar, "new").await;
    let status = sidecar.status().await;
    assert!(status["rules"]["revision"].as_u64().unwrap() > revision);
    assert_eq!(
        sidecar.metric("understudy_rules_revision", &[]).await,
        status["rules"]["revision"].as_f64().unwrap()
    );
    sidecar.write_features(&rules(false));
    is_served_by(&sidecar, "legacy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_an_editor_replaces_by_renaming_is_taken_over() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&rules(false)).start();
    let file = sidecar.folder.path().join("features.yaml");
    // Twice: a watch on the file itself would have died with the first one.
    for (enabled, expected) in [(true, "new"), (false, "legacy"), (true, "new")] {
        std::fs::rename(&file, file.with_extension("yaml~")).unwrap();
        std::fs::write(file.with_extension("swp"), rules(enabled)).unwrap();
        std::fs::rename(file.with_extension("swp"), &file).unwrap();
        is_served_by(&sidecar, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_folder_whose_link_is_swapped_is_taken_over() {
    fn mount(folder: &Path, version: &str, rules: &str) {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("features.yaml"), rules).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new).route(LIVE).features(&rules(false));
    let folder = tempfile::tempdir().unwrap();
    plan.write(folder.path());
    std::fs::remove_file(folder.path().join("features.yaml")).unwrap();
    mount(folder.path(), "..2026_1", &rules(false));
    symlink("..data/features.yaml", folder.path().join("features.yaml")).unwrap();
    let sidecar = Sidecar::start_in(folder, plan.env);
    assert_eq!(side(&sidecar).await, "legacy");
    for (version, enabled, expected) in [("..2026_2", true, "new"), ("..2026_3", false, "legacy")] {
        mount(sidecar.folder.path(), version, &rules(enabled));
        is_served_by(&sidecar, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_do_not_compile_are_refused_whole_and_the_old_ones_serve() {
    let (legacy, new) = backends().await;
    let on = rules(true);
    let instance = Instance::start(&Plan::new(&legacy, &new).route(LIVE).features(&on)).await;
    let file = instance.folder().join("features.yaml");
    let side = || async {
        get(instance.address, "/", &[("x-shopper-id", "anna")])
            .await
            .text()
            .to_owned()
    };
    assert_eq!(side().await, "new");
    let revision = instance.status().await["rules"]["revision"].clone();
    let refusals = || instance.logs().iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(instance.metric("understudy_rules_refused", &[]).await, 0.0);
    let bad = [
        ("torn in the middle of a line", &on[..on.len() - 12], ":2:"),
        ("not YAML", "features:\n  NEW_SHOP: [ { type: boolean }\n", ":2:"),
        (
            "a wrong value beside a good change",
            "features:\n  NEW_SHOP: { type: boolean, enabled: false }\n  B: { type: bolean }\n",
            ":3:14: ",
        ),
        (
            "an unknown member",
            "features:\n  NEW_SHOP: { type: boolean, enabled: false, percentag: 5 }\n",
            ":2:46: ",
        ),
        ("empty, as it is while it is written", "", ": "),
        (
            "a character that no editor writes",
            "features:\n  NEW_SHOP: { type: boolean, enabled: false } # \u{0}\n",
            ":2:",
        ),
    ];
    for (at, (what, text, place)) in bad.into_iter().enumerate() {
        std::fs::write(&file, text).unwrap();
        deadline(what, || refusals() == at + 1).await;
        assert_eq!(side().await, "new", "{what}");
        let told = refused(&instance).await;
        let expected = format!("{}{place}", file.display());
        assert!(told.iter().any(|line| line.starts_with(&expected)), "{what}: {told:#?}");
        assert_eq!(instance.metric("understudy_rules_refused", &[]).await, 1.0, "{what}");
        assert_eq!(instance.status().await["rules"]["revision"], revision, "{what}");
        let logged = instance
            .logs()
            .into_iter()
            .rfind(|line| line["level"] == "ERROR")
            .unwrap();
        assert!(
            logged["problems"].as_str().unwrap().contains(&expected),
            "{what}: {logged}"
        );
        let ready = instance.readiness().await;
        assert_eq!(
            (&ready["status"], &ready["reasons"][0]["name"]),
            (&"degraded".into(), &"rules_refused".into()),
            "{what}"
        );
        // Asked again about the same bytes, it refuses again and does not log again.
        let refused = || async { instance.status().await["rules"]["reloads_refused"].as_u64().unwrap() };
        let once = refused().await;
        instance.signal("HUP");
        eventually("a second refusal", || async { refused().await > once }).await;
        assert_eq!(refusals(), at + 1, "{what} is logged once");
    }
    std::fs::write(&file, rules(false)).unwrap();
    eventually("the mended rules", || async { side().await == "legacy" }).await;
    assert_eq!(refused(&instance).await, Vec::<String>::new());
    assert_eq!(instance.metric("understudy_rules_refused", &[]).await, 0.0);
    assert_eq!(instance.readiness().await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flag_file_that_is_gone_leaves_the_old_rules() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&rules(true)).start();
    std::fs::remove_file(sidecar.folder.path().join("features.yaml")).unwrap();
    eventually("the refusal", || async {
        sidecar.metric("understudy_rules_refused", &[]).await == 1.0
    })
    .await;
    assert_eq!(side(&sidecar).await, "new");
    assert!(refused(&sidecar).await[0].contains("features.yaml"));
    sidecar.write_features(&rules(false));
    is_served_by(&sidecar, "legacy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_loses_no_request() {
    let (legacy, new) = backends().await;
    // Revision by revision: everybody, nobody, a list of one, everybody but one.
    let revisions = [
        "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n",
        "features:\n  NEW_SHOP: { type: boolean, enabled: false }\n",
        "features:\n  NEW_SHOP: { type: boolean, enabled: true, allowlist: [anna] }\n",
        "features:\n  NEW_SHOP: { type: boolean, enabled: true, denylist: [anna] }\n",
    ];
    // Who is served by new under each of them.
    let on = |at: usize, shopper: &str| match at {
        0 => true,
        1 => false,
        2 => shopper == "anna",
        _ => shopper != "anna",
    };
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(revisions[0]).start();
    // The revision that a reload is about to bring, and the one that is in force for certain.
    let (next, current) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (next, current) = (Arc::clone(&next), Arc::clone(&current));
            let (stop, sent, address) = (Arc::clone(&stop), Arc::clone(&sent), sidecar.address);
            tokio::spawn(async move {
                let shopper = if client % 2 == 0 { "anna" } else { "bert" };
                let mut client = Client::connect(address).await;
                while !stop.load(Ordering::SeqCst) {
                    let from = current.load(Ordering::SeqCst);
                    let answer = client
                        .send(request(Method::GET, "/", &[("x-shopper-id", shopper)], ""))
                        .await;
                    let to = next.load(Ordering::SeqCst);
                    assert_eq!(answer.status, 200);
                    let new = answer.text() == "new";
                    let named = (from..=to).any(|at| on(at as usize % 4, shopper) == new);
                    assert!(
                        named,
                        "{shopper} got {} between the revisions {from} and {to}",
                        answer.text()
                    );
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut flips = 0;
    while sent.load(Ordering::SeqCst) < 6_000 || flips < 100 {
        flips += 1;
        next.store(flips, Ordering::SeqCst);
        sidecar.reload(revisions[flips as usize % 4]).await.unwrap();
        current.store(flips, Ordering::SeqCst);
        let mark = sent.load(Ordering::SeqCst);
        deadline("traffic under a revision", || sent.load(Ordering::SeqCst) > mark + 20).await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let sent = sent.load(Ordering::SeqCst);
    assert_eq!((legacy.count() + new.count()) as u64, sent);
    assert!(
        legacy.count() > 500 && new.count() > 500,
        "{} and {}",
        legacy.count(),
        new.count()
    );
    assert_eq!(
        sidecar.metric("understudy_responses_total", &["class=\"2xx\""]).await,
        sent as f64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_list_or_route_does_not_wait_for_a_restart_and_a_changed_listener_does() {
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new).route("flag: false").features(&rules(true));
    let sidecar = plan.start();
    assert_eq!(side(&sidecar).await, "legacy");
    let mut changed = Plan::new(&legacy, &new).route("flag: true").features(&rules(true));
    changed.more = "limits: { connections: 77 }".to_owned();
    changed.write(sidecar.folder.path());
    is_served_by(&sidecar, "new").await;
    let status = sidecar.status().await;
    assert_eq!(status["rules"]["waits_for_restart"], Value::from(vec!["limits"]));
    assert_eq!(sidecar.readiness().await["reasons"][0]["name"], "restart_needed");
}

/// A gradual flag that started some days ago and is at about this percent now.
fn ramp(percent: i64, increment: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let started = jiff::Timestamp::from_second(now - 86_400 * percent / increment).unwrap();
    format!(
        "features:\n  NEW_SHOP: {{ type: gradual, enabled: true, start_date: \"{started}\", gradual_increment: {increment} }}\n"
    )
}

async fn on_new(sidecar: &Sidecar) -> usize {
    let mut client = Client::connect(sidecar.address).await;
    let mut on = 0;
    for shopper in 0..400 {
        let shopper = format!("user_{shopper}");
        on += usize::from(
            client
                .send(request(Method::GET, "/", &[("x-shopper-id", &shopper)], ""))
                .await
                .text()
                == "new",
        );
    }
    on
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_a_gradual_flag_survives_a_restart() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(&ramp(40, 10)).start();
    let before = on_new(&sidecar).await;
    assert!((120..=200).contains(&before), "{before} of 400 at 40 %");
    let sidecar = sidecar.restart().await;
    assert!(on_new(&sidecar).await >= before);
    let path = sidecar.folder.path().join("understudy.db");
    let sidecar = sidecar
        .restart_after(|| {
            // As if the clock had been further when the instance last ran.
            let state = rusqlite::Connection::open(&path).unwrap();
            let reached: i64 = state
                .query_row("SELECT reached FROM ramps WHERE flag = 'NEW_SHOP'", [], |row| {
                    row.get(0)
                })
                .unwrap();
            assert!((399_000..=401_000).contains(&reached), "{reached}");
            assert_eq!(state.execute("UPDATE ramps SET reached = 700000", []).unwrap(), 1);
        })
        .await;
    // The clock of now says 40 %, and nobody is taken back.
    let after = on_new(&sidecar).await;
    assert!((240..=320).contains(&after), "{after} of 400 at 70 %");
    // Another schedule starts anew.
    sidecar.reload(&ramp(40, 5)).await.unwrap();
    let anew = on_new(&sidecar).await;
    assert!((120..=200).contains(&anew), "{anew} of 400 at 40 %");
}
