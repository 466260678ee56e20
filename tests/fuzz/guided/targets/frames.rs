//! The law `frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_fuzz::targets::frames(data));
