//! The access log: which requests it tells of, and what it keeps to itself.

use serde_json::Value;

use crate::support::{Backend, Instance, Plan, Reply, Script, Socket, deadline, get, post};

fn lines(instance: &Instance) -> Vec<Value> {
    let all = instance.logs().into_iter();
    all.filter(|line| line["event"] == "access").collect()
}

async fn start(logs: &str) -> (Backend, Instance) {
    let legacy = Backend::answering(|r| match &*r.target {
        "/broken" => Reply::status(500),
        _ => Reply::text("ok"),
    })
    .await;
    let plan = Plan::new(&legacy, &crate::support::Nobody::open())
        .route("flag: CHECKOUT")
        .more(logs);
    let instance = Instance::start(&plan).await;
    (legacy, instance)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_gets_one_line_that_names_nobody() {
    let (_legacy, instance) = start("logs: { access: all, decisions: 0 }").await;
    post(
        instance.address,
        "/33639980123?phone=33639980123",
        &[("x-shopper-id", "33639980123")],
        "body",
    )
    .await;
    get(instance.address, "/broken", &[]).await;
    deadline("two lines", || lines(&instance).len() >= 2).await;
    let found = lines(&instance);
    let ok = found.iter().find(|line| line["method"] == "POST").unwrap();
    let expected = [
        ("route", "shop"),
        ("protocol", "HTTP/1.1"),
        ("side", "legacy"),
        ("end", "complete"),
    ];
    for (member, value) in expected {
        assert_eq!(ok[member], value, "{ok}");
    }
    assert_eq!(
        (&ok["status"], &ok["bytes_in"], &ok["bytes_out"]),
        (&200.into(), &4.into(), &2.into())
    );
    assert_eq!(ok["failover"], false);
    assert_eq!(ok["exchange"].as_str().unwrap().len(), 32);
    assert!(ok["ms"].as_f64().unwrap() > 0.0);
    assert!(ok.get("client").is_none() && ok.get("path").is_none() && ok.get("reason").is_none());
    assert!(!instance.stderr().contains("33639980123"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_it_gets_the_address_and_the_path_and_never_the_query() {
    let logs = "logs: { access: all, access_with: [client, path] }\ntrusted_proxies: [127.0.0.0/8]";
    let (_legacy, instance) = start(logs).await;
    get(
        instance.address,
        "/orders/1?token=secret",
        &[("x-forwarded-for", "203.0.113.1, 198.51.100.7")],
    )
    .await;
    deadline("a line", || !lines(&instance).is_empty()).await;
    let line = lines(&instance).remove(0);
    assert_eq!(
        (&line["client"], &line["path"]),
        (&"198.51.100.7".into(), &"/orders/1".into())
    );
    assert!(!instance.stderr().contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_5xx_made_answers_and_whatever_broke_off() {
    let (legacy, instance) = start("logs: { access: errors }").await;
    get(instance.address, "/", &[]).await;
    get(instance.address, "/broken", &[]).await;
    legacy.set(Script::Raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nand no more",
    ));
    let mut client = Socket::connect(instance.address).await;
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.rest().await;
    // One that leaves while its request is under way.
    legacy.set(Script::Stall);
    let before = legacy.count();
    let mut client = Socket::connect(instance.address).await;
    client.send("GET /stall HTTP/1.1\r\nHost: a\r\n\r\n").await;
    legacy.wait_for(before + 1).await;
    drop(client);
    deadline("three lines", || lines(&instance).len() >= 3).await;
    let mut ends: Vec<_> = lines(&instance)
        .iter()
        .map(|line| (line["end"].clone(), line["status"].clone()))
        .collect();
    ends.sort_by_key(|(end, _)| end.to_string());
    assert_eq!(
        ends,
        [
            ("client_left".into(), Value::Null),
            ("complete".into(), 500.into()),
            ("cut".into(), 200.into())
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_being_asked_for_there_is_none() {
    let (_legacy, instance) = start("logs: { decisions: 100% }").await;
    get(instance.address, "/broken", &[]).await;
    instance
        .wait_for_log("the decision", |line| line["event"] == "feature_flag_check")
        .await;
    assert!(lines(&instance).is_empty());
}
