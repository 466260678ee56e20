//! Flags over the API: made, changed, taken back, over real sockets; and what the data plane does the moment after.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Answered, Backend, Door, Plan, Sidecar, eventually, get, send};

pub const FLAGS: &str = "/api/v1/feature-flags";
const LIVE: &str = "flag: NEW_SHOP\n";

/// An instance whose one route asks `NEW_SHOP`.
pub async fn shop(features: &str) -> (Sidecar, [Backend; 2]) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(features).start();
    (sidecar, [legacy, new])
}

pub async fn side(sidecar: &Sidecar, shopper: &str) -> String {
    let answer = get(sidecar.address, "/", &[("x-shopper-id", shopper)]).await;
    answer.text().to_owned()
}

pub async fn call(door: &Door, method: Method, path: &str, body: Value) -> Answered {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    door.admin(method, &format!("{FLAGS}{path}"), &body).await
}

/// The same with a header more.
async fn call_with(door: &Door, method: Method, path: &str, header: (&str, &str), body: Value) -> Answered {
    let host = door.admin.to_string();
    let bearer = format!("Bearer {}", crate::support::TOKEN);
    let headers = [
        ("authorization", &*bearer),
        ("content-type", "application/json"),
        ("host", &*host),
        header,
    ];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    send(door.admin, method, &format!("{FLAGS}{path}"), &headers, body).await
}

