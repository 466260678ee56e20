//! Lends the laws of `cargo test` to libFuzzer.

#![allow(missing_docs, reason = "the laws say themselves what they hold")]

#[path = "../targets.rs"]
pub mod targets;
