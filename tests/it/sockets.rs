//! Where clients connect: socket files of the same machine, several listeners at once, load balancers that speak the PROXY
//! protocol.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::support::{
    Authority, Backend, Client, Instance, Listener, Located, Nobody, Plan, Reply, Shopper, Sidecar, Socket, deadline,
    eventually, get, pair, request,
};

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

/// In front of `legacy`, on the network and on a socket file.
fn beside(legacy: &impl Located, path: &Path) -> Plan {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&listeners(path))
}

async fn over(path: &Path) -> Client {
    Client::over(UnixStream::connect(path).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_file_serves_beside_the_network_and_invents_no_address() {
    let legacy = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.sock");
    let sidecar = beside(&legacy, &path).start();
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
    let sidecar = beside(&legacy, &path).start();
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
    let plan = beside(&legacy, &path);
    let instance = Instance::start(&plan).await;
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    instance.stop().await;
    assert!(path.exists());
    drop(other);
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\x30\x39\x01\xbb";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n";
const CLIENT_ERRORS: &str = "understudy_client_errors_total";

async fn behind_a_balancer(option: &str, more: &str) -> (Backend, Sidecar) {
    let legacy = echo().await;
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!(
            "[ {{ address: \"127.0.0.1:0\", {more} proxy_protocol: {option} }} ]"
        ))
        .more("limits: { handshake: 500ms }")
        .start();
    (legacy, sidecar)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_of_the_proxy_protocol_names_the_client_and_no_byte_behind_it_is_lost() {
    let (_legacy, sidecar) = behind_a_balancer("true", "").await;
    for header in [V1, V2] {
        // With the request in one piece, byte by byte, and with a pause between.
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let whole = [header, request].concat();
        for pieces in [vec![&whole[..]], whole.chunks(1).collect(), vec![header, request]] {
            let mut client = Socket::connect(sidecar.address).await;
            for piece in pieces {
                client.send(piece).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(client.message().await.body, b"192.0.2.1|http|443");
            client.send(request).await;
            assert_eq!(client.message().await.body, b"192.0.2.1|http|443");
        }
    }
    let mut own = Socket::connect(sidecar.address).await;
    own.send(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let body = format!("127.0.0.1|http|{}", sidecar.address.port());
    assert_eq!(own.message().await.body, body.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_header_of_the_proxy_protocol_nobody_comes_in() {
    let (legacy, sidecar) = behind_a_balancer("true", "").await;
    let forged: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.1\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for bytes in forged {
        let mut client = Socket::connect(sidecar.address).await;
        client.try_send(bytes).await;
        client.ends().await;
    }
    sidecar.wait_for_metric(CLIENT_ERRORS, &["bad_proxy_header"], 3.0).await;
    // Half a header, and none.
    for bytes in [&V1[..20], b""] {
        let mut client = Socket::connect(sidecar.address).await;
        client.send(bytes).await;
        client.ends().await;
    }
    sidecar
        .wait_for_metric(CLIENT_ERRORS, &["proxy_header_timeout"], 2.0)
        .await;
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_load_balancers_are_asked_for_a_header() {
    let (_legacy, sidecar) = behind_a_balancer("[ 10.0.0.0/8 ]", "").await;
    let answer = get(sidecar.address, "/", &[]).await;
    assert_eq!(answer.text(), format!("127.0.0.1|http|{}", sidecar.address.port()));
    let mut forger = Socket::connect(sidecar.address).await;
    forger.send([V1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
    assert_eq!(forger.message().await.status(), 400);
    let (_legacy, sidecar) = behind_a_balancer("[ 10.0.0.0/8, 127.0.0.0/8 ]", "").await;
    let mut client = Socket::connect(sidecar.address).await;
    client.send([V2, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
    assert_eq!(client.message().await.body, b"192.0.2.1|http|443");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_comes_before_tls() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let (_legacy, sidecar) = behind_a_balancer("true", &format!("tls: {{ {tls} }},")).await;
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    stream.write_all(V2).await.unwrap();
    let stream = Shopper::trusting(&authority, &[])
        .over(stream, "shop.example")
        .await
        .unwrap();
    let answer = Client::over(stream)
        .await
        .send(request(Method::GET, "/", &[], ""))
        .await;
    assert_eq!(answer.text(), "192.0.2.1|https|443");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_has_no_more_connections_than_it_may_and_others_are_let_in() {
    let legacy = echo().await;
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners("[ { address: \"127.0.0.1:0\", proxy_protocol: true } ]")
        .more("limits: { connections_per_client: 2 }")
        .start();
    let ask = async |last: u8| {
        let mut client = Socket::connect(sidecar.address).await;
        let header = format!("PROXY TCP4 192.0.2.{last} 198.51.100.1 12345 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(header).await;
        let answer = client.message().await;
        (client, answer)
    };
    let mut open = Vec::new();
    for (last, expected) in [(1, 200), (1, 200), (1, 429), (2, 200), (1, 429)] {
        let (client, answer) = ask(last).await;
        assert_eq!(answer.status(), expected);
        if expected == 429 {
            assert_eq!(
                (answer.header("x-understudy-error"), answer.header("retry-after")),
                ("too_many_connections_of_client", "1")
            );
        } else {
            open.push(client);
        }
    }
    assert_eq!(
        sidecar.metric(CLIENT_ERRORS, &["too_many_connections_of_client"]).await,
        2.0
    );
    drop(open.remove(0));
    eventually("room for another one", async || ask(1).await.1.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_asks_no_more_often_than_it_may_whoever_passes_it_on() {
    let legacy = echo().await;
    let start = |more: &str| {
        Plan::new(&legacy, &Nobody::open())
            .route("flag: false")
            .more(&format!(
                "limits: {{ requests_per_client: 5, connections_per_client: 3 }}\n{more}"
            ))
            .start()
    };
    let sidecar = start("");
    let mut client = Client::connect(sidecar.address).await;
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(client.send(request(Method::POST, "/", &[], "body")).await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(refused.len() > 10 && refused.len() <= 35, "{}", refused.len());
    for answer in &refused {
        assert_eq!(
            (answer.header("x-understudy-error"), answer.header("retry-after")),
            ("too_many_requests", "1")
        );
    }
    assert_eq!(legacy.count(), answers.len() - refused.len());
    #[allow(clippy::cast_precision_loss, reason = "a count of a test")]
    let counted = refused.len() as f64;
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &["too_many_requests"]).await, counted);
    eventually("the next second", async || {
        get(sidecar.address, "/", &[]).await.status == 200
    })
    .await;
    // Behind a proxy that is trusted, each of its clients is counted by itself, and the proxy's connections are not.
    let sidecar = start("trusted_proxies: [ 127.0.0.1 ]");
    let mut open = Vec::new();
    for at in 0..8 {
        let mut proxy = Client::connect(sidecar.address).await;
        for _ in 0..4 {
            let client = format!("192.0.2.{at}");
            let answer = proxy
                .send(request(Method::GET, "/", &[("x-forwarded-for", &client)], ""))
                .await;
            assert_eq!(answer.status, 200);
        }
        open.push(proxy);
    }
}
