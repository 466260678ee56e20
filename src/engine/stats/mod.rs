//! Statistics that more than one judgement needs.
//!
//! Pure: counts in, evidence out. Each function cites its source, its assumptions and the smallest sample for which it may be
//! used; what a value of evidence leads to is decided by whoever asks.

pub mod proportions;
pub mod stale;
pub mod usage;
