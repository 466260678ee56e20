//! Each cap is reached where it says, however the bytes are cut, and by no client that does its work.

use super::*;
use crate::live::tally::Label as _;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn guard() -> Guard {
    let mut guard = Guard::new(64 << 10);
    guard.received(PREFACE, 0).unwrap();
    guard
}

/// How many of these frames pass, and why the next does not.
fn passed(frames: impl Iterator<Item = Vec<u8>>) -> (usize, Option<&'static str>) {
    let mut guard = guard();
    for (at, frame) in frames.take(20_000).enumerate() {
        if let Err(flood) = guard.received(&frame, 5) {
            return (at, Some(flood.reason.label()));
        }
    }
    (20_000, None)
}

#[test]
fn each_kind_of_cheap_frame_has_a_cap() {
    let again = |kind, flags, payload: &'static [u8]| std::iter::repeat_with(move || frame(kind, flags, 1, payload));
    for (frames, expected, reason) in [
        (again(SETTINGS_FRAME, 0, b""), 50, "http2_settings_flood"),
        (again(SETTINGS_FRAME, 1, b""), 50, "http2_settings_flood"),
        (again(PING, 0, b"12345678"), 200, "http2_ping_flood"),
        (again(RST_STREAM, 0, b"\0\0\0\x08"), 100, "http2_reset_flood"),
        (again(DATA, 0, b""), 100, "http2_empty_frame_flood"),
        (again(HEADERS, END_HEADERS, b""), 100, "http2_empty_frame_flood"),
        (again(PRIORITY, 0, b"12345"), 200, "http2_priority_flood"),
        (again(WINDOW_UPDATE, 0, b"1234"), 1_000, "http2_window_update_flood"),
        (again(0x77, 0, b""), 100, "http2_other_frame_flood"),
        (again(GOAWAY, 0, b"12345678"), 100, "http2_other_frame_flood"),
        (again(CONTINUATION, 0, b"x"), 10, "http2_continuation_flood"),
    ] {
        assert_eq!(passed(frames), (expected, Some(reason)));
    }
    // A request and its reset: half of what is asked may be taken back.
    let rapid = (0_u32..).flat_map(|n| {
        [
            frame(HEADERS, END_HEADERS, 2 * n + 1, b"x"),
            frame(RST_STREAM, 0, 2 * n + 1, b"1234"),
        ]
    });
    assert_eq!(passed(rapid), (401, Some("http2_reset_flood")));
}

#[test]
fn a_client_that_does_its_work_reaches_no_cap() {
    let mut guard = guard();
    for n in 0..5_000_u32 {
        let stream = 2 * n + 1;
        let mut bytes = frame(HEADERS, 0, stream, b"x");
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, b"x"));
        bytes.extend(frame(DATA, 0, stream, b"hello"));
        bytes.extend(frame(DATA, END_STREAM, stream, b""));
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, b"1234").repeat(4));
        bytes.extend(frame(PRIORITY, 0, stream, b"12345").repeat(2));
        bytes.extend(frame(PING, 0, 0, b"12345678"));
        assert_eq!(guard.received(&bytes, 5), Ok(()), "{n}");
        let mut answer = frame(HEADERS, END_HEADERS, stream, b"x");
        answer.extend(frame(DATA, END_STREAM, stream, b"hello"));
        guard.sent(&answer, |fault| panic!("{fault:?}")).unwrap();
    }
}

#[test]
fn caps_begin_anew_with_time() {
    let mut guard = guard();
    for n in 0..1_000 {
        assert_eq!(guard.received(&frame(PING, 0, 0, b"12345678"), n * 100), Ok(()));
    }
}

#[test]
fn a_flood_is_found_at_its_frame_however_the_bytes_are_cut() {
    let ping = frame(PING, 0, 0, b"12345678");
    let bytes = ping.repeat(250);
    let place = 24 + 200 * ping.len() as u64;
    let mut whole = guard();
    let flood = whole.received(&bytes, 5).unwrap_err();
    assert_eq!((flood.at, flood.clear), (place, 200 * ping.len()));
    for size in [1, 5, 9, 10, 16, 17, 1_000] {
        let mut guard = guard();
        let flood = bytes.chunks(size).find_map(|piece| guard.received(piece, 5).err());
        assert_eq!(flood.unwrap().at, place, "{size}");
    }
}

#[test]
fn a_header_block_is_within_a_head_until_it_ends() {
    let mut guard = Guard::new(64 << 10);
    let mut heads = Vec::new();
    let headers = frame(HEADERS, 0, 1, b"xy");
    let rest = frame(CONTINUATION, END_HEADERS, 1, b"z");
    for bytes in [
        &PREFACE[..3],
        &PREFACE[3..],
        &headers[..4],
        &headers[4..10],
        &headers[10..],
        &rest[..9],
        &rest[9..],
    ] {
        guard.received(bytes, 0).unwrap();
        heads.push(guard.is_in_head());
    }
    assert_eq!(heads, [true, false, true, true, true, true, false]);
}

