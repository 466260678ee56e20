//! Clients that others wrote: what curl, nghttp, h2load and gRPC ask for, they get. `tests/run` installs them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Authority, Backend, Finished, Located, Nobody, Plan, Received, Reply, Sidecar, pair};

/// Whether a program is there. What a passing test prints is swallowed, and a skipped check must be seen.
fn is_there(program: &Path, arguments: &[&str]) -> bool {
    let tried = Command::new(program).args(arguments).output();
    let there = tried.is_ok_and(|output| output.status.success());
    if !there {
        let told = format!(
            "\nSKIPPED: {} does not run, so nothing is asked with it\n",
            program.display()
        );
        std::io::stderr().write_all(told.as_bytes()).unwrap();
    }
    there
}

async fn run(program: impl Into<PathBuf>, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program.into());
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Answers as a server of files would.
fn file(asked: &Received) -> Reply {
    let text = "0123456789";
    let reply = match (
        asked.target.as_str(),
        asked.header("range"),
        asked.header("if-none-match"),
    ) {
        ("/nothing", ..) => return Reply::status(204),
        ("/echo", ..) => Reply::text(asked.body.clone()),
        (_, "bytes=2-5", _) => Reply {
            status: 206,
            ..Reply::text(&text[2..6]).header("content-range", "bytes 2-5/10")
        },
        (.., "\"1\"") => Reply::status(304),
        _ => Reply::text(text),
    };
    reply.header("etag", "\"1\"").header("accept-ranges", "bytes")
}

/// Both ways in, and what a client has to know for the second.
struct Doors {
    sidecar: Sidecar,
    legacy: Backend,
    clear: SocketAddr,
    files: tempfile::TempDir,
    tls: SocketAddr,
}

impl Doors {
    async fn open() -> Self {
        let (legacy, authority) = (Backend::answering(file).await, Authority::new());
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
        let sidecar = Plan::new(&legacy, &Nobody::open())
            .route("flag: false")
            // Hundreds at once may take their time on a busy machine.
            .legacy_more("timeout: 20s, connect_timeout: 20s")
            .listeners(&format!(
                "[ {{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"
            ))
            .start();
        let [clear, tls] = sidecar.addresses()[..] else {
            panic!("two listeners")
        };
        Self {
            sidecar,
            legacy,
            clear,
            files,
            tls,
        }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }
}

