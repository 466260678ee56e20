//! Whole plans against real payloads, single rules, and an oracle that walks a tree.

use std::sync::Arc;

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::engine::vocab::SUBJECT_LIMIT_BYTES;

fn pointers(texts: &[&str]) -> Vec<Pointer> {
    texts.iter().map(|text| Pointer::parse(text).unwrap()).collect()
}

fn json(texts: &[&str]) -> Source {
    Source::Json(pointers(texts))
}

fn header(name: &'static str) -> Source {
    Source::Header(HeaderName::from_static(name))
}

fn form(name: &str) -> Source {
    Source::Form(name.to_owned())
}

fn one(source: Source) -> Entry {
    Entry::One(source, Keying::AS_WRITTEN)
}

fn plan(entries: &[Entry]) -> Plan {
    Plan::compile(entries).unwrap()
}

/// What a JSON body says to a list of entries, beside `x-shopper-id: fallback`.
fn says(entries: &[Entry], body: &[u8]) -> Result<Vec<String>, Nobody> {
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("x-shopper-id"),
        HeaderValue::from_static("fallback"),
    )]);
    let view = RequestView {
        path: "/",
        query: None,
        headers: &headers,
        body: Some(body),
    };
    keys(plan(entries).extract(&view))
}

fn keys(extraction: Extraction) -> Result<Vec<String>, Nobody> {
    match extraction {
        Extraction::NeedsBody => panic!("the body is there"),
        Extraction::Nobody(reason) => Err(reason),
        Extraction::Subjects(subjects) => Ok(subjects.iter().map(str::to_owned).collect()),
    }
}

fn some(keys: &[&str]) -> Result<Vec<String>, Nobody> {
    Ok(keys.iter().map(|key| (*key).to_owned()).collect())
}

mod payloads {
    use super::*;

    macro_rules! cases {
        ($($name:literal),* $(,)?) => {
            [$(($name, include_str!(concat!("../../../tests/payloads/", $name, ".json")))),*]
        };
    }

    const CASES: [(&str, &str); 22] = cases![
        "sh-order",
        "st-checkout",
        "tw-status",
        "tw-text",
        "wa-account-event",
        "wa-batch-one-sender",
        "wa-batch-two-senders",
        "wa-button",
        "wa-contacts",
        "wa-image",
        "wa-interactive-list",
        "wa-location",
        "wa-order",
        "wa-reaction",
        "wa-status-delivered",
        "wa-status-failed",
        "wa-status-read",
        "wa-status-sent",
        "wa-system",
        "wa-text",
        "wa-user-id-only",
        "wa-verify-get",
    ];

    /// The `identity` and `tenant` lists that a user writes for the sender at this path.
    fn lists(path: &str) -> (Vec<Entry>, Vec<Entry>) {
        match path {
            "/webhooks/whatsapp" => {
                let messages = json(&[
                    "/entry/*/changes/*/value/messages/*/from",
                    "/entry/*/changes/*/value/messages/*/from_user_id",
                ]);
                let statuses = json(&["/entry/*/changes/*/value/statuses/*/recipient_id"]);
                let both = Entry::All(vec![(messages, Keying::DIGITS), (statuses, Keying::DIGITS)]);
                let tenant = one(json(&["/entry/*/changes/*/value/metadata/phone_number_id"]));
                (vec![both, one(header("x-shopper-id"))], vec![tenant])
            }
            "/twilio/whatsapp" => (
                vec![one(form("WaId")), Entry::One(form("From"), Keying::DIGITS)],
                vec![one(form("To"))],
            ),
            "/twilio/status" => (vec![Entry::One(form("To"), Keying::DIGITS)], vec![one(form("From"))]),
            "/stripe/webhook" => {
                let customer = json(&["/data/object/customer", "/data/object/customer/id"]);
                (vec![one(customer)], vec![one(json(&["/account"]))])
            }
            "/shopify/webhook" => (
                vec![one(json(&["/customer/id"]))],
                vec![one(header("x-shopify-shop-domain"))],
            ),
            other => panic!("no sender at {other}"),
        }
    }

