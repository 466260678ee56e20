//! Conformance: what the data plane promises of HTTP, told sentence by sentence and proved through real sockets.
//!
//! Requests are written byte for byte, what backends get is read by a stricter reader than any of theirs, and each table
//! is sent whole, byte by byte, cut at random places, behind another request and before one.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "tests wait, spawn and read clocks as their clients do"
)]

mod backend_faults;
mod bodies;
mod bytes;
mod clients;
mod doors;
mod framing;
mod hop_by_hop;
mod host;
mod http2;
mod limits;
mod overload;
mod recorder;
mod scripted;
mod strict;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each binary of tests uses its part")]
mod support;
mod table;
