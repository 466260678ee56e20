//! The law `answers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_fuzz::targets::answers(data));
