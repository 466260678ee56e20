//! Point 15, the two doors: what is the operators' is not on the clients' port, and no page is open to other pages.

use crate::recorder::Recorder;
use crate::support::{Backend, Door, Instance, Nobody, Plan, Socket, TOKEN, get};

fn host(door: &Door) -> String {
    door.admin.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_paths_on_the_traffic_port_belong_to_the_backend() {
    let legacy = Recorder::open().await;
    let instance = Instance::start(&Plan::new(&legacy, &Nobody::open()).route("flag: false")).await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/kill", "/"] {
        let mut client = Socket::connect(instance.address).await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            ))
            .await;
        assert_eq!(client.message().await.status(), 200);
        let got = legacy.wait_for(path).await;
        assert_eq!(
            got.header("authorization"),
            format!("Bearer {TOKEN}"),
            "it is the backend's, whatever it looks like"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_health_and_metrics_opens_without_a_token_and_no_answer_lets_other_pages_read_it() {
    let legacy = Backend::saying("legacy").await;
    let instance = Instance::start(&Plan::new(&legacy, &Nobody::open()).route("flag: false")).await;
    let paths = [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 401),
        ("/api/v1/status", 401),
        ("/api/v1/divergences", 401),
        ("/api/v1/nonsense", 401),
        ("/api/v1/../../healthz", 401),
        ("/healthz/", 401),
        ("//healthz", 401),
        ("/healthz/../api/v1/status", 401),
        ("/%68ealthz", 401),
        ("/openapi.json", 401),
        ("/favicon.ico", 401),
    ];
    for (path, status) in paths {
        let headers = [("host", &*host(&instance)), ("origin", "https://evil.example")];
        let answer = get(instance.admin, path, &headers).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(
            !answer
                .headers
                .keys()
                .any(|name| name.as_str().starts_with("access-control-")),
            "{path}"
        );
        if answer.header("content-type").starts_with("text/html") {
            assert!(!answer.header("content-security-policy").is_empty(), "{path}");
        }
    }
    // A token in a URL is none.
    for path in [
        format!("/api/v1/status?token={TOKEN}"),
        format!("/api/v1/status?access_token={TOKEN}"),
    ] {
        let answer = get(instance.admin, &path, &[("host", &host(&instance))]).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    assert!(!instance.stderr().contains(TOKEN), "a token was logged");
}
