//! Copies: who gets one, in what order, and that nobody waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::support::{
    Backend, Blackhole, Client, Located, Plan, Reply, Script, deadline, eventually, get, post, request,
};

const SHADOWED: &str = "shadow: { flag: true, methods: [GET, POST] }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_carries_the_marker_and_otherwise_the_same_bytes() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(SHADOWED).start();
    let body = vec![7_u8; 300_000];
    let headers = [
        ("x-shopper-id", "anna"),
        ("x-hub-signature-256", "sha256=ab"),
        ("x-understudy-shadow", "0"),
    ];
    let answer = post(sidecar.address, "/hook?a=%20b", &headers, body.clone()).await;
    assert_eq!(answer.text(), "legacy");
    let served = legacy.wait_for(1).await.remove(0);
    let copy = new.wait_for(1).await.remove(0);
    assert!(copy.is_copy() && !served.is_copy());
    assert_eq!(copy.header("x-understudy-exchange").len(), 32);
    assert_eq!(
        copy.header("x-understudy-exchange"),
        served.header("x-understudy-exchange")
    );
    let mut copied = copy.headers.clone();
    copied.remove("x-understudy-shadow");
    assert_eq!(copied, served.headers);
    assert_eq!(
        (copy.method, copy.target, copy.body),
        (served.method, served.target, served.body)
    );
    assert_eq!(new.received()[0].body, body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_cutover_legacy_gets_the_copies() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let plan = Plan::new(&legacy, &new).legacy_more("copies: isolated");
    let sidecar = plan
        .route(&format!("flag: true\nwithout_identity: follow\n{SHADOWED}"))
        .start();
    assert_eq!(
        post(sidecar.address, "/", &[("x-shopper-id", "anna")], "{}")
            .await
            .text(),
        "new"
    );
    assert!(legacy.wait_for(1).await[0].is_copy());
    assert!(!new.received()[0].is_copy());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_did_not_say_so_gets_no_copy_of_a_post() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let plan = Plan::new(&legacy, &new)
        .new_more("copies: safe_methods")
        .legacy_more("copies: dry_run");
    let sidecar = plan.route(SHADOWED).start();
    post(sidecar.address, "/", &[("x-shopper-id", "anna")], "{}").await;
    get(sidecar.address, "/", &[("x-shopper-id", "anna")]).await;
    let received = new.wait_for(1).await;
    assert_eq!(received[0].method, Method::GET);
    let skipped = "understudy_copies_skipped_total";
    assert_eq!(
        sidecar
            .metric(skipped, &["reason=\"not_declared\"", "side=\"new\""])
            .await,
        1.0
    );
    sidecar
        .wait_for_metric("understudy_copies_total", &["side=\"new\""], 1.0)
        .await;
    assert_eq!(new.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_skipped_copy_is_counted_with_its_reason() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let plan = Plan::new(&legacy, &new).more("capture: { body: 8KiB, budget: 64KiB }");
    let sidecar = plan
        .route("shadow: { flag: true, methods: [POST], percent: 50 }")
        .start();
    get(sidecar.address, "/", &[("x-shopper-id", "anna")]).await;
    post(sidecar.address, "/", &[("x-shopper-id", "anna")], vec![1; 9_000]).await;
    let mut client = Client::connect(sidecar.address).await;
    for shopper in 0..200 {
        let shopper = format!("user_{shopper}");
        client
            .send(request(Method::POST, "/", &[("x-shopper-id", &shopper)], "{}"))
            .await;
    }
    let skipped = "understudy_copies_skipped_total";
    assert_eq!(sidecar.metric(skipped, &["reason=\"method\""]).await, 1.0);
    let sampled_out = sidecar.metric(skipped, &["reason=\"sampled_out\""]).await;
    let too_large = sidecar.metric(skipped, &["reason=\"body_too_large\""]).await;
    assert!((70.0..=130.0).contains(&sampled_out), "{sampled_out}");
    assert!(too_large <= 1.0);
    let copies = 201.0 - sampled_out - too_large;
    sidecar.wait_for_metric("understudy_copies_total", &[], copies).await;
    assert_eq!(sidecar.metric("understudy_copies_total", &[]).await, copies);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shopper_is_in_the_sample_or_out_of_it() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new)
        .route("shadow: { flag: true, methods: [POST], percent: 30 }")
        .start();
    let mut client = Client::connect(sidecar.address).await;
    for round in 0..5 {
        for shopper in 0..60 {
            let shopper = format!("user_{shopper}");
            client
                .send(request(
                    Method::POST,
                    &format!("/{round}"),
                    &[("x-shopper-id", &shopper)],
                    "{}",
                ))
                .await;
        }
    }
    let skipped = sidecar
        .metric("understudy_copies_skipped_total", &["reason=\"sampled_out\""])
        .await;
    sidecar
        .wait_for_metric("understudy_copies_total", &[], 300.0 - skipped)
        .await;
    let mut per_shopper = std::collections::BTreeMap::new();
    for copy in new.wait_for(300 - skipped as usize).await {
        *per_shopper.entry(copy.header("x-shopper-id").to_owned()).or_insert(0) += 1;
    }
    assert!(per_shopper.len() > 5 && per_shopper.len() < 40, "{}", per_shopper.len());
    assert!(per_shopper.values().all(|n| *n == 5), "{per_shopper:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subjects_copies_arrive_in_order() {
    let legacy = Backend::saying("legacy").await;
    // The first copy of each shopper is the slowest: only waiting for it keeps the order.
    let new = Backend::answering(|r| {
        let slow = r.target == "/0";
        Reply::text("new").after(Duration::from_millis(if slow { 300 } else { 0 }))
    })
    .await;
    let sidecar = Plan::new(&legacy, &new).route(SHADOWED).start();
    let mut client = Client::connect(sidecar.address).await;
    for round in 0..10 {
        for shopper in ["anna", "bert", "carl"] {
            client
                .send(request(
                    Method::POST,
                    &format!("/{round}"),
                    &[("x-shopper-id", shopper)],
                    "{}",
                ))
                .await;
        }
    }
    let received = new.wait_for(30).await;
    for shopper in ["anna", "bert", "carl"] {
        let order: Vec<&str> = received
            .iter()
            .filter(|r| r.header("x-shopper-id") == shopper)
            .map(|r| r.target.as_str())
            .collect();
        let expected: Vec<String> = (0..10).map(|round| format!("/{round}")).collect();
        assert_eq!(order, expected, "{shopper}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_leaves_beside_the_served_call_not_after_its_answer() {
    let legacy = Backend::answering(|_| Reply::text("legacy").after(Duration::from_secs(3))).await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(SHADOWED).start();
    let answered = Arc::new(AtomicBool::new(false));
    let (address, flag) = (sidecar.address, Arc::clone(&answered));
    let served = tokio::spawn(async move {
        post(address, "/", &[("x-shopper-id", "anna")], "{}").await;
        flag.store(true, Ordering::SeqCst);
    });
    new.wait_for(1).await;
    assert!(!answered.load(Ordering::SeqCst), "the copy came only after the answer");
    served.await.unwrap();
}

/// Whatever the new path does with its copies, the client gets legacy's bytes in legacy's time.
async fn unharmed_by(script: Option<Script>) {
    let mut new = Backend::start(Script::Stall).await;
    match script {
        Some(script) => new.set(script),
        None => new.go_away().await,
    }
    unharmed(&new).await;
    // Whatever became of it, no copy was sent a second time.
    let mut exchanges: Vec<_> = new
        .received()
        .iter()
        .map(|r| r.header("x-understudy-exchange").to_owned())
        .collect();
    let all = exchanges.len();
    exchanges.sort();
    exchanges.dedup();
    assert_eq!(exchanges.len(), all);
}

async fn unharmed(new: &impl Located) {
    let legacy = Backend::saying("legacy").await;
    let sidecar = Plan::new(&legacy, new)
        .route("shadow: { flag: true, methods: [POST], timeout: 1s, max_in_flight: 4 }")
        .start();
    let mut client = Client::connect(sidecar.address).await;
    let before = Instant::now();
    for at in 0..400 {
        let shopper = format!("user_{}", at % 20);
        let answer = client
            .send(request(
                Method::POST,
                "/",
                &[("x-shopper-id", &shopper)],
                vec![1; 2_000],
            ))
            .await;
        assert_eq!((answer.status, answer.text()), (200, "legacy"));
    }
    let took = before.elapsed();
    // A single wait for the other side would be a second at least; 400 of them are served in a fraction of that.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(legacy.count(), 400);
    let copies = sidecar.metric("understudy_copies_total", &[]).await;
    let skipped = sidecar.metric("understudy_copies_skipped_total", &[]).await;
    assert!(copies + skipped <= 400.0);
    // Nothing is lost: what is neither sent nor skipped still waits in its lane, for at most its timeout.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let copies = sidecar.metric("understudy_copies_total", &[]).await;
        let skipped = sidecar.metric("understudy_copies_skipped_total", &[]).await;
        if copies + skipped == 400.0 {
            break;
        }
        assert!(Instant::now() < end, "{copies} sent, {skipped} skipped, of 400");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let admin = sidecar.status().await;
    assert!(admin["routes"].is_array());
    deadline("the bodies to be let go", || sidecar.captured() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_never_answers_costs_the_client_nothing() {
    unharmed_by(Some(Script::Stall)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_never_reads_costs_the_client_nothing() {
    unharmed_by(Some(Script::NeverRead)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shadow_costs_the_client_nothing() {
    unharmed_by(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_resets_costs_the_client_nothing() {
    unharmed_by(Some(Script::ResetOnAccept)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_shadow_costs_the_client_nothing() {
    let slow = |_: &_| Reply::text("new").after(Duration::from_millis(500));
    unharmed_by(Some(Script::Answer(Arc::new(slow)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_cannot_be_connected_to_costs_the_client_nothing() {
    unharmed(&Blackhole::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_of_copies_that_wait_count_towards_the_bound_on_bytes() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::start(Script::Stall).await;
    let sidecar = Plan::new(&legacy, &new)
        .route("shadow: { flag: true, max_in_flight: 1, max_bytes: 128KiB, timeout: 30s }")
        .start();
    let mut client = Client::connect(sidecar.address).await;
    let cookie = "c".repeat(30_000);
    for _ in 0..20 {
        let headers = [("x-shopper-id", "anna"), ("cookie", &*cookie)];
        client.send(request(Method::GET, "/", &headers, "")).await;
    }
    sidecar
        .wait_for_metric("understudy_copies_skipped_total", &["queue_full"], 16.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_only_its_marker_makes_too_long_is_no_failure_of_its_side() {
    let legacy = Backend::saying("same").await;
    let new = Backend::answering(|r| {
        let length = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
        if r.headers.iter().map(length).sum::<usize>() > 4_300 {
            Reply::status(431)
        } else {
            Reply::text("same")
        }
    })
    .await;
    let sidecar = Plan::new(&legacy, &new).route("shadow: true\ndual_run: true").start();
    let ask = async |cookie: usize| {
        get(
            sidecar.address,
            "/",
            &[("x-shopper-id", "anna"), ("cookie", &"c".repeat(cookie))],
        )
        .await
    };
    for at in 1..=3 {
        ask(4_280).await;
        sidecar
            .wait_for_metric("understudy_not_compared_total", &["head_too_long"], f64::from(at))
            .await;
    }
    assert_eq!(sidecar.metric("understudy_compared_total", &[]).await, 0.0);
    // A request that is too long by itself is.
    ask(4_400).await;
    sidecar
        .wait_for_metric("understudy_compared_total", &["diverged"], 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_floods_is_cut_off() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|_| Reply::text(vec![0; 20_000_000])).await;
    let plan = Plan::new(&legacy, &new).more("capture: { body: 64KiB, budget: 1MiB }");
    let sidecar = plan.route(&format!("{SHADOWED}\ndual_run: true")).start();
    let mut client = Client::connect(sidecar.address).await;
    for _ in 0..20 {
        client
            .send(request(Method::POST, "/", &[("x-shopper-id", "anna")], "{}"))
            .await;
        assert!(sidecar.captured() <= 1 << 20);
    }
    sidecar
        .wait_for_metric("understudy_compared_total", &["verdict=\"incomparable\""], 20.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_floods_where_the_other_answers_in_short_is_no_longer_asked() {
    // Later than legacy's, so that it can be told which of them are floods.
    let long = || Reply::text(vec![0; 300_000]).after(Duration::from_millis(5));
    floods(long).await;
    floods(move || long().header("transfer-encoding", "chunked")).await;
}

async fn floods(flood: impl Fn() -> Reply + Copy + Send + Sync + 'static) {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(move |_| flood()).await;
    let sidecar = Plan::new(&legacy, &new)
        .more("capture: { body: 64KiB, budget: 1MiB }")
        .route(&format!("{SHADOWED}\ndual_run: true"))
        .start();
    let mut client = Client::connect(sidecar.address).await;
    let mut ask = async |copies: f64| {
        client
            .send(request(Method::POST, "/", &[("x-shopper-id", "anna")], "{}"))
            .await;
        let done = async || {
            sidecar.metric("understudy_compared_total", &[]).await
                + sidecar
                    .metric("understudy_copies_skipped_total", &["breaker_open"])
                    .await
                >= copies
        };
        eventually("the copy is done with", done).await;
    };
    let mut copies = 0.0;
    // Whether it was a flood can be told only where the other side has answered before its end.
    while sidecar
        .metric("understudy_copies_skipped_total", &["breaker_open"])
        .await
        < 5.0
    {
        copies += 1.0;
        assert!(copies < 300.0, "{} copies were sent", new.count());
        ask(copies).await;
    }
    // Where both are long, nobody floods.
    legacy.answer(move |_| flood());
    new.answer(|_| Reply::text("new"));
    let (end, before) = (Instant::now() + Duration::from_secs(10), new.count());
    while new.count() < before + 5 {
        assert!(Instant::now() < end, "no probe closed the breaker");
        copies += 1.0;
        ask(copies).await;
    }
    let before = new.count();
    new.answer(move |_| flood());
    for _ in 0..40 {
        copies += 1.0;
        ask(copies).await;
    }
    assert_eq!(new.count(), before + 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_spares_a_dead_side_and_lets_probes_through() {
    let legacy = Backend::saying("legacy").await;
    let mut new = Backend::saying("new").await;
    new.go_away().await;
    let sidecar = Plan::new(&legacy, &new)
        .route("shadow: { flag: true, methods: [POST], max_in_flight: 1 }")
        .start();
    let mut client = Client::connect(sidecar.address).await;
    let skipped = "understudy_copies_skipped_total";
    for _ in 0..60 {
        client
            .send(request(Method::POST, "/", &[("x-shopper-id", "anna")], "{}"))
            .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sidecar
        .wait_for_metric(skipped, &["reason=\"breaker_open\""], 20.0)
        .await;
    assert!(sidecar.metric("understudy_copies_total", &[]).await <= 32.0);
    new.come_back();
    let end = Instant::now() + Duration::from_secs(10);
    while new.count() < 5 {
        assert!(Instant::now() < end, "no probe closed the breaker");
        client
            .send(request(Method::POST, "/", &[("x-shopper-id", "anna")], "{}"))
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