/// One request with curl: the version and the status, and what else it wrote.
async fn curl(doors: &Doors, way: &[&str], path: &str, more: &[&str]) -> (String, Finished) {
    let over_tls = way.contains(&"--cacert");
    let port = if over_tls { doors.tls.port() } else { doors.clear.port() };
    let resolve = format!("shop.example:{port}:127.0.0.1");
    let scheme = if over_tls { "https" } else { "http" };
    let url = format!("{scheme}://shop.example:{port}{path}");
    let body = doors.path("body");
    let fixed = ["-sS", "-v", "--max-time", "20", "--resolve", &resolve, "-o", &body];
    let told = ["-w", "%{http_version} %{http_code}"];
    let arguments = [&fixed[..], &told, way, more, &[&url]].concat();
    let done = run("curl", &arguments).await;
    assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
    (done.stdout.clone(), done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_what_it_asks_for_in_every_version_with_tls_and_without() {
    if !is_there(Path::new("curl"), &["--version"]) {
        return;
    }
    let doors = Doors::open().await;
    let ca = doors.path("ca.pem");
    let ways: [(&str, Vec<&str>); 6] = [
        ("1.1", vec!["--http1.1"]),
        ("2", vec!["--http2-prior-knowledge"]),
        // It asks for an upgrade, which nobody has to grant.
        ("1.1", vec!["--http2"]),
        ("1.1", vec!["--http1.1", "--cacert", &ca]),
        ("2", vec!["--http2", "--cacert", &ca]),
        ("2", vec!["--http2", "--tls-max", "1.2", "--cacert", &ca]),
    ];
    let upload = doors.path("upload");
    std::fs::write(&upload, vec![b'u'; 300_000]).unwrap();
    let posted = format!("@{upload}");
    for (version, way) in &ways {
        let body = || std::fs::read(doors.path("body")).unwrap_or_default();
        let told = |status: u16| format!("{version} {status}");
        let (said, _) = curl(&doors, way, "/", &[]).await;
        assert_eq!((said, &*body()), (told(200), &b"0123456789"[..]), "{way:?}");
        let (said, _) = curl(&doors, way, "/", &["-r", "2-5"]).await;
        assert_eq!((said, &*body()), (told(206), &b"2345"[..]), "{way:?}");
        let (said, done) = curl(&doors, way, "/", &["-I"]).await;
        assert_eq!(said, told(200), "{way:?}");
        assert!(
            done.stderr.to_lowercase().contains("< content-length: 10"),
            "{way:?}: {}",
            done.stderr
        );
        for (path, more, status) in [
            ("/nothing", &[][..], 204),
            ("/", &["-H", "If-None-Match: \"1\""], 304),
            ("/", &["-X", "DELETE"], 200),
            ("/", &["-X", "TRACE"], 405),
        ] {
            let (said, _) = curl(&doors, way, path, more).await;
            assert_eq!(said, told(status), "{way:?} {path} {more:?}");
        }
        let (said, _) = curl(&doors, way, "/echo", &["--data-binary", &posted]).await;
        assert_eq!((said, body().len()), (told(200), 300_000), "{way:?}");
        let expects = [
            "--data-binary",
            &posted,
            "-H",
            "Expect: 100-continue",
            "-H",
            "Transfer-Encoding:",
        ];
        let (said, done) = curl(&doors, way, "/echo", &expects).await;
        assert_eq!((said, body().len()), (told(200), 300_000), "{way:?}");
        if *version == "1.1" {
            assert!(
                done.stderr.contains("< HTTP/1.1 100 Continue"),
                "{way:?}: {}",
                done.stderr
            );
        }
    }
    for received in doors.legacy.received() {
        assert!(!received.headers.contains_key("upgrade") && !received.headers.contains_key("http2-settings"));
    }
    assert_eq!(doors.sidecar.metric("understudy_client_errors_total", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_has_a_hundred_streams_answered_on_one_connection() {
    if !is_there(Path::new("nghttp"), &["--version"]) {
        return;
    }
    let doors = Doors::open().await;
    let (legacy, sidecar) = (&doors.legacy, &doors.sidecar);
    let url = format!("http://{}/", doors.clear);
    for more in [
        &["--no-dep"][..],
        &["--window-bits=10"],
        &["--continuation"],
        &["--padding=100"],
    ] {
        let arguments = [&["-ns", "-m", "100"], more, &[&url]].concat();
        let done = run("nghttp", &arguments).await;
        let answered = done.stdout.lines().filter(|line| line.contains(" 200 ")).count();
        assert_eq!((done.code, answered), (0, 100), "{more:?}: {done:?}");
    }
    assert_eq!(legacy.count(), 400);
    assert_eq!(sidecar.metric("understudy_connections_accepted_total", &[]).await, 4.0);
    assert_eq!(sidecar.metric("understudy_client_errors_total", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_has_thousands_of_streams_answered() {
    if !is_there(Path::new("h2load"), &["--version"]) {
        return;
    }
    let doors = Doors::open().await;
    let (clear, over_tls) = (
        format!("http://{}/", doors.clear),
        format!("https://{}/echo", doors.tls),
    );
    let upload = doors.path("upload");
    std::fs::write(&upload, vec![b'u'; 20_000]).unwrap();
    let many = ["-n", "3000", "-c", "10", "-m", "50"];
    for more in [&[&*clear][..], &["-d", &upload, &over_tls], &["--h1", &clear]] {
        let done = run("h2load", &[&many[..], more].concat()).await;
        let all = "3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(
            done.code == 0 && done.stdout.contains(all) && done.stdout.contains("status codes: 3000 2xx"),
            "{more:?}: {done:?}"
        );
    }
    assert_eq!(doors.legacy.count(), 9_000);
    assert_eq!(doors.sidecar.metric("understudy_client_errors_total", &[]).await, 0.0);
}

/// Where `tests/run` puts a Python with gRPC: beside what is built.
fn python() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_understudy"));
    built.ancestors().nth(2).unwrap().join("venv/bin/python")
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/calls.py");

/// A gRPC server in Python.
struct Grpc {
    child: Child,
    address: SocketAddr,
}

impl Located for Grpc {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Grpc {
    fn start() -> Self {
        let mut command = Command::new(python());
        command
            .args([SCRIPT, "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let port: u16 = port.trim().parse().unwrap();
        Self {
            child,
            address: ([127, 0, 0, 1], port).into(),
        }
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_passes_with_its_streams_and_its_trailers() {
    if !is_there(&python(), &["-c", "import grpc"]) {
        return;
    }
    let (server, authority) = (Grpc::start(), Authority::new());
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = Plan::new(&server, &Nobody::open())
        .route("flag: false")
        .legacy_more("http: 2, timeout: 20s")
        .listeners(&format!(
            "[ {{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"
        ))
        .start();
    let [clear, over_tls] = sidecar.addresses()[..] else {
        panic!("two listeners")
    };
    for (address, ca) in [(clear, "-"), (over_tls, ca.to_str().unwrap())] {
        let done = run(python(), &[SCRIPT, "ask", &address.to_string(), ca]).await;
        assert_eq!((done.code, done.stdout.trim()), (0, "ok"), "{ca}: {}", done.stderr);
    }
    assert_eq!(sidecar.metric("understudy_client_errors_total", &[]).await, 0.0);
    assert_eq!(sidecar.metric("understudy_answers_made_total", &[]).await, 0.0);
}