    /// Every listed identity once, in order.
    fn expected(case: &Json) -> Result<Vec<String>, Nobody> {
        let mut values: Vec<String> = Vec::new();
        for identity in case["identities"].as_array().unwrap() {
            let value = identity["value"].as_str().unwrap().to_owned();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if values.is_empty() {
            Err(Nobody::NoMatch)
        } else {
            Ok(values)
        }
    }

    fn check(name: &str, case: &Json, body: &str) {
        let request = &case["request"];
        let (path, query) = (request["path"].as_str().unwrap(), request["query"].as_str().unwrap());
        let pair = |pair: &Json| {
            let name: HeaderName = pair[0].as_str().unwrap().parse().unwrap();
            (name, HeaderValue::from_str(pair[1].as_str().unwrap()).unwrap())
        };
        let headers: HeaderMap = request["headers"].as_array().unwrap().iter().map(pair).collect();
        let view = RequestView {
            path,
            query: Some(query),
            headers: &headers,
            body: Some(body.as_bytes()),
        };
        let (identity, tenant) = lists(path);
        assert_eq!(
            keys(plan(&identity).extract(&view)),
            expected(case),
            "identity of {name}"
        );
        let business = case["tenant"].as_str().map(|tenant| vec![tenant.to_owned()]);
        assert_eq!(
            keys(plan(&tenant).extract(&view)),
            business.ok_or(Nobody::NoMatch),
            "tenant of {name}"
        );
    }

    fn reversed(value: Json) -> Json {
        match value {
            Json::Array(items) => items.into_iter().map(reversed).collect(),
            Json::Object(members) => Json::Object(
                members
                    .into_iter()
                    .rev()
                    .map(|(name, value)| (name, reversed(value)))
                    .collect(),
            ),
            scalar => scalar,
        }
    }

    #[test]
    fn c20_every_payload_yields_exactly_its_identities_and_tenant() {
        for (name, text) in CASES {
            let case: Json = serde_json::from_str(text).unwrap();
            check(name, &case, case["request"]["body"].as_str().unwrap());
        }
    }

    #[test]
    fn c20_reordered_members_yield_the_same_identities_and_tenant() {
        for (name, text) in CASES {
            let case: Json = serde_json::from_str(text).unwrap();
            let body = case["request"]["body"].as_str().unwrap();
            let reordered = match serde_json::from_str(body) {
                Ok(parsed) => reversed(parsed).to_string(),
                Err(_) => body.split('&').rev().collect::<Vec<_>>().join("&"),
            };
            assert!(reordered.len() < 2 || reordered != body, "{name} was reordered");
            check(name, &case, &reordered);
        }
    }

    #[test]
    fn cut_payload_names_nobody() {
        for (name, text) in CASES.iter().filter(|(name, _)| !name.starts_with("tw-")) {
            let case: Json = serde_json::from_str(text).unwrap();
            let body = case["request"]["body"].as_str().unwrap();
            let identity = plan(&lists(case["request"]["path"].as_str().unwrap()).0);
            for end in 1..body.len() {
                let cut = &body.as_bytes()[..end];
                let view = RequestView {
                    path: "/",
                    query: None,
                    headers: &HeaderMap::new(),
                    body: Some(cut),
                };
                assert_eq!(
                    identity.extract(&view),
                    Extraction::Nobody(Nobody::NotReadable),
                    "{name} cut at {end}"
                );
            }
        }
    }

    #[test]
    fn documented_senders_beyond_the_cases_are_named_too() {
        let stripe = lists("/stripe/webhook").0;
        let event = |customer: &str| format!(r#"{{"data":{{"object":{{"customer":{customer}}}}}}}"#);
        assert_eq!(
            says(&stripe, event(r#"{"id":"cus_1","name":"Noa"}"#).as_bytes()),
            some(&["cus_1"])
        );
        assert_eq!(says(&stripe, event("null").as_bytes()), Err(Nobody::NoMatch));
        let both = br#"{"entry":[{"changes":[{"value":{"messages":[{"from":"1","from_user_id":"FR.1"},{"from_user_id":"FR.2"}]}}]}]}"#;
        assert_eq!(says(&lists("/webhooks/whatsapp").0, both), some(&["1", "FR.2"]));
    }
}

#[test]
fn first_entry_that_yields_anything_wins() {
    let entries = [one(json(&["/a"])), one(json(&["/b"])), one(header("x-shopper-id"))];
    assert_eq!(says(&entries, br#"{"b":"2","a":"1"}"#), some(&["1"]));
    assert_eq!(says(&entries, br#"{"b":"2","a":""}"#), some(&["2"]));
    assert_eq!(says(&entries, br#"{"b":null,"a":{}}"#), some(&["fallback"]));
    assert_eq!(says(&entries, b"not json"), some(&["fallback"]));
    assert_eq!(says(&[], b"{}"), Err(Nobody::NoMatch));
}

#[test]
fn all_unites_in_its_own_order_whatever_the_order_of_members() {
    let both = [Entry::All(vec![
        (json(&["/m/*"]), Keying::AS_WRITTEN),
        (header("x-shopper-id"), Keying::AS_WRITTEN),
        (json(&["/s/*"]), Keying::DIGITS),
    ])];
    let expected = some(&["1", "2", "fallback", "3"]);
    assert_eq!(says(&both, br#"{"m":["1","2"],"s":["+2","+3"]}"#), expected);
    assert_eq!(says(&both, br#"{"s":["+2","+3"],"m":["1","2"]}"#), expected);
    assert_eq!(says(&both, b"torn"), some(&["fallback"]));
}

#[test]
fn pointers_that_share_their_star_are_alternatives_per_member() {
    let list = [one(json(&["/m/*/a", "/m/*/b/c"]))];
    let body = br#"{"m":[{"b":{"c":"1"},"a":"2"},{"b":{"c":"3"}},{"a":null,"b":{"c":"4"}},{"a":"","b":{"c":"2"}},7]}"#;
    assert_eq!(says(&list, body), some(&["2", "3", "4"]));
    let normalised = [Entry::One(json(&["/m/*/a", "/m/*/b"]), Keying::DIGITS)];
    assert_eq!(says(&normalised, br#"{"m":[{"a":"+","b":"1"}]}"#), some(&["1"]));
}

#[test]
fn groups_of_one_list_are_alternatives_as_a_whole() {
    let list = [one(json(&["/m/*/a", "/id", "/m/*/b", "/s/*"]))];
    assert_eq!(says(&list, br#"{"id":"9","m":[{"b":"1"}]}"#), some(&["1"]));
    assert_eq!(says(&list, br#"{"s":["1"],"id":"9","m":[{}]}"#), some(&["9"]));
    assert_eq!(says(&list, br#"{"s":["1","2"],"m":[]}"#), some(&["1", "2"]));
}

#[test]
fn star_means_members_of_arrays_and_a_number_means_either() {
    assert_eq!(
        says(&[one(json(&["/*"]))], br#"{"*":"1","a":"2"}"#),
        Err(Nobody::NoMatch)
    );
    assert_eq!(says(&[one(json(&["/*"]))], br#"["1","2",["3"]]"#), some(&["1", "2"]));
    assert_eq!(says(&[one(json(&["/1"]))], br#"["1","2"]"#), some(&["2"]));
    assert_eq!(says(&[one(json(&["/1"]))], br#"{"1":"x"}"#), some(&["x"]));
    let mixed = [Entry::All(vec![
        (json(&["/1/a"]), Keying::AS_WRITTEN),
        (json(&["/*/a"]), Keying::AS_WRITTEN),
    ])];
    assert_eq!(says(&mixed, br#"[{"a":"x"},{"a":"y"}]"#), some(&["y", "x"]));
}

#[test]
fn scalar_is_a_value_as_written_and_nothing_else_is() {
    let list = [one(json(&["/a"]))];
    for (value, key) in [
        ("115310627314723954", "115310627314723954"),
        ("-0.10", "-0.10"),
        ("1e3", "1e3"),
        (r#""\ud83d\udc4d \u00e9\/""#, "👍 é/"),
        (r#"" ""#, " "),
    ] {
        assert_eq!(
            says(&list, format!(r#"{{"a":{value}}}"#).as_bytes()),
            some(&[key]),
            "{value}"
        );
    }
    for value in ["null", "true", "false", "{}", "[]", r#"["1"]"#, r#"{"a":"1"}"#, r#""""#] {
        assert_eq!(
            says(&list, format!(r#"{{"a":{value}}}"#).as_bytes()),
            Err(Nobody::NoMatch),
            "{value}"
        );
    }
}

#[test]
fn body_that_is_not_wholly_json_names_nobody() {
    let list = [one(json(&["/a"]))];
    for body in [
        &br#"{"a":"1""#[..],
        br#"{"a":"1"}}"#,
        br#"{"a":"1"}{"a":"2"}"#,
        br#"{"a":"1","b":01}"#,
        br#"{"a":"1","b":"\x"}"#,
        br#"{"a":"\ud83d"}"#,
        b"{\"a\":\"1\",\"b\":\"\xff\"}",
        b"a=1",
        b"\x1f\x8b\x08",
        b"\0",
        b"{\"a\":\"1\"}\0",
    ] {
        assert_eq!(
            says(&list, body),
            Err(Nobody::NotReadable),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    let deep = |depth: usize| format!(r#"{{"a":"1","b":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(says(&list, deep(127).as_bytes()), some(&["1"]));
    assert_eq!(says(&list, deep(128).as_bytes()), Err(Nobody::NotReadable));
    assert_eq!(says(&list, "[".repeat(4_000_000).as_bytes()), Err(Nobody::NotReadable));
}

#[test]
fn empty_body_is_not_unreadable_and_a_byte_order_mark_is_ignored() {
    let list = [one(json(&["/a"]))];
    for body in ["", " \r\n\t", "\u{feff}"] {
        assert_eq!(says(&list, body.as_bytes()), Err(Nobody::NoMatch), "{body:?}");
    }
    assert_eq!(says(&list, "\u{feff}{\"a\":\"1\"}".as_bytes()), some(&["1"]));
}

#[test]
fn repeated_member_on_the_way_to_an_identity_names_nobody_for_good() {
    let entries = [one(json(&["/a/*/b"])), one(header("x-shopper-id"))];
    for body in [
        r#"{"a":[{"b":"1","b":"2"}]}"#,
        r#"{"a":[{"b":"1","b":"1"}]}"#,
        r#"{"a":[{"b":"1","b":null}]}"#,
        r#"{"a":[{"b":"1","\u0062":"2"}]}"#,
        r#"{"a":[{"b":"1"}],"a":[]}"#,
        r#"{"a":null,"a":[{"b":"1"}]}"#,
    ] {
        assert_eq!(says(&entries, body.as_bytes()), Err(Nobody::Ambiguous), "{body}");
    }
    let beside = br#"{"x":1,"x":2,"a":[{"b":"1","c":{"b":1,"b":2}},{"b":"2"}]}"#;
    assert_eq!(says(&entries, beside), some(&["1", "2"]));
    assert_eq!(
        says(&entries, br#"{"a":[{"b":"1","b":"2"}]"#),
        some(&["fallback"]),
        "torn comes first"
    );
}

#[test]
fn earlier_entry_is_not_spoiled_by_a_doubt_of_a_later_one() {
    let entries = [one(json(&["/a"])), one(json(&["/b"]))];
    assert_eq!(says(&entries, br#"{"a":"1","b":"2","b":"3"}"#), some(&["1"]));
}

#[test]
fn over_long_key_is_no_identity_and_spoils_its_entry_alone() {
    let long = "k".repeat(SUBJECT_LIMIT_BYTES + 1);
    let body = format!(r#"{{"m":["1","{long}"],"b":"2"}}"#);
    assert_eq!(says(&[one(json(&["/m/*"]))], body.as_bytes()), Err(Nobody::TooLong));
    assert_eq!(
        says(&[one(json(&["/m/*"])), one(json(&["/b"]))], body.as_bytes()),
        some(&["2"])
    );
    let longest = format!(r#"{{"m":["{}"]}}"#, &long[1..]);
    assert_eq!(says(&[one(json(&["/m/*"]))], longest.as_bytes()), some(&[&long[1..]]));
}

#[test]
fn limit_of_subjects_holds_for_a_body_and_for_a_union() {
    let body = |count: usize| {
        let items: Vec<String> = (0..count).map(|n| format!(r#"{{"a":{n},"b":"b{n}"}}"#)).collect();
        format!("[{}]", items.join(",")).into_bytes()
    };
    let entries = [one(json(&["/*/a"])), one(header("x-shopper-id"))];
    assert_eq!(
        says(&entries, &body(SUBJECT_COUNT_LIMIT)).map(|keys| keys.len()),
        Ok(SUBJECT_COUNT_LIMIT)
    );
    assert_eq!(says(&entries, &body(SUBJECT_COUNT_LIMIT + 1)), Err(Nobody::TooMany));
    let union = Entry::All(vec![
        (json(&["/*/a"]), Keying::AS_WRITTEN),
        (json(&["/*/b"]), Keying::AS_WRITTEN),
    ]);
    assert_eq!(says(&[union], &body(SUBJECT_COUNT_LIMIT / 2 + 1)), Err(Nobody::TooMany));
}

#[test]
fn body_is_asked_for_only_if_it_can_decide() {
    let list = plan(&[
        one(header("x-id")),
        one(form("id")),
        one(json(&["/id"])),
        one(Source::Query("id".to_owned())),
    ]);
    assert!(list.needs_body());
    assert!(!plan(&[one(header("x-id")), one(Source::Path(1))]).needs_body());
    assert!(plan(&[Entry::All(vec![(form("id"), Keying::AS_WRITTEN)])]).needs_body());

    let mut headers = HeaderMap::new();
    let view = RequestView {
        path: "/",
        query: Some("id=q"),
        headers: &headers,
        body: None,
    };
    assert_eq!(list.extract(&view), Extraction::NeedsBody);
    assert_eq!(keys(list.extract_without_body(&view)), some(&["q"]));
    let view = RequestView { query: None, ..view };
    assert_eq!(
        list.extract_without_body(&view),
        Extraction::Nobody(Nobody::NotCaptured)
    );
    assert_eq!(
        plan(&[one(form("id"))]).extract(&view),
        Extraction::Nobody(Nobody::NoMatch),
        "it is no form"
    );

    headers.insert("x-id", HeaderValue::from_static("h"));
    let view = RequestView {
        path: "/",
        query: None,
        headers: &headers,
        body: None,
    };
    assert_eq!(keys(list.extract(&view)), some(&["h"]));
}

#[test]
fn form_is_read_only_where_the_body_says_it_is_one() {
    let list = [one(form("id"))];
    let body = b"a=1&id=x+y&id=z";
    assert_eq!(says(&list, body), Err(Nobody::NoMatch));
    let headers = HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8"),
    )]);
    let view = RequestView {
        path: "/",
        query: None,
        headers: &headers,
        body: Some(body),
    };
    assert_eq!(keys(plan(&list).extract(&view)), some(&["x y", "z"]));
}

#[test]
fn every_field_is_read_and_one_that_is_not_text_spoils_its_entry() {
    let headers = HeaderMap::from_iter([
        (http::header::COOKIE, HeaderValue::from_static("sid=\"c\"")),
        (HeaderName::from_static("x-id"), HeaderValue::from_static("A")),
        (
            HeaderName::from_static("x-id"),
            HeaderValue::from_bytes(b"\xff").unwrap(),
        ),
    ]);
    let view = RequestView {
        path: "/shops/s%201",
        query: Some("x=1&id=Q"),
        headers: &headers,
        body: Some(b""),
    };
    let ask = |entries: &[Entry]| keys(plan(entries).extract(&view));
    assert_eq!(ask(&[one(Source::Cookie("sid".to_owned()))]), some(&["c"]));
    assert_eq!(
        ask(&[Entry::One(Source::Query("id".to_owned()), Keying::LOWER)]),
        some(&["q"])
    );
    assert_eq!(ask(&[one(Source::Path(2))]), some(&["s 1"]));
    assert_eq!(ask(&[one(Source::Path(3))]), Err(Nobody::NoMatch));
    assert_eq!(ask(&[one(header("x-id"))]), Err(Nobody::NotReadable));
    assert_eq!(ask(&[one(header("x-id")), one(Source::Path(2))]), some(&["s 1"]));
}

fn mapped(table: &str, normalise: Normalise) -> Keying {
    Keying {
        normalise,
        map: Some(Arc::new(Mapping::parse(table, normalise).unwrap())),
    }
}

#[test]
fn c20_table_leads_from_a_telephone_number_to_a_shopper() {
    let phones = || mapped("+33 6,shopper_001\n34,shopper_002", Normalise::Digits);
    let list = [
        Entry::One(json(&["/m/*/from", "/m/*/user"]), phones()),
        one(header("x-shopper-id")),
    ];
    assert_eq!(says(&list, br#"{"m":[{"from":"+336"}]}"#), some(&["shopper_001"]));
    // Two numbers of one shopper are one shopper.
    let twice = mapped("1,a\n2,a", Normalise::AsWritten);
    assert_eq!(says(&[Entry::One(json(&["/*"]), twice)], br#"["1","2"]"#), some(&["a"]));
    // Of alternatives the first that the table knows counts.
    assert_eq!(
        says(&list, br#"{"m":[{"from":"9","user":"34"}]}"#),
        some(&["shopper_002"])
    );
    // Whoever is not in the table is nobody, and the others in the body do not decide for them.
    let body = br#"{"m":[{"from":"336"},{"from":"9"}]}"#;
    assert_eq!(says(&list[..1], body), Err(Nobody::NotMapped));
    assert_eq!(says(&list, body), some(&["fallback"]));
    assert_eq!(says(&list[..1], br#"{"m":[{"from":""},{}]}"#), Err(Nobody::NoMatch));
}

#[test]
fn table_of_one_source_in_all_spoils_the_entry_when_it_does_not_know_a_value() {
    let all = |header_table: &str| {
        [Entry::All(vec![
            (json(&["/a"]), Keying::AS_WRITTEN),
            (header("x-shopper-id"), mapped(header_table, Normalise::AsWritten)),
        ])]
    };
    assert_eq!(says(&all("fallback,anna"), br#"{"a":"1"}"#), some(&["1", "anna"]));
    assert_eq!(says(&all("bert,bert"), br#"{"a":"1"}"#), Err(Nobody::NotMapped));
}

/// A token with this payload that nobody signed.
fn token(payload: &str) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2lnbmF0dXJl", encode("{\"alg\":\"HS256\"}"), encode(payload))
}

#[test]
fn claim_of_a_token_names_the_subject() {
    let says = |claim: &str, values: &[&str]| {
        let name = HeaderName::from_static("authorization");
        let headers: HeaderMap = values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let view = RequestView {
            path: "/",
            query: Some("id=query"),
            headers: &headers,
            body: None,
        };
        let claim = Source::Jwt(name, jwt::claim(claim).unwrap());
        let list = [Entry::One(claim, Keying::DIGITS), one(Source::Query("id".to_owned()))];
        (keys(plan(&list[..1]).extract(&view)), keys(plan(&list).extract(&view)))
    };
    let bearer = |payload: &str| format!("Bearer {}", token(payload));
    let phone =
        bearer(r#"{"sub":"+33 6","n":115310627314723954,"https://shop.example/id":"x","shop":{"ids":["a","b"]}}"#);
    assert_eq!(says("sub", &[&phone]).0, some(&["336"]));
    assert_eq!(says("n", &[&phone]).0, some(&["115310627314723954"]));
    assert_eq!(says("https://shop.example/id", &[&phone]).0, some(&["x"]));
    assert_eq!(says("/shop/ids/*", &[&phone]).0, some(&["a", "b"]));
    assert_eq!(says("aud", &[&phone]), (Err(Nobody::NoMatch), some(&["query"])));
    assert_eq!(says("sub", &["Basic YTpi"]), (Err(Nobody::NoMatch), some(&["query"])));
    // A token that cannot be read may be somebody's, so nobody else in it decides; the next entry may.
    let both = [&*phone, "Bearer opaque"];
    assert_eq!(says("sub", &both), (Err(Nobody::NotReadable), some(&["query"])));
    for unreadable in [
        bearer("sub"),
        bearer(""),
        "Bearer a.b.c".to_owned(),
        bearer(r#"{"sub":"1"#),
    ] {
        assert_eq!(says("sub", &[&unreadable]).0, Err(Nobody::NotReadable), "{unreadable}");
    }
    // Two parsers would see two shoppers.
    let doubtful = bearer(r#"{"sub":"1","sub":"2"}"#);
    assert_eq!(says("sub", &[&doubtful]).1, Err(Nobody::Ambiguous));
}

#[test]
fn list_that_says_nothing_or_too_much_does_not_compile() {
    let error = |entries: &[Entry]| Plan::compile(entries).unwrap_err();
    assert_eq!(
        error(&[one(header("x")), Entry::All(vec![])]),
        PlanError::EmptyAll { entry: 1 }
    );
    assert_eq!(error(&[one(json(&[]))]), PlanError::NoPointer { entry: 0 });
    assert_eq!(error(&[one(Source::Path(0))]), PlanError::PathZero { entry: 0 });
    let many = |count: usize| {
        one(Source::Json(
            (0..count).map(|n| Pointer::parse(&format!("/{n}a")).unwrap()).collect(),
        ))
    };
    assert!(Plan::compile(&[many(POINTER_LIMIT)]).is_ok());
    assert_eq!(
        error(&[many(POINTER_LIMIT), many(1)]),
        PlanError::TooManyPointers(POINTER_LIMIT + 1)
    );
    // Every combination of `*` and 0 in 20 segments is a place of its own.
    let broad = |zero: usize| {
        (0..20)
            .map(|at| if at == zero { "/0" } else { "/*" })
            .collect::<String>()
    };
    let broad: Vec<String> = (0..20).map(broad).collect();
    let broad: Vec<&str> = broad.iter().map(String::as_str).collect();
    assert_eq!(error(&[one(json(&broad))]), PlanError::TooBroad);
    assert!(Plan::default().is_empty());
}

#[test]
fn many_groups_and_sixty_four_members_are_told_apart() {
    let names: Vec<String> = (0..POINTER_LIMIT).map(|n| format!("/m{n}/*")).collect();
    let sources = names.iter().map(|name| (json(&[name]), Keying::AS_WRITTEN)).collect();
    let members: Vec<String> = (0..POINTER_LIMIT).rev().map(|n| format!(r#""m{n}":["{n}"]"#)).collect();
    let body = format!("{{{}}}", members.join(","));
    let expected: Vec<String> = (0..POINTER_LIMIT).map(|n| n.to_string()).collect();
    assert_eq!(says(&[Entry::All(sources)], body.as_bytes()), Ok(expected));
}

mod laws {
    use serde::de::IgnoredAny;

    use super::*;

    fn document() -> impl Strategy<Value = Json> {
        let scalar = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            (-9_i64..10).prop_map(Json::from),
            "[a-c\"\\\\\u{1}é👍]{0,3}".prop_map(Json::from),
        ];
        scalar.prop_recursive(5, 60, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::vec(("[ab01\"]|é", inner), 0..5)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    fn pointer() -> impl Strategy<Value = Pointer> {
        "(/([ab01\"]|é|\\*)){1,4}".prop_map(|text| Pointer::parse(&text).unwrap())
    }

    fn list() -> impl Strategy<Value = Vec<Entry>> {
        let source = || {
            (
                prop::collection::vec(pointer(), 1..4).prop_map(Source::Json),
                Just(Keying::AS_WRITTEN),
            )
        };
        let entry = prop_oneof![
            source().prop_map(|(source, normalise)| Entry::One(source, normalise)),
            prop::collection::vec(source(), 1..4).prop_map(Entry::All),
        ];
        prop::collection::vec(entry, 1..4)
    }

    /// Every value that the steps lead to, in order.
    fn places<'d>(document: &'d Json, steps: &[String]) -> Vec<&'d Json> {
        let Some((step, rest)) = steps.split_first() else {
            return vec![document];
        };
        let index = step.parse().ok().filter(|index: &usize| index.to_string() == *step);
        let next: Vec<&Json> = match document {
            Json::Array(items) if step == "*" => items.iter().collect(),
            Json::Array(items) => index.and_then(|index| items.get(index)).into_iter().collect(),
            Json::Object(members) if step != "*" => members.get(step).into_iter().collect(),
            _ => vec![],
        };
        next.into_iter().flat_map(|next| places(next, rest)).collect()
    }

    fn key(value: &Json) -> Option<String> {
        let key = match value {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            _ => return None,
        };
        (!key.is_empty()).then_some(key)
    }

    /// The keys of a list of pointers, by walking a tree once per pointer.
    fn keys_of(document: &Json, list: &[Pointer]) -> Vec<String> {
        let steps = |pointer: &Pointer| {
            pointer
                .to_string()
                .split('/')
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let split = |steps: Vec<String>| {
            let scope = steps.iter().rposition(|step| step == "*").map_or(0, |last| last + 1);
            (steps[..scope].to_vec(), steps[scope..].to_vec())
        };
        let mut groups: Vec<(Vec<String>, Vec<Vec<String>>)> = Vec::new();
        for (scope, tail) in list.iter().map(steps).map(split) {
            match groups.iter_mut().find(|(known, _)| *known == scope) {
                Some((_, tails)) => tails.push(tail),
                None => groups.push((scope, vec![tail])),
            }
        }
        let first = |member: &Json, tails: &[Vec<String>]| {
            tails
                .iter()
                .find_map(|tail| places(member, tail).into_iter().find_map(key))
        };
        let group = |(scope, tails): &(Vec<String>, Vec<Vec<String>>)| -> Vec<String> {
            places(document, scope)
                .into_iter()
                .filter_map(|member| first(member, tails))
                .collect()
        };
        groups
            .iter()
            .map(group)
            .find(|keys| !keys.is_empty())
            .unwrap_or_default()
    }

    fn oracle(document: &Json, entries: &[Entry]) -> Result<Vec<String>, Nobody> {
        for entry in entries {
            let sources: Vec<&Source> = match entry {
                Entry::All(members) => members.iter().map(|(source, _)| source).collect(),
                Entry::One(source, _) => vec![source],
            };
            let mut keys: Vec<String> = Vec::new();
            for source in sources {
                let Source::Json(list) = source else {
                    panic!("only pointers are generated")
                };
                for key in keys_of(document, list) {
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            if !keys.is_empty() {
                return Ok(keys);
            }
        }
        Err(Nobody::NoMatch)
    }

    fn is_readable(body: &[u8]) -> bool {
        says(&[one(json(&["/a/*/b"]))], body) != Err(Nobody::NotReadable)
    }

    /// A payload's body with some bytes replaced, inserted and taken out.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let case = prop_oneof![
            Just(include_str!("../../../tests/payloads/wa-order.json")),
            Just(include_str!("../../../tests/payloads/wa-reaction.json")),
            Just(include_str!("../../../tests/payloads/st-checkout.json")),
        ];
        let token = prop::sample::select(&b"\"\\{}[],:0123456789-+.eEtruefalsn \n\t\x00\x1fu/\xc3\xa9\xff"[..]);
        let change = (any::<prop::sample::Index>(), token, 0..3_u8);
        (case, prop::collection::vec(change, 0..4)).prop_map(|(case, changes)| {
            let case: Json = serde_json::from_str(case).unwrap();
            let mut body = case["request"]["body"].as_str().unwrap().as_bytes().to_vec();
            for (index, byte, kind) in changes {
                let at = index.index(body.len());
                match kind {
                    0 => body[at] = byte,
                    1 => body.insert(at, byte),
                    _ => drop(body.remove(at)),
                }
            }
            body
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn keys_are_those_that_a_tree_gives(document in document(), entries in list()) {
            let expected = oracle(&document, &entries);
            prop_assert_eq!(&says(&entries, document.to_string().as_bytes()), &expected);
            let pretty = serde_json::to_string_pretty(&document).unwrap();
            prop_assert_eq!(&says(&entries, pretty.as_bytes()), &expected);
        }

        #[test]
        fn exactly_json_is_readable(body in damaged()) {
            let valid = std::str::from_utf8(&body).is_ok() && serde_json::from_slice::<IgnoredAny>(&body).is_ok();
            prop_assert_eq!(is_readable(&body), valid);
        }

        #[test]
        fn cut_document_is_unreadable_or_says_the_same(
            document in document(),
            entries in list(),
            end in any::<prop::sample::Index>(),
        ) {
            let text = document.to_string();
            let whole = says(&entries, text.as_bytes());
            // Half a number is a number, but it is no object that could hold a key.
            let cut = says(&entries, &text.as_bytes()[..end.index(text.len()).max(1)]);
            prop_assert!(cut == Err(Nobody::NotReadable) || cut == whole, "{:?} from {}", cut, text);
        }

        #[test]
        fn no_input_panics(
            body in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), "[\\[\\]{}\",:a0\\\\u*é\u{0} -]{0,60}".prop_map(String::into_bytes)],
            path in ".{0,20}",
            query in ".{0,20}",
            raw in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&raw) {
                for name in [http::header::COOKIE, http::header::CONTENT_TYPE] {
                    headers.append(name, value.clone());
                }
            }
            headers.append(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            let everything = Entry::All(vec![
                (json(&["/a/*/0", "/*", "/a"]), Keying::DIGITS),
                (form("a"), Keying::LOWER),
                (Source::Cookie("a".to_owned()), Keying::DIGITS),
                (Source::Query("a".to_owned()), Keying::LOWER),
                (Source::Path(2), Keying::DIGITS),
            ]);
            let view = RequestView { path: &path, query: Some(&query), headers: &headers, body: Some(&body) };
            if let Extraction::Subjects(subjects) = plan(&[everything]).extract(&view) {
                prop_assert!(subjects.iter().all(|key| !key.is_empty() && key.len() <= SUBJECT_LIMIT_BYTES));
            }
            prop_assert_eq!(Pointer::parse(&path).map(|pointer| pointer.to_string()).unwrap_or(path.clone()), path);
        }
    }
}
