//! Behaviour through the outside: real sockets, scripted backends, real payloads.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "tests wait, spawn and read clocks as their clients do"
)]

mod access;
mod admin;
mod answers;
mod attributes;
mod body;
mod compare;
mod drain;
mod failover;
mod faults;
mod flags;
mod flags_apply;
mod flags_cli;
mod framing;
mod guard;
mod handover;
mod http2;
mod identity;
mod identity_sources;
mod kills;
mod limits;
mod messages;
mod observe;
mod ofrep;
mod ofrep_access;
mod ofrep_events;
mod ofrep_sdks;
mod process;
mod programs;
mod proxy;
mod reload;
mod replicas;
mod rest;
mod rest_crash;
mod rest_freeze;
mod rest_tokens;
mod scenario;
mod shadow;
mod sockets;
mod stale;
mod state;
mod streaming;
mod support;
mod tls;
mod tls_out;
mod tunnels;
mod two;
mod usage;
mod verbs;
mod what_if;
mod when_off;