#[track_caller]
pub fn ok(answer: &Answered) -> Value {
    assert!(
        (200..300).contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
    answer.json()
}

/// The word of a problem document, after its form was checked.
#[track_caller]
pub fn problem(answer: &Answered) -> (u16, String) {
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{}",
        answer.text()
    );
    let document = answer.json();
    assert_eq!(document["status"], answer.status);
    let word = document["type"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    (answer.status, word)
}

fn member<'v>(flag: &'v Value, name: &str) -> &'v Value {
    let members = flag["members"].as_array().unwrap();
    members.iter().find(|of| of["member"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_flag_serves_at_once_survives_a_restart_and_goes() {
    let (sidecar, _backends) = shop("features: {}\n").await;
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    let answer = call(
        &sidecar,
        Method::POST,
        "",
        json!({ "name": "NEW_SHOP", "enabled": true }),
    )
    .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("location"), "/api/v1/feature-flags/NEW_SHOP");
    assert_eq!(answer.header("etag"), "\"1\"");
    assert_eq!(side(&sidecar, "anna").await, "new");
    let again = call(&sidecar, Method::POST, "", json!({ "name": "NEW_SHOP" })).await;
    assert_eq!(problem(&again), (409, "exists".to_owned()));

    let sidecar = sidecar.restart().await;
    assert_eq!(side(&sidecar, "anna").await, "new");
    let flag = ok(&call(&sidecar, Method::GET, "/NEW_SHOP", Value::Null).await);
    assert_eq!((&flag["revision"], &flag["status"]), (&json!(1), &json!("ENABLED")));
    assert_eq!(flag["runtime"], json!({ "enabled": true }));
    assert_eq!(member(&flag, "enabled")["source"], "runtime");
    assert_eq!(member(&flag, "enabled")["place"], "revision 1 by tester");

    ok(&call(&sidecar, Method::DELETE, "/NEW_SHOP", Value::Null).await);
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    let gone = call(&sidecar, Method::GET, "/NEW_SHOP", Value::Null).await;
    assert_eq!(problem(&gone), (404, "unknown_name".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_runtime_lies_over_the_file_member_by_member() {
    let file = "features:\n  NEW_SHOP: { type: percentage, enabled: true, percentage: 100, denylist: [bea], owner: shop-team }\n";
    let (sidecar, _backends) = shop(file).await;
    assert_eq!(side(&sidecar, "anna").await, "new");
    ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": 0 })).await);
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    // Absent inherits, null unsets, a value sets.
    let body = json!({ "percentage": 100, "denylist": null });
    let changed = ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", body).await);
    assert_eq!(side(&sidecar, "bea").await, "new");
    assert_eq!(member(&changed["flag"], "owner")["source"], "file");
    assert_eq!(*member(&changed["flag"], "denylist"), Value::Null);
    // The whole layer: what it leaves out is the file's again.
    ok(&call(&sidecar, Method::PUT, "/NEW_SHOP", json!({ "owner": "other-team" })).await);
    assert_eq!(side(&sidecar, "bea").await, "legacy");
    assert_eq!(side(&sidecar, "anna").await, "new");
    // A change of the file comes up where nothing was said at run time.
    sidecar.reload(&file.replace("100", "0")).await.unwrap();
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    let flag = ok(&call(&sidecar, Method::GET, "/NEW_SHOP", Value::Null).await);
    assert_eq!(member(&flag, "owner")["value"], "other-team");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_that_does_not_compile_is_refused_whole_with_every_problem_at_its_place() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean, enabled: true }\n").await;
    let body = "{\n \"percentage\": 101,\n \"enabeld\": false,\n \"start_date\": \"soon\" }";
    let answer = sidecar.admin(Method::PATCH, &format!("{FLAGS}/NEW_SHOP"), body).await;
    assert_eq!(problem(&answer), (422, "unfit".to_owned()));
    let found = answer.json()["problems"].clone();
    let places: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (&p["line"], &p["path"]))
        .collect();
    let expected = [
        json!(2),
        json!("percentage"),
        json!(3),
        json!("enabeld"),
        json!(4),
        json!("start_date"),
    ];
    assert_eq!(
        places,
        [
            (&expected[0], &expected[1]),
            (&expected[2], &expected[3]),
            (&expected[4], &expected[5])
        ]
    );
    assert!(found[1]["remedy"].as_str().unwrap().contains("enabled"), "{found}");
    // What only shows together with the other layers, too: a ramp needs its dates.
    let answer = call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "type": "gradual" })).await;
    assert_eq!(problem(&answer), (422, "unfit".to_owned()));
    for body in ["[1]", "7", "{", "", "{\"a\":1,\"a\":2}"] {
        let answer = sidecar.admin(Method::PUT, &format!("{FLAGS}/NEW_SHOP"), body).await;
        assert!([400, 415, 422].contains(&answer.status), "{body}: {}", answer.text());
    }
    let flag = ok(&call(&sidecar, Method::GET, "/NEW_SHOP", Value::Null).await);
    assert_eq!((&flag["revision"], &flag["runtime"]), (&json!(0), &Value::Null));
    assert_eq!(side(&sidecar, "anna").await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_revision_is_refused_and_the_right_one_taken() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean, enabled: true }\n").await;
    let patch = |tag: &'static str, owner: &'static str| {
        call_with(
            &sidecar,
            Method::PATCH,
            "/NEW_SHOP",
            ("if-match", tag),
            json!({ "owner": owner }),
        )
    };
    assert_eq!(problem(&patch("\"1\"", "a").await), (412, "stale".to_owned()));
    assert_eq!(patch("\"0\"", "a").await.header("etag"), "\"1\"");
    assert_eq!(problem(&patch("\"0\"", "b").await), (412, "stale".to_owned()));
    assert_eq!(patch("\"7\", \"1\"", "b").await.header("etag"), "\"2\"");
    assert_eq!(patch("*", "c").await.status, 200);
    assert_eq!(problem(&patch("W/\"3\"", "d").await), (412, "stale".to_owned()));
    assert_eq!(problem(&patch("3", "d").await), (400, "bad_request".to_owned()));
    let flag = ok(&call(&sidecar, Method::GET, "/NEW_SHOP", Value::Null).await);
    assert_eq!(flag["runtime"], json!({ "owner": "c" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_walks_back_change_by_change_and_undoes_no_kill() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean, enabled: true }\n").await;
    for percent in [10, 20, 0] {
        ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": percent })).await);
    }
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    let kill = format!("{FLAGS}/NEW_SHOP/kill");
    ok(&sidecar.admin(Method::POST, &kill, r#"{"reason":"a test"}"#).await);
    let back = || {
        call(
            &sidecar,
            Method::POST,
            "/NEW_SHOP/rollback",
            json!({ "reason": "a test" }),
        )
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(ok(&back().await)["flag"]["runtime"]["percentage"].clone());
    }
    assert_eq!(seen, [json!(20), json!(10), Value::Null]);
    assert_eq!(problem(&back().await), (409, "nothing_to_undo".to_owned()));
    assert_eq!(side(&sidecar, "anna").await, "legacy", "the kill stands");
    let warned = ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": 100 })).await);
    let warning = warned["warnings"][0].as_str().unwrap();
    assert!(warning.contains("killed") && warning.contains("a test"), "{warned}");
    ok(&back().await);

    let page = ok(&call(&sidecar, Method::GET, "/NEW_SHOP/history?limit=3", Value::Null).await);
    let actions: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["action"])
        .collect();
    assert_eq!(actions, ["rollback", "patch", "rollback"]);
    let next = format!("/NEW_SHOP/history?before={}", page["next"]);
    assert_eq!(
        ok(&call(&sidecar, Method::GET, &next, Value::Null).await)["items"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_23_flag_in_use_is_removed_by_force_alone_and_a_removal_is_taken_back() {
    let (sidecar, _backends) = shop("features: {}\n").await;
    let half = json!({ "name": "NEW_SHOP", "type": "percentage", "percentage": 50 });
    ok(&call(&sidecar, Method::POST, "", half).await);
    let refused = call(&sidecar, Method::DELETE, "/NEW_SHOP", Value::Null).await;
    assert_eq!(problem(&refused), (409, "not_removable".to_owned()));
    ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": 100 })).await);
    let dry = ok(&call(&sidecar, Method::DELETE, "/NEW_SHOP?dry_run=true", Value::Null).await);
    assert_eq!((&dry["dry_run"], &dry["flag"]), (&json!(true), &Value::Null));
    assert_eq!(side(&sidecar, "anna").await, "new", "a dry run changes nothing");
    ok(&call(&sidecar, Method::DELETE, "/NEW_SHOP", Value::Null).await);
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    ok(&call(&sidecar, Method::POST, "/NEW_SHOP/rollback", Value::Null).await);
    assert_eq!(side(&sidecar, "anna").await, "new");
    ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": 50 })).await);
    ok(&call(&sidecar, Method::DELETE, "/NEW_SHOP?force=true", Value::Null).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_change_is_answered_with_a_warning_that_names_what_hides_it() {
    let (sidecar, _backends) =
        shop("features:\n  NEW_SHOP: { type: boolean, enabled: true, allowlist: [anna] }\n").await;
    let answer = ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": 50 })).await);
    let warning = answer["warnings"].to_string();
    assert!(
        warning.contains("allowlist") && warning.contains("percentage"),
        "{answer}"
    );
    let answer = ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "denylist": ["bob"] })).await);
    assert!(!answer["warnings"].to_string().contains("has no effect"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_flag_is_answered_with_near_names() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean }\n").await;
    for (method, body) in [
        (Method::GET, Value::Null),
        (Method::PUT, json!({})),
        (Method::PATCH, json!({})),
        (Method::DELETE, Value::Null),
    ] {
        let answer = call(&sidecar, method.clone(), "/NEW_SHOPP", body).await;
        assert_eq!(problem(&answer), (404, "unknown_name".to_owned()), "{method}");
        assert_eq!(answer.json()["near"], json!(["NEW_SHOP"]));
    }
    let answer = call(&sidecar, Method::POST, "", json!({ "name": "a b" })).await;
    assert_eq!(problem(&answer), (400, "bad_request".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_is_paged_and_filtered() {
    let file = "features:\n  a-one: { type: boolean, owner: x }\n  b-two: { type: percentage, percentage: 5 }\n  c-three: { type: boolean, enabled: true }\n";
    let (sidecar, _backends) = shop(file).await;
    ok(&call(&sidecar, Method::PATCH, "/c-three", json!({ "owner": "x" })).await);
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|flag| flag["name"].as_str().unwrap().to_owned()).collect()
    };
    let page = ok(&call(&sidecar, Method::GET, "?limit=2", Value::Null).await);
    assert_eq!(
        (names(&page), &page["total"]),
        (vec!["a-one".into(), "b-two".into()], &json!(3))
    );
    let next = format!("?limit=2&after={}", page["next"].as_str().unwrap());
    let page = ok(&call(&sidecar, Method::GET, &next, Value::Null).await);
    assert_eq!((names(&page), &page["next"]), (vec!["c-three".into()], &Value::Null));
    for (filter, expected) in [
        ("owner=x", vec!["a-one", "c-three"]),
        ("source=runtime", vec!["c-three"]),
        ("status=ENABLED", vec!["c-three"]),
        ("type=percentage", vec!["b-two"]),
        ("q=TWO", vec!["b-two"]),
    ] {
        let page = ok(&call(&sidecar, Method::GET, &format!("?{filter}"), Value::Null).await);
        assert_eq!(names(&page), expected, "{filter}");
    }
    for bad in ["?limit=0", "?limit=x", "?status=on", "?colour=red", "?q=a&q=b"] {
        let answer = call(&sidecar, Method::GET, bad, Value::Null).await;
        assert_eq!(problem(&answer), (400, "bad_request".to_owned()), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_does_not_go_together_with_what_was_said_at_run_time_is_refused() {
    let good = "features:\n  NEW_SHOP: { type: boolean, enabled: true, start_date: \"2026-01-01T00:00:00Z\" }\n";
    let (sidecar, _backends) = shop(good).await;
    let ramp = json!({ "type": "gradual", "gradual_increment": 100 });
    ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", ramp).await);
    assert_eq!(side(&sidecar, "anna").await, "new");
    // Sound by itself; under the layer the ramp has no start.
    let problems = sidecar
        .reload("features:\n  NEW_SHOP: { type: boolean }\n")
        .await
        .unwrap_err();
    assert!(
        problems[0].contains("runtime layer of NEW_SHOP") && problems[0].contains("start_date"),
        "{problems:?}"
    );
    assert_eq!(side(&sidecar, "anna").await, "new", "the old rules serve");

    // At a start legacy serves, and the API mends it.
    let sidecar = sidecar.restart().await;
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    assert_eq!(sidecar.readiness().await["reasons"][0]["name"], "state_unreadable");
    ok(&call(&sidecar, Method::PUT, "/NEW_SHOP", json!({ "enabled": true })).await);
    let sidecar = sidecar.restart().await;
    assert_eq!(side(&sidecar, "anna").await, "new");
    assert_eq!(sidecar.readiness().await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_leaves_a_record_of_who_what_and_why_without_subjects() {
    let (sidecar, _backends) = shop("features: {}\n").await;
    let create = json!({ "name": "NEW_SHOP", "allowlist": ["33639980123"] });
    ok(&call(&sidecar, Method::POST, "?reason=pilot%20shop", create).await);
    ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "enabled": true })).await);
    let page = ok(&sidecar
        .admin(Method::GET, "/api/v1/audit?target=flag:NEW_SHOP", "")
        .await);
    let (second, first) = (&page["items"][0], &page["items"][1]);
    for (member, expected) in [
        ("actor", "tester"),
        ("action", "create"),
        ("role", "admin"),
        ("reason", "pilot shop"),
    ] {
        assert_eq!(first[member], expected, "{first}");
    }
    assert!(first["from"].as_str().unwrap().starts_with("127.0.0.1:"));
    let listed = first["after"]["allowlist"][0].as_str().unwrap();
    assert!(
        listed.starts_with("h:") && !page.to_string().contains("33639980123"),
        "{page}"
    );
    assert_eq!(
        (&second["action"], &second["before"]),
        (&json!("patch"), &first["after"])
    );
    assert_eq!(second["prev_hash"], first["hash"]);
    let verified = ok(&sidecar.admin(Method::GET, "/api/v1/audit/verify", "").await);
    assert_eq!((&verified["whole"], &verified["records"]), (&json!(true), &json!(2)));
    for (query, found) in [
        ("actor=tester&action=create", 1),
        ("actor=nobody", 0),
        ("limit=1", 1),
        ("since=2020-01-01T00:00:00Z", 2),
        ("until=2020-01-01T00:00:00Z", 0),
    ] {
        let page = ok(&sidecar.admin(Method::GET, &format!("/api/v1/audit?{query}"), "").await);
        assert_eq!(page["items"].as_array().unwrap().len(), found, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lesser_roles_change_nothing() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let people = [
        ["vic", "viewer", "v"],
        ["eve", "emergency", "e"],
        ["cli", "client", "c"],
        ["olga", "operator", "o"],
    ];
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .features("features:\n  NEW_SHOP: { type: boolean }\n");
    let sidecar = plan.tokens(&people).start();
    let host = sidecar.admin.to_string();
    let ask = async |token: &str, method: Method, path: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("host", &*host),
            ("authorization", &*bearer),
            ("content-type", "application/json"),
        ];
        send(
            sidecar.admin,
            method,
            &format!("{FLAGS}{path}"),
            &headers,
            body.to_owned(),
        )
        .await
        .status
    };
    let patch = r#"{"owner":"x"}"#;
    for (token, reads, changes, rolls_back) in [
        ("v", 200, 403, 403),
        ("e", 403, 403, 200),
        ("c", 403, 403, 403),
        ("o", 200, 200, 200),
    ] {
        ask("o", Method::PATCH, "/NEW_SHOP", &format!(r#"{{"owner":"{token}"}}"#)).await;
        assert_eq!(ask(token, Method::GET, "/NEW_SHOP", "").await, reads, "{token}");
        assert_eq!(ask(token, Method::PATCH, "/NEW_SHOP", patch).await, changes, "{token}");
        assert_eq!(
            ask(token, Method::DELETE, "/NEW_SHOP?dry_run=true", "").await,
            changes,
            "{token}"
        );
        assert_eq!(
            ask(token, Method::POST, "/NEW_SHOP/rollback", "").await,
            rolls_back,
            "{token}"
        );
    }
    assert_eq!(ask("wrong", Method::GET, "/NEW_SHOP", "").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_of_run_time_alone_is_set_by_its_variables_too() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .env(&[("NEW_SHOP_DENYLIST", "bea")]);
    let sidecar = plan.start();
    ok(&call(&sidecar, Method::PUT, "/NEW_SHOP", json!({ "enabled": true })).await);
    eventually("the change", || async { side(&sidecar, "anna").await == "new" }).await;
    assert_eq!(side(&sidecar, "bea").await, "legacy");
}
