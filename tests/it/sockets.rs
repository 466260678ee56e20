//! Where clients connect: socket files of the same machine, several listeners at once.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use http::Method;
use tokio::net::UnixStream;

use crate::support::{Backend, Client, Instance, Listener, Nobody, Plan, Reply, Socket, deadline, get, request};

async fn echo() -> Backend {
    Backend::answering(|r| {
        let seen = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-port"].map(|name| r.header(name).to_owned());
        Reply::text(seen.join("|"))
    })
    .await
}

fn listeners(path: &Path) -> String {
    format!(
        "[ {{ address: \"127.0.0.1:0\" }}, {{ address: unix:{}, mode: 600 }} ]",
        path.display()
    )
}

async fn over(path: &Path) -> Client {
    Client::over(UnixStream::connect(path).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_file_serves_beside_the_network_and_invents_no_address() {
    let legacy = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.sock");
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&listeners(&path))
        .start();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = over(&path).await;
    for _ in 0..3 {
        let answer = client.send(request(Method::GET, "/", &[], "")).await;
        assert_eq!((answer.status, answer.text()), (200, "|http|"));
    }
    let network = get(sidecar.address, "/", &[]).await;
    assert_eq!(network.text(), format!("127.0.0.1|http|{}", sidecar.address.port()));
    // Every worker takes from the one queue.
    let mut clients = Vec::new();
    for _ in 0..32 {
        let mut client = over(&path).await;
        assert_eq!(client.send(request(Method::GET, "/", &[], "")).await.status, 200);
        clients.push(client);
    }
    assert!(sidecar.metric("understudy_connections", &[]).await >= 33.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_file_goes_with_the_instance_and_what_is_under_way_on_it_is_finished() {
    let legacy = Listener::open().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.sock");
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&listeners(&path))
        .start();
    let mut client = Socket::over(UnixStream::connect(&path).await.unwrap());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    let stopping = tokio::spawn(sidecar.stop());
    deadline("the socket file to go", || !path.exists()).await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), &*answer.body), (200, &b"done"[..]));
    client.ends().await;
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_file_that_a_dead_process_left_is_replaced_and_a_live_one_is_not() {
    let legacy = echo().await;
    let plan = |path: &Path| {
        Plan::new(&legacy, &Nobody::open())
            .route("flag: false")
            .listeners(&listeners(path))
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let sidecar = plan(&path).start();
    assert_eq!(
        over(&path).await.send(request(Method::GET, "/", &[], "")).await.status,
        200
    );

    for (name, taken) in [
        ("another process listens there", &path),
        ("no socket", &folder.path().join("text")),
    ] {
        if !taken.exists() {
            fs::write(taken, "precious").unwrap();
        }
        let other = tempfile::tempdir().unwrap();
        let config = plan(taken).write(other.path());
        let finished = crate::support::understudy(&["run", "--config", config.to_str().unwrap()], &[]).await;
        assert!(finished.code != 0 && finished.stderr.contains(name), "{finished:?}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("text")).unwrap(), "precious");
    assert_eq!(
        over(&path).await.send(request(Method::GET, "/", &[], "")).await.status,
        200
    );
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_process_in_the_same_place_is_left_alone_at_the_end() {
    let legacy = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.sock");
    let plan = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&listeners(&path));
    let instance = Instance::start(&plan).await;
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    instance.stop().await;
    assert!(path.exists());
    drop(other);
}
