//! A new process takes the place of a running one under load: over the hand-over socket, and by sockets that a service
//! manager keeps. Not one request fails, and no kill is forgotten.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::http2::{self, Client2};
use crate::support::process::activated;
use crate::support::{
    Authority, Backend, Client, Instance, Listener, Nobody, Plan, Shopper, Socket, deadline, echo, eventually, get,
    pair, request, understudy,
};

const LIVE: &str = "flag: NEW_SHOP\n";
const FEATURES: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";

fn handover(folder: &Path) -> PathBuf {
    folder.join("handover.sock")
}

/// A folder with the files of a plan, a hand-over socket among them.
fn written(plan: Plan) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let more = format!(
        "handover: {{ socket: {} }}\n{}",
        handover(folder.path()).display(),
        plan.more
    );
    plan.more(&more).write(folder.path());
    folder
}

fn edit(folder: &Path, from: &str, to: &str) {
    let config = folder.join("understudy.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(config, text.replace(from, to)).unwrap();
}

/// Clients that never stop asking; half of them with a new connection each time.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

/// One client's part in it.
struct Share {
    at: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Share {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Load {
    fn none() -> Self {
        Self {
            stop: Arc::default(),
            done: Arc::default(),
            clients: Vec::new(),
        }
    }

    fn add<F: Future<Output = ()> + Send + 'static>(&mut self, client: impl FnOnce(Share) -> F) {
        let share = Share {
            at: self.clients.len(),
            stop: Arc::clone(&self.stop),
            done: Arc::clone(&self.done),
        };
        self.clients.push(tokio::spawn(client(share)));
    }

    fn begin(address: SocketAddr, clients: usize) -> Self {
        let mut load = Self::none();
        for _ in 0..clients {
            load.add(|share| async move {
                let mut kept = Client::connect(address).await;
                while !share.is_over() {
                    let body = format!("body of {}", share.at);
                    let answer = kept.try_send(request(Method::POST, "/", &[], body.clone())).await;
                    let answer = answer.unwrap_or_else(|error| panic!("a request failed: {error}"));
                    assert_eq!((answer.status, answer.text()), (200, &*body));
                    share.done.fetch_add(1, Ordering::Relaxed);
                    // Whoever is told that this was the last answer of a connection opens another one.
                    if share.at.is_multiple_of(2) || answer.header("connection") == "close" {
                        kept = Client::connect(address).await;
                    }
                }
            });
        }
        load
    }

    async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        deadline("the load to go on", || self.done.load(Ordering::Relaxed) > before + 200).await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_upgrades_under_load_fail_no_request() {
    let legacy = echo().await;
    let plan = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .more("limits: { drain: 10s }");
    let folder = written(plan);
    let mut running = Instance::start_in(folder, &[]).await;
    let (address, admin) = (running.address, running.admin);
    let load = Load::begin(address, 8);
    load.goes_on().await;
    // Fewer workers than sockets, then more.
    for (from, to) in [("workers: 2", "workers: 1"), ("workers: 1", "workers: 3")] {
        edit(running.folder(), from, to);
        let next = running.replaced().await;
        assert_eq!((next.address, next.admin), (address, admin), "the same sockets");
        load.goes_on().await;
        assert_eq!(running.ended().await.code(), Some(0), "{}", running.stderr());
        load.goes_on().await;
        running = next;
    }
    // What counts now is counted by the third process alone.
    running
        .wait_for_metric("understudy_connections_accepted_total", &[], 1.0)
        .await;
    let asked = load.end().await;
    assert_eq!(legacy.count(), asked, "each request reached legacy once");
    running.stop().await;
}

/// Who asks again and again over HTTP/2, in the clear or over TLS; half of them on a new connection each time.
async fn streams(load: Share, address: SocketAddr, shopper: Option<Shopper>) {
    let connect = async || match &shopper {
        None => Client2::connect(address).await,
        Some(shopper) => {
            let stream = shopper.connect(address, "shop.example").await.unwrap();
            Client2::over(stream, &h2::client::Builder::new()).await
        }
    };
    let mut kept = connect().await;
    while !load.is_over() {
        let body = format!("body of {}", load.at);
        let answer = kept.send(http2::request("POST", "/", &[], body.clone())).await;
        match answer {
            Ok(answer) => {
                assert_eq!((answer.status, answer.text()), (200, &*body));
                load.done.fetch_add(1, Ordering::Relaxed);
            }
            // Said to have been looked at by nobody (RFC 9113 section 6.8).
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {}
            Err(error) => panic!("a request failed: {error}"),
        }
        if load.at.is_multiple_of(2) || !kept.is_open().await {
            kept = connect().await;
        }
    }
}

/// The same over HTTP/1.1 and TLS.
async fn secured(load: Share, address: SocketAddr, shopper: Shopper) {
    let connect = async || Client::over(shopper.connect(address, "shop.example").await.unwrap()).await;
    let mut kept = connect().await;
    while !load.is_over() {
        let body = format!("body of {}", load.at);
        let answer = kept.try_send(request(Method::POST, "/", &[], body.clone())).await;
        let answer = answer.unwrap_or_else(|error| panic!("a request failed: {error}"));
        assert_eq!((answer.status, answer.text()), (200, &*body));
        load.done.fetch_add(1, Ordering::Relaxed);
        if load.at.is_multiple_of(2) || answer.header("connection") == "close" {
            kept = connect().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_upgrades_under_tls_and_http_2_fail_no_request() {
    let (legacy, authority) = (echo().await, Authority::new());
    let files = tempfile::tempdir().unwrap();
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let plan = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!(
            "[ {{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"
        ))
        .more("limits: { drain: 10s }");
    let mut running = Instance::start_in(written(plan), &[]).await;
    let serves = running
        .wait_for_log("the addresses", |line| line["message"] == "understudy serves")
        .await;
    let listeners: Vec<SocketAddr> = serves["listeners"]
        .as_str()
        .unwrap()
        .split(", ")
        .map(|listener| listener.parse().unwrap())
        .collect();
    let [clear, over_tls] = listeners[..] else {
        panic!("{listeners:?}")
    };
    let mut load = Load::none();
    for _ in 0..3 {
        load.add(|share| streams(share, clear, None));
        load.add(|share| streams(share, over_tls, Some(Shopper::trusting(&authority, &["h2"]))));
        load.add(|share| secured(share, over_tls, Shopper::trusting(&authority, &["http/1.1"])));
    }
    load.goes_on().await;
    for (from, to) in [("workers: 2", "workers: 1"), ("workers: 1", "workers: 3")] {
        edit(running.folder(), from, to);
        let next = running.replaced().await;
        load.goes_on().await;
        assert_eq!(running.ended().await.code(), Some(0), "{}", running.stderr());
        load.goes_on().await;
        running = next;
    }
    let asked = load.end().await;
    assert_eq!(legacy.count(), asked, "each request reached legacy once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_carries_socket_files_along_and_they_go_with_the_last_process() {
    let legacy = echo().await;
    let sockets = tempfile::tempdir().unwrap();
    let path = sockets.path().join("clients.sock");
    let listeners = format!(
        "[ {{ address: \"127.0.0.1:0\" }}, {{ address: unix:{} }} ]",
        path.display()
    );
    let folder = written(
        Plan::new(&legacy, &Nobody::open())
            .route("flag: false")
            .listeners(&listeners),
    );
    let mut running = Instance::start_in(folder, &[]).await;
    let ask = async || {
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        Client::over(stream)
            .await
            .send(request(Method::GET, "/", &[], ""))
            .await
            .status
    };
    assert_eq!(ask().await, 200);
    let mut next = running.replaced().await;
    assert_eq!(running.ended().await.code(), Some(0), "{}", running.stderr());
    assert_eq!(ask().await, 200);
    let files = handover(next.folder());
    let last = next.replaced().await;
    assert_eq!(next.ended().await.code(), Some(0), "{}", next.stderr());
    assert_eq!(ask().await, 200);
    let folder = last.stop().await;
    assert!(!path.exists() && !files.exists());
    drop(folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_at_an_upgrade_is_finished_and_idle_connections_get_one_more_answer() {
    let legacy = Listener::open().await;
    let plan = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .more("limits: { drain: 8s }");
    let mut running = Instance::start_in(written(plan), &[]).await;
    let mut idle = Socket::connect(running.address).await;
    idle.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(idle.message().await.status(), 200);
    let mut busy = Socket::connect(running.address).await;
    busy.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut slow = legacy.accept().await;
    slow.message().await;
    let next = running.replaced().await;
    // The old process hears a moment later that it has been replaced, and then says so with its next answer.
    let mut said = String::new();
    for _ in 0..2_000 {
        idle.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        backend
            .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
        let answer = idle.message().await;
        assert_eq!(answer.status(), 200);
        said = answer.header("connection").to_owned();
        if said == "close" {
            break;
        }
    }
    assert_eq!(said, "close");
    idle.ends().await;
    slow.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(busy.message().await.body, b"done");
    // One that says nothing more is closed in the end.
    assert_eq!(running.ended().await.code(), Some(0), "{}", running.stderr());
    drop(next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_hold_in_both_processes_whoever_was_told() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(FEATURES)
        .more("limits: { drain: 8s }");
    let mut running = Instance::start_in(written(plan), &[]).await;
    let ask = async |client: &mut Client| {
        client
            .send(request(Method::GET, "/", &[("x-shopper-id", "anna")], ""))
            .await
    };
    let mut old = Client::connect(running.address).await;
    assert_eq!(ask(&mut old).await.text(), "new");
    let next = running.replaced().await;
    // The old process still has this connection. The kill is told to the new one.
    let killed = next.kill("shop").await;
    assert_eq!((killed.status, killed.json()["stored"].as_bool()), (200, Some(true)));
    running
        .wait_for_log("the end of the old process's accepting", |line| {
            line["message"] == "draining"
        })
        .await;
    let mut fresh = Client::connect(next.address).await;
    assert_eq!(ask(&mut fresh).await.text(), "legacy");
    assert_eq!(ask(&mut old).await.text(), "legacy");
    assert_eq!(running.ended().await.code(), Some(0), "{}", running.stderr());
    // It survives a crash of the new one.
    let folder = next.crash();
    let again = Instance::start_in(folder, &[]).await;
    assert_eq!(
        get(again.address, "/", &[("x-shopper-id", "anna")]).await.text(),
        "legacy"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_before_an_upgrade_holds_after_it() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let plan = Plan::new(&legacy, &new).route(LIVE).features(FEATURES);
    let mut running = Instance::start_in(written(plan), &[]).await;
    assert_eq!(running.kill("shop").await.status, 200);
    let next = running.replaced().await;
    for _ in 0..20 {
        assert_eq!(
            get(next.address, "/", &[("x-shopper-id", "anna")]).await.text(),
            "legacy"
        );
    }
    assert_eq!(running.ended().await.code(), Some(0), "{}", running.stderr());
    assert_eq!(
        next.rearm("shop").await.status,
        200,
        "the state is the new one's to write"
    );
    assert_eq!(get(next.address, "/", &[("x-shopper-id", "anna")]).await.text(), "new");
}

fn frame(kind: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn kind_of_next(stream: &mut UnixStream) -> u8 {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut text = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut text).unwrap();
    head[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_fails_leaves_everything_as_it_was() {
    let legacy = echo().await;
    let folder = written(Plan::new(&legacy, &Nobody::open()).route("flag: false"));
    let running = Instance::start_in(folder, &[]).await;
    let load = Load::begin(running.address, 4);
    let config = running.folder().join("understudy.yaml");
    let good = std::fs::read_to_string(&config).unwrap();
    let run = async || understudy(&["run", "--config", config.to_str().unwrap()], &[]).await;
    // One that cannot be started, and one that cannot have all that it asks for.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(&config, "listeners: [").unwrap();
    assert_eq!(run().await.code, 2);
    let both = format!("listeners: [ {{ address: \"{}\" }}, ", taken.local_addr().unwrap());
    std::fs::write(&config, good.replace("listeners: [ ", &both)).unwrap();
    let finished = run().await;
    assert!(
        finished.code == 1 && finished.stderr.contains("cannot listen on"),
        "{finished:?}"
    );
    std::fs::write(&config, &good).unwrap();
    load.goes_on().await;
    // Ones that end in the middle: before they have the sockets, before and after they have the state.
    for turns in 0..4 {
        let mut stream = UnixStream::connect(handover(running.folder())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if turns > 0 {
            stream.write_all(&frame(0, "1")).unwrap();
            while kind_of_next(&mut stream) != 2 {}
        }
        if turns > 1 {
            stream.write_all(&frame(3, "")).unwrap();
        }
        if turns > 2 {
            assert_eq!(kind_of_next(&mut stream), 4);
        }
        let failures = running.logs().iter().filter(|line| came_to_nothing(line)).count();
        drop(stream);
        deadline("the running one to notice", || {
            running.logs().iter().filter(|line| came_to_nothing(line)).count() > failures
        })
        .await;
        // It has its state again: what is acknowledged is stored.
        let killed = running.kill("shop").await;
        assert_eq!(
            (killed.status, killed.json()["stored"].as_bool()),
            (200, Some(true)),
            "after {turns} turns"
        );
        assert_eq!(running.rearm("shop").await.status, 200, "after {turns} turns");
        load.goes_on().await;
    }
    // Strangers, and another version.
    let mut stranger = UnixStream::connect(handover(running.folder())).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut later = UnixStream::connect(handover(running.folder())).unwrap();
    later.write_all(&frame(0, "2")).unwrap();
    assert_eq!(kind_of_next(&mut later), 7);
    load.goes_on().await;
    assert!(load.end().await > 0);
    running.stop().await;
}

fn came_to_nothing(line: &serde_json::Value) -> bool {
    line["message"]
        .as_str()
        .unwrap()
        .starts_with("a hand-over came to nothing")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_a_service_manager_keeps_lose_nothing_over_a_restart() {
    let legacy = echo().await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listeners = format!("[ {{ address: \"{address}\" }} ]");
    let folder = tempfile::tempdir().unwrap();
    Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&listeners)
        .write(folder.path());
    let manager = tempfile::tempdir().unwrap();
    let notify = manager.path().join("notify.sock");
    let told = UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let length = told.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let env = [("NOTIFY_SOCKET", notify.to_str().unwrap())];
    let first = Instance::activated(folder, socket.try_clone().unwrap(), &env).await;
    assert_eq!(first.address, address);
    let ready = hear();
    assert!(
        ready.contains("READY=1") && ready.contains(&format!("MAINPID={}", first.id())),
        "{ready}"
    );
    assert_eq!(get(address, "/", &[]).await.status, 200);
    let folder = first.stop().await;
    assert!(hear().contains("STOPPING=1"));
    // Nobody accepts now, and the queue is there.
    let waiting: Vec<_> = (0..16)
        .map(|_| tokio::spawn(async move { get(address, "/", &[]).await.status }))
        .collect();
    let second = Instance::activated(folder, socket.try_clone().unwrap(), &env).await;
    for one in waiting {
        assert_eq!(one.await.unwrap(), 200);
    }
    // Every worker takes from the one socket.
    eventually("connections at both workers", async || {
        get(address, "/", &[]).await.status == 200
    })
    .await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_no_listener_is_for_is_refused_at_the_start() {
    let legacy = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .write(folder.path());
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut command = activated(&config, socket);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(&address), "{said}");
}
