//! The real binary as a child process: what it prints, how it takes signals, how it ends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::{Door, Plan, TOKEN, deadline};

const BINARY: &str = env!("CARGO_BIN_EXE_understudy");

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    // Nothing of the developer's own environment sets a flag.
    command
        .env_clear()
        .envs(env.iter().copied())
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// The binary with a listening socket as its descriptor 3.
pub fn activated(config: &Path, socket: impl Into<OwnedFd>) -> Command {
    let mut command = Command::new("sh");
    // The shell's process becomes the binary's, as LISTEN_PID asks.
    let line = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" run --config \"$1\"";
    command.env_clear().arg("-c").arg(line).arg(BINARY).arg(config);
    command.stdin(Stdio::from(socket.into()));
    command
}

/// Runs a verb to its end.
pub async fn understudy(arguments: &[&str], env: &[(&str, &str)]) -> Finished {
    let mut command = command(arguments, env);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// `understudy run` over the files of a folder.
pub struct Instance {
    child: Child,
    pub address: SocketAddr,
    door: Door,
    lines: Arc<Mutex<Vec<String>>>,
    folder: Option<TempDir>,
}

impl Instance {
    /// Writes a plan's files and runs the binary over them.
    pub async fn start(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        plan.write(folder.path());
        let env: Vec<_> = plan.env.iter().map(|(name, value)| (&**name, &**value)).collect();
        Self::start_in(folder, &env).await
    }

    /// Runs the binary over the files of a folder.
    pub async fn start_in(folder: TempDir, env: &[(&str, &str)]) -> Self {
        let config = folder.path().join("understudy.yaml");
        let command = command(&["run", "--config", config.to_str().unwrap()], env);
        Self::started(command, folder).await
    }

    /// The same under a shell that first runs `before`, such as `ulimit`.
    pub async fn start_under(folder: TempDir, before: &str) -> Self {
        let config = folder.path().join("understudy.yaml");
        let mut command = Command::new("sh");
        let line = format!("{before}; exec \"$0\" run --config \"$1\"");
        command
            .env_clear()
            .arg("-c")
            .arg(line)
            .arg(BINARY)
            .arg(config)
            .stdin(Stdio::null());
        Self::started(command, folder).await
    }

    /// The same where only the plan's `hosts` tells where names are, which [`Instance::hosts`] rewrites. `None` where the
    /// operating system lets nobody have that.
    pub async fn start_among(plan: &Plan, hosts: &str) -> Option<Self> {
        let arguments = [&["--mount"][..], &["--mount", "--map-root-user"]];
        let alone = arguments.into_iter().find(|arguments| {
            let try_it = ["mount", "--bind", "/etc/hosts", "/etc/hosts"];
            let tried = Command::new("unshare").args(*arguments).args(try_it).output();
            tried.is_ok_and(|tried| tried.status.success())
        })?;
        let folder = tempfile::tempdir().unwrap();
        let config = plan.write(folder.path());
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let hosts = file("hosts", hosts);
        // An address of documentation: nobody answers there.
        let servers = file("resolv.conf", "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n");
        let line = "mount --bind \"$2\" /etc/hosts; [ ! -e /etc/resolv.conf ] || mount --bind \"$3\" /etc/resolv.conf; \
                    exec \"$0\" run --config \"$1\"";
        let mut command = Command::new("unshare");
        command.env_clear().args(alone).args(["sh", "-c", line, BINARY]);
        command.args([config, hosts, servers]).stdin(Stdio::null());
        Some(Self::started(command, folder).await)
    }

    /// Rewrites what [`Instance::start_among`] was given.
    pub fn hosts(&self, hosts: &str) {
        // In its place: another file would not be seen.
        std::fs::write(self.folder().join("hosts"), hosts).unwrap();
    }

    /// Runs the binary once more over the same files, to take this one's place.
    pub async fn replaced(&mut self) -> Self {
        let folder = self.folder.take().unwrap();
        let config = folder.path().join("understudy.yaml");
        Self::started(command(&["run", "--config", config.to_str().unwrap()], &[]), folder).await
    }

    /// Runs the binary as systemd does for a socket unit: with a listening socket as its descriptor 3.
    pub async fn activated(folder: TempDir, socket: impl Into<OwnedFd>, env: &[(&str, &str)]) -> Self {
        let config = folder.path().join("understudy.yaml");
        let mut command = activated(&config, socket);
        command.envs(env.iter().copied());
        Self::started(command, folder).await
    }

    async fn started(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                kept.lock().unwrap().push(line.unwrap());
            }
        });
        let unknown: SocketAddr = ([127, 0, 0, 1], 0).into();
        let door = Door { admin: unknown };
        let mut instance = Self {
            child,
            address: unknown,
            door,
            lines,
            folder: Some(folder),
        };
        let serves = instance
            .wait_for_log("the instance to serve", |line| line["message"] == "understudy serves")
            .await;
        let first = serves["listeners"].as_str().unwrap().split(", ").next().unwrap();
        instance.address = first.parse().unwrap();
        instance.door.admin = serves["admin"].as_str().unwrap().parse().unwrap();
        instance
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// Everything that was logged so far.
    pub fn logs(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The same as it stood on standard error.
    pub fn stderr(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The first logged line that fits, waited for.
    pub async fn wait_for_log(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        deadline(&format!("{what}, and there is only:\n{}", self.stderr()), || {
            found = self.logs().into_iter().find(&fits);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Runs a verb against this instance.
    pub async fn ask(&self, arguments: &[&str]) -> Finished {
        let admin = format!("http://{}", self.admin);
        understudy(arguments, &[("UNDERSTUDY_ADMIN", &admin), ("UNDERSTUDY_TOKEN", TOKEN)]).await
    }

    /// Sends a signal, by its short name.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(line).status().unwrap().success());
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let child = &mut self.child;
        deadline("the process to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Ends it without a warning, as a crash does; what it wrote to the disk stays.
    pub fn crash(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.take().unwrap()
    }

    /// Ends it in an orderly way; its files stay.
    pub async fn stop(mut self) -> TempDir {
        self.signal("TERM");
        assert_eq!(self.ended().await.code(), Some(0), "{}", self.stderr());
        self.folder.take().unwrap()
    }
}

impl Deref for Instance {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
