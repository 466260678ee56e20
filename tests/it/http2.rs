//! Clients over HTTP/2: agreed on by TLS or known beforehand, and served as others are. What they may not do is in the
//! conformance suite.

use crate::support::http2::{Client2, request};
use crate::support::{Authority, Nobody, Plan, Shopper, echo, get, limited, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_served_beside_http_1_on_one_port() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let answer = client.send(request("GET", "/a?b", &[], "")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, ""));
    let large = vec![b'x'; 300_000];
    let answer = client.send(request("POST", "/c", &[], large.clone())).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, large.len()));
    assert_eq!(get(sidecar.address, "/d", &[]).await.status, 200);
    let received = legacy.received();
    assert_eq!(received[0].header("host"), "shop.example:81");
    assert_eq!(received[1].body, large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_agreed_on_by_tls() {
    let (legacy, authority, files) = (echo().await, Authority::new(), tempfile::tempdir().unwrap());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!("[ {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"))
        .start();
    let shopper = Shopper::trusting(&authority, &["http/1.1", "h2"]);
    let stream = shopper.connect(sidecar.address, "shop.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Client2::over(stream, &h2::client::Builder::new()).await;
    for body in ["one", "two"] {
        let answer = client.send(request("POST", "/", &[], body)).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, body));
    }
    assert_eq!(legacy.received()[0].header("x-forwarded-proto"), "https");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crumbs_of_a_cookie_reach_the_backend_as_one() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let mut crumbs = request("GET", "/", &[], "");
    for crumb in ["a=1", "b=2", "c=3"] {
        crumbs.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    assert_eq!(client.send(crumbs).await.unwrap().status, 200);
    let received = legacy.received();
    let cookies: Vec<_> = received[0].headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}
