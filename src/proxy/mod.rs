//! The data plane: one request in, one answer out, and a copy beside it.
//!
//! Imports `engine`, `live` and `telemetry` only. No request waits for anything outside this folder and the backend that
//! serves it.

pub mod access;
pub mod answer;
mod attributes;
pub mod body;
pub mod client;
pub mod clients;
pub mod connection;
mod decisions;
pub mod door;
pub mod entrance;
pub mod error;
pub mod exchange;
pub mod expect;
pub mod failover;
pub mod forward;
pub mod frames;
pub mod framing;
mod gather;
mod http2;
mod interim;
pub mod listen;
pub mod pair;
pub mod patience;
pub mod provenance;
pub mod proxy_protocol;
pub mod refusals;
mod relay;
pub mod shadow;
pub mod socket;
pub mod spare;
pub mod stage;
pub mod sweep;
pub mod tunnel;
pub mod upstream;
mod wants;
pub mod wire;
