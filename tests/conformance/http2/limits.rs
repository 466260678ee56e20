//! Points 4 and 12, limits: over them a stream is answered with the reason, or the connection ends with
//! ENHANCE_YOUR_CALM where going on would cost more.

use super::wire::{CONTINUATION, END_HEADERS, Field, GET, HEADERS, POST, block, frame};
use super::{Case, END_STREAM, STREAM, Want, asking, data, run, uploading};
use crate::table::Rig;

const CALM: u32 = 0xb;

/// The largest frame that may be sent unasked.
const FRAME: usize = 16_384;

fn refused(name: &str, status: u16, reason: &'static str, bytes: Vec<u8>) -> Case {
    Case {
        name: name.to_owned(),
        bytes,
        want: Want::Refused(status),
        reason,
    }
}

/// A block in as few frames as it takes.
fn long(flags: u8, block: &[u8]) -> Vec<u8> {
    let last = block.len().saturating_sub(1) / FRAME;
    let frames = block.chunks(FRAME).enumerate().map(|(at, part)| {
        let end = if at == last { END_HEADERS } else { 0 };
        match at {
            0 => frame(HEADERS, flags | end, STREAM, part),
            _ => frame(CONTINUATION, end, STREAM, part),
        }
    });
    frames.collect::<Vec<_>>().concat()
}

fn get(more: &[Field<'_>]) -> Vec<u8> {
    long(END_STREAM, &block(&[&GET[..], more].concat()))
}

fn get_target(target: &[u8]) -> Vec<u8> {
    long(END_STREAM, &block(&[&GET[..3], &[(":path", target)]].concat()))
}

/// A GET whose block puts one field of 4,000 bytes into the table, and then names it by one byte each time.
fn bomb(times: usize) -> Vec<u8> {
    let mut fields = block(&GET);
    fields.push(0x40);
    fields.extend(block(&[("x-a", &[b'x'; 3_900])]).split_off(1));
    fields.extend(vec![0x80 | 62; times]);
    long(END_STREAM, &fields)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_over_their_limits_are_answered_with_431_crumbs_and_bombs_included() {
    let too_large = |name: &str, bytes| refused(name, 431, "headers_too_large", bytes);
    let text = vec![b'x'; 40_000];
    let cases = vec![
        too_large("21 crumbs", get(&[("cookie", &b"a=1"[..]); 21])),
        too_large("21 fields", get(&[("x-a", &b"1"[..]); 21])),
        too_large("600 fields", get(&[("x-a", &b"1"[..]); 600])),
        too_large("one of 17,000 bytes", get(&[("x-a", &text[..17_000])])),
        too_large("three of 6,000 bytes", get(&[("x-a", &text[..6_000]); 3])),
        // The library does not hand these over.
        too_large("one of 40,000 bytes", get(&[("x-a", &text)])),
        too_large("a bomb of 40,000 bytes", bomb(9)),
        too_large("a bomb of 120,000 bytes", bomb(29)),
        Case {
            name: "a bomb of 4 MB".to_owned(),
            bytes: bomb(1_000),
            want: Want::Ended(CALM),
            reason: "headers_too_large",
        },
    ];
    let rig = Rig::new("limits: { header_bytes: 16KiB, header_count: 20 }").await;
    run(&rig, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_64_kib_and_100_fields_are_the_limit() {
    let text = vec![b'x'; 66_000];
    let too_large = |name: &str, bytes| refused(name, 431, "headers_too_large", bytes);
    let cases = vec![
        too_large("101 fields", get(&[("x-a", &b"1"[..]); 101])),
        too_large("101 crumbs", get(&[("cookie", &b"a=1"[..]); 101])),
        too_large("one of 66,000 bytes", get(&[("x-a", &text)])),
    ];
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_over_its_limit_is_414() {
    let target = |len: usize| [b"/", &*vec![b't'; len - 1]].concat();
    let too_long = |len: usize| {
        refused(
            &format!("{len} bytes"),
            414,
            "target_too_long",
            get_target(&target(len)),
        )
    };
    let rig = Rig::new("").await;
    run(&rig, vec![too_long(16 * 1_024 + 1), too_long(20_000), too_long(60_000)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_a_configured_limit_is_413() {
    let said = [&POST[..], &[("content-length", b"1025")]].concat();
    let part = vec![b'x'; 700];
    let broken = |name: &str, bytes| Case {
        name: name.to_owned(),
        bytes,
        want: Want::Broken(413),
        reason: "body_too_large",
    };
    let rig = Rig::new("limits: { body: 1KiB }").await;
    let cases = vec![
        broken(
            "said",
            uploading(&said, &[data(0, &part), data(END_STREAM, &part[..325])]),
        ),
        broken("found", uploading(&POST, &[data(0, &part), data(END_STREAM, &part)])),
    ];
    run(&rig, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_over_64_kib_end_their_stream() {
    let text = vec![b't'; 66_000];
    let trailers = |name: &str, fields: &[Field<'_>]| Case {
        name: name.to_owned(),
        bytes: uploading(&POST, &[data(0, b"body"), long(END_STREAM, &block(fields))]),
        want: Want::Broken(400),
        reason: "trailers_too_large",
    };
    let cases = vec![
        trailers("one of 66,000 bytes", &[("x-trailer", &text)]),
        trailers("eleven of 6,000 bytes", &[("x-trailer", &text[..6_000]); 11]),
    ];
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_and_trace_are_405() {
    let method = |name: &'static [u8]| {
        let fields = [(":method", name), GET[1], GET[2], (":path", b"/s3cr3t")];
        refused(
            &String::from_utf8_lossy(name),
            405,
            "method_not_allowed",
            asking(&fields),
        )
    };
    let connect = [(":method", &b"CONNECT"[..]), (":authority", b"a.example:443")];
    let cases = vec![
        method(b"TRACE"),
        refused("CONNECT", 405, "method_not_allowed", asking(&connect)),
    ];
    run(&Rig::new("").await, cases).await;
}
