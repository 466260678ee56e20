//! The law `proxy_protocol`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_fuzz::targets::proxy_protocol(data));
