//! One run: the instance between its backends, the crowd, the schedule, and what has to hold afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::backend::{Backend, Speaks, Weather};
use crate::client::{self, Crowd};
use crate::flood;
use crate::promise::ROUTES;
use crate::schedule::{self, Event};
use crate::support::{Instance, Plan, eventually};

const CLIENTS: u64 = 24;

/// What the allocator and the page cache of the state file may keep.
const MEMORY_KB: u64 = 48 * 1_024;

const LIMITS: &str = "limits: { header_timeout: 2s, body_idle: 2s, write_timeout: 2s, idle: 4s, connections: 300, \
                      in_flight: 200, drain: 10s }\ncapture: { body: 64KiB, budget: 4MiB }\nserved_by: true\n\
                      logs: { decisions: 0 }";

const ROUTING: &str = "  - name: shadowed\n    match: { path: /shadowed }\n    identity: [ { header: x-shopper-id } ]\n    \
    flag: false\n    dual_run: true\n    shadow: { methods: [GET, HEAD, POST, PUT, DELETE], max_in_flight: 32, timeout: 1s }\n  \
    - name: live\n    match: { path: /live }\n    identity: [ { header: x-shopper-id } ]\n    flag: LIVE\n    \
    failover: { deadline: 2s }\n";

fn features(percent: u64) -> String {
    format!("features:\n  LIVE: {{ type: percentage, enabled: true, percentage: {percent} }}\n")
}

pub fn run(seed: u64, length: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(chaos(seed, length));
    runtime.shutdown_timeout(Duration::from_secs(1));
}

fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

async fn chaos(seed: u64, length: Duration) {
    let (speaks, http) = match seed.is_multiple_of(2) {
        true => (Speaks::Http2, "2"),
        false => (Speaks::Http1, "1"),
    };
    let mut legacy = Backend::start("legacy", Speaks::Http1).await;
    let mut new = Backend::start("new", speaks).await;
    let plan = Plan::new(&legacy, &new)
        .routes(ROUTING)
        .features(&features(50))
        .legacy_more("timeout: 3s, connect_timeout: 2s")
        .new_more(&format!(
            "timeout: 1s, connect_timeout: 500ms, copies: dry_run, http: {http}"
        ))
        .more(LIMITS);
    let mut instance = Instance::start(&plan).await;
    let crowd = Arc::new(Crowd {
        address: instance.address,
        legacy: Arc::clone(&legacy.shared),
        new: Arc::clone(&new.shared),
        ids: AtomicU64::new(seed << 32),
        stop: AtomicBool::new(false),
        wrong: Mutex::default(),
        cut: Mutex::default(),
        tally: Default::default(),
    });
    // The baseline is that of an instance that has worked.
    load(&crowd, seed, Duration::from_secs(1), async |_| ()).await;
    settle(&instance).await;
    let (descriptors_before, memory_before) = (descriptors(instance.id()), memory_kb(instance.id()));

    let begun = Instant::now();
    let events = schedule::events(seed, length);
    crowd.stop.store(false, Relaxed);
    load(&crowd, seed, length, async |floods| {
        for (at, event) in events {
            tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
            apply(event, &mut legacy, &mut new, &instance, floods).await;
        }
    })
    .await;
    legacy.set(Weather::Calm).await;
    new.set(Weather::Calm).await;
    settle(&instance).await;

    let mut wrong = std::mem::take(&mut *crowd.wrong.lock().unwrap());
    for side in [&legacy, &new] {
        wrong.append(&mut side.shared.wrong.lock().unwrap());
        let seen = side.shared.seen.lock().unwrap();
        let cut = crowd.cut.lock().unwrap();
        let completed = cut.iter().filter(|id| seen.contains_key(id));
        wrong.extend(completed.map(|id| format!("{id} was cut, and completed")));
    }
    wrong.extend(acted_twice(&legacy, &new));
    wrong.extend(sums(&instance).await);
    let descriptors_now = descriptors(instance.id());
    if descriptors_now > descriptors_before + 8 {
        wrong.push(format!("{descriptors_before} descriptors became {descriptors_now}"));
    }
    let memory_now = memory_kb(instance.id());
    if memory_now > memory_before + MEMORY_KB {
        wrong.push(format!("{memory_before} KB of memory became {memory_now}"));
    }
    println!(
        "requests {}, promised answers {}, made {}, closed {}, memory {memory_before} -> {memory_now} KB",
        crowd.ids.load(Relaxed) - (seed << 32),
        crowd.tally[0].load(Relaxed),
        crowd.tally[1].load(Relaxed),
        crowd.tally[2].load(Relaxed),
    );
    instance.signal("TERM");
    let ended = instance.ended().await.code();
    if ended != Some(0) {
        wrong.push(format!("ended with {ended:?}"));
    }
    let panics = instance
        .stderr()
        .lines()
        .filter(|line| line.contains("panicked"))
        .count();
    if panics > 0 {
        wrong.push(format!("{panics} panics in the log"));
    }
    legacy.stop();
    new.stop();
    let shown: Vec<_> = wrong.iter().take(40).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), shown.join("\n"));
    assert!(crowd.tally[0].load(Relaxed) > 500, "hardly anything was asked");
}

