//! Point 6, bodies: byte for byte, both ways and to both backends, and never completed when they were cut.

use std::time::Duration;

use crate::recorder::Recorder;
use crate::scripted::cut_answers;
use crate::strict::{self, Kind};
use crate::support::{Nobody, Plan, Socket, deadline};
use crate::table::Dice;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| u8::try_from(dice.below(256)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_body_says_of_itself_it_passes_byte_for_byte_to_both_and_back() {
    let kinds = [
        ("text/plain", ""),
        ("application/json", ""),
        ("application/json", "gzip"),
        ("application/json", "br"),
        ("application/x-www-form-urlencoded", ""),
        ("multipart/form-data; boundary=x", "deflate"),
        ("application/octet-stream", "identity"),
        ("nonsense", "zstd, gzip"),
        ("", ""),
    ];
    // The identity is in the body, so every body is captured, whether it can be read or not.
    let routes = "  - name: shop\n    match: { path: / }\n    identity: [ { json: /from }, { form: from } ]\n    \
                  flag: CHECKOUT\n    shadow: { flag: true, methods: [POST] }\n";
    for routes in [
        routes,
        "  - { name: shop, match: { path: / }, shadow: { flag: true, methods: [POST] } }\n",
    ] {
        let (legacy, new) = (Recorder::open().await, Recorder::open().await);
        let sidecar = Plan::new(&legacy, &new).routes(routes).start();
        for (at, (kind, encoding)) in kinds.iter().enumerate() {
            for (len, chunked) in [(0, false), (1, false), (70_001, false), (1, true), (70_001, true)] {
                let body = noise(at as u64, len);
                let target = format!("/{at}/{len}/{chunked}");
                let mut request = format!(
                    "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Encoding: {encoding}\r\n"
                )
                .into_bytes();
                if chunked {
                    request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for part in body.chunks(9_999) {
                        request.extend(format!("{:x}\r\n", part.len()).bytes());
                        request.extend(part);
                        request.extend(b"\r\n");
                    }
                    request.extend(b"0\r\n\r\n");
                } else {
                    request.extend(format!("Content-Length: {len}\r\n\r\n").bytes());
                    request.extend(&body);
                }
                let mut client = Socket::connect(sidecar.address).await;
                client.send(request).await;
                assert_eq!(client.message().await.body, body, "back: {target} {kind} {encoding}");
                for got in [legacy.wait_for(&target).await, new.wait_for(&target).await] {
                    assert_eq!(got.body, body, "{target} {kind} {encoding}");
                    assert_eq!(
                        (got.header("content-type"), got.header("content-encoding")),
                        ((*kind).into(), (*encoding).into())
                    );
                }
            }
        }
        assert_eq!((legacy.errors(), new.errors()), (vec![], vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cut_anywhere_is_completed_nowhere() {
    let (legacy, new) = (Recorder::open().await, Recorder::open().await);
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: false\nshadow: { flag: true, methods: [POST] }")
        .start();
    let whole = [
        "POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n0123456789012345678901234567890",
        "POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
    ];
    let mut cut = 0_usize;
    for whole in whole {
        let whole = &whole.as_bytes()[..whole.len() - 2];
        let body_at = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let end = if whole.ends_with(b"9") {
            body_at + 29
        } else {
            whole.len()
        };
        for at in body_at..=end.min(whole.len()) {
            for reset in [false, true] {
                let mut client = Socket::connect(sidecar.address).await;
                client.send(&whole[..at.min(body_at + 29 + whole.len())]).await;
                if reset {
                    // What was written has to arrive before the reset does.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    client.reset();
                } else {
                    client.finish().await;
                    let answer = client.try_head().await;
                    assert!(answer.is_none_or(|answer| answer.status() == 400), "{at}");
                }
                cut += 1;
            }
        }
    }
    assert!(cut > 100);
    deadline("the cut uploads to end", || legacy.errors().len() >= cut / 2).await;
    assert_eq!(
        (legacy.to("/cut").len(), new.to("/cut").len()),
        (0, 0),
        "a cut upload was completed"
    );
    let unfinished = |errors: Vec<String>| errors.iter().all(|error| error.starts_with("unfinished"));
    assert!(
        unfinished(legacy.errors()) && new.errors().is_empty(),
        "{:?} {:?}",
        legacy.errors(),
        new.errors()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_anywhere_is_never_completed() {
    let (answers, legacy) = cut_answers().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route("flag: false").start();
    let mut running = tokio::task::JoinSet::new();
    for (number, said) in answers.into_iter().enumerate() {
        for how in ["close", "reset"] {
            let address = sidecar.address;
            let said = said.clone();
            running.spawn(async move {
                let mut client = Socket::connect(address).await;
                client
                    .send(format!("GET /{number}/{how} HTTP/1.1\r\nHost: a\r\n\r\n"))
                    .await;
                let got = client.rest().await;
                // Closed, whether it began or not; or, if it never began, told.
                let (answers, _) = strict::read_all(&got, Kind::Answer, false).unwrap();
                assert!(
                    answers.iter().all(|a| a.status() == 502),
                    "{said:?} was completed: {answers:?}"
                );
            });
        }
    }
    assert!(running.len() > 100);
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}
