//! Behaviour through the outside: real sockets, scripted backends, real payloads.

#![allow(missing_docs, clippy::disallowed_methods, reason = "tests wait, spawn and read clocks as their clients do")]

mod framing;
mod limits;
mod proxy;
mod compare;
mod guard;
mod kills;
mod shadow;
mod support;