#[test]
fn what_we_say_of_faults_is_heard() {
    let mut guard = guard();
    let mut heard = Vec::new();
    let mut bytes = Vec::new();
    for code in [0_u32, 1, 2, 7, 8, 9] {
        bytes.extend(frame(RST_STREAM, 0, 1, &code.to_be_bytes()));
    }
    bytes.extend(frame(GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\0"));
    bytes.extend(frame(GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\x01why"));
    for piece in bytes.chunks(7) {
        guard.sent(piece, |fault| heard.push(fault.label())).unwrap();
    }
    let expected = [
        "http2_stream_error",
        "http2_too_many_streams",
        "http2_stream_error",
        "http2_connection_error",
    ];
    assert_eq!(heard, expected);
    assert_eq!(guard.rest_of_frame(), 0);
    let half = frame(DATA, 0, 1, b"hello");
    guard.sent(&half[..11], |_| ()).unwrap();
    assert_eq!(guard.rest_of_frame(), 3);
    assert_eq!(
        guard.farewell(ENHANCE_YOUR_CALM)[..9],
        frame(GOAWAY, 0, 0, b"12345678")[..9]
    );
}

#[test]
fn a_refusal_of_the_librarys_own_is_heard_once_and_no_other_answer_is_one() {
    let end = END_STREAM | END_HEADERS;
    let heard = |frames: &[(u8, u8, u32, &[u8])]| {
        let mut guard = guard();
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload))
            .collect();
        let mut heard = Vec::new();
        for piece in bytes.chunks(4) {
            guard.sent(piece, |fault| heard.push(fault.label())).unwrap();
        }
        heard
    };
    let once = vec!["headers_too_large"];
    // As a text, by the number that the table has for it then, and behind a new size of the table.
    for block in [
        &b"\x48\x83\x68\x0b\x7f"[..],
        b"\x48\x03431",
        b"\x08\x03431",
        b"\xbe",
        b"\xff\x02",
        b"\x20\x08\x03431",
        b"\x3f\x45\xbe",
    ] {
        assert_eq!(heard(&[(HEADERS, end, 1, block)]), once, "{block:?}");
        let reset = (RST_STREAM, 0, 1, &b"\0\0\0\x01"[..]);
        assert_eq!(heard(&[(HEADERS, end, 1, block), reset]), once, "{block:?}");
    }
    // With a date behind the status; with a body to come; and trailers of one field.
    for frames in [
        &[(HEADERS, end, 1, &b"\x88\xbe"[..])][..],
        &[(HEADERS, end, 1, b"\xbf\xbe")],
        &[(HEADERS, end, 1, b"\x48\x83\x68\x0b\x7f\xbe")],
        &[(HEADERS, END_HEADERS, 1, b"\x88")],
        &[
            (HEADERS, END_HEADERS, 1, b"\x88"),
            (DATA, 0, 1, b"hello"),
            (HEADERS, end, 1, b"\xbe"),
        ],
    ] {
        assert_eq!(heard(frames), Vec::<&str>::new(), "{frames:?}");
    }
    let way_too_large = b"\0\0\0\0\0\0\0\x0bheader_list_way_too_large";
    assert_eq!(heard(&[(GOAWAY, 0, 0, way_too_large)]), once);
    let resets = b"\0\0\0\0\0\0\0\x0btoo_many_resets";
    assert_eq!(heard(&[(GOAWAY, 0, 0, resets)]), ["http2_connection_error"]);
}

#[test]
fn what_is_known_of_answers_stays_small() {
    let mut guard = guard();
    for stream in 0..5_000 {
        guard
            .sent(&frame(HEADERS, END_HEADERS, 2 * stream + 1, b"\x88\xbe"), |_| ())
            .unwrap();
    }
    assert_eq!(guard.answering.len(), ANSWERING);
    for stream in 4_000..5_000 {
        guard
            .received(
                &frame(RST_STREAM, 0, 2 * stream + 1, b"1234"),
                u64::from(stream) * 1_000,
            )
            .unwrap();
    }
    assert!(guard.answering.len() < 100, "{}", guard.answering.len());
}

#[test]
fn the_preface_tells_the_protocols_apart() {
    assert_eq!(begins(b""), None);
    assert_eq!(begins(b"PRI * HT"), None);
    assert_eq!(begins(b"PRI * HTTP/1.1"), Some(false));
    assert_eq!(begins(b"POST"), Some(false));
    assert_eq!(begins(PREFACE), Some(true));
}
