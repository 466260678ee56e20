//! Point 12, floods: frames that cost their sender less than us have caps, and whoever reaches one is told to calm down.

use super::CLIENT_ERRORS;
use super::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, PING, POST, RST_STREAM, SETTINGS, block, frame,
};
use crate::support::{Listener, echo, get, limited};

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const CALM: u32 = 0xb;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_floods_is_told_to_calm_down_and_closed() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let reset: Vec<u8> = (0..600_u32)
        .flat_map(|n| {
            let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&GET));
            bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &CANCEL.to_be_bytes()));
            bytes
        })
        .collect();
    let open = frame(HEADERS, END_HEADERS, 1, &block(&POST));
    let block_open = frame(HEADERS, 0, 1, &block(&GET));
    let floods: [(&str, Vec<u8>); 9] = [
        ("http2_settings_flood", frame(SETTINGS, 0, 0, b"").repeat(100)),
        ("http2_settings_flood", frame(SETTINGS, 1, 0, b"").repeat(100)),
        ("http2_ping_flood", frame(PING, 0, 0, b"12345678").repeat(1_000)),
        (
            "http2_empty_frame_flood",
            [open, frame(DATA, 0, 1, b"").repeat(500)].concat(),
        ),
        ("http2_priority_flood", frame(2, 0, 3, b"\0\0\0\x01\x10").repeat(500)),
        ("http2_window_update_flood", frame(8, 0, 0, b"\0\0\0\x01").repeat(5_000)),
        ("http2_other_frame_flood", frame(0xf0, 0, 0, b"unknown").repeat(500)),
        (
            "http2_continuation_flood",
            [block_open, frame(CONTINUATION, 0, 1, b"").repeat(50)].concat(),
        ),
        ("http2_", reset),
    ];
    for (reason, flood) in floods {
        let before = sidecar.metric(CLIENT_ERRORS, &[reason]).await;
        let mut client = Frames::connect(sidecar.address).await;
        client.socket.try_send(&flood).await;
        assert_eq!(client.farewell().await, Some(CALM), "{reason}");
        sidecar.wait_for_metric(CLIENT_ERRORS, &[reason], before + 1.0).await;
    }
    assert_eq!(get(sidecar.address, "/next", &[]).await.status, 200);
    assert_eq!(sidecar.metric("understudy_panics_total", &[]).await, 0.0);
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_too_many_is_refused_and_may_come_again() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "streams: 3");
    let mut client = Frames::connect(sidecar.address).await;
    let mut waiting = Vec::new();
    for stream in [1, 3, 5] {
        client.ask(stream, &GET).await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        waiting.push(backend);
    }
    client.ask(7, &GET).await;
    let reset = client.until(RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (7, REFUSED_STREAM));
    sidecar
        .wait_for_metric(CLIENT_ERRORS, &["http2_too_many_streams"], 1.0)
        .await;
    for backend in &mut waiting {
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.until(HEADERS).await;
    }
    client.ask(9, &GET).await;
    let [first, second, third] = &mut waiting[..] else {
        unreachable!()
    };
    tokio::select! { _ = first.message() => {}, _ = second.message() => {}, _ = third.message() => {} }
}
