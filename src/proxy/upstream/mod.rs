//! Connections to the backends: one pool per worker over hyper's low-level client.
//!
//! A pooled connection is asked for a pending close before it is used, and a request that may not be repeated uses
//! only one that was idle for less than `FRESH`: a close that had already arrived costs no request. One that
//! crosses the request on the wire costs no request that may be repeated: it goes out once more, on a new connection.

mod answers;
mod busy;
mod call;
mod care;
mod connect;
mod failure;
mod limits;
mod pool;
mod reach;
#[cfg(test)]
mod tests;
mod two;

pub use answers::is_clear;
pub use call::{Patience, Reply};
pub use care::look_after;
pub use connect::reader;
pub use failure::CallError;
pub use pool::{Lease, Pool};
