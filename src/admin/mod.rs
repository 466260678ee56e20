//! The operators' door: health, metrics, and the API through which people see what happens and take it back.
//!
//! In: requests on a listener of its own, and [`Control`](crate::control::Control). Out: answers as `dto` writes them. It
//! decides nothing about requests of clients and holds no state but who failed to get in lately (`gate`). What a token's
//! holder may do, and what every refusal looks like, is decided here; what a kill does belongs to `control`.
//!
//! The way through the files: `server` takes a connection, looks at the host and the clock, and audits what was refused;
//! `api` lists the paths, `flags` and `freeze` have those about flags, `alias` those of other systems; `once` knows what was asked before, `room` lets a request
//! in and reads what it brought; `status` and `readiness` turn the state in memory into answers.

mod alias;
mod answers;
mod api;
mod asked;
mod audit;
mod body;
pub mod dto;
mod flag_file;
mod flags;
mod freeze;
mod gate;
mod hosts;
mod once;
mod readiness;
mod refusal;
mod room;
mod server;
mod serves;
mod status;
mod usage;
mod whatif;

pub use server::{Door, serve};
