//! What one message costs the guards in front of the HTTP library.
//!
//! Heads are whole in one read, as nearly all are; `httparse` is the split alone, which the library does once more.

use std::hint::black_box;
use std::mem::MaybeUninit;

use criterion::{Criterion, criterion_group, criterion_main};
use understudy::proxy::frames;
use understudy::proxy::framing::{Guard, Limits};

const LIMITS: Limits = Limits {
    header_bytes: 64 << 10,
    header_count: 100,
};

const GET: &str = "GET /api/v1/products/12345?ref=home HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: application/json\r\nX-Shopper-Id: shopper_1234567\r\nX-Request-Id: 0123456789abcdef0123456789abcdef\r\n\r\n";

fn post(head_lines: usize) -> Vec<u8> {
    let mut bytes = "POST /webhook/whatsapp HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\n\
        Content-Length: 1200\r\nX-Hub-Signature-256: sha256=0123456789abcdef0123456789abcdef\r\n"
        .to_owned();
    for line in 0..head_lines {
        bytes.push_str(&format!("X-Header-Number-{line}: {}\r\n", "v".repeat(70)));
    }
    bytes.push_str("\r\n");
    bytes.push_str(&"x".repeat(1_200));
    bytes.into_bytes()
}

fn messages(c: &mut Criterion) {
    let requests = [
        ("get_200_bytes", GET.as_bytes().to_vec()),
        ("post_200_byte_head_1200_byte_body", post(0)),
        ("post_1200_byte_head_1200_byte_body", post(10)),
    ];
    for (name, bytes) in requests {
        let mut guard = Guard::new(LIMITS);
        c.bench_function(&format!("framing/{name}"), |bencher| {
            bencher.iter(|| black_box(guard.examine(black_box(&bytes))));
        });
        c.bench_function(&format!("httparse/{name}"), |bencher| {
            bencher.iter(|| {
                let mut room = [const { MaybeUninit::uninit() }; 128];
                let mut request = httparse::Request::new(&mut []);
                let parsed = request.parse_with_uninit_headers(black_box(&bytes), &mut room);
                black_box(parsed.is_ok())
            });
        });
    }
}

fn streams(c: &mut Criterion) {
    // HEADERS of 60 bytes, and DATA of 1,200.
    let mut bytes = vec![0, 0, 60, 1, 4, 0, 0, 0, 1];
    bytes.extend([0; 60]);
    bytes.extend([0, 4, 176, 0, 1, 0, 0, 0, 1]);
    bytes.extend([0; 1_200]);
    let mut guard = frames::Guard::new(LIMITS.header_bytes);
    guard.received(frames::PREFACE, 0).expect("a preface is no flood");
    c.bench_function("frames/request_1200_byte_body", |bencher| {
        bencher.iter(|| black_box(guard.received(black_box(&bytes), 0)).is_ok());
    });
}

criterion_group!(benches, messages, streams);
criterion_main!(benches);
