//! The pure part: values in, values out.
//!
//! Nothing here reads a file, a socket, a clock, the environment or a random source; what it needs to know comes in with
//! the call. That is why every rule of the product can be tested without waiting for anything.

pub mod compare;
pub mod decide;
pub mod explain;
pub mod flags;
pub mod guard;
pub mod identity;
pub mod number;
pub mod pairing;
pub mod ruleset;
pub mod stats;
pub mod vocab;
pub mod whatif;
