//! A crash at any moment: what was answered is there, and nothing is there by half. The real binary, killed without a warning.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::support::{Backend, Client, Door, Instance, Plan, TOKEN, request};

/// How many flags are written to at once.
const WRITERS: usize = 3;

fn rounds() -> u64 {
    if std::env::var_os("UNDERSTUDY_LONG").is_some() {
        200
    } else {
        20
    }
}

/// Writes one number after the other, each into two members, until the connection breaks; tells what was sent and answered.
async fn write(door: &Door, flag: &str, sent: &AtomicU64, answered: &AtomicU64) {
    let (bearer, host) = (format!("Bearer {TOKEN}"), door.admin.to_string());
    loop {
        let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
        let percentage = number % 100;
        let body = format!(r#"{{"percentage":{percentage},"owner":"{number}"}}"#);
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/json"),
            ("host", &*host),
        ];
        let path = format!("/api/v1/feature-flags/{flag}");
        let ask = request(Method::PATCH, &path, &headers, body);
        let Ok(stream) = tokio::net::TcpStream::connect(door.admin).await else {
            return;
        };
        let Ok(answer) = Client::over(stream).await.try_send(ask).await else {
            return;
        };
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered.store(number, Ordering::SeqCst);
    }
}

async fn owner(door: &Door, flag: &str) -> (u64, u64) {
    let answer = door
        .admin(Method::GET, &format!("/api/v1/feature-flags/{flag}"), "")
        .await;
    let runtime = &answer.json()["runtime"];
    if runtime.is_null() {
        return (0, 0);
    }
    let number = runtime["owner"].as_str().unwrap().parse().unwrap();
    (number, runtime["percentage"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_loses_no_answered_change_and_leaves_no_half_one() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let flags: Vec<String> = (0..WRITERS).map(|n| format!("flag-{n}")).collect();
    let lines: String = flags
        .iter()
        .map(|flag| format!("  {flag}: {{ type: boolean }}\n"))
        .collect();
    let plan = Plan::new(&legacy, &new)
        .route("flag: flag-0")
        .features(&format!("features:\n{lines}"));
    let mut instance = Instance::start(&plan).await;
    let counters: Vec<_> = flags
        .iter()
        .map(|_| Arc::new([AtomicU64::new(0), AtomicU64::new(0)]))
        .collect();
    let mut seed = std::env::var("UNDERSTUDY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7_u64);
    println!("seed {seed}");
    let mut written = 0;
    for round in 0..rounds() {
        let door = Arc::new(Door { admin: instance.admin });
        let writers: Vec<_> = flags
            .iter()
            .zip(&counters)
            .map(|(flag, counters)| {
                let (door, flag, counters) = (Arc::clone(&door), flag.clone(), Arc::clone(counters));
                tokio::spawn(async move { write(&door, &flag, &counters[0], &counters[1]).await })
            })
            .collect();
        // Any moment within the first changes: xorshift, so that a seed repeats it.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        tokio::time::sleep(Duration::from_micros(seed % 80_000)).await;
        let folder = instance.crash();
        for writer in writers {
            writer.await.unwrap();
        }
        instance = Instance::start_in(folder, &[]).await;
        for (flag, counters) in flags.iter().zip(&counters) {
            let [sent, answered] = [&counters[0], &counters[1]].map(|counter| counter.load(Ordering::SeqCst));
            let (number, percentage) = owner(&instance, flag).await;
            assert!(
                number >= answered,
                "round {round}: {flag} was answered {answered} and is at {number}"
            );
            assert!(
                number <= sent,
                "round {round}: {flag} is at {number}, and only {sent} were sent"
            );
            assert_eq!(
                percentage,
                number % 100,
                "round {round}: half of change {number} of {flag}"
            );
            // What comes next is counted from where it is.
            counters[0].store(number, Ordering::SeqCst);
            counters[1].store(number, Ordering::SeqCst);
            written = written.max(number);
        }
        let chain = instance.admin(Method::GET, "/api/v1/audit/verify", "").await.json();
        assert_eq!(chain["whole"], true, "round {round}: {chain}");
    }
    let records = instance
        .admin(Method::GET, "/api/v1/audit?target=flag:flag-0&limit=1", "")
        .await
        .json();
    let after: &Value = &records["items"][0]["after"];
    assert_eq!(
        after["owner"],
        owner(&instance, "flag-0").await.0.to_string(),
        "the trail tells the same"
    );
    assert!(written > rounds(), "hardly anything was written: {written}");
}