type Floods = tokio::task::JoinSet<()>;

/// Lets the crowd in for as long as `meanwhile` takes, at least for `length`.
async fn load(crowd: &Arc<Crowd>, seed: u64, length: Duration, meanwhile: impl AsyncFnOnce(&mut Floods)) {
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client::live(Arc::clone(crowd), seed.wrapping_mul(1_000) + number));
    }
    let mut floods = Floods::new();
    meanwhile(&mut floods).await;
    tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
    crowd.stop.store(true, Relaxed);
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    while let Some(done) = floods.join_next().await {
        done.unwrap();
    }
}

async fn apply(event: Event, legacy: &mut Backend, new: &mut Backend, instance: &Instance, floods: &mut Floods) {
    let write = |text: &str| std::fs::write(instance.folder().join("features.yaml"), text).unwrap();
    match event {
        Event::Legacy(weather) => legacy.set(weather).await,
        Event::New(weather) => new.set(weather).await,
        Event::Reload(percent) => write(&features(percent)),
        Event::BrokenReload => write("features:\n  LIVE: { type: percentage, percentage: 101"),
        Event::Hangup => instance.signal("HUP"),
        Event::Kill => assert_eq!(instance.kill("live").await.status, 200),
        Event::Rearm => assert!(matches!(instance.rearm("live").await.status, 200 | 409)),
        Event::Flood(flood) => {
            floods.spawn(flood::run(instance.address, flood));
        }
    }
}

/// Waits until nothing is under way any more, and unused connections to the backends are closed.
async fn settle(instance: &Instance) {
    for gauge in [
        "understudy_connections",
        "understudy_requests_in_flight",
        "understudy_capture_bytes",
    ] {
        instance.wait_for_zero(gauge, &[]).await;
    }
    // Unused connections to the backends are kept for 1.5 s; two looks that agree are the rest.
    let last = std::cell::Cell::new(usize::MAX);
    eventually("descriptors to settle", || async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = descriptors(instance.id());
        last.replace(now) == now
    })
    .await;
}

/// Requests that act and reached both sides live, or one side twice.
fn acted_twice(legacy: &Backend, new: &Backend) -> Vec<String> {
    let (legacy, new) = (legacy.shared.seen.lock().unwrap(), new.shared.seen.lock().unwrap());
    let both = legacy.iter().filter(|(id, times)| {
        let other = new.get(id).map_or(0, |times| times[0]);
        times[0] > 0 && other > 0 && !crate::promise::Promise::new(**id).is_repeatable()
    });
    both.map(|(id, _)| format!("{id} acts, and reached both sides"))
        .collect()
}

/// What the counters say has to add up.
async fn sums(instance: &Instance) -> Vec<String> {
    let mut wrong = Vec::new();
    if instance.metric("understudy_panics_total", &[]).await != 0.0 {
        wrong.push("tasks panicked".to_owned());
    }
    let all = async |name: &str| instance.metric(name, &[]).await;
    let arrived = all("understudy_requests_total").await;
    let served = all("understudy_responses_total").await;
    let refused = all("understudy_answers_made_total").await;
    let left = all("understudy_requests_abandoned_total").await;
    if served + refused + left != arrived || served == 0.0 || refused == 0.0 || left == 0.0 {
        wrong.push(format!(
            "served {served} + refused {refused} + left {left} is not arrived {arrived}"
        ));
    }
    let route = |name: &str| format!("route=\"{name}\"");
    let eligible = instance.metric("routing_assignments_count", &[&route(ROUTES[0])]).await;
    let mirrored = instance.metric("understudy_copies_total", &[&route(ROUTES[0])]).await;
    let shed = instance
        .metric("understudy_copies_skipped_total", &[&route(ROUTES[0])])
        .await;
    if mirrored + shed != eligible || mirrored == 0.0 {
        wrong.push(format!("mirrored {mirrored} + shed {shed} is not eligible {eligible}"));
    }
    let compared = instance.metric("understudy_compared_total", &[&route(ROUTES[0])]).await;
    let not_compared = instance
        .metric("understudy_not_compared_total", &[&route(ROUTES[0])])
        .await;
    if compared + not_compared != mirrored || compared == 0.0 {
        wrong.push(format!(
            "compared {compared} + not compared {not_compared} is not mirrored {mirrored}"
        ));
    }
    wrong
}
